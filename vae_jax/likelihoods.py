"""p(x|z,c): what the decoder's outputs mean as a distribution over images.

A likelihood is a `Net` with `apply(params, z, condition)`, made of a net for the numbers it needs.
"""

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
