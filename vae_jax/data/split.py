"""A split: arrays that are images, points and labels, or one line that says why they are not."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.settings import UserError

ROUNDING = 1e-3  # how far floats may lie outside [0, 1]


class DataError(UserError):
    """One line: what is wrong with the data, and what would be right."""


class Split(NamedTuple):
    """Images x, uint8 [n, height, width, channels], or points, float32 [n, dims]; labels y, int32
    [n], or [0] without any; indices of the values of known factors, int32 [n, factors], or [0, 0]
    without any.
    """

    x: np.ndarray
    y: np.ndarray = np.zeros(0, np.int32)
    factors: np.ndarray = np.zeros((0, 0), np.int32)


def select(split: Split, indices: np.ndarray) -> Split:
    return Split(*(a[indices] if len(a) else a for a in split))


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


# Arrays that should be images and labels ----------------------------------------------------------


def as_split(x: Any, y: Any, which: str, where: str = "") -> Split:
    """Images and labels (or None), checked, the labels as they are: see `coded`. `which` and
    `where` are for the message.
    """
    x = as_images(np.asarray(as_array(x, f"{where}x_{which}")), f"{where}x_{which}")
    return Split(x) if y is None else Split(x, as_labels(y, len(x), f"{where}y_{which}"))


def as_array(values: Any, what: str) -> Any:
    """An array: JAX's stay where they are."""
    if isinstance(values, jax.Array):
        return values
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what} must be one array; {first_line(error)}") from error
    if isinstance(values, Iterator) or (array.dtype == object and not array.ndim):
        kind = type(values).__name__
        raise DataError(f"{what} must be one array; got a {kind}: stack what it holds, np.stack")
    return array


def is_floating(x: Any) -> bool:
    """Of whatever width, bfloat16 too."""
    return jnp.issubdtype(x.dtype, jnp.floating)


def as_labels(y: Any, size: int, what: str) -> np.ndarray:
    """Labels [size] as whole numbers of any size, or as texts. DataError on all others."""
    y = np.asarray(as_array(y, what))
    if y.shape == (size, 1):  # as some archives of CIFAR hold them
        y = y[:, 0]
    if y.shape != (size,):
        raise DataError(f"{what} must hold {size} labels, as many as x; got shape {list(y.shape)}")
    if y.dtype.kind not in "iubUS":
        raise DataError(f"{what} must be whole numbers or texts; got dtype {y.dtype}")
    return np.char.decode(y, "utf-8", "replace") if y.dtype.kind == "S" else y


def class_names(y: np.ndarray) -> np.ndarray:
    """What each label is called: "3" for 3."""
    return y if y.dtype.kind == "U" else (y.astype(np.int64) if y.dtype == bool else y).astype(str)


def coded(splits: dict[str, Split]) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Splits whose labels are indices of the classes that occur, in their order, and the names of
    these; () where the labels are 0 to k − 1 already.
    """
    labels = [split.y for split in splits.values() if len(split.y)]
    if len({y.dtype.kind == "U" for y in labels}) > 1:
        raise DataError("labels must be whole numbers or texts in all splits alike")
    known = np.unique(np.concatenate(labels)) if labels else np.zeros(0, int)
    if known.dtype.kind != "U" and np.array_equal(known, np.arange(len(known))):
        names: tuple[str, ...] = ()
    else:
        names = tuple(class_names(known).tolist())
    return {which: split._replace(y=np.searchsorted(known, split.y).astype(np.int32))
            if len(split.y) else split for which, split in splits.items()}, names  # fmt: skip


def as_pixels(x: Any, what: str) -> Any:
    """What numbers mean as pixels: uint8 grey levels v/255, or float32 in [0, 1]; any shape.

    Integers of any width are grey levels 0 to 255, bool is black and white, floats are in [0, 1] up
    to `ROUNDING`. Raises DataError on all others, and on images that were divided by 255 twice.
    """
    x = as_array(x, what)
    if x.dtype == bool:
        return 255 * x.astype(np.uint8)
    numbers = is_floating(x) or x.dtype.kind in "iu"
    low, high = (x.min().item(), x.max().item()) if x.size and numbers else (0, 0)
    if x.dtype.kind in "iu":
        if low < 0 or high > 255:
            raise DataError(f"{what} must be 0 to 255 if whole numbers; got {low} to {high}")
        if high == 1:  # would pass for images that are almost black
            raise DataError(f"{what} is {x.dtype} but holds only 0 and 1: give 0 and 255, or bool")
        return x.astype(np.uint8)
    if not is_floating(x):
        raise DataError(f"{what} must be whole numbers, bool or floats; got dtype {x.dtype}")
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # NaN fails both
        raise DataError(f"{what} must be in [0, 1] if floats; got {low:g} to {high:g}")
    if 0 < high <= (1 + ROUNDING) / 255:
        raise DataError(f"{what} is at most {high:g}: floats that were divided by 255 twice")
    if x.dtype == np.float32 and low >= 0 and high <= 1:
        return x
    return (jnp if isinstance(x, jax.Array) else np).clip(x.astype(np.float32), 0, 1)


def as_points(x: Any, what: str) -> Any:
    """Real numbers as they are: floats, all of them finite."""
    x = as_array(x, what)
    if not is_floating(x):
        raise DataError(f"{what} must be floats, since points are real numbers; got {x.dtype}")
    if not (jnp if isinstance(x, jax.Array) else np).isfinite(x).all():
        raise DataError(f"{what} must be finite numbers; got NaN or ∞")
    return x


def as_values(x: Any, what: str) -> Any:
    """Examples [n, ...] of an unknown model: floats [n, dims] are points, all others pixels."""
    x = as_array(x, what)
    if not x.ndim:
        raise DataError(f"{what} must be an array [n, ...]; got a single number")
    if x.ndim <= 2 and is_floating(x):
        return as_points(x, what)
    _check_channels(x, what)
    return as_pixels(x, what)


def _check_channels(x: Any, what: str) -> None:
    """DataError on images [n, channels, height, width], as other libraries have them."""
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] > 4:
        raise DataError(
            f"{what} must be [n, height, width, channels]; got {list(x.shape)}: channels come "
            "last, np.moveaxis(x, 1, -1)"
        )


def as_images(x: np.ndarray, what: str) -> np.ndarray:
    """uint8 [n, height, width, channels] of `as_pixels`, with or without the channels. Floats are
    rounded to the nearest of the 256 levels.
    """
    if x.ndim not in (3, 4) or x.size == 0:
        wanted = "[n, height, width] or [n, height, width, channels], each at least 1"
        raise DataError(f"{what} must be {wanted}; got shape {list(x.shape)}")
    _check_channels(x, what)
    x = as_pixels(x, what)
    if x.dtype != np.uint8:
        floats, x = x, np.empty(x.shape, np.uint8)
        for start in range(0, len(x), 1024):  # blocks bound the memory
            x[start : start + 1024] = np.rint(255 * floats[start : start + 1024])
    return x[..., None] if x.ndim == 3 else x


def as_examples(x: Any, shape: tuple[int, ...], what: str) -> Any:
    """Examples [n, *shape] of a model: points where that is [dims], else `as_pixels`."""
    x = of_shape(x, shape, what)
    return as_points(x, what) if len(shape) == 1 else as_pixels(x, what)


def of_shape(x: Any, shape: tuple[int, ...], what: str) -> Any:
    """An array [n, *shape]; a single channel may be left out. DataError on all other shapes."""
    x = as_array(x, what)
    if shape[-1:] == (1,) and len(shape) == 3 and x.shape[1:] == shape[:-1]:
        x = x[..., None]
    if x.shape[1:] == shape and x.ndim:
        return x
    hint = "; give one alone as x[None]" if x.shape == shape else ""
    if len(shape) == 3 and x.shape[1:] == (shape[2], *shape[:2]):
        hint = "; channels come last"
    wanted = ", ".join(["n", *map(str, shape)])
    raise DataError(f"{what} must be [{wanted}]; got {list(x.shape)}{hint}")
