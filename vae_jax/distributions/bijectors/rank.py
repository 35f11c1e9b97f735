"""Flows of low rank: x and what a few directions add to it. Forward only.

- Planar, y = x + û tanh(wᵀx + b) (Rezende & Mohamed 2015).
- Sylvester, y = x + Q R₁ tanh(R₂ Qᵀx + b) (van den Berg et al. 2018).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from vae_jax.distributions.base import distribution
from vae_jax.distributions.bijectors.base import Bijector
from vae_jax.types import Array, Scalar

STEPS = 30  # of the iteration that makes columns orthogonal


@distribution
class Planar(Bijector):
    """û is u, moved along w so that ûᵀw > −1, where the map is one-to-one (there, appendix A.1)."""

    u: Float[Array, " d"]
    w: Float[Array, " d"]
    b: Float[Array, ""]

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        wu = self.w @ self.u
        u = self.u + (jax.nn.softplus(wu) - 1 - wu) * self.w / (self.w @ self.w + 1e-8)
        h = jnp.tanh(self.w @ x + self.b)
        return x + u * h, jnp.log1p((u @ self.w) * (1 - h**2))


@distribution
class Sylvester(Bijector):
    """q: m orthonormal columns [d, m]; b [m]; r1, r2 [m, m], of which what is above the diagonal
    counts and, through tanh, what is on it.

    Both diagonals lie in (−1, 1): with tanh′ ≤ 1 the map is then one-to-one (there, theorem 2).
    """

    q: Float[Array, "d m"]
    r1: Float[Array, "m m"]
    r2: Float[Array, "m m"]
    b: Float[Array, " m"]

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        r1, r2 = _triangular(self.r1), _triangular(self.r2)
        h = jnp.tanh(r2 @ (self.q.T @ x) + self.b)
        slopes = jnp.diagonal(r1) * jnp.diagonal(r2) * (1 - h**2)
        return x + self.q @ (r1 @ h), jnp.sum(jnp.log1p(slopes))


def _triangular(raw: Array) -> Array:
    limited = (1 - 1e-4) * jnp.tanh(jnp.diagonal(raw))  # 1 + r₁r₂ stays above 0 in float32
    return jnp.triu(raw, 1) + jnp.diag(limited)


def orthogonal(raw: Float[Array, "d m"]) -> Float[Array, "d m"]:
    """Orthonormal columns nearest to raw's: Q ← Q (I + ½ (I − QᵀQ)), from Q = raw/‖raw‖."""
    eye = jnp.eye(raw.shape[1], dtype=raw.dtype)
    raw = raw + jnp.eye(*raw.shape, dtype=raw.dtype)  # numbers of 0 are no matrix of full rank

    def improve(q: Array, _: None) -> tuple[Array, None]:
        return q @ (eye + 0.5 * (eye - q.T @ q)), None

    start = raw / jnp.sqrt(jnp.sum(raw**2))
    return jax.lax.scan(improve, start, None, length=STEPS)[0]


def householder(vectors: Float[Array, "n d"]) -> Float[Array, "d d"]:
    """The product of the reflections I − 2 v vᵀ/‖v‖²."""
    d = vectors.shape[1]

    def reflect(q: Array, v: Array) -> tuple[Array, None]:
        v = jnp.asarray(v).at[0].add(1.0)  # numbers of 0 are no direction
        return q - 2 * jnp.outer(q @ v, v) / (v @ v + 1e-12), None

    return jax.lax.scan(reflect, jnp.eye(d, dtype=vectors.dtype), vectors)[0]
