"""One-to-one maps with known log-determinants, and the distributions that they make."""

from vae_jax.distributions.bijectors.base import Chain, Inverse, Permutation, Transformed
from vae_jax.distributions.bijectors.elementwise import Affine, Gate, Spline, numbers_of
from vae_jax.distributions.bijectors.networked import Autoregressive, Coupling
from vae_jax.distributions.bijectors.rank import Planar, Sylvester, householder, orthogonal

__all__ = [
    "Affine",
    "Autoregressive",
    "Chain",
    "Coupling",
    "Gate",
    "Inverse",
    "Permutation",
    "Planar",
    "Spline",
    "Sylvester",
    "Transformed",
    "householder",
    "numbers_of",
    "orthogonal",
]
