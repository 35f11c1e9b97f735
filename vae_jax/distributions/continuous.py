"""Distributions on the real line and space: Gaussian, Laplace, Student's t."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln
from jaxtyping import Float

from vae_jax.distributions.base import LOG_2PI, Distribution, distribution, event
from vae_jax.types import Array, Key, Scalar


@distribution
class Normal(Distribution):
    """Independent Gaussians, N(mean, exp(log_scale)²); both of the event's shape."""

    mean: Float[Array, "*event"]
    log_scale: Float[Array, "*event"]

    @property
    def mode(self) -> Array:
        return self.mean

    @property
    def covariance(self) -> Array:
        return jnp.diag(jnp.exp(2 * jnp.ravel(self.log_scale)))

    def sample(self, key: Key) -> Array:
        """mean + scale·ε with ε ~ N(0, I): shift *and* scale (Kingma & Welling 2014, §2.4)."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_scale) * noise

    def log_prob(self, x: Array) -> Scalar:
        """−Σ [½ ((x−μ)/σ)² + log σ + ½ log 2π]."""
        # Flat, because XLA's CPU loops over [height, width, 1] do not vectorise.
        x, mean, log_scale = map(jnp.ravel, (event(x, self.mean.shape), self.mean, self.log_scale))
        whitened = (x - mean) * jnp.exp(-log_scale)
        return -jnp.sum(0.5 * (whitened**2 + LOG_2PI) + log_scale)


@distribution
class MultivariateNormal(Distribution):
    """N(mean, L Lᵀ) with L lower triangular, its diagonal positive: [d] and [d, d]."""

    mean: Float[Array, " d"]
    scale_tril: Float[Array, "d d"]

    @property
    def mode(self) -> Array:
        return self.mean

    @property
    def covariance(self) -> Array:
        return self.scale_tril @ self.scale_tril.T

    def sample(self, key: Key) -> Array:
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + self.scale_tril @ noise

    def log_prob(self, x: Array) -> Scalar:
        """−½ [d log 2π + log det Σ + (x−μ)ᵀ Σ⁻¹ (x−μ)]."""
        centred = event(x, self.mean.shape) - self.mean
        whitened = solve_triangular(self.scale_tril, centred, lower=True)
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.scale_tril)))
        return -0.5 * (whitened @ whitened + len(centred) * LOG_2PI) - log_det


@distribution
class Laplace(Distribution):
    """Independent Laplace variables: exp(−|x − mean|/scale) / (2 scale); both of the event's shape.

    `mean` is also the median and the mode; the standard deviation is √2·scale.
    """

    mean: Float[Array, "*event"]
    log_scale: Float[Array, "*event"]

    @property
    def mode(self) -> Array:
        return self.mean

    def sample(self, key: Key) -> Array:
        noise = jax.random.laplace(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_scale) * noise

    def log_prob(self, x: Array) -> Scalar:
        """−Σ [|x−μ|/b + log 2b]."""
        x, mean, log_scale = map(jnp.ravel, (event(x, self.mean.shape), self.mean, self.log_scale))
        error = jnp.maximum(x - mean, mean - x)  # |x−μ|, whose derivative at 0 is then 0
        return -jnp.sum(error * jnp.exp(-log_scale) + log_scale + np.log(2))


@distribution
class StudentT(Distribution):
    """A Gaussian N(mean, σ²I) over the whole event whose one unknown variance is integrated out.

    1/σ² ~ Gamma(ν/2, rate ν s²/2) with ν = dof and s = exp(log_scale), both scalars: Student's t
    distribution in d dimensions, d the event's size. Components are uncorrelated, not independent.
    The mean exists for ν > 1, the variance, s² ν/(ν−2), for ν > 2.
    """

    mean: Float[Array, "*event"]
    log_scale: Float[Array, ""]
    dof: Float[Array, ""]

    @property
    def mode(self) -> Array:
        return self.mean

    def sample(self, key: Key) -> Array:
        of_scale, of_noise = jax.random.split(key)
        noise = jax.random.normal(of_noise, self.mean.shape, self.mean.dtype)
        precision = jax.random.gamma(of_scale, self.dof / 2, dtype=self.mean.dtype) * 2 / self.dof
        return self.mean + jnp.exp(self.log_scale) * noise / jnp.sqrt(precision)

    def log_prob(self, x: Array) -> Scalar:
        """log Γ((ν+d)/2) − log Γ(ν/2) − d/2 log(νπs²) − (ν+d)/2 log(1 + ‖x−μ‖²/(νs²))."""
        x, mean = jnp.ravel(event(x, self.mean.shape)), jnp.ravel(self.mean)
        nu, d = self.dof, mean.size
        distance = jnp.sum(((x - mean) * jnp.exp(-self.log_scale)) ** 2)
        gammas = gammaln((nu + d) / 2) - gammaln(nu / 2)
        volume = d * (0.5 * jnp.log(nu * np.pi) + self.log_scale)
        return gammas - volume - (nu + d) / 2 * jnp.log1p(distance / nu)
