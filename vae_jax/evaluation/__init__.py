"""From a VAE and data to numbers, in nats per image."""

from vae_jax.evaluation.latents import (
    active_units,
    aggregate_posterior,
    posterior_means,
    unit_rates,
)
from vae_jax.evaluation.likelihood import LogLikelihood, elbo, log_likelihood, nll, objective_value
from vae_jax.evaluation.per_example import PRECISION, mean, per_example, standard_error
from vae_jax.evaluation.summary import Summary, aggregate, summary, try_on_shapes

__all__ = [
    "PRECISION",
    "LogLikelihood",
    "Summary",
    "active_units",
    "aggregate",
    "aggregate_posterior",
    "elbo",
    "log_likelihood",
    "mean",
    "nll",
    "objective_value",
    "per_example",
    "posterior_means",
    "standard_error",
    "summary",
    "try_on_shapes",
    "unit_rates",
]
