"""Small worlds where everything is known exactly; for demonstrations, and as oracles for the tests.

The linear-Gaussian world (probabilistic PCA; Tipping & Bishop 1999):

    z ~ N(0, I),  x|z ~ N(W z + b, σ² I)
    p(x) = N(b, W Wᵀ + σ² I),  p(z|x) = N(M⁻¹ Wᵀ (x − b), σ² M⁻¹),  M = Wᵀ W + σ² I
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.distributions import MultivariateNormal, Normal
from vae_jax.model import VAE, assemble
from vae_jax.networks import Net
from vae_jax.priors import standard
from vae_jax.types import Key


class LinearGaussian(NamedTuple):
    """x = W z + b + σ ε in x_dim dimensions, from latents in z_dim."""

    weights: Float[Array, "x z"]
    bias: Float[Array, " x"]
    log_scale: Float[Array, ""]

    @property
    def marginal(self) -> MultivariateNormal:
        """p(x)."""
        noise = jnp.exp(2 * self.log_scale) * jnp.eye(len(self.bias))
        covariance = self.weights @ self.weights.T + noise
        return MultivariateNormal(self.bias, jnp.linalg.cholesky(covariance))

    def likelihood(self, z: Float[Array, " z"]) -> Normal:
        """p(x|z)."""
        mean = self.weights @ z + self.bias
        return Normal(mean, jnp.full_like(mean, self.log_scale))

    def posterior(self, x: Float[Array, " x"]) -> MultivariateNormal:
        """p(z|x), exact; its covariance is the same for every x."""
        variance = jnp.exp(2 * self.log_scale)
        precision = self.weights.T @ self.weights / variance + jnp.eye(self.weights.shape[1])
        covariance = jnp.linalg.inv(precision)
        mean = covariance @ self.weights.T @ (x - self.bias) / variance
        return MultivariateNormal(mean, jnp.linalg.cholesky(covariance))

    def mean_field(self, x: Float[Array, " x"]) -> Normal:
        """The diagonal q(z) closest to p(z|x) in KL(q‖p): the exact mean, and the precision's
        diagonal (Bishop 2006, §10.1.2).
        """
        variance = jnp.exp(2 * self.log_scale)
        precision = jnp.sum(self.weights**2, axis=0) / variance + 1
        return Normal(self.posterior(x).mean, -0.5 * jnp.log(precision))


def random_linear_gaussian(key: Key, x_dim: int = 5, z_dim: int = 2) -> LinearGaussian:
    weights, bias, scale = jax.random.split(key, 3)
    return LinearGaussian(
        jax.random.normal(weights, (x_dim, z_dim)),
        jax.random.normal(bias, (x_dim,)),
        0.3 * jax.random.normal(scale),
    )


def linear_gaussian_vae(x_dim: int = 5, z_dim: int = 2, exact: bool = True) -> VAE:
    """A linear-Gaussian world as a VAE whose params are {"likelihood": world, "posterior": world}.

    The decoder is the first world's; the encoder the exact posterior of the second (or, with
    exact=False, its mean-field one), so that with equal worlds the ELBO is log p(x).
    """

    def encode(world: LinearGaussian, x: Array, condition: Array) -> MultivariateNormal | Normal:
        return world.posterior(x) if exact else world.mean_field(x)

    def decode(world: LinearGaussian, z: Array, condition: Array) -> Normal:
        return world.likelihood(z)

    init = functools.partial(random_linear_gaussian, x_dim=x_dim, z_dim=z_dim)
    return assemble(Net(init, encode), Net(init, decode), standard(z_dim))
