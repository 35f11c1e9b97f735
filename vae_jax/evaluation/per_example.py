"""A function of one example over a whole data set, compiled in batches.

Every example counts once, whatever the batch size; example i draws from `fold_in(key, i)`, so that
the numbers do not depend on the batch size either. Matrix products run at `PRECISION` (the
default on accelerators is TF32 or bfloat16), and sums over a data set are taken in float64.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vae_jax.data.batches import as_batch, unit_interval
from vae_jax.memory import fitting
from vae_jax.models.vae import VAE
from vae_jax.parallel import devices
from vae_jax.types import Batch, Key, Params

PRECISION = "highest"


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
    batch_size: of each device, fewer where so many do not fit its memory. `report` is told the
    number of examples after each batch. Raises DataError where x is neither images nor points,
    ValueError without examples.
    """
    data = as_batch(data)
    num_examples = len(data.x)
    if num_examples == 0:
        raise ValueError("there are no examples to evaluate")
    parts = devices.shares()
    first = jax.tree.map(lambda a: a[0], data)
    batch_size = fitting(batch_size, _one, (f, vae), params, key, first)
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


def _one(f: Callable[..., Any], vae: VAE, params: Params, key: Key, example: Batch) -> Any:
    return f(vae, params, key, *_scaled(example))


def mean(values: Any) -> float:
    return float(np.mean(np.asarray(values, np.float64)))


def standard_error(values: Any) -> float | None:
    """Of the mean over n images, s/√n with s² the sum of squares over n − 1; None of one image."""
    values = np.asarray(values, np.float64)
    n = len(values)
    return float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else None
