"""The aggregate posterior, q(z) = (1/N) Σ_n q(z|x_n), as a batch shows it.

Everything here sees a whole batch: `q` is a batch of posteriors (leaves [batch, ...]) and
`z` [batch, latents] one sample of each. Hoffman & Johnson (2016) and Chen et al. (2018)
take the rate apart,

    E KL(q(z|x)‖p(z)) = I(x; z) + KL(q(z)‖Π_d q(z_d)) + [KL(Π_d q(z_d)‖p(z))]

into mutual information, total correlation and what the single dimensions cost.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from vae_jax.distributions.continuous import MultivariateNormal, Normal
from vae_jax.settings import UserError
from vae_jax.types import Array


def batch_weights(
    batch_size: int, num_examples: int, stratified: bool
) -> Float[Array, "batch batch"]:
    """log c_ij such that q(z_i) ≈ Σ_j c_ij q(z_i|x_j), for z_i drawn from q(z|x_i).

    Weighted (Chen et al. 2018): c = 1/(N·batch), biased. Stratified (there): z_i's
    own image counts 1/N and the M others (N − 1)/(N·M) each, which is unbiased for q(z_i), and
    exact when the batch is the whole data set. (The paper gives one of the others a different
    weight; this is its estimator averaged over which one that is.)
    """
    n = num_examples
    if not stratified:
        return jnp.full((batch_size, batch_size), -math.log(n * batch_size), jnp.float32)
    other = math.log(max(n - 1, 1) / (n * max(batch_size - 1, 1)))
    return jnp.where(jnp.eye(batch_size, dtype=bool), -math.log(n), other)


def log_densities(
    q: Normal, z: Float[Array, "batch latents"]
) -> Float[Array, "batch batch latents"]:
    """log q(z_i,d | x_j) of every sample i under every posterior j, dimension by dimension."""

    def unit(q: Normal, z: Array) -> Array:
        return jax.vmap(lambda q_d, z_d: q_d.log_prob(z_d))(q, z)

    return jax.vmap(jax.vmap(unit, in_axes=(0, None)), in_axes=(None, 0))(q, z)


def log_aggregates(
    q: Any, z: Any, num_examples: int, stratified: bool
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Estimates of log q(z) and of Σ_d log q(z_d) for each sample, in nats.

    Raises UserError unless the posteriors are diagonal Gaussians.
    """
    if not isinstance(q, Normal) or q.mean.ndim != 2:
        raise UserError(
            "total correlation needs the densities of single latents, which one vector of a "
            f"diagonal Gaussian posterior has; got {type(q).__name__}: try --posterior=diagonal"
        )
    log_c = batch_weights(len(z), num_examples, stratified)
    log_q = log_densities(q, z)
    joint = jax.nn.logsumexp(log_q.sum(axis=-1) + log_c, axis=1)
    units = jax.nn.logsumexp(log_q + log_c[..., None], axis=1)
    return joint, units.sum(axis=-1)


_COVARIANCES = {
    Normal: lambda q: jnp.diag(jnp.exp(2 * q.log_scale)),
    MultivariateNormal: lambda q: q.covariance,
}


def _check_gaussian(q: Any) -> None:
    if type(q) not in _COVARIANCES or q.mean.ndim != 2:
        raise UserError(
            "the covariance of q(z) needs a Gaussian posterior of one vector; got "
            f"{type(q).__name__}"
        )


def covariance_of_means(q: Any) -> Float[Array, "latents latents"]:
    """Cov_x[E(z|x)] over the batch. Raises UserError unless the posteriors are Gaussian."""
    _check_gaussian(q)
    centred = q.mean - jnp.mean(q.mean, axis=0, keepdims=True)
    return centred.T @ centred / len(centred)


def covariance(q: Any) -> Float[Array, "latents latents"]:
    """Cov[z] under q(z) = E_x[Cov(z|x)] + Cov_x[E(z|x)], over the batch."""
    _check_gaussian(q)
    within = jax.vmap(_COVARIANCES[type(q)])(q)
    return jnp.mean(within, axis=0) + covariance_of_means(q)


def mmd(a: Float[Array, "n latents"], b: Float[Array, "m latents"]) -> Float[Array, ""]:
    """Unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3).

    Kernel exp(−‖a − b‖²/(2d)), whose width suits N(0, I) in d dimensions. May be negative.
    """

    def kernel(a: Array, b: Array) -> Array:
        squares = jnp.sum((a[:, None] - b[None, :]) ** 2, axis=-1)
        return jnp.exp(-squares / (2 * max(a.shape[-1], 1)))

    def within(a: Array) -> Array:
        n = len(a)
        return (jnp.sum(kernel(a, a)) - n) / max(n * (n - 1), 1)

    return within(a) + within(b) - 2 * jnp.mean(kernel(a, b))
