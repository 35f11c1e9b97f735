"""Pictures of latent space: the decoded grid, and where the posterior means lie.

Latents are drawn in one of two frames, and every picture says which. "quantile" spaces an axis by
the Gaussian CDF Φ: the prior N(0, I) is uniform on the unit square, and the manifold is decoded at
Φ⁻¹((i + ½)/n) (Kingma and Welling, "Auto-encoding variational Bayes", 2014, figure 4). "linspace"
spaces it evenly in z, from −3 to 3 or −`high` to `high`.
"""

import math
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae_jax.plots.page import (
    DPI,
    KEY,
    NORMAL,
    PAGE,
    PALETTE,
    TICKING,
    TITLE,
    TRAIN,
    VALID,
    Images,
    axes_at,
    colour_bar,
    own_style,
    picture,
    tile,
)

Kind = Literal["quantile", "linspace"]

MARKS = ("o", "^", "s")  # of the first ten labels, the next ten, the last
SMALL_IMAGE = 16  # pixels of height
LEFT, RIGHT, PANEL = 90, 724, 540  # the two latent panels, in dots
KINDS = ("quantile", "linspace")
NAMES = ("z₁", "z₂")
_QUANTILES = (-2, -1, -0.5, 0, 0.5, 1, 2)  # ticks of the "quantile" frame
_PHI = np.vectorize(NormalDist().cdf, otypes=[float])


def manifold_grid(n: int, kind: Kind, low: float = -3.0, high: float = 3.0) -> np.ndarray:
    """The n ≥ 2 values [n] of one latent axis, rising.

    "quantile" is Φ⁻¹((i + ½)/n), i = 0..n−1; "linspace" is n even steps from `low` to `high`.
    """
    if n < 2 or kind not in KINDS:
        raise ValueError(f"a grid is {' or '.join(KINDS)}, with n ≥ 2; got {kind!r}, {n}")
    if kind == "linspace":
        return np.linspace(low, high, n)
    return np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)])


def manifold_latents(
    n: int, kind: Kind = "quantile", high: float = 3.0
) -> Float[np.ndarray, "tiles 2"]:
    """The latents (z₁, z₂), [n·n, 2], to decode, in the order of the picture's tiles.

    Rows run from the top, where z₂ is largest, to the bottom; within a row z₁ rises.
    """
    grid = manifold_grid(n, kind, -high, high)
    return np.stack([np.tile(grid, n), np.repeat(grid[::-1], n)], axis=1)


@own_style
def manifold(
    images: Images,
    kind: Kind = "quantile",
    *,
    high: float = 3.0,
    names: tuple[str, ...] = NAMES,
    note: str = "",
) -> Figure:
    """The images [n·n, h, w, c] decoded at `manifold_latents(n, kind, high)`; small ones a pixel
    apart, or they would merge.

    The ticks give z: the centre of a tile lies at the latent that it was decoded from. `note`
    stands above, before the rule of the grid.
    """
    n, (h, w) = math.isqrt(len(images)), images.shape[1:3]
    gap = int(h <= SMALL_IMAGE)
    sheet, grid = tile(images, n, n, gap), manifold_grid(n, kind, -high, high)
    first, last = (0.5 / n, 1 - 0.5 / n) if kind == "quantile" else (grid[0], grid[-1])
    # Half of a tile lies beyond the centre of the last one.
    halves = [(last - first) / (n - 1) / 2 * side / (side + gap) for side in (w, h)]
    span = tuple(end for half in halves for end in (first - half, last + half))
    figure, axes = picture(sheet, 560, (100, 72, 14, 46), span)
    latent_axes(axes, kind, names, high)
    rule = f"Φ⁻¹((i + ½)/{n})" if kind == "quantile" else f"linspace(−{high:g}, {high:g}, {n})"
    axes.set_title(f"{note}{note and ' · '}grid {rule}", **TITLE)
    return figure


@own_style
def latents(
    means: Float[np.ndarray, "N latent_dim"],
    labels: Shaped[np.ndarray, "labels"],
    *,
    kind: Kind = "quantile",
    high: float = 3.0,
    names: tuple[str, ...] = NAMES,
) -> Figure:
    """Posterior means by label, beside their density, in the frame of the manifold.

    `means` is [N, 2], or [N, 1] for one latent; of a larger model the caller passes two columns and
    their names. `labels` is [N], or [0] where there are none. The density is over all N points, so
    it integrates to the share inside the frame; in a "quantile" frame it is the density of Φ(z),
    which is 1 everywhere when the means are distributed as the prior.
    """
    dim = means.shape[1]
    if dim not in (1, 2) or len(labels) not in (0, len(means)):
        raise ValueError(f"means [N, 1 or 2] and N or 0 labels; got {means.shape}, {labels.shape}")
    points = framed(means, kind)
    low, top = extent(kind, high)
    outside = np.sum(~np.all((points >= low) & (points <= top), axis=1))  # NaN is outside
    # Divisors of the panel's side; where there are enough, four points for each cell of a square.
    bins = next((b for b in (60, 45, 30, 20) if 4 * b * b <= len(points)), 12)
    width = PAGE if dim == 2 else RIGHT + PANEL + 20
    figure = Figure((width / DPI, (PANEL + 132) / DPI), DPI)
    left, right = (axes_at(figure, start, 76, PANEL, PANEL) for start in (LEFT, RIGHT))
    draw = _plane if dim == 2 else _line
    draw(left, right, points, labels, np.linspace(low, top, bins + 1))
    for axes in (left, right):
        axes.set_xlim(low, top)
        latent_axes(axes, kind, names[:dim], high)
    title = f"density of {'Φ(z)' if kind == 'quantile' else 'z'} · {len(points):,} points"
    title += f", {outside:,} outside" if outside else ""
    right.set_title(title, **TITLE)
    return figure


def _plane(left, right, points, labels, edges) -> None:
    """Two latents: dots coloured by label, and their histogram."""
    dots(left, points, labels)
    left.set_ylim(edges[0], edges[-1])
    counts = np.histogram2d(*points.T, bins=(edges, edges))[0].T
    density = counts / len(points) / (edges[1] - edges[0]) ** 2
    top = np.percentile(density, 99.5) or density.max() or 1  # one cell must not pale the others
    style = {"cmap": "Blues", "vmin": 0, "vmax": top, "interpolation": "none", "origin": "lower"}
    image = right.imshow(density, extent=2 * (edges[0], edges[-1]), **style)
    cut = "max" if density.max() > top else "neither"
    colour_bar(image, (RIGHT + PANEL + 14, 76, 14, PANEL), extend=cut)


def _line(left, right, points, labels, edges) -> None:
    """One latent: a histogram of each label, and that of all points over the prior."""
    z, classes = points[:, 0], np.unique(labels)
    if 0 < len(classes) <= len(PALETTE):
        for i, k in enumerate(classes):
            count = np.histogram(z[labels == k], edges)[0]
            height = 0.9 * count / max(count.max(), 1)
            left.stairs(i + height, edges, baseline=i, fill=True, color=PALETTE[i])
        left.set_yticks(range(len(classes)), [called(k) for k in classes])
        left.set_title("each label to its own height", **TITLE)
    else:
        height = labels if len(labels) else np.arange(len(z))
        dots(left, np.stack([z, height], axis=1), labels)
        left.tick_params(left=len(labels) > 0, labelleft=len(labels) > 0)
    left.set_ylabel("label" if len(labels) else "image, in order", fontsize=NORMAL, labelpad=2)
    density = np.histogram(z, edges)[0] / len(z) / np.diff(edges)
    right.stairs(density, edges, fill=True, color=TRAIN, alpha=0.5)
    at = np.linspace(edges[0], edges[-1], 201)
    prior = np.ones(201) if edges[0] == 0 else np.exp(-(at**2) / 2) / math.sqrt(math.tau)
    right.plot(at, prior, color="black", linewidth=1, linestyle="--", label="prior")
    right.set_ylim(0, 1.15 * max(density.max(), prior.max()))
    right.legend(**KEY)


def dots(axes, points, labels) -> None:
    """One dot for each point, coloured by its label, and the key to the colours above."""
    order = np.random.default_rng(0).permutation(len(points))  # no class lies on top
    labels = labels if len(labels) else np.zeros(len(points))
    classes, codes = np.unique(labels, return_inverse=True)
    size = np.clip(18_000 / len(points), 0.8, 8)
    if len(PALETTE) < len(classes) <= len(PALETTE) * len(MARKS):
        _marked(axes, points[order], classes, codes[order], 1.5 * size)
        return
    few, texts = len(classes) <= len(PALETTE), labels.dtype.kind == "U"
    values = (codes if few or texts else labels)[order]
    colours = {"cmap": ListedColormap(PALETTE[: len(classes)]) if few else "viridis", "alpha": 0.7}
    dots = axes.scatter(*points[order].T, s=size, c=values, **colours)
    dots.set(linewidths=0, rasterized=True)  # a PDF of so many vectors would be slow
    if not few:
        corners = axes.get_position().extents * np.tile(axes.figure.bbox.size, 2)
        left, _, right, top = map(round, corners)
        place = (left, top + 8, right - left, 10)
        colour_bar(dots, place, orientation="horizontal", ticklocation="top")
    elif len(classes) > 1:
        marks, _ = dots.legend_elements(num=None, size=4, markeredgewidth=0, alpha=1)
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.995), "ncols": len(classes)}
        tight = {"handletextpad": 0, "columnspacing": 0.6, "handlelength": 1.2, "borderpad": 0}
        axes.legend(marks, [called(k) for k in classes], **place, **tight, **KEY)


def called(label: Any) -> str:
    """A class by its name, or by its number."""
    return str(label) if isinstance(label, str) else f"{label:g}"


def _marked(axes, points, classes, codes, size) -> None:
    """Ten colours, and another mark for each further ten classes; the key beside the plane."""
    for k, name in enumerate(classes):
        style: dict[str, Any] = {"color": PALETTE[k % len(PALETTE)], "alpha": 0.7}
        mark = MARKS[k // len(PALETTE)]
        own = points[codes == k]
        axes.scatter(*own.T, s=size, marker=mark, linewidths=0, rasterized=True,
                     label=called(name), **style)  # fmt: skip
    across = math.ceil(len(classes) / 2)
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.995), "ncols": across}
    tight = {"handletextpad": 0, "columnspacing": 0.3, "handlelength": 0.9, "borderpad": 0}
    small = {**KEY, "fontsize": KEY["fontsize"] * min(1, 12 / across)}
    axes.legend(**place, **tight, **small, markerscale=2)


def extent(kind: Kind, high: float = 3.0) -> tuple[float, float]:
    """Of an axis, as it is drawn."""
    return (0.0, 1.0) if kind == "quantile" else (-high, high)


def framed(z: np.ndarray, kind: str) -> np.ndarray:
    return _PHI(z) if kind == "quantile" else z


def latent_axes(
    axes, kind: Kind, names: tuple[str, ...], high: float = 3.0, wide: bool = True
) -> None:
    """Ticks at round values of z, wherever the frame puts them, on one axis or both; in a panel
    that is not `wide`, three of them.
    """
    locator = MaxNLocator(**TICKING) if wide else MaxNLocator(2, steps=(1, 2, 5, 10))
    even = np.array(locator.tick_values(-high, high))
    quantiles = np.array(_QUANTILES if wide else (-1, 0, 1))
    ticks = quantiles if kind == "quantile" else even[np.abs(even) <= high]
    for axis, _ in zip((axes.xaxis, axes.yaxis), names, strict=False):
        axis.set_ticks(framed(ticks, kind), [f"{z:g}".replace("-", "−") for z in ticks])
    spaced = " (spaced by Φ, the prior's CDF)" if kind == "quantile" and wide else ""
    name_axes(axes, (names[0] + spaced, *names[1:]))
    # Beside the short tick 0 in the middle there is room for names such as z₁₉; beyond the longest
    # tick there is not.
    axes.yaxis.set_label_coords(-40 / axes.bbox.width, 0.5)


def name_axes(axes, names: tuple[str, ...]) -> None:
    for axis, name in zip((axes.xaxis, axes.yaxis), names, strict=False):
        axis.set_label_text(name, fontsize=NORMAL)
        axis.labelpad = 2
    if len(names) == 2:
        axes.yaxis.label.set(rotation=0, ha="right", va="center")


@own_style
def encodings(
    originals: Images,
    draws: Float[np.ndarray, "n draws 2"],
    reconstructions: Images,
    cloud: Float[np.ndarray, "N 2"],
    kind: Kind = "quantile",
    *,
    high: float = 3.0,
    names: tuple[str, ...] = NAMES,
) -> Figure:
    """What becomes of images [n, h, w, c], row by row: the image, where it goes in the plane of the
    latents, and what comes back. In the plane are draws from the image's posterior, over `cloud`,
    the posterior means of many.
    """
    (n, h, w, _), side, step = originals.shape, 196, 266
    wide = max(1, side // w) * w  # whole dots for each pixel
    tall = max(1, side // w) * h
    height = n * step + 50
    left, middle, right = 20, wide + 110, wide + side + 134
    figure = Figure(((right + wide + 20) / DPI, height / DPI), DPI)
    for i, (x, z, back) in enumerate(zip(originals, draws, reconstructions, strict=True)):
        bottom = height - 44 - side - i * step
        for start, image in ((left, x), (right, back)):
            axes = axes_at(figure, start, bottom + (side - tall) // 2, wide, tall)
            axes.imshow(np.broadcast_to(tile(image[None], 1, 1), (h, w, 3)), aspect="auto")
            axes.set(xticks=[], yticks=[])
        plane = axes_at(figure, middle, bottom, side, side)
        for points, size, colour in ((cloud, 1, "0.75"), (z, 3, VALID)):
            plane.scatter(
                *framed(points, kind).T, s=size, color=colour, linewidths=0, rasterized=True
            )
        plane.set(xlim=extent(kind, high), ylim=extent(kind, high))
        latent_axes(plane, kind, names, high, wide=False)
    titles = ("input", "reconstruction", "draws of q(z|x)")
    for axes, text in zip(figure.axes, titles, strict=False):
        axes.set_title(text, **TITLE)
    return figure


@own_style
def decoded(image: Float[np.ndarray, "h w c"], z: tuple[float, ...]) -> Figure:
    """What the decoder makes of one z, [h, w, c], and that z."""
    figure, axes = picture(tile(image[None], 1, 1), 320, (20, 20, 20, 52))
    numbers = ", ".join(f"{number:g}".replace("-", "−") for number in z)
    axes.set_title(f"E[x|z], z = ({numbers})", **TITLE)
    return figure
