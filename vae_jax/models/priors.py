"""p(z|c): what is assumed of the latents before an image is seen.

A prior is a `Net` with `apply(params, encode, condition)`; `encode` is the model's own posterior,
for priors that are made of it.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from vae_jax.distributions.continuous import Normal
from vae_jax.types import Array, Key, Net, Params


def standard(latent_dim: int) -> Net:
    """N(0, I), whatever the condition (Kingma & Welling 2014)."""

    def init(key: Key) -> Params:
        return {}

    def apply(params: Params, encode: Callable[..., Any], condition: Array) -> Normal:
        zeros = jnp.zeros(latent_dim)
        return Normal(zeros, zeros)

    return Net(init, apply)


def conditional(net: Net) -> Net:
    """N(μ(c), diag σ(c)²), learned (Sohn, Lee & Yan 2015); the net's output [2, latents] is μ and
    log σ.
    """

    def apply(params: Params, encode: Callable[..., Any], condition: Array) -> Normal:
        mean, log_scale = net.apply(params, condition)
        return Normal(mean, log_scale)

    return Net(net.init, apply)


# name -> function of the settings and of an encoder of the condition: output shape -> Net
PRIORS = {
    "standard": lambda settings, encoder: standard(settings.latent_dim),
    "conditional": lambda settings, encoder: conditional(encoder((2, settings.latent_dim))),
}
