"""Ways through latent space: interpolation, traversals, and where neighbours disagree."""

import numpy as np
from jaxtyping import Float, Int, Num

Point = Float[np.ndarray, " d"]
Points = Float[np.ndarray, "n d"]


def linear(a: Point, b: Point, n: int) -> Points:
    """n even steps along the straight line from a to b, both included."""
    t = np.linspace(0, 1, n)[:, None]
    return (1 - t) * a + t * b


def spherical(a: Point, b: Point, n: int) -> Points:
    """n even steps from a to b, turning at an even rate from the one direction to the other.

    Shoemake's slerp of the directions (SIGGRAPH 1985), at norms that go evenly from ‖a‖ to ‖b‖: in
    many dimensions N(0, I) lies in a thin shell, which the straight line leaves (White 2016). Where
    there is no one way to turn (in opposite directions, or from 0), it is the straight line.
    """
    norms = np.linalg.norm(a), np.linalg.norm(b)
    if min(norms) == 0:
        return linear(a, b, n)
    u, v = a / norms[0], b / norms[1]
    angle = 2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))  # exact near 0 and π too
    if np.sin(angle) < 1e-6:
        return linear(a, b, n)
    t = np.linspace(0, 1, n)[:, None]
    direction = (np.sin((1 - t) * angle) * u + np.sin(t * angle) * v) / np.sin(angle)
    return ((1 - t) * norms[0] + t * norms[1]) * direction


def traversal(z: Point, unit: int | np.integer, values: Float[np.ndarray, " n"]) -> Points:
    """Copies of z, one for each value, which latent `unit` takes."""
    points = np.repeat(z[None], len(values), axis=0)
    points[:, unit] = values
    return points


def neighbours(points: Points, k: int) -> Int[np.ndarray, "n k"]:
    """The k nearest other points of each point, in no order."""
    squares, found = np.sum(points**2, axis=1), []
    for start in range(0, len(points), 512):  # a distance matrix of all would not fit
        rows = np.arange(start, min(start + 512, len(points)))
        distance = squares[rows, None] + squares - 2 * points[rows] @ points.T
        distance[np.arange(len(rows)), rows] = np.inf
        found.append(np.argpartition(distance, k - 1, axis=1)[:, :k])
    return np.concatenate(found)


def disagreement(points: Points, labels: Num[np.ndarray, " n"], k: int = 20) -> np.ndarray:
    """The entropy [n], in nats, of the labels of each point's k nearest neighbours.

    0 where they agree, log of the number of classes where all are among them alike; its largest
    value tells a point that lies between classes.
    """
    near = labels[neighbours(points, min(k, len(points) - 1))]
    shares = np.stack([np.mean(near == label, axis=1) for label in np.unique(labels)])
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=0)
