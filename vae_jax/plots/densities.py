"""Densities over the plane of two latents, side by side."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from vae_jax.plots.page import DPI, NORMAL, PAGE, SMALL, TITLE, axes_at, colour_bar, own_style

SIDE, GAP, LEFT, BOTTOM = 480, 110, 110, 90  # in dots


@own_style
def densities(
    panels: Mapping[str, Float[np.ndarray, "n n"]], half: float, names: tuple[str, str]
) -> Figure:
    """Densities on [−half, half]², rows along the second latent from below, colours of one range.

    Colours are those of the square root, in which a peak does not hide what is low.
    """
    figure = Figure((PAGE / DPI, (SIDE + BOTTOM + 60) / DPI), DPI)
    most = max(float(density.max()) for density in panels.values())
    shown = None
    for i, (title, density) in enumerate(panels.items()):
        axes = axes_at(figure, LEFT + i * (SIDE + GAP), BOTTOM, SIDE, SIDE)
        shown = axes.imshow(
            np.sqrt(density), origin="lower", extent=(-half, half, -half, half), aspect="auto",
            cmap="viridis", vmin=0, vmax=np.sqrt(most), interpolation="nearest",
        )  # fmt: skip
        axes.set_title(title, **TITLE)
        axes.set_xlabel(names[0], fontsize=NORMAL)
        axes.set_ylabel(names[1], fontsize=NORMAL)
    if shown is not None:
        right = LEFT + len(panels) * (SIDE + GAP) - GAP + 30
        colour_bar(shown, (right, BOTTOM, 20, SIDE))
        figure.axes[-1].set_ylabel("√density", fontsize=SMALL)
    return figure
