"""q(z|x,c): the encoder's distribution over latents.

A posterior is a `Net` with `apply(params, x, condition)`, made of a net for the numbers it needs.
"""

import jax.numpy as jnp
import numpy as np

from vae_jax.distributions.continuous import MultivariateNormal, Normal
from vae_jax.types import Array, Net, Params


def diagonal(net: Net) -> Net:
    """N(μ(x), diag σ(x)²); the net's output [2, latents] is μ and log σ."""

    def apply(params: Params, x: Array, condition: Array) -> Normal:
        mean, log_scale = net.apply(params, x, condition)
        return Normal(mean, log_scale)

    return Net(net.init, apply)


def full(net: Net, latent_dim: int) -> Net:
    """N(μ(x), L(x) L(x)ᵀ), every covariance; the net's output [latents + latents (latents + 1)/2]
    is μ and L's rows below and on the diagonal, which is kept positive by exp.
    """

    def apply(params: Params, x: Array, condition: Array) -> MultivariateNormal:
        rows, columns = np.tril_indices(latent_dim)
        mean, entries = jnp.split(net.apply(params, x, condition), [latent_dim])
        on = rows == columns
        entries = jnp.where(on, jnp.exp(jnp.where(on, entries, 0)), entries)  # no inf behind where
        scale_tril = jnp.zeros((latent_dim, latent_dim)).at[rows, columns].set(entries)
        return MultivariateNormal(mean, scale_tril)

    return Net(net.init, apply)


def empty() -> Net:
    """The posterior over no latents at all: nothing to encode, and no parameters."""

    def apply(params: Params, x: Array, condition: Array) -> Normal:
        return Normal(jnp.zeros(0), jnp.zeros(0))

    return Net(lambda key: {}, apply)


# name -> function of the settings and of an encoder: output shape -> Net
POSTERIORS = {
    "diagonal": lambda settings, encoder: diagonal(encoder((2, settings.latent_dim))),
    "full": lambda settings, encoder: full(
        encoder((settings.latent_dim * (settings.latent_dim + 3) // 2,)), settings.latent_dim
    ),
}
