"""From stored images to batches: the order of an epoch, binarisation, what is given of an image.

The training step gathers uint8 rows on the device (`epoch_order`), makes numbers in [0, 1] of them
(`binarise`) and splits them into a target and what is given of it (see `conditions`).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from vae_jax.data.conditions import Condition
from vae_jax.data.fixed_draws import threshold16
from vae_jax.data.split import DataError, Split, as_values
from vae_jax.types import Batch, Key, unconditional

BINARISATIONS = ("dynamic", "static", "threshold", "none")
THRESHOLD = 128  # the least grey that is 1


class Rows(NamedTuple):
    """What training gathers: images as rows [n, pixels], labels [n], 0 where there are none."""

    x: Any
    y: Any


def rows(split: Split) -> Rows:
    """Images as rows: gathering and binarising [n, 28, 28, 1] does not vectorise on CPUs."""
    y = split.y if len(split.y) else np.zeros(len(split.x), np.int32)
    return Rows(split.x.reshape(len(split.x), -1), y)


def binarise(name: str, key: Key, x: Num[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """Float32 pixels in [0, 1] from uint8 ones; only "dynamic" uses the key. Pure, for use in jit.

    "dynamic" compares 16 random bits with round(v·2¹⁶/255), so that P(x=1) is v/255 to within
    7.7e-6, and exactly 0 at v = 0 and 1 at v = 255. "static" expects images drawn by `data.load`.
    """
    if jnp.issubdtype(x.dtype, jnp.floating):  # no grey levels: as they are
        return x
    if name == "dynamic":
        return (_uniform16(key, x.shape) < threshold16(x.astype(jnp.int32))).astype(jnp.float32)
    if name == "threshold":
        return (x >= THRESHOLD).astype(jnp.float32)
    if name in BINARISATIONS:
        return x.astype(jnp.float32) / 255
    raise DataError(f"binarisation must be one of {', '.join(BINARISATIONS)}; got {name!r}")


def _uniform16(key: Key, shape: tuple[int, ...]) -> Int[Array, "..."]:
    """Whole numbers uniform on [0, 2¹⁶). Two to a random word: `bits` of 16 bits costs as much."""
    size = math.prod(shape[1:])
    words = jax.random.bits(key, (shape[0], -(-size // 2)), jnp.uint32)  # the batch axis survives
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(shape[0], 2 * words.shape[1])
    return halves[:, :size].reshape(shape).astype(jnp.int32)


def preparer(binarisation: str, condition: Condition) -> Callable[[Key, Rows], Batch]:
    """What makes a training batch of some `rows`: (key, rows) -> Batch, pure."""

    def prepare(key: Key, some: Rows) -> Batch:
        images = binarise(binarisation, key, some.x).reshape(-1, *condition.image_shape)
        keys = jax.random.split(jax.random.fold_in(key, 1), len(images))
        return Batch(*jax.vmap(condition.split)(keys, images, some.y))

    return prepare


def held_out(condition: Condition, key: Key, split: Split) -> Batch:
    """A whole split as one batch on the host: targets, and what is given of each image.

    Example i draws what is given from `fold_in(key, i)`: the same in whatever split it is asked.
    """
    if condition.c_shape == (0,):
        return unconditional(split.x)
    parts = []
    for start in range(0, len(split.x), 1000):
        stop = min(start + 1000, len(split.x))
        some = Rows(split.x[start:stop], rows(split).y[start:stop])
        parts.append(_split(condition.split, key, np.arange(start, stop), some))
    if not parts:
        nothing = (np.zeros((0, *shape), np.float32) for shape in condition[1:3])
        return Batch(*nothing)
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


@functools.partial(jax.jit, static_argnums=0)
def _split(split: Callable[..., Any], key: Key, index: Any, some: Rows) -> Batch:
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
    return Batch(*jax.vmap(split)(keys, binarise("none", key, some.x), some.y))


def epoch_order(
    key: Key, epoch: int | Int[Array, ""], num_images: int, batch_size: int
) -> Int[Array, "steps batch"]:
    """Indices of one epoch's batches: every image at most once, the remainder left out.

    Each epoch has its own permutation, a function of (key, epoch) only. Raises DataError where not
    even one batch can be filled.
    """
    if not 1 <= batch_size <= num_images:
        raise DataError(f"batch_size must be 1 to {num_images} (the images); got {batch_size}")
    steps = num_images // batch_size
    order = jax.random.permutation(jax.random.fold_in(key, epoch), num_images)
    return order[: steps * batch_size].reshape(steps, batch_size)


def as_batch(batch: Batch) -> Batch:
    """The same with images as `unit_interval` takes them (see `split.as_values`), or DataError.

    Arrays on devices stay there.
    """
    x, c = as_values(batch.x, "x"), batch.condition
    if np.shape(c)[:1] != (len(x),):
        raise DataError(f"condition must be [{len(x)}, ...], as x is; got {list(np.shape(c))}")
    return Batch(x, c)


def as_given(key: Key, rows: Any) -> Batch:
    """What makes a training batch of images or points alone, without grey levels drawn."""
    return unconditional(unit_interval(rows))


def num_rows(data: Any) -> int:
    """n of a pytree of arrays [n, ...]; DataError where it is none."""
    sizes = {np.shape(a)[0] if np.ndim(a) and hasattr(a, "shape") else None  # pyright: ignore[reportGeneralTypeIssues]
             for a in jax.tree.leaves(data)}  # fmt: skip
    if len(sizes) != 1 or None in sizes:
        kind = type(data).__name__
        raise DataError(f"data must be arrays [n, ...] of one n; got a {kind} of other things")
    return sizes.pop() or 0


def unit_interval(x: Any) -> Any:
    """Images in [0, 1]: uint8 divided by 255, floats as they are."""
    return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x
