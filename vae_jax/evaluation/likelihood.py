"""How well a VAE models data, in nats an image: ELBO, rate, distortion and NLL."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vae_jax.data.batches import as_batch
from vae_jax.evaluation.per_example import PRECISION, _scaled, mean, per_example, standard_error
from vae_jax.models.vae import VAE, log_weight
from vae_jax.parallel import devices
from vae_jax.types import Array, Batch, Key, Params

AT_ONCE = 5000  # z on each device: what a batch of images and of their samples comes to


def elbo(vae: VAE, params: Params, data: Batch, key: Key, batch_size: int = 500) -> dict[str, Any]:
    """The true `elbo`, `rate` and `distortion`, one sample of z an image; and `rates`, the terms of
    the rate, of each group of a hierarchy from the top down, else None.
    """
    terms, rates = per_example(_terms, vae, params, key, data, batch_size)
    rate, distortion = map(mean, terms)
    groups = None if rates is None else np.mean(rates, axis=0, dtype=np.float64).tolist()
    return {
        "elbo": -(rate + distortion), "rate": rate, "distortion": distortion, "rates": groups,
    }  # fmt: skip


def _terms(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> Any:
    draw = vae.draw(params, key, x, c)
    return (draw.rate, -draw.log_likelihood), draw.rates


@functools.partial(jax.jit, static_argnums=(0, 1))
def _objective(
    vae: VAE, objective: Any, params: Params, key: Key, batch: Batch, weights: Any
) -> Any:
    with jax.default_matmul_precision(PRECISION):
        loss, metrics = objective(vae, params, key, _scaled(devices.shared(batch)), weights)
        return {"loss": loss, **metrics}


def objective_value(
    vae: VAE,
    objective: Callable[..., Any],
    params: Params,
    data: Batch,
    key: Key,
    weights: Any,
    batch_size: int = 500,
) -> dict[str, float]:
    """The loss and the metrics of an objective over a data set, its batches weighted by size."""
    data = as_batch(data)
    values, sizes = [], []
    for i, start in enumerate(range(0, len(data.x), batch_size)):
        # Put on the devices here: the compiler would share out arguments, and not all divide.
        batch = devices.put(jax.tree.map(lambda a: a[start : start + batch_size], data))
        key_i = jax.random.fold_in(key, i)
        values.append(_objective(vae, objective, params, key_i, batch, weights))
        sizes.append(len(batch.x))
    return {
        name: float(np.average([float(v[name]) for v in values], weights=sizes))
        for name in values[0]
    }


class LogLikelihood(NamedTuple):
    """Estimates of log p(x) for each of n images, [n], and each one's Monte-Carlo variance.

    ess: the effective sample size (Σw)²/Σw² of its K weights, from 1 to K. log_w: the weights
    themselves, [n, K], where they were asked for; else [n, 0].
    """

    log_p: Float[Array, " n"]
    variance: Float[Array, " n"]
    ess: Float[Array, " n"]
    log_w: Float[Array, "n samples"]


@functools.cache
def _importance(num_samples: int, group: int, keep: bool) -> Callable[..., Any]:
    """log p(x) of one example from exactly `num_samples` weights, `group` of them at a time."""

    def estimate(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> LogLikelihood:
        def add(carry: Any, start: Any) -> tuple[Any, Any]:
            index = start + jnp.arange(group)
            keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
            log_w = jax.vmap(lambda k: log_weight(vae, params, k, x, c))(keys)
            log_w = jnp.where(index < num_samples, log_w, -jnp.inf)
            sums = jax.nn.logsumexp(log_w), jax.nn.logsumexp(2 * log_w)
            return jax.tree.map(jnp.logaddexp, carry, sums), log_w if keep else jnp.zeros(
                0, jnp.float32
            )

        nothing = (jnp.float32(-jnp.inf), jnp.float32(-jnp.inf))
        starts = jnp.arange(0, num_samples, group)
        (first, second), log_w = jax.lax.scan(add, nothing, starts)
        # Var[log mean w] ≈ Var[w] / (K E[w]²), by the delta method.
        variance = jnp.maximum(jnp.exp(second - 2 * first) - 1 / num_samples, 0)
        ess = jnp.exp(2 * first - second)
        log_p = first - jnp.log(num_samples)
        return LogLikelihood(log_p, variance, ess, log_w.ravel()[:num_samples])

    return estimate


def log_likelihood(
    vae: VAE,
    params: Params,
    data: Batch,
    key: Key,
    num_samples: int,
    batch_size: int = 100,
    report: Callable[[int], Any] = lambda done: None,
    keep_weights: bool = False,
    at_once: int = AT_ONCE,
) -> LogLikelihood:
    """log (1/K) Σ_k p(x,z_k)/q(z_k|x) of every image: a lower bound on log p(x) in expectation,
    rising to it with K (Burda et al. 2016, §3). Memory does not grow with K, unless the
    weights are kept: then n·K numbers on the host. at_once: so many z at a time, at most.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    group = min(num_samples, 50, at_once)
    batch_size = max(1, min(batch_size, at_once // group))
    estimate = _importance(num_samples, group, keep_weights)
    return per_example(estimate, vae, params, key, data, batch_size, report)


def nll(estimate: LogLikelihood) -> dict[str, Any]:
    """`nll`, an estimate of −log p(x) from above; its standard error over images, `nll_se`, None of
    a single image; and the part of that error which is Monte Carlo's and more samples would remove,
    `nll_mc_se`.
    """
    return {
        "nll": -mean(estimate.log_p),
        "nll_se": standard_error(estimate.log_p),
        "nll_mc_se": float(np.sqrt(mean(estimate.variance) / len(estimate.log_p))),
    }
