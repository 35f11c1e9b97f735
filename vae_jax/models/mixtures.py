"""Mixtures of K diagonal Gaussians, Σ_k w_k N(μ_k, diag σ_k²), as prior and as posterior.

As prior they are parameters, or, where a condition is given, what a net makes of c. As posterior
they are what the encoder makes of x, all w_k = 1/K (as in Kviman et al., ICML 2023): which of the
components a sample is of then depends on no parameter, so that the path through z is the whole
gradient and every objective's estimate of it is unbiased. Learned weights would need another one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.distributions import Mixture, Normal
from vae_jax.models.gaussians import Bound, of_numbers
from vae_jax.models.scales import Bounded
from vae_jax.networks import Architecture
from vae_jax.settings import UserError, setting
from vae_jax.types import Array, Key, Net, Params, Shape, Shapes

WEIGHTS = ("uniform", "learned")


def weights_setting() -> Any:
    return setting("uniform", "weights of the prior's components", choices=WEIGHTS)


def initial_weights(prior: Any, k: int) -> Params:
    """The parameters of the weights of a prior's k components; {} where they are uniform."""
    return {"log_weights": jnp.zeros(k, jnp.float32)} if prior.prior_weights == "learned" else {}


def log_weights(params: Params, k: int) -> Array:
    return params.get("log_weights", jnp.zeros(k, jnp.float32))


def _gaussians(numbers: Array, bound: Bound) -> Normal:
    """K of them, of numbers [K, 2, *z]."""
    return of_numbers(jnp.swapaxes(numbers, 0, 1), bound)


@dataclasses.dataclass(frozen=True)
class MixturePrior(Bounded):
    """p(z|c): one Gaussian where there is one component; means start where N(0, I) has them."""

    prior_components: int = setting(10, "Gaussians of the prior", at_least=1)
    prior_weights: str = weights_setting()

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        if shapes.z == (0,):
            raise UserError("prior mixture is one of latents: latent_dim must be at least 1")
        return self._alone(shapes.z) if shapes.c == (0,) else self._given(shapes, architecture)

    def _alone(self, z: Shape) -> Net:
        k = self.prior_components

        def init(key: Key) -> Params:
            means = jax.random.normal(key, (k, *z), jnp.float32) * (k > 1)
            numbers = jnp.stack([means, jnp.zeros_like(means)], axis=1)
            return {"gaussians": numbers, **initial_weights(self, k)}

        def apply(params: Params, encode: Callable[[Array], object], c: Array) -> Mixture:
            return Mixture(_gaussians(params["gaussians"], self.bound), log_weights(params, k))

        return Net(init, apply)

    def _given(self, shapes: Shapes, architecture: Architecture) -> Net:
        k, size = self.prior_components, (self.prior_components, 2, *shapes.z)
        gaussians = architecture.encoder([shapes.c], size)
        weights = architecture.encoder([shapes.c], (k,))
        learned = self.prior_weights == "learned"

        def init(key: Key) -> Params:
            of_gaussians, of_weights, of_means = jax.random.split(key, 3)
            means = jax.random.normal(of_means, (k, *shapes.z), jnp.float32) * (k > 1)
            more = {"weights": weights.init(of_weights)} if learned else {}
            return {"net": gaussians.init(of_gaussians), "means": means, **more}

        def apply(params: Params, encode: Callable[[Array], object], c: Array) -> Mixture:
            numbers = gaussians.apply(params["net"], c).at[:, 0].add(params["means"])
            given = weights.apply(params["weights"], c) if learned else log_weights(params, k)
            return Mixture(_gaussians(numbers, self.bound), given)

        return Net(init, apply)


@dataclasses.dataclass(frozen=True)
class MixturePosterior(Bounded):
    """q(z|x,c) = (1/K) Σ_k N(μ_k(x), diag σ_k(x)²)."""

    posterior_components: int = setting(4, "Gaussians of the posterior", at_least=1)

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        if shapes.z == (0,):
            raise UserError("posterior mixture is one of latents: latent_dim must be at least 1")
        k = self.posterior_components
        net = architecture.encoder([shapes.x, shapes.c], (k, 2, *shapes.z))

        def apply(params: Params, x: Array, c: Array) -> Mixture:
            numbers = net.apply(params, x, c)
            return Mixture(_gaussians(numbers, self.bound), jnp.zeros(k, jnp.float32))

        return Net(net.init, apply)
