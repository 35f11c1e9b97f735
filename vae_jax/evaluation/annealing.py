"""Annealed importance sampling: log p(x) without the encoder, and how far to trust it.

    f_t(z) = p(z) p(x|z)^β_t,  0 = β_0 < … < β_T = 1,
    log w = Σ_t (β_t − β_{t−1}) log p(x|z_{t−1}),  z_0 ~ p(z),  z_t ~ HMC that leaves f_t invariant

E[w] = p(x) (Neal 2001), so that the mean of log w is below log p(x). Started from an exact sample
of p(z|x) and run backwards, E[1/w] = 1/p(x), which bounds it from above: bidirectional Monte Carlo
(Grosse et al. 2015). Such a sample is at hand for data drawn from the model itself; there the gap
between the two bounds tells how good either is. Wu et al. (2017) evaluate decoders this way.

The step sizes of HMC are tuned in a first run, which is thrown away, and kept fixed in those that
count: tuning along the way would bias w.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from vae_jax.models.vae import VAE
from vae_jax.types import Key, Params, Scalar

ACCEPTANCE = 0.65  # what the tuning aims at (Neal 2011, §5.4.4)
LEAPFROGS = 10


class Annealing(NamedTuple):
    """What the runs of one example share. Points z are flat vectors."""

    sample: Callable[[Key], Array]
    log_prior: Callable[[Array], Scalar]
    log_likelihood: Callable[[Array], Scalar]


def _annealing(vae: VAE, params: Params, x: Any, c: Any) -> Annealing:
    prior = vae.prior(params, c)
    like = jax.eval_shape(prior.sample, jax.random.key(0))
    _, unravel = ravel_pytree(jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like))
    return Annealing(
        lambda key: ravel_pytree(prior.sample(key))[0],
        lambda z: prior.log_prob(unravel(z)),
        lambda z: vae.likelihood(params, unravel(z), c).log_prob(x),
    )


def temperatures(count: int) -> Float[np.ndarray, " temperatures"]:
    """β_0 = 0 to β_count = 1 along a sigmoid: small steps at both ends (Grosse et al. 2015)."""
    s = 1 / (1 + np.exp(-np.linspace(-4, 4, count + 1)))
    return (s - s[0]) / (s[-1] - s[0])


def transition(
    log_density: Callable[[Array], Scalar],
    z: Float[Array, " latents"],
    key: Key,
    step: Scalar | float,
) -> tuple[Float[Array, " latents"], Scalar]:
    """One HMC transition with `LEAPFROGS` steps: the next z and the probability of acceptance.

    Leaves exp(log_density) invariant, reversibly, for any fixed step (Neal 2011, §5.3).
    """
    momentum_key, accept_key = jax.random.split(key)
    gradient = jax.grad(log_density)
    start = jax.random.normal(momentum_key, z.shape, z.dtype)

    def leapfrog(_: Any, state: Any) -> Any:
        z, v = state
        z = z + step * v
        return z, v + step * gradient(z)

    v = start + step / 2 * gradient(z)
    end, v = jax.lax.fori_loop(0, LEAPFROGS - 1, leapfrog, (z, v))
    end = end + step * v
    v = v + step / 2 * gradient(end)
    change = log_density(end) - log_density(z) + 0.5 * (start @ start - v @ v)
    probability = jnp.where(jnp.isfinite(change), jnp.exp(jnp.minimum(change, 0)), 0.0)
    accepted = jax.random.uniform(accept_key, dtype=z.dtype) < probability
    return jnp.where(accepted, end, z), probability


def _tempered(model: Annealing, beta: Array) -> Callable[[Array], Scalar]:
    return lambda z: model.log_prior(z) + beta * model.log_likelihood(z)


def _tune(
    model: Annealing, key: Key, betas: Float[Array, " temperatures"], chains: int
) -> tuple[Float[Array, " between"], Float[Array, " between"]]:
    """Step sizes for β_1 … β_{T−1} and the acceptance they had, from a run upwards."""

    def visit(carry: Any, inputs: Any) -> Any:
        z, log_step = carry
        beta, key = inputs
        move = functools.partial(transition, _tempered(model, beta), step=jnp.exp(log_step))
        z, probability = jax.vmap(move)(z, jax.random.split(key, chains))
        accepted = jnp.mean(probability)
        longer = jnp.clip(log_step + 0.3 * (accepted - ACCEPTANCE), -12.0, 1.0)
        return (z, longer), (jnp.exp(log_step), accepted)

    start_key, key = jax.random.split(key)
    z = jax.vmap(model.sample)(jax.random.split(start_key, chains))
    keys = jax.random.split(key, len(betas) - 2)
    _, (steps, accepted) = jax.lax.scan(visit, (z, jnp.log(0.3)), (betas[1:-1], keys))
    return steps, accepted


def _path(
    model: Annealing, z: Array, key: Key, betas: Array, steps: Array, upwards: bool
) -> Float[Array, ""]:
    """log w of one path, with the same transitions upwards from p(z) or downwards from p(z|x)."""
    widths = jnp.diff(betas)  # width t is what a point between the transitions t − 1 and t counts

    def visit(carry: Any, inputs: Any) -> Any:
        z, log_w = carry
        beta, step, width, key = inputs
        z, _ = transition(_tempered(model, beta), z, key, step)
        return (z, log_w + width * model.log_likelihood(z)), None

    keys = jax.random.split(key, len(steps))
    after = widths[1:] if upwards else widths[:-1]
    inputs = (betas[1:-1], steps, after, keys)
    inputs = inputs if upwards else jax.tree.map(lambda a: a[::-1], inputs)
    first = widths[0] if upwards else widths[-1]
    (_, log_w), _ = jax.lax.scan(visit, (z, first * model.log_likelihood(z)), inputs)
    return log_w


class AIS(NamedTuple):
    """log w of every chain, and the mean acceptance while tuning; NaN where nothing was moved."""

    log_w: Float[Array, " chains"]
    acceptance: Scalar


@functools.cache
def ais(num_temperatures: int, chains: int) -> Callable[..., AIS]:
    """For `evaluation.per_example`: log w of one example's chains; their mean w estimates p(x)."""
    _check(num_temperatures, chains)
    betas = temperatures(num_temperatures)

    def estimate(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> AIS:
        model, tune_key, start_key, key = _prepare(vae, params, key, x, c)
        steps, accepted = _tune(model, tune_key, jnp.asarray(betas), chains)

        def chain(start_key: Key, key: Key) -> Array:
            return _path(model, model.sample(start_key), key, jnp.asarray(betas), steps, True)

        split = functools.partial(jax.random.split, num=chains)
        return AIS(jax.vmap(chain)(split(start_key), split(key)), jnp.mean(accepted))

    return estimate


class Sandwich(NamedTuple):
    """Bounds on log p(x), each in expectation, for an x that the model drew itself."""

    lower: Scalar
    upper: Scalar


@functools.cache
def bidirectional(num_temperatures: int, chains: int) -> Callable[..., Sandwich]:
    """For `evaluation.per_example`: x is drawn from the model (the example's own is not looked at),
    with z, an exact sample of p(z|x), from which the chains downwards start.
    """
    _check(num_temperatures, chains)
    betas = temperatures(num_temperatures)

    def estimate(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> Sandwich:
        z_key, x_key, key = jax.random.split(key, 3)
        z = vae.prior(params, c).sample(z_key)
        x = vae.likelihood(params, z, c).sample(x_key)
        model, tune_key, start_key, key = _prepare(vae, params, key, x, c)
        steps, _ = _tune(model, tune_key, jnp.asarray(betas), chains)
        exact, _ = ravel_pytree(z)

        def chain(start_key: Key, key: Key) -> tuple[Array, Array]:
            up, down = jax.random.split(key)
            path = functools.partial(_path, model, betas=jnp.asarray(betas), steps=steps)
            forward = path(model.sample(start_key), up, upwards=True)
            return forward, path(exact, down, upwards=False)

        split = functools.partial(jax.random.split, num=chains)
        forward, backward = jax.vmap(chain)(split(start_key), split(key))
        return Sandwich(_log_mean(forward), -_log_mean(-backward))

    return estimate


def _prepare(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> tuple[Annealing, Key, Key, Key]:
    return _annealing(vae, params, x, c), *jax.random.split(key, 3)


def _log_mean(log_w: Float[Array, " chains"]) -> Scalar:
    return jax.nn.logsumexp(log_w) - jnp.log(len(log_w))


def _check(num_temperatures: int, chains: int) -> None:
    if num_temperatures < 2 or chains < 1:
        raise ValueError(
            f"annealing needs 2 temperatures and 1 chain at least; got {num_temperatures}, {chains}"
        )
