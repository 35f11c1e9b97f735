"""Optimisers by name: optax's, and Adam as Caffe and TensorFlow 1 have it."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from vae_jax.settings import setting, validate
from vae_jax.types import Params


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


def normalised() -> optax.GradientTransformation:
    """Each array's gradient over its norm, g/(‖g‖ + 1e-7)."""

    def one(g: Any) -> Any:
        return g / (jnp.sqrt(jnp.sum(g**2)) + 1e-7)

    return optax.stateless(lambda updates, params: jax.tree.map(one, updates))


# Entries: build(rate) -> optax's transformation; the rate is a number or a schedule


@dataclasses.dataclass(frozen=True)
class _Divides:
    """An optimiser that divides by a running size of the gradient."""

    epsilon: float = setting(1e-8, "added where an optimiser divides", above=0, at_most=1)

    def __post_init__(self) -> None:
        validate(self)


@dataclasses.dataclass(frozen=True)
class Adam(_Divides):
    """Kingma & Ba (2015), algorithm 1."""

    beta1: float = setting(
        0.9, "adam's decay of the gradient's mean; 0 is none", at_least=0, below=1
    )
    beta2: float = setting(0.999, "adam's decay of the gradient's square", at_least=0, below=1)
    make: ClassVar[Callable[..., optax.GradientTransformation]] = staticmethod(optax.adam)

    def build(self, rate: Any) -> optax.GradientTransformation:
        return self.make(rate, b1=self.beta1, b2=self.beta2, eps=self.epsilon)


class AdamHat(Adam):
    """As Caffe and TensorFlow 1 have it."""

    make = staticmethod(adam_hat)


class AdamNormGrad(Adam):
    """Adam of gradients that have norm 1, array by array, as in the code of Tomczak & Welling
    (2018), whose Adam is `adam_hat`.
    """

    def build(self, rate: Any) -> optax.GradientTransformation:
        return optax.chain(normalised(), adam_hat(rate, self.beta1, self.beta2, self.epsilon))


class AdamW(Adam):
    """Loshchilov & Hutter (2019)."""

    make = staticmethod(optax.adamw)


class Adamax(Adam):
    """Kingma & Ba (2015), algorithm 2."""

    make = staticmethod(optax.adamax)


class Adagrad(_Divides):
    """Duchi, Hazan & Singer (2011)."""

    def build(self, rate: Any) -> optax.GradientTransformation:
        return optax.adagrad(rate, eps=self.epsilon)


class RMSprop(_Divides):
    """Hinton, Srivastava & Swersky (2012)."""

    def build(self, rate: Any) -> optax.GradientTransformation:
        return optax.rmsprop(rate, eps=self.epsilon)


OPTIMISERS = {
    "adam": Adam,
    "adam_hat": AdamHat,
    "adam_norm_grad": AdamNormGrad,
    "adamw": AdamW,
    "adamax": Adamax,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "sgd": optax.sgd,
}
