"""Pictures of points in the plane: the data, their reconstructions, and where the decoder puts z.

All three have the same frame, that of the data, with one unit as long across as up.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae_jax.plots.page import KEY, NORMAL, TICKING, TITLE, VALID, colour_bar, frame, own_style

Points = Float[np.ndarray, "n 2"]

_DOTS: dict[str, Any] = {"linewidths": 0, "rasterized": True}
_LEFT, _BOTTOM, _SIDE = 96, 76, 500  # of the panel, in dots


def _plane(points: Points, title: str, grey: bool, right: int = 20) -> tuple[Figure, Axes]:
    """A panel that holds all the points, with room around them, and the points."""
    figure, axes = frame(_SIDE, _SIDE, (_LEFT, _BOTTOM, right, 46))
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, 0.54 * (high - low).max()
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    colour = "0.7" if grey else "black"
    axes.scatter(*points.T, s=1, color=colour, label="data", **_DOTS)
    for axis, name in ((axes.xaxis, "x₁"), (axes.yaxis, "x₂")):
        axis.set_major_locator(MaxNLocator(**TICKING))
        axis.set_label_text(name, fontsize=NORMAL)
        axis.labelpad = 2
    axes.yaxis.label.set(rotation=0, ha="right", va="center")
    axes.set_title(title, **TITLE)
    return figure, axes


@own_style
def points(x: Points) -> Figure:
    """The data."""
    return _plane(x, f"{len(x):,} points", grey=False)[0]


@own_style
def reconstructed(x: Points, reconstructions: Points) -> Figure:
    """The data, and E[x|z] at the mean z of each point's posterior."""
    figure, axes = _plane(x, f"{len(x):,} points and their reconstructions", grey=True)
    axes.scatter(*reconstructions.T, s=2, color=VALID, label="reconstruction", **_DOTS)
    axes.legend(loc="upper left", markerscale=4, **KEY)
    return figure


@own_style
def decoder(
    x: Points,
    z: Float[np.ndarray, " m"],
    mean: Float[np.ndarray, "m 2"],
    scale: Float[np.ndarray, "m 2"],
) -> Figure:
    """p(x|z) at each z, over the data: an ellipse about its mean of 2 standard deviations, so that
    its area goes as the variance.
    """
    title = f"p(x|z) at {len(z)} z: means, and two standard deviations"
    figure, axes = _plane(x, title, grey=True, right=130)
    style = {"units": "xy", "offsets": mean, "offset_transform": axes.transData, "cmap": "viridis"}
    across, up = 4 * scale.T
    ellipses = EllipseCollection(across, up, np.zeros(len(z)), array=z, alpha=0.4, **style)
    axes.add_collection(ellipses, autolim=False)
    axes.scatter(*mean.T, s=6, c=z, cmap="viridis", edgecolors="black", linewidths=0.3)
    colour_bar(ellipses, (_LEFT + _SIDE + 20, _BOTTOM, 14, _SIDE), label="z")
    figure.axes[-1].yaxis.label.set(size=NORMAL, rotation=0, va="center")
    return figure
