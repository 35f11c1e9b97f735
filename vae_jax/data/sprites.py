"""A small world of known factors, drawn on the spot: for disentanglement without a download.

Every combination of shape, scale, rotation, x and y once, as in dSprites (Matthey et al. 2017), in
9,216 grey images of 32 × 32. Unlike its square and ellipse, none of these shapes looks the same
after a turn, so that no two images are equal and every factor can be read off.
"""

import itertools

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

FACTORS = {"shape": 3, "scale": 4, "rotation": 12, "x": 8, "y": 8}  # name -> number of values
SIDE, PATCH, STEP = 32, 15, 2  # pixels: the image, the patch that is drawn, between two positions
FINE = 8  # points along one side of a pixel


def _triangle(u: Float[np.ndarray, "*n"], v: Float[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
    return (v >= -0.71) & (np.abs(u) <= 0.41 * (1 - v))


def _segment(u: Float[np.ndarray, "*n"], v: Float[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
    return (u**2 + v**2 <= 0.97) & (v >= 0.13)


def _heart(u: Float[np.ndarray, "*n"], v: Float[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
    u, v = 1.27 * u, 1.27 * v + 0.11
    return (u**2 + v**2 - 1) ** 3 <= u**2 * v**3


SHAPES = (_triangle, _segment, _heart)


def _patch(shape: int, scale: int, rotation: int) -> UInt8[np.ndarray, "side side"]:
    """One shape in the middle of a patch, grey where it covers part of a pixel."""
    radius, angle = 4 + scale, 2 * np.pi * rotation / FACTORS["rotation"]
    points = ((np.arange(PATCH * FINE) + 0.5) / FINE - PATCH / 2) / radius
    across, down = np.meshgrid(points, -points)
    # Rounded, so that the last bit of a machine's cosine moves no point over an edge.
    u = np.round(np.cos(angle) * across + np.sin(angle) * down, 9)
    v = np.round(np.cos(angle) * down - np.sin(angle) * across, 9)
    covered = SHAPES[shape](u, v).reshape(PATCH, FINE, PATCH, FINE).mean((1, 3))
    return np.rint(255 * covered).astype(np.uint8)


def draw() -> tuple[UInt8[np.ndarray, "n side side 1"], Int[np.ndarray, "n factors"]]:
    """All images and the indices of their factors' values, in the order of the factors."""
    sizes = tuple(FACTORS.values())
    x = np.zeros((*sizes, SIDE, SIDE), np.uint8)
    for index in itertools.product(*map(range, sizes[:3])):
        patch = _patch(*index)
        for i, j in itertools.product(*map(range, sizes[3:])):
            left, top = 1 + STEP * i, 1 + STEP * j
            x[(*index, i, j)][top : top + PATCH, left : left + PATCH] = patch
    factors = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)
    return x.reshape(-1, SIDE, SIDE, 1), factors.astype(np.int32)
