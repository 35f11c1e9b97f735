"""q(z|x,c): the encoder's distribution over latents.

A posterior is a `Net` with `apply(params, x, condition)`, made of a net for the numbers it needs.
"""

import jax.numpy as jnp
from jaxtyping import Array

from vae_jax.distributions import Normal
from vae_jax.networks import Net
from vae_jax.types import Params


def diagonal(net: Net) -> Net:
    """N(μ(x), diag σ(x)²); the net's output [2, latents] is μ and log σ."""

    def apply(params: Params, x: Array, condition: Array) -> Normal:
        mean, log_scale = net.apply(params, x, condition)
        return Normal(mean, log_scale)

    return Net(net.init, apply)


def empty() -> Net:
    """The posterior over no latents at all: nothing to encode, and no parameters."""

    def apply(params: Params, x: Array, condition: Array) -> Normal:
        return Normal(jnp.zeros(0), jnp.zeros(0))

    return Net(lambda key: {}, apply)


# name -> function of the settings and of an encoder: output shape -> Net
POSTERIORS = {
    "diagonal": lambda settings, encoder: diagonal(encoder((2, settings.latent_dim))),
}
