"""Optimisers by name: optax's, and Adam as Caffe and TensorFlow 1 have it."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vae_jax.types import Params


def _adaptive(make: Callable[..., Any]) -> Callable[..., optax.GradientTransformation]:
    return lambda rate, s: make(rate, b1=s.beta1, b2=s.beta2, eps=s.epsilon)


def adam_hat(rate: Any, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam in the order of Kingma & Ba's last paragraph of §2, rate·√(1−β₂ᵗ)/(1−β₁ᵗ) · m/(√v + ε̂).

    As in Caffe and TensorFlow 1. There ε̂ is not corrected for the mean's bias as v is, and damps
    what the algorithm as printed would not: with sparse or dead units another path of training.
    Without momentum, β₁ = 0, it keeps no m.
    """

    def init(params: Params) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return jnp.zeros((), jnp.int32), zeros if b1 else (), jax.tree.map(jnp.copy, zeros)

    def update(updates: Params, state: Any, params: Params | None = None) -> Any:
        count, m, v = state
        m = optax.update_moment(updates, m, b1, 1) if b1 else ()
        v = optax.update_moment_per_elem_norm(updates, v, b2, 2)
        t = (count + 1).astype(jnp.float32)
        scale = jnp.sqrt(-jnp.expm1(t * math.log(b2)) if b2 else 1.0)
        scale /= -jnp.expm1(t * math.log(b1)) if b1 else 1.0
        top = m if b1 else updates
        steps = jax.tree.map(lambda m, v: scale * m / (jnp.sqrt(v) + eps), top, v)
        return steps, (count + 1, m, v)

    return optax.chain(
        optax.GradientTransformation(init, update), optax.scale_by_learning_rate(rate)
    )


# name -> function of the learning rate and the settings
OPTIMISERS = {
    "adam": _adaptive(optax.adam),
    "adam_hat": _adaptive(adam_hat),
    "adamw": _adaptive(optax.adamw),
    "adamax": _adaptive(optax.adamax),
    "adagrad": lambda rate, s: optax.adagrad(rate, eps=s.epsilon),
    "rmsprop": lambda rate, s: optax.rmsprop(rate, eps=s.epsilon),
    "sgd": lambda rate, s: optax.sgd(rate),
}
