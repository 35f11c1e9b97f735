"""The Kullback-Leibler divergence between two distributions, in nats.

KL(q‖p) = E_q[log q(x) − log p(x)] ≥ 0
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import rel_entr
from jaxtyping import Float

from vae_jax.distributions.composed import Mixture
from vae_jax.distributions.continuous import MultivariateNormal, Normal
from vae_jax.settings import UserError
from vae_jax.types import Array, Key, Scalar


def kl(q: Any, p: Any, key: Key) -> Scalar:
    """KL(q‖p) in nats: as `rule` has it for the pair, else from one sample.

    The sample is the z that `q.sample(key)` draws, so that a bound which uses the same key sees
    the same z; the estimate log q(z) − log p(z) is unbiased but may be negative.
    """
    known = rule(q, p)
    if known:
        return known(q, p, key)
    z, log_q = q.sample_and_log_prob(key)
    return log_q - p.log_prob(z)


def rule(q: Any, p: Any) -> Callable[[Any, Any, Key], Scalar] | None:
    """What KL has for the pair of types, or else for q whatever p is; None where it has nothing."""
    return KL.get((type(q), type(p)), KL.get((type(q), None)))


def kl_per_unit(q: Any, p: Any) -> Float[Array, "*event"]:
    """KL of each dimension, ½ [(σ_q² + (μ_q − μ_p)²)/σ_p² − 1] + log(σ_p/σ_q), in nats.

    For two Normals, whose KL is the sum over dimensions; of others UserError.
    """
    if not (isinstance(q, Normal) and isinstance(p, Normal)):
        raise UserError(
            "the KL of single units needs a diagonal Gaussian posterior and prior; "
            f"got {type(q).__name__} and {type(p).__name__}"
        )
    log_ratio = q.log_scale - p.log_scale
    distance = ((q.mean - p.mean) * jnp.exp(-p.log_scale)) ** 2
    return 0.5 * (jnp.exp(2 * log_ratio) + distance - 1) - log_ratio


def _kl_normal(q: Normal, p: Normal, key: Key) -> Scalar:
    return jnp.sum(kl_per_unit(q, p))


def _full(p: Any) -> MultivariateNormal:
    """A Gaussian with its whole covariance."""
    if isinstance(p, Normal):
        return MultivariateNormal(p.mean, jnp.diag(jnp.exp(p.log_scale)))
    return p


def _kl_multivariate_normal(q: Any, p: Any, key: Key) -> Scalar:
    """½ [log(det Σ_p/det Σ_q) − d + tr(Σ_p⁻¹ Σ_q) + (μ_p−μ_q)ᵀ Σ_p⁻¹ (μ_p−μ_q)]."""
    q, p = _full(q), _full(p)
    ratio = solve_triangular(p.scale_tril, q.scale_tril, lower=True)
    distance = solve_triangular(p.scale_tril, q.mean - p.mean, lower=True)
    log_dets = [jnp.sum(jnp.log(jnp.diagonal(d.scale_tril))) for d in (p, q)]
    trace, d = jnp.sum(ratio**2), len(q.mean)
    return log_dets[0] - log_dets[1] + 0.5 * (trace - d + distance @ distance)


def _kl_stratified(q: Mixture, p: Any, key: Key) -> Scalar:
    """Σ_k w_k [log q(z_k) − log p(z_k)] with one z_k of each component: unbiased, and free of the
    variance between components.
    """
    keys = jax.random.split(key, len(q.log_weights))
    z = jax.vmap(lambda component, key: component.sample(key))(q.components, keys)
    ratios = jax.vmap(lambda z: q.log_prob(z) - p.log_prob(z))(z)
    return jax.nn.softmax(q.log_weights) @ ratios


# (type of q, type of p, or None for any) -> function of (q, p, key) -> nats: a closed form, or an
# estimate that is better than one sample
KL = {
    (Normal, Normal): _kl_normal,
    (MultivariateNormal, Normal): _kl_multivariate_normal,
    (Normal, MultivariateNormal): _kl_multivariate_normal,
    (MultivariateNormal, MultivariateNormal): _kl_multivariate_normal,
    (Mixture, None): _kl_stratified,
}


def discrete_kl(p: Float[Array, " outcomes"], q: Float[Array, " outcomes"]) -> Scalar:
    """Σ p log(p/q) of two probability vectors, in nats: 0 log 0 is 0, and ∞ where q = 0 < p."""
    return jnp.sum(rel_entr(p, q))


def transformed_log_prob(base: Any, transform: Callable[[Array], Array], noise: Array) -> Scalar:
    """log density of z = transform(ε) where ε = noise: log p(ε) − log|det ∂z/∂ε|, in nats.

    `transform` is any one-to-one function [d] -> [d]; the Jacobian is taken whole, d passes.
    """
    _, log_det = jnp.linalg.slogdet(jax.jacfwd(transform)(noise))
    return base.log_prob(noise) - log_det
