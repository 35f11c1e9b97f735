"""q(z|x,c): the encoder's distribution over latents.

An entry of POSTERIORS takes (shapes, architecture) and makes a `Net` with `apply(params, x, c)`, of
a net for the numbers it needs.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from vae_jax.distributions import MultivariateNormal, Normal
from vae_jax.models import flows
from vae_jax.models.gaussians import Bound, gaussian
from vae_jax.models.mixtures import MixturePosterior
from vae_jax.models.scales import Bounded, unbounded
from vae_jax.networks import Architecture
from vae_jax.settings import UserError
from vae_jax.types import Array, Net, Params, Shapes

diagonal = gaussian  # N(μ(x,c), diag σ(x,c)²)


def full(net: Net, latent_dim: int, bound: Bound = unbounded) -> Net:
    """N(μ(x), L(x) L(x)ᵀ), every covariance; the net's output [latents + latents (latents + 1)/2]
    is μ and L's rows below and on the diagonal, whose log is kept in `bound`.
    """

    def apply(params: Params, x: Array, condition: Array) -> MultivariateNormal:
        rows, columns = np.tril_indices(latent_dim)
        mean, entries = jnp.split(net.apply(params, x, condition), [latent_dim])
        on = rows == columns
        scales = jnp.exp(bound(jnp.where(on, entries, 0)))  # no inf behind where
        entries = jnp.where(on, scales, entries)
        scale_tril = jnp.zeros((latent_dim, latent_dim), entries.dtype)
        return MultivariateNormal(mean, scale_tril.at[rows, columns].set(entries))

    return Net(net.init, apply)


def empty() -> Net:
    """The posterior over no latents at all: nothing to encode, and no parameters."""

    def apply(params: Params, x: Array, condition: Array) -> Normal:
        nothing = jnp.zeros(0, jnp.float32)
        return Normal(nothing, nothing)

    return Net(lambda key: {}, apply)


@dataclasses.dataclass(frozen=True)
class Diagonal(Bounded):
    """Mean field: independent Gaussian latents (Kingma & Welling 2014)."""

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        if shapes.z == (0,):
            return empty()
        return gaussian(architecture.encoder([shapes.x, shapes.c], (2, *shapes.z)), self.bound)


@dataclasses.dataclass(frozen=True)
class Full(Bounded):
    """A Gaussian with its whole covariance."""

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        (d,) = shapes.z
        if not d:
            raise UserError("posterior full is one of latents: latent_dim must be at least 1")
        return full(architecture.encoder([shapes.x, shapes.c], (d * (d + 3) // 2,)), d, self.bound)


POSTERIORS = {
    "diagonal": Diagonal,
    "full": Full,
    "mixture": MixturePosterior,
    "planar": flows.Planar,
    "sylvester": flows.Sylvester,
    "iaf": flows.IAF,
    "realnvp": flows.RealNVP,
    "spline": flows.SplineFlow,
}
