"""Densities of one example as pytrees, and the KL divergence between them."""

from vae_jax.distributions.base import (
    MEAN_SAMPLES,
    Distribution,
    cooled,
    distribution,
    event,
    has_mean,
    mean,
    redrawn,
    static,
)
from vae_jax.distributions.composed import Chain, Mixture
from vae_jax.distributions.continuous import Laplace, MultivariateNormal, Normal, StudentT
from vae_jax.distributions.divergence import KL, discrete_kl, kl, kl_per_unit, transformed_log_prob
from vae_jax.distributions.pixels import (
    Bernoulli,
    Beta,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
)

__all__ = [
    "KL",
    "MEAN_SAMPLES",
    "Bernoulli",
    "Beta",
    "Categorical",
    "Chain",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Distribution",
    "Laplace",
    "Mixture",
    "MultivariateNormal",
    "Normal",
    "StudentT",
    "cooled",
    "discrete_kl",
    "distribution",
    "event",
    "has_mean",
    "kl",
    "kl_per_unit",
    "mean",
    "redrawn",
    "static",
    "transformed_log_prob",
]
