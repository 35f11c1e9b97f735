"""One posterior among all: where q(z|x) of an image lies, and what it may be."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.figure import Figure

from vae_jax.plots.latent_plane import (
    LEFT,
    NAMES,
    PANEL,
    RIGHT,
    Kind,
    dots,
    extent,
    framed,
    latent_axes,
    name_axes,
)
from vae_jax.plots.page import DPI, PAGE, TITLE, Images, axes_at, own_style, strip


@own_style
def posterior(
    means: Float[np.ndarray, "N 2"],
    labels: Shaped[np.ndarray, "labels"],
    mean: Float[np.ndarray, "2"],
    covariance: Float[np.ndarray, "2 2"],
    images: Mapping[str, Images],
    *,
    kind: Kind = "quantile",
    high: float = 3.0,
    names: tuple[str, ...] = NAMES,
) -> Figure:
    """One image's q(z|x) among the posterior means of all: in the whole plane, and close up.

    Ellipses hold 39 % and 86 % of it, one and two standard deviations in every direction; in a
    "quantile" frame they are bent as the frame is. `images` stand below in one row, with a name for
    each group: the image itself, and what draws from q(z|x) are decoded to.
    """
    figure = Figure((PAGE / DPI, (PANEL + 300) / DPI), DPI)
    left, right = (axes_at(figure, start, 244, PANEL, PANEL) for start in (LEFT, RIGHT))
    strip(figure, images, (LEFT, 40, RIGHT + PANEL - LEFT, 110))
    turn = np.linspace(0, math.tau, 181)
    spread = np.linalg.cholesky(covariance) @ np.stack([np.cos(turn), np.sin(turn)])
    near = 6 * math.sqrt(np.trace(covariance) / 2)
    for axes, frame in ((left, kind), (right, "linspace")):
        dots(axes, framed(means, frame), labels)
        for radius in (1, 2):
            path = framed((mean[:, None] + radius * spread).T, frame)
            axes.plot(*path.T, color="white", linewidth=2.4)
            axes.plot(*path.T, color="black", linewidth=1)
        axes.plot(*framed(mean, frame), "+", color="black", markersize=5, markeredgewidth=0.8)
    left.set(xlim=extent(kind, high), ylim=extent(kind, high))
    latent_axes(left, kind, names, high)
    right.set(xlim=mean[0] + (-near, near), ylim=mean[1] + (-near, near))
    name_axes(right, names)
    if key := right.get_legend():
        key.remove()
    right.set_title("close up, with 1σ and 2σ of q(z|x)", **TITLE)
    return figure
