"""A split: arrays that are images, points and labels, or one line that says why they are not."""

from typing import Any, NamedTuple

import numpy as np

from vae_jax.settings import UserError


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
    """Images and labels (or None) as a split, checked. `which` and `where` are for the message."""
    x = as_images(_as_array(x, f"{where}x_{which}"), f"{where}x_{which}")
    return Split(x) if y is None else Split(x, _as_labels(y, len(x), f"{where}y_{which}"))


def _as_array(values: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what} must be one array; {first_line(error)}") from error


def _as_labels(y: Any, size: int, what: str) -> np.ndarray:
    y = _as_array(y, what)
    if y.shape == (size, 1):  # as some archives of CIFAR hold them
        y = y[:, 0]
    if y.shape != (size,):
        raise DataError(f"{what} must hold {size} labels, as many as x; got shape {list(y.shape)}")
    whole = y.dtype.kind in "iu"
    if not whole or y.min() < 0 or y.max() >= 2**31:
        got = f"{y.min()} to {y.max()}" if whole else f"dtype {y.dtype}"
        raise DataError(f"{what} must be whole numbers from 0 to 2³¹−1; got {got}")
    return y.astype(np.int32)


def as_images(x: np.ndarray, what: str) -> np.ndarray:
    """uint8 [n, height, width, channels] of uint8, bool or floats in [0, 1], with or without the
    channels. Floats are rounded to the nearest of the 256 levels.
    """
    if x.ndim not in (3, 4) or x.size == 0:
        wanted = "[n, height, width] or [n, height, width, channels], each at least 1"
        raise DataError(f"{what} must be {wanted}; got shape {list(x.shape)}")
    if x.dtype == bool:
        x = 255 * x.astype(np.uint8)
    elif np.issubdtype(x.dtype, np.floating):
        if not (x.min() >= 0 and x.max() <= 1):  # NaN fails both
            raise DataError(f"{what} must be in [0, 1] if floats; got {x.min():g} to {x.max():g}")
        floats, x = x, np.empty(x.shape, np.uint8)
        for start in range(0, len(x), 1024):  # blocks bound the memory
            block = floats[start : start + 1024].astype(np.float32)
            x[start : start + 1024] = np.rint(255 * block)
    elif x.dtype != np.uint8:
        raise DataError(f"{what} must be uint8, bool or floats in [0, 1]; got dtype {x.dtype}")
    elif x.max() == 1:  # would pass for images that are almost black
        raise DataError(f"{what} is uint8 but holds only 0 and 1: give 0 and 255, or bool")
    return x[..., None] if x.ndim == 3 else x
