"""p(z|c): what is assumed of the latents before an image is seen.

A prior is a `Net` with `apply(params, encode, condition)`; `encode` is the model's own posterior,
for priors that are made of it.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from vae_jax.distributions import Normal
from vae_jax.networks import Net
from vae_jax.types import Array, Key, Params


def standard(latent_dim: int) -> Net:
    """N(0, I), whatever the condition (Kingma & Welling 2014)."""

    def init(key: Key) -> Params:
        return {}

    def apply(params: Params, encode: Callable[..., Any], condition: Array) -> Normal:
        zeros = jnp.zeros(latent_dim)
        return Normal(zeros, zeros)

    return Net(init, apply)


# name -> function of the settings
PRIORS = {
    "standard": lambda settings: standard(settings.latent_dim),
}
