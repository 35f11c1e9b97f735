"""Evaluation: from a VAE and data to numbers, in nats per image.

Every example counts once, whatever the batch size; example i draws from `fold_in(key, i)`, so that
the numbers do not depend on the batch size either. Matrix products run at `PRECISION` (the
default on accelerators is TF32 or bfloat16), and sums over a data set are taken in float64.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from vae_jax import devices
from vae_jax.distributions import kl_per_unit
from vae_jax.model import VAE, log_weight, rate_distortion
from vae_jax.types import Array, Batch, Key, Params

PRECISION = "highest"
ACTIVE = 0.01  # a unit is active when Var_x(E[z|x]) exceeds this (Burda et al. 2016, §5.2)


def unit_interval(x: Any) -> Any:
    """Images in [0, 1]: uint8 divided by 255, floats as they are."""
    return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x


def _scaled(batch: Batch) -> Batch:
    return Batch(unit_interval(batch.x), batch.condition)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _mapped(
    f: Callable[..., Any], vae: VAE, params: Params, key: Key, index: Any, batch: Batch
) -> Any:
    with jax.default_matmul_precision(PRECISION):
        index, batch = devices.shared((index, batch))
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
        return devices.whole(jax.vmap(functools.partial(f, vae, params))(keys, *_scaled(batch)))


def per_example(
    f: Callable[..., Any],
    vae: VAE,
    params: Params,
    key: Key,
    data: Batch,
    batch_size: int = 500,
    report: Callable[[int], Any] = lambda done: None,
) -> Any:
    """f(vae, params, key, x, c) of every example, in compiled batches; arrays [n, ...] on the host.

    f is compiled once for each f, vae and shape: hand in the same function, not a new lambda.
    batch_size: of each device. `report` is told the number of examples after each batch. Raises
    ValueError without examples.
    """
    num_examples = len(data.x)
    if num_examples == 0:
        raise ValueError("there are no examples to evaluate")
    parts = devices.shares()
    batch_size = -(-min(batch_size * parts, num_examples) // parts) * parts
    parts = []
    for start in range(0, num_examples, batch_size):
        index = np.arange(start, start + batch_size)
        inside = index[index < num_examples]
        # The last batch is filled up with copies of the last example, which are then dropped.
        batch = jax.tree.map(lambda a: a[np.minimum(index, num_examples - 1)], data)
        values = _mapped(f, vae, params, key, index, batch)
        parts.append(jax.tree.map(lambda a: np.asarray(a)[: len(inside)], values))
        report(len(inside))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def mean(values: Any) -> float:
    return float(np.mean(np.asarray(values, np.float64)))


def standard_error(values: Any) -> float | None:
    """Of the mean over n images, s/√n with s² the sum of squares over n − 1; None of one image."""
    values = np.asarray(values, np.float64)
    n = len(values)
    return float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else None


def elbo(
    vae: VAE, params: Params, data: Batch, key: Key, batch_size: int = 500
) -> dict[str, float]:
    """The true `elbo`, `rate` and `distortion`, one sample of z an image."""
    rate, distortion = per_example(rate_distortion, vae, params, key, data, batch_size)
    rate, distortion = mean(rate), mean(distortion)
    return {"elbo": -(rate + distortion), "rate": rate, "distortion": distortion}


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


def mean_entropy(means: Any) -> float:
    """Mean entropy of Bernoulli pixels with these means, in nats per pixel: 0 for black and white,
    log 2 for grey. What a model is unsure of it draws grey.
    """
    entropy = jax.vmap(lambda p: jnp.sum(jax.scipy.special.entr(jnp.stack([p, 1 - p]))))
    return mean(entropy(jnp.ravel(jnp.asarray(means))))


def gradient_energy(images: Float[np.ndarray, "n h w c"]) -> float:
    """Σ of squared differences of neighbouring pixels, across and down; the mean over images."""
    x = np.asarray(images, np.float64)
    across, down = np.diff(x, axis=2), np.diff(x, axis=1)
    return float((np.sum(across**2) + np.sum(down**2)) / len(x))


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
            return jax.tree.map(jnp.logaddexp, carry, sums), log_w if keep else jnp.zeros(0)

        nothing = (jnp.asarray(-jnp.inf), jnp.asarray(-jnp.inf))
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
) -> LogLikelihood:
    """log (1/K) Σ_k p(x,z_k)/q(z_k|x) of every image: a lower bound on log p(x) in expectation,
    rising to it with K (Burda et al. 2016, §3). Memory does not grow with K, unless the
    weights are kept: then n·K numbers on the host.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    estimate = _importance(num_samples, min(num_samples, 50), keep_weights)
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


def _posterior_mean(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> Any:
    return vae.posterior(params, x, c).mean


def posterior_means(vae: VAE, params: Params, data: Batch) -> Float[np.ndarray, "n latents"]:
    """E[z|x] under the posterior, of every image."""
    return per_example(_posterior_mean, vae, params, jax.random.key(0), data)


def active_units(means: Float[np.ndarray, "n latents"]) -> Bool[np.ndarray, " latents"]:
    """Which latents use the data: Var_x(E[z|x]) > 0.01 (Burda et al. 2016, §5.2)."""
    return np.var(np.asarray(means, np.float64), axis=0) > ACTIVE


def _kl_units(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> Any:
    return kl_per_unit(vae.posterior(params, x, c), vae.prior(params, c))


def unit_rates(vae: VAE, params: Params, data: Batch) -> Float[np.ndarray, " latents"]:
    """The mean KL of each latent, in nats; they sum to the rate. Diagonal Gaussians only."""
    units = per_example(_kl_units, vae, params, jax.random.key(0), data)
    return np.mean(np.asarray(units, np.float64), axis=0)


def _posterior_and_sample(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> Any:
    q = vae.posterior(params, x, c)
    z, log_q = q.sample_and_log_prob(key)
    return q, z, log_q, vae.prior(params, c).log_prob(z)


@jax.jit
def _log_sums(q: Any, z: Any) -> Any:
    """log Σ_j q(z_i|x_j) for each of some samples z."""
    with jax.default_matmul_precision(PRECISION):
        return jax.lax.map(lambda z: jax.nn.logsumexp(jax.vmap(lambda q: q.log_prob(z))(q)), z)


def aggregate_posterior(
    vae: VAE, params: Params, data: Batch, key: Key, block: int = 1000
) -> dict[str, float | bool | None]:
    """The rate taken apart over all N images, q(z) = (1/N) Σ_n q(z|x_n) (Hoffman & Johnson 2016):

        rate = I(x; z) + KL(q(z)‖p(z)),   I(x; z) = E[log q(z|x) − log q(z)] ≤ log N.

    From one z an image, with standard errors. Within 1 nat of log N the mutual information says
    little more than that there were only N images, and `at_ceiling` is true. Costs N² densities;
    the prior must not depend on the condition.
    """
    q, z, log_q, log_prior = per_example(_posterior_and_sample, vae, params, key, data)
    n = len(log_q)
    total = np.full(n, -np.inf)
    for start in range(0, n, block):
        some = jax.tree.map(lambda a: a[start : start + block], q)
        total = np.logaddexp(total, np.asarray(_log_sums(some, z), np.float64))
    log_aggregate = total - np.log(n)
    information, marginal = log_q - log_aggregate, log_aggregate - log_prior
    return {
        "mutual_information": mean(information),
        "mutual_information_se": standard_error(information),
        "marginal_kl": mean(marginal),
        "marginal_kl_se": standard_error(marginal),
        "ceiling": float(np.log(n)),
        "at_ceiling": bool(mean(information) > np.log(n) - 1),
    }
