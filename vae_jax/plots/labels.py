"""Where labels go in a plot so that none covers another, a point or, if it can, a line.

Greedy: labels are settled one after the other, each at the candidate that costs least, among what
has been settled before. All lengths are in dots, y upwards; a box is (left, bottom, right, top).
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

Points = Float[np.ndarray, "_ 2"]
Boxes = Float[np.ndarray, "_ 4"]

# In units of one place further down the list of candidates.
_COVERS, _CROSSES = 1e4, 3.0
_GAPS = (9.0, 16.0, 28.0, 46.0, 72.0)
ANYWHERE = (45, 0, 90, -45, 180, -90, 135, -135)  # degrees from the right, the best first


def boxes(centres: Points, size: tuple[float, float]) -> Boxes:
    """Boxes of one width and height around points."""
    half = np.array(size) / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def around(points: Points, size: tuple[float, float], ways: tuple[int, ...] = ANYWHERE) -> Points:
    """Centres for a label of that size beside any of the points, near ones first."""
    angle = np.radians(ways)
    way = np.stack([np.cos(angle), np.sin(angle)], axis=1).round(9)
    offsets = [np.sign(way) * np.array(size) / 2 + gap * way for gap in _GAPS]
    return np.concatenate([point + offset for offset in offsets for point in points])


def settle(
    candidates: list[np.ndarray],
    sizes: list[tuple[float, float]],
    solid: Boxes,
    lines: Boxes,
    frame: Float[np.ndarray, "4"],
) -> Points:
    """The centre of each label, [labels, 2], from its candidates [n, 2], the best first.

    No label leaves the frame, or covers another or anything `solid`, unless all its candidates do;
    each of the boxes along `lines` that it covers costs a little.
    """
    centres = []
    for places, size in zip(candidates, sizes, strict=True):
        own = boxes(places, size)
        outside = (own[:, :2] < frame[:2]).any(axis=1) | (own[:, 2:] > frame[2:]).any(axis=1)
        cost = np.arange(len(own)) + _CROSSES * _hits(own, lines)
        best = np.argmin(cost + _COVERS * (_hits(own, solid) + outside))
        centres.append(places[best])
        solid = np.concatenate([solid, own[best : best + 1]])
    return np.array(centres).reshape(-1, 2)


def along(points: Points, step: float = 5.0) -> Boxes:
    """Small boxes along the polyline through the points."""
    ends = itertools.pairwise(points)
    parts = [np.linspace(a, b, 2 + int(np.hypot(*(b - a)) / step)) for a, b in ends]
    return boxes(np.concatenate([*parts, np.zeros((0, 2))]), (step, step))


def _hits(some: Boxes, others: Boxes) -> Float[np.ndarray, " _"]:
    """How many of the others each box overlaps."""
    low, high = some[:, None, :2] < others[:, 2:], some[:, None, 2:] > others[:, :2]
    return np.sum(np.all(low & high, axis=2), axis=1).astype(float)


class Label(NamedTuple):
    """A text and the points, in data coordinates, beside any of which it may stand."""

    text: str
    points: Points
    ways: tuple[int, ...]  # from a point, the best first; () is on it
    style: dict[str, Any]


def write(axes: Axes, labels: list[Label], solid: Boxes, lines: Boxes) -> None:
    """Puts the labels where they cover nothing, with a thin line to a point that is far."""
    figure: Any = axes.figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [axes.text(0, 0, x.text, ha="center", va="center", **x.style) for x in labels]
    extents = [text.get_window_extent(renderer) for text in texts]
    sizes = [(box.width + 4, box.height + 2) for box in extents]
    points = [axes.transData.transform(label.points) for label in labels]
    spots = [
        around(at, size, label.ways) if label.ways else at
        for at, size, label in zip(points, sizes, labels, strict=True)
    ]
    centres = settle(spots, sizes, solid, lines, np.array(axes.bbox.extents))
    for text, centre, at, size, label in zip(texts, centres, points, sizes, labels, strict=True):
        x, y = axes.transData.inverted().transform(centre)
        text.set_position((float(x), float(y)))
        near = at[np.argmin(np.hypot(*(at - centre).T))]
        edge = centre + np.clip(near - centre, -np.array(size) / 2, np.array(size) / 2)
        if label.ways == ANYWHERE and np.hypot(*(near - edge)) > _GAPS[1] + 4:
            leader = axes.transData.inverted().transform([near, edge])
            axes.plot(*leader.T, color="black", linewidth=0.3, zorder=1.5, gid="leader")
