"""The rate–distortion plane: what is drawn around the points of some models.

Distortion D = E[−log p(x|z)] runs to the right, rate R = E[KL(q(z|x)‖p(z))] upwards, both in nats
per image. ELBO = −(R + D), so it is constant along lines of slope −1. Where D + βR is smallest on a
curve R(D), the curve's slope is dR/dD = −1/β. No model lies below R = H − D, where H is the entropy
of the data (Alemi et al., "Fixing a broken ELBO", 2018, §2).
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from vae_jax.plots import seed_means
from vae_jax.plots.labels import ANYWHERE, Boxes, Label, Points, along, boxes, write
from vae_jax.plots.page import own_style
from vae_jax.plots.seed_means import Setting

_TINY, _SMALL = 6, 7  # fonts, in points
_TANGENT = 60  # length, in dots
_LEVEL: dict[str, Any] = {"color": "#BBBBBB", "linewidth": 0.5, "zorder": 0.5}
_CURVE: dict[str, Any] = {"linewidth": 0.8, "zorder": 2, "gid": "curve"}
_JOINT: dict[str, Any] = {
    "gid": "joint",
    "color": "#777777",
    "linewidth": 0.6,
    "linestyle": ":",
    "zorder": 1.8,
}
_DOT: dict[str, Any] = {"markersize": 1.6, "alpha": 0.5, "zorder": 2.5, "gid": "members"}
_DISC: dict[str, Any] = {"markersize": 3.6, "zorder": 3, "gid": "means"}
_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}


@own_style
def draw(
    axes: Axes,
    each: dict[Setting, np.ndarray],
    curves: dict[str, list[Setting]],
    colours: list,
    entropy: float | None,
) -> None:
    """Dots [members, 2], their means with tangents, what joins these, and labels in between.

    The settings of a curve are joined in their order.
    """
    at = {s: points.mean(axis=0) for s, points in each.items()}
    set_limits(axes, np.concatenate([*each.values()]), entropy)
    labels = elbo_lines(axes, entropy)
    solid, lines = [], []
    for (name, settings), colour in zip(curves.items(), colours, strict=True):
        means = np.stack([at[s] for s in settings])
        if len({s.beta for s in settings}) > 1 or len(curves) > 1:
            lines.append(curve(axes, means, color=colour, label=name, **_CURVE))
        if any(len(each[s]) > 1 for s in settings):
            dots = np.concatenate([each[s] for s in settings])
            lines.append(discs(axes, dots, color=colour, **_DOT))
        solid.append(discs(axes, means, color=colour, **_DISC))
        lines += [tangent(axes, at[s], s.beta) for s in settings]
    joints = seed_means.grouped(at, ["beta", "learning_rate"]).values()
    joints = [settings for settings in joints if len(settings) > 1]
    lines += [curve(axes, np.stack([at[s] for s in joint]), **_JOINT) for joint in joints]
    if entropy is not None:
        label, edge = bound(axes, entropy)
        labels, lines = [label, *labels], [*lines, edge]
    _explain(
        axes, any(len(g) > 1 for g in seed_means.grouped(at, ["beta", "learning_rate"]).values())
    )
    labels = _point_labels(at) + labels
    write(axes, labels, np.concatenate(solid), np.concatenate(lines))


def _explain(axes: Axes, joined: bool) -> None:
    """What the lines that have no label are, below the axis's name."""
    said = "short lines: slope −1/β" + "; dotted: of one β" * joined
    place: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": _TINY, "gid": "key"}
    below = 6 / axes.figure.bbox.height
    middle = np.mean(axes.get_position().intervalx)
    axes.figure.text(float(middle), below, said, color="#555555", **place)


def _point_labels(at: dict[Setting, np.ndarray]) -> list[Label]:
    """Each β once, beside any of its discs; where there is one β, each other setting."""
    varies = seed_means.varying(at)
    groups = seed_means.grouped(at, ["beta"] if "beta" in varies else varies)
    discs = {name: np.stack([at[s] for s in reversed(group)]) for name, group in groups.items()}
    style = {"fontsize": _SMALL, "zorder": 4}
    return [Label(name, points, ANYWHERE, style) for name, points in discs.items() if name]


def set_limits(axes: Axes, points: Points, entropy: float | None) -> None:
    """Room for all points, and for the place on the bound that is nearest to the best of them."""
    if entropy is not None:
        gaps = points.sum(axis=1) - entropy
        rate = max(0.0, points[np.argmin(gaps), 1] - np.min(gaps) / 2)
        points = np.concatenate([points, [[entropy - rate, rate]]])
    low, high = points.min(axis=0), points.max(axis=0)
    margin = np.where(high > low, 0.12 * (high - low), 0.12 * np.maximum(1, np.abs(high)))
    floor = low[1] - margin[1]
    if low[1] >= 0:  # no rate is negative
        floor = max(floor, -0.25 * margin[1])
    axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(floor, high[1] + margin[1]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(7, steps=(1, 2, 5, 10)))


def elbo_lines(axes: Axes, entropy: float | None) -> list[Label]:
    """Draws lines of constant ELBO at round values, above the bound; returns their labels."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    style: dict[str, Any] = {"fontsize": _TINY, "color": "#777777", "bbox": _PAPER, "zorder": 0.6}
    labels, x = [], np.array([left, right])
    for total in MaxNLocator(8, steps=(1, 2, 5, 10)).tick_values(left + bottom, right + top):
        if entropy is not None and total <= entropy:
            continue
        axes.plot(x, total - x, gid="elbo", **_LEVEL)
        on = _visible(axes, total)
        if np.ptp(on[:, 0]) > 0.15 * (right - left):
            text = f"{-total:g}".replace("-", "−")
            labels.append(Label(text if labels else f"ELBO = {text}", on, (), style))
    return labels


def bound(axes: Axes, entropy: float) -> tuple[Label, Boxes]:
    """Shades what no model reaches, R < H − D; returns the label of its edge, and the edge."""
    x, (bottom, top) = np.array(axes.get_xlim()), axes.get_ylim()
    axes.fill_between(x, entropy - x, bottom, color="#DDDDDD", linewidth=0, zorder=0.4)
    style: dict[str, Any] = {"color": "black", "linewidth": 0.8, "zorder": 0.7, "gid": "bound"}
    edge = curve(axes, np.stack([x, entropy - x], axis=1), **style)
    room = entropy - x[0] - bottom > 0.2 * (top - bottom)  # in what is shaded
    ways, text = (-135,) if room else (45,), {"fontsize": _SMALL, "zorder": 4}
    return Label("R = H − D", _visible(axes, entropy), ways, text), edge


def _visible(axes: Axes, total: float) -> Points:
    """Points with R + D = total inside the panel, from its upper left on."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    start, end = max(left, total - top), min(right, total - bottom)
    at = start + max(end - start, 0) * np.linspace(0.06, 0.94, 23)
    return np.stack([at, total - at], axis=1)


def tangent(axes: Axes, point: Float[np.ndarray, "2"], beta: float) -> Boxes:
    """A short line of slope −1/β through a point; returns what it covers, in dots."""
    way = np.array([beta, -1.0])  # β = 0 is upright
    dots = axes.transData.transform(np.stack([point, point + way]))
    way *= _TANGENT / 2 / np.hypot(*(dots[1] - dots[0]))
    ends = np.stack([point - way, point + way])
    axes.plot(*ends.T, gid="tangent", color="black", linewidth=0.8, zorder=2.2)
    return along(axes.transData.transform(ends))


def curve(axes: Axes, points: Points, **style) -> Boxes:
    """Joins the points; returns what the line covers, in dots."""
    axes.plot(*points.T, **style)
    return along(axes.transData.transform(points))


def discs(axes: Axes, points: Points, **style) -> Boxes:
    """Marks the points; returns what the marks cover, in dots."""
    axes.plot(*points.T, linestyle="", marker="o", markeredgewidth=0, **style)
    side = style["markersize"] * axes.figure.dpi / 72
    return boxes(axes.transData.transform(points), (side, side))
