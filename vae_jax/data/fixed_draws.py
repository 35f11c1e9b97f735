"""Draws made once, on the host, from `data_seed` alone: which images are held out, and the pixels
of a binarisation that does not change.

They are parts of a published number: the same on every machine and in every version of NumPy.
"""

import math
from typing import Any

import numpy as np

from vae_jax.data.split import Split, select

_STREAMS = ("train", "valid", "test", "validation images", "test images")  # each independent


def _generator(data_seed: int, stream: str) -> np.random.PCG64:
    """Its raw words are the same in every version of NumPy; `Generator`'s draws need not be."""
    return np.random.PCG64([data_seed, _STREAMS.index(stream)])


def hold_out(split: Split, size: int, data_seed: int, stream: str) -> tuple[Split, Split]:
    """What is left, in its order, and `size` images drawn from it; a smaller draw is part of a
    larger one.
    """
    words = _generator(data_seed, stream).random_raw(len(split.x))
    order = np.argsort(words, kind="stable")
    rest = select(split, np.sort(order[size:])) if size else split
    return rest, select(split, order[:size])


def uniform(shape: tuple[int, ...], data_seed: int, stream: str) -> np.ndarray:
    """Numbers on [0, 1), multiples of 2⁻⁵³."""
    words = _generator(data_seed, stream).random_raw(math.prod(shape))
    return (words >> np.uint64(11)).reshape(shape) * 2.0**-53


def threshold16(v: Any) -> Any:
    """round(v·2¹⁶/255) for v = 0, …, 255 in whole numbers, since 2¹⁶ = 257·255 + 1."""
    return 257 * v + (v >> 7)


def draw_once(x: np.ndarray, data_seed: int, stream: str) -> np.ndarray:
    """Bernoulli(v/255) pixels as 0 and 255; P(x=1) is `threshold16`(v)/2¹⁶."""
    size, generator = math.prod(x.shape[1:]), _generator(data_seed, stream)
    words = -(-size // 4)  # per image, so that image i has the same draw among any number of them
    thresholds, drawn = threshold16(np.arange(256)).astype(np.int32), np.empty_like(x)
    for start in range(0, len(x), 4096):  # blocks bound the memory
        v = x[start : start + 4096]
        u = generator.random_raw(len(v) * words).view(np.uint16).reshape(len(v), 4 * words)
        drawn[start : start + 4096] = 255 * (u[:, :size].reshape(v.shape) < thresholds[v])
    return drawn
