"""p(z|c): what is assumed of the latents before an image is seen.

An entry of PRIORS takes (shapes, architecture) and makes a `Net` with `apply(params, encode, c)`;
`encode(x)` is the model's own q(z|x,c), for priors that are made of it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from vae_jax.distributions import Normal
from vae_jax.models import flows
from vae_jax.models.gaussians import Bound, gaussian
from vae_jax.models.mixtures import MixturePrior
from vae_jax.models.scales import Bounded, unbounded
from vae_jax.models.vamp import Vamp
from vae_jax.networks import Architecture
from vae_jax.settings import UserError
from vae_jax.types import Array, Key, Net, Params, Shape, Shapes


def standard(shape: Shape | int) -> Net:
    """N(0, I), whatever c (Kingma & Welling 2014). shape: of z, or a number of latents."""

    def init(key: Key) -> Params:
        return {}

    def apply(params: Params, encode: Callable[..., Any], condition: Array) -> Normal:
        zeros = jnp.zeros(shape, jnp.float32)
        return Normal(zeros, zeros)

    return Net(init, apply)


def conditional(net: Net, bound: Bound = unbounded) -> Net:
    """N(μ(c), diag σ(c)²), learned (Sohn, Lee & Yan 2015); the net's output [2, *z] is μ and log σ,
    the latter kept within `bound`.
    """
    given = gaussian(net, bound)
    return Net(given.init, lambda params, encode, condition: given.apply(params, condition))


@dataclasses.dataclass(frozen=True)
class Conditional(Bounded):
    """Gaussian, learned from c."""

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        if shapes.c == (0,):
            raise UserError("prior conditional needs a condition, such as --condition=label")
        if shapes.z == (0,):
            raise UserError("prior conditional is one of latents: latent_dim must be at least 1")
        return conditional(architecture.encoder([shapes.c], (2, *shapes.z)), self.bound)


PRIORS = {
    "standard": lambda shapes, architecture: standard(shapes.z),
    "conditional": Conditional,
    "mixture": MixturePrior,
    "vamp": Vamp,
    "realnvp": flows.RealNVPPrior,
    "spline": flows.SplinePrior,
    "maf": flows.MAF,
}
