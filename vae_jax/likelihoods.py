"""p(x|z,c): what the decoder's outputs mean as a distribution over images.

A likelihood is a `Net` with `apply(params, z, condition)`, made of a net for the numbers it needs.
"""

import jax.numpy as jnp
from jaxtyping import Array

from vae_jax.distributions import Bernoulli
from vae_jax.networks import Net
from vae_jax.types import Params


def bernoulli(net: Net) -> Net:
    """Independent Bernoulli pixels; the net's output, of the image's shape, is their logits."""

    def apply(params: Params, z: Array, condition: Array) -> Bernoulli:
        return Bernoulli(net.apply(params, z, condition))

    return Net(net.init, apply)


# name -> function of the settings, of a decoder: output shape -> Net, and of the image's shape
LIKELIHOODS = {
    "bernoulli": lambda settings, decoder, x_shape: bernoulli(decoder(x_shape)),
}

DISCRETE = ("bernoulli",)  # probabilities of discrete pixels: bits per dimension mean something


def logits_at(mean: Array) -> Array:
    """The logits of Bernoulli pixels of these means, clipped to [0.001, 0.999] (Burda et al. 2016,
    in their code).
    """
    mean = jnp.clip(mean, 1e-3, 1 - 1e-3)
    return jnp.log(mean) - jnp.log1p(-mean)


# name -> function of the mean training image in [0, 1]: the net's outputs at which E[x|z] is it
AT_MEAN = {
    "bernoulli": logits_at,
}
