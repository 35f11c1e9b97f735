"""Small worlds where everything is known exactly; for demonstrations, and as oracles for the tests.

The linear-Gaussian world (probabilistic PCA; Tipping & Bishop 1999):

    z ~ N(0, I),  x|z ~ N(W z + b, σ² I)
    p(x) = N(b, W Wᵀ + σ² I),  p(z|x) = N(M⁻¹ Wᵀ (x − b), σ² M⁻¹),  M = Wᵀ W + σ² I

And a square, for the variance of its gradient; the ring of Doersch's tutorial; a glyph in noise,
for drawing images of a wanted class. `analytic_vae` trains in the first of these worlds.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import binom
from jaxtyping import Float

from vae_jax.distributions.base import LOG_2PI
from vae_jax.distributions.continuous import MultivariateNormal, Normal
from vae_jax.distributions.divergence import KL
from vae_jax.models.priors import standard
from vae_jax.models.vae import VAE, assemble
from vae_jax.types import Array, Key, Net, Scalar

Gaussian = Normal | MultivariateNormal


@jax.jit
def closed_form_kl(q: Gaussian, p: Gaussian) -> Scalar:
    """KL(q‖p) without a key, for the pairs that need none."""
    return KL[type(q), type(p)](q, p, jax.random.key(0))  # closed forms need no key


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

    def expected_log_likelihood(self, q: Gaussian, x: Float[Array, " x"]) -> Scalar:
        """E_q[log p(x|z)] = −½ [d log 2πσ² + (‖x − b − W μ_q‖² + tr W Σ_q Wᵀ)/σ²]."""
        residual = x - self.bias - self.weights @ q.mean
        square = residual @ residual + jnp.trace(self.weights @ q.covariance @ self.weights.T)
        log_noise = 2 * self.log_scale
        return -0.5 * (len(x) * (LOG_2PI + log_noise) + square * jnp.exp(-log_noise))

    def elbo(self, q: Gaussian, x: Float[Array, " x"], beta: Scalar | float = 1.0) -> Scalar:
        """E_q[log p(x|z)] − β KL(q‖p(z)), exact for any Gaussian q."""
        zeros = jnp.zeros_like(q.mean)
        rate = closed_form_kl(q, Normal(zeros, zeros))
        return self.expected_log_likelihood(q, x) - beta * rate


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


def log_second_moment(p: Gaussian, q: Gaussian) -> Scalar:
    """log E_q[(p/q)²] = log ∫ p²/q of two Gaussians, ∞ where the integral diverges.

    The Rényi divergence of order 2 (Gil, Alajaji & Linder 2013). An average of n importance weights
    p/q, which are 1 in the mean, has the standard error √((exp(this) − 1)/n).
    """
    P, Q = jnp.linalg.inv(p.covariance), jnp.linalg.inv(q.covariance)
    precision, pull = 2 * P - Q, 2 * P @ p.mean - Q @ q.mean
    log_dets = [jnp.linalg.slogdet(matrix)[1] for matrix in (P, Q, precision)]
    exponent = pull @ jnp.linalg.solve(precision, pull) + q.mean @ Q @ q.mean
    exponent -= 2 * p.mean @ P @ p.mean
    value = log_dets[0] - 0.5 * (log_dets[1] + log_dets[2]) + 0.5 * exponent
    return jnp.where(jnp.linalg.eigvalsh(precision)[0] > 0, value, jnp.inf)


def square_gradient_variance(d: int, mean: float, scale: float) -> dict[str, float]:
    """Variance of one-sample estimates of ∂/∂μ₁ E‖z‖² = 2μ, z ~ N(μ, σ²) in each of d dimensions.

    From the moments of a Gaussian, with z = μ + σε: `pathwise` is Var[2z₁], `score` is
    Var[‖z‖² ε₁/σ], `baseline` is Var[(‖z‖² − E‖z‖²) ε₁/σ].
    """
    m, v = mean**2, scale**2
    rest_mean, rest_variance = (d - 1) * (m + v), (d - 1) * (2 * v**2 + 4 * m * v)
    first = m**2 + 18 * m * v + 15 * v**2  # E[z₁⁴ ε₁²]; and E[z₁² ε₁²] = μ² + 3σ²
    score = first + 2 * rest_mean * (m + 3 * v) + rest_variance + rest_mean**2
    baseline = 12 * m * v + 10 * v**2 + rest_variance
    return {"pathwise": 4 * v, "score": score / v - 4 * m, "baseline": baseline / v - 4 * m}


def ring(z: Float[Array, " d"]) -> Float[Array, " d"]:
    """g(z) = z/10 + z/‖z‖: a Gaussian becomes a ring (Doersch 2016, fig. 2)."""
    return z / 10 + z / jnp.linalg.norm(z)


def ring_log_prob(x: Float[Array, " d"]) -> Scalar:
    """log density of x = ring(z), z ~ N(0, I): −∞ where ‖x‖ ≤ 1, which no z reaches.

    ‖z‖ = r gives ‖x‖ = 1 + r/10, and the Jacobian's determinant is (1/10)(1/10 + 1/r)^(d−1).
    """
    r = 10 * (jnp.linalg.norm(x) - 1)
    r_safe = jnp.where(r > 0, r, 1.0)
    log_det = jnp.log(0.1) + (len(x) - 1) * jnp.log(0.1 + 1 / r_safe)
    log_prob = -0.5 * (r_safe**2 + len(x) * LOG_2PI) - log_det
    return jnp.where(r > 0, log_prob, -jnp.inf)


class Glyph(NamedTuple):
    """Binary images, half of them a known glyph and half noise; the glyph's class is wanted.

    z = 1: the glyph, each pixel flipped with probability `flip`. z = 0: every pixel a fair coin.
    Whatever is asked depends on the image through h alone, the number of pixels unlike the glyph.
    """

    image: Float[Array, " pixels"]
    flip: float

    def unlike(self, x: Float[Array, " pixels"]) -> Scalar:
        return jnp.sum(jnp.abs(x - self.image))

    def log_posterior(self, x: Float[Array, " pixels"]) -> Scalar:
        """log p(z=1|X), the discriminative model."""
        return glyph_log_posterior(self.unlike(x), len(self.image), self.flip)

    def generate(self, key: Key) -> Float[Array, " pixels"]:
        """X ~ p(X|z=1), in one draw."""
        return jnp.abs(self.image - jax.random.bernoulli(key, self.flip, self.image.shape))

    def propose(self, key: Key) -> tuple[Float[Array, " pixels"], Array]:
        """A random X, and whether p(z=1|X) accepts it."""
        x_key, u_key = jax.random.split(key)
        x = jax.random.bernoulli(x_key, 0.5, self.image.shape).astype(self.image.dtype)
        return x, jax.random.bernoulli(u_key, jnp.exp(self.log_posterior(x)))


def glyph_log_likelihood(h: Array, pixels: Array | int, flip: Scalar | float) -> Array:
    """log p(X|z=1) of an image with h flipped pixels; log p(X|z=0) is −pixels·log 2 for each."""
    return h * jnp.log(flip) + (pixels - h) * jnp.log1p(-flip)


def glyph_log_posterior(h: Array, pixels: Array | int, flip: Scalar | float) -> Array:
    """log p(z=1|X) by Bayes' rule; p(z=0) = p(z=1) = ½."""
    log_odds = glyph_log_likelihood(h, pixels, flip) + pixels * jnp.log(2.0)
    return jax.nn.log_sigmoid(log_odds)


def glyph_log_accepted(h: Array, pixels: Array | int, flip: Scalar | float) -> Array:
    """log of the probability that a random image has h flipped pixels and is accepted.

    Over all h = 0..pixels these probabilities add up to that of being accepted; for h > pixels
    they are 0.
    """
    return binom.logpmf(h, pixels, 0.5) + glyph_log_posterior(h, pixels, flip)


def correlated(rho: Scalar) -> MultivariateNormal:
    """Two standard Gaussians whose correlation is ρ, −1 < ρ < 1."""
    below = jnp.stack([rho, jnp.sqrt(1 - rho**2)])
    tril = jnp.stack([jnp.asarray([1.0, 0.0], below.dtype), below])
    return MultivariateNormal(jnp.zeros(2, below.dtype), tril)


def informative_world(key: Key, z_dim: int) -> LinearGaussian:
    """Sixteen pixels for each latent, which tell it to within about a third of the prior's width:
    WᵀW ≈ I and σ² = 0.1, so that p(z|x) has variances near 0.1/1.1 and small correlations.
    """
    x_dim = 16 * z_dim
    weights = jax.random.normal(key, (x_dim, z_dim)) / jnp.sqrt(x_dim)
    return LinearGaussian(weights, jnp.zeros(x_dim), jnp.asarray(0.5 * np.log(0.1), weights.dtype))


@functools.partial(jax.jit, static_argnames="num_samples")
def log_weights(
    world: LinearGaussian, q: Gaussian, x: Float[Array, " x"], key: Key, num_samples: int
) -> Float[Array, " samples"]:
    """log p(x|z) + log p(z) − log q(z) of samples z ~ q; with the prior for q, log p(x|z)."""
    zeros = jnp.zeros_like(q.mean)
    prior = Normal(zeros, zeros)

    def one(key: Key) -> Scalar:
        z, log_q = q.sample_and_log_prob(key)
        return world.likelihood(z).log_prob(x) + prior.log_prob(z) - log_q

    return jax.vmap(one)(jax.random.split(key, num_samples))
