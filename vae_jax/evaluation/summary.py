"""The numbers of a trained model, as a run's summary, a sweep's table and an evaluation have them.

In nats per image. What a model has no such number of is None, and `notes` say why.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import models
from vae_jax.distributions import MEAN_SAMPLES
from vae_jax.evaluation import latents
from vae_jax.evaluation.likelihood import AT_ONCE, LogLikelihood, elbo, log_likelihood, nll
from vae_jax.models.vae import VAE, log_weight, rate_distortion
from vae_jax.settings import UserError
from vae_jax.types import Batch, Key, Params, Shape


class Summary(NamedTuple):
    """numbers: names -> values that JSON can hold. likelihoods: of each image. means: the posterior
    means of each, [n, latents].
    """

    numbers: dict[str, Any]
    likelihoods: LogLikelihood
    means: np.ndarray


def summary(
    vae: VAE,
    params: Params,
    data: Batch,
    key: Key,
    *,
    num_samples: int,
    probability: bool = False,
    report: Callable[[int], Any] = lambda done: None,
    keep_weights: bool = False,
    at_once: int = AT_ONCE,
) -> Summary:
    """ELBO, rate, distortion, NLL, bits per dimension, active units and the rate of each latent; of
    a hierarchy the rates of its groups and the shapes of their z, from the top down.

    num_samples: importance samples an image for the NLL. probability: whether p(x|z) is one, of
    these data: bits per dimension mean something then. report: told how many images are done.
    keep_weights: all log-weights are in `likelihoods`. at_once: so many z at a time, at most: what
    bounds the memory.
    """
    means = latents.posterior_means(vae, params, data, at_once)
    # Without latents every sample is the same.
    samples = num_samples if means.shape[1] else 1
    estimate = log_likelihood(
        vae, params, data, key, samples, report=report, keep_weights=keep_weights, at_once=at_once
    )
    measured = nll(estimate)
    rates, note = _unit_rates(vae, params, data)
    shapes = data.x.shape[1:], data.condition.shape[1:]
    exact = latents.mean_is_exact(vae, *shapes)
    how = "exact" if exact else f"estimated from {MEAN_SAMPLES} samples"
    z = jax.tree.leaves(models.latents(vae, *shapes))
    bits = measured["nll"] / (math.prod(shapes[0]) * math.log(2))
    numbers = {
        **elbo(vae, params, data, key, min(500, at_once)),
        **measured,
        "nll_samples": samples,
        "bits_per_dim": bits if probability else None,
        "active_units": int(latents.active_units(means).sum()),
        "latent_dim": means.shape[1],
        "shapes": [list(leaf.shape) for leaf in z],
        "posterior_means": how,
        "kl_per_unit": rates,
        "notes": [note] if note else [],
    }
    return Summary(numbers, estimate, means)


def _unit_rates(vae: VAE, params: Params, data: Batch) -> tuple[list[float] | None, str]:
    """The rate of each latent, or None and why not."""
    try:
        return latents.unit_rates(vae, params, data).tolist(), ""
    except UserError as error:
        return None, f"no KL per unit: {error}"


def aggregate(vae: VAE, params: Params, data: Batch, key: Key) -> tuple[dict[str, Any], str]:
    """What `aggregate_posterior` says, or nothing and why not."""
    shapes = models.latents(vae, data.x.shape[1:], data.condition.shape[1:])
    if not sum(leaf.size for leaf in jax.tree.leaves(shapes)):
        return {}, ""
    if latents.prior_sees_condition(vae, data.condition.shape[1:]):
        return {}, "no aggregate posterior: each image has a prior of its own"
    try:
        return latents.aggregate_posterior(vae, params, data, key), ""
    except UserError as error:
        return {}, f"no aggregate posterior: {error}"


def try_on_shapes(vae: VAE, x_shape: Shape, c_shape: Shape = (0,)) -> None:
    """Whether all that `summary` and pictures need can be computed; computes nothing.

    Raises UserError with one line where a part of the model lacks something.
    """
    key = jax.random.key(0)
    x, c = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x_shape, c_shape))
    params = jax.eval_shape(vae.init, key)
    needed = {
        "the posterior's mean": latents._posterior_mean,
        "rate and distortion": rate_distortion,
        "importance weights": log_weight,
        "the mean of p(x|z)": _decoded,
    }
    for what, f in needed.items():
        try:
            jax.eval_shape(lambda p, x, c: f(vae, p, key, x, c), params, x, c)
        except UserError:
            raise
        except Exception as error:  # whatever a part that is not finished raises
            reason = next(iter(str(error).splitlines()), "")
            raise UserError(f"this model has no {what}: {type(error).__name__}: {reason}") from None


def _decoded(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> Any:
    return vae.likelihood(params, vae.prior(params, c).sample(key), c).mean
