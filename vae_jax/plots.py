"""Pictures for a paper: arrays in, a matplotlib figure out.

Images are [n, h, w, c], values in [0, 1] or uint8 in 0..255, with c = 1 or 3. A grey value of 1 is
white and 0 is black whatever the data set: every image is shown as it is stored.

Latents are drawn in one of two frames, and every picture says which. "quantile" spaces an axis by
the Gaussian CDF Φ: the prior N(0, I) is uniform on the unit square, and the manifold is decoded at
Φ⁻¹((i + ½)/n) (Kingma and Welling, "Auto-encoding variational Bayes", 2014, figure 4). "linspace"
spaces it evenly in z, from −3 to 3.
"""

import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, Num
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae_jax.files import replacing

Kind = Literal["quantile", "linspace"]
Images = Num[np.ndarray, "n h w c"]

# Sizes are in dots of 1/200 inch: an image pixel covers whole dots, so that a PNG shows it exactly.
DPI = 200
_PAGE = 1360  # both columns of a paper; one has about 660
_LEFT, _RIGHT, _PANEL = 90, 724, 540  # the two latent panels
_SMALL, _NORMAL, _LINE = 7, 8, 0.5  # fonts and frames, in points
_TITLE: dict[str, Any] = {"fontsize": _SMALL, "pad": 4}
_KEY: dict[str, Any] = {"fontsize": _SMALL, "frameon": False}
_TICKING = {"nbins": 6, "steps": (1, 2, 5, 10)}
_TRAIN, _VALID = "#0072B2", "#D55E00"
# Any two are CIELAB ΔE ≥ 30 apart, to protanopes and deuteranopes too (Machado et al., 2009).
_PALETTE = [f"#{rgb:06x}" for rgb in (0x0762CE, 0xFABC0A, 0x000000, 0x31D0FF, 0x540566)]
_PALETTE += [f"#{rgb:06x}" for rgb in (0x32845F, 0x727197, 0x9D2701, 0xEFB9BD, 0xB2B15C)]
_SPAN = {"quantile": (0.0, 1.0), "linspace": (-3.0, 3.0)}  # of an axis, as it is drawn
_TICKS = {"quantile": (-2, -1, -0.5, 0, 0.5, 1, 2), "linspace": (-3, -2, -1, 0, 1, 2, 3)}
_PHI = np.vectorize(NormalDist().cdf, otypes=[float])
_SAVING = threading.Lock()


def tile(images: Images, rows: int, cols: int, gap: int = 0, blank: float = 1.0) -> np.ndarray:
    """One picture [rows·h + (rows−1)·gap, cols·w + (cols−1)·gap, c] in [0, 1], filled row by row.

    `gap` is in image pixels; gaps and places without an image have the value `blank`.
    """
    n, h, w, c = images.shape
    if n > rows * cols or c not in (1, 3):
        raise ValueError(f"{rows}·{cols} images of 1 or 3 channels at most; got {images.shape}")
    values = images / (255 if images.dtype == np.uint8 else 1)
    cells = np.full((rows * cols, h + gap, w + gap, c), blank, np.float32)
    cells[:n, :h, :w] = np.clip(np.nan_to_num(values, nan=0.5), 0, 1)  # NaN is mid-grey
    cells = cells.reshape(rows, cols, h + gap, w + gap, c).swapaxes(1, 2)
    sheet = cells.reshape(rows * (h + gap), cols * (w + gap), c)
    return sheet[: rows * (h + gap) - gap, : cols * (w + gap) - gap]


_GIVEN = np.array([[0.10, 0.20, 0.45], [1.0, 0.60, 0.10]])  # colours of 0 and 1


def coloured(images: Images, given: Bool[np.ndarray, "n h w"]) -> np.ndarray:
    """Images [n, h, w, 3] with the given pixels from blue (0) to orange (1) instead of grey."""
    values = np.clip(images / (255 if images.dtype == np.uint8 else 1), 0, 1)
    grey = np.broadcast_to(values, (*values.shape[:3], 3))
    level = values.mean(axis=-1, keepdims=True)
    return np.where(given[..., None], _GIVEN[0] + level * (_GIVEN[1] - _GIVEN[0]), grey)


def samples(images: Images) -> Figure:
    """The images [n, h, w, c] on one roughly square sheet, row by row."""
    n, h, w, _ = images.shape
    cols = min(n, math.ceil(math.sqrt(n * h / w)))
    sheet = tile(images, math.ceil(n / cols), cols, gap=math.ceil(h / 16))
    return _picture(sheet, min(640, 100 * cols), (10, 10, 10, 10))[0]


def sheets(groups: Mapping[str, Images], cols: int) -> Figure:
    """Sheets of `cols` images across, side by side, each under its name."""
    sheets = [tile(x, math.ceil(len(x) / cols), cols, gap=1) for x in groups.values()]
    return _side_by_side(sheets, [*groups], next(iter(groups.values())).shape[2])


def columns(groups: Mapping[str, Images], rows: int) -> Figure:
    """Columns of `rows` images: group by group, row by row, each group under its name."""
    sheets = [tile(x, rows, len(x) // rows, gap=1) for x in groups.values()]
    return _side_by_side(sheets, [*groups], next(iter(groups.values())).shape[2])


def _side_by_side(sheets: list[np.ndarray], names: list[str], space: int) -> Figure:
    """Sheets of one height, half an image apart, as one picture with names above."""
    space //= 2
    height, depth = max(len(s) for s in sheets), max(s.shape[2] for s in sheets)
    parts, centres, at = [], [], 0
    for sheet in sheets:
        full = np.ones((height, sheet.shape[1], depth), np.float32)
        full[: len(sheet)] = sheet
        parts += [full, np.ones((height, space, depth), np.float32)]
        centres.append(at + sheet.shape[1] / 2)
        at += sheet.shape[1] + space
    whole = np.concatenate(parts[:-1], axis=1)
    figure, axes = _picture(whole, _PAGE - 20, (10, 10, 10, 44))
    axes.xaxis.tick_top()
    axes.set_xticks(centres, names, fontsize=_NORMAL)
    axes.tick_params(top=False)
    return figure


def reconstructions(originals: Images, reconstructions: Images, *, cols: int = 16) -> Figure:
    """Originals [n, h, w, c] over their reconstructions [n, h, w, c], `cols` pairs side by side."""
    n, h, w, c = originals.shape
    cols, gap, space = min(n, cols), math.ceil(h / 16), math.ceil(h / 2)
    above, below = (tile(x, n, 1).reshape(x.shape) for x in (originals, reconstructions))
    white = np.ones((n, space, w, c), np.float32)
    pairs = np.concatenate([above, white[:, :gap], below, white], axis=1)
    sheet = tile(pairs, math.ceil(n / cols), cols, gap)[:-space]
    figure, axes = _picture(sheet, min(_PAGE - 110, 110 * cols), (90, 10, 10, 10))
    tops = np.arange(0, len(sheet), 2 * h + 2 * gap + space)
    centres = np.stack([tops, tops + h + gap], axis=1).ravel() + h / 2
    axes.set_yticks(len(sheet) - centres, ["data", "recon."] * len(tops))
    axes.tick_params(left=False)
    return figure


def manifold_grid(n: int, kind: Kind, low: float = -3.0, high: float = 3.0) -> np.ndarray:
    """The n ≥ 2 values [n] of one latent axis, rising.

    "quantile" is Φ⁻¹((i + ½)/n), i = 0..n−1; "linspace" is n even steps from `low` to `high`.
    """
    if n < 2 or kind not in _SPAN:
        raise ValueError(f"a grid is {' or '.join(_SPAN)}, with n ≥ 2; got {kind!r}, {n}")
    if kind == "linspace":
        return np.linspace(low, high, n)
    return np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)])


def manifold_latents(n: int, kind: Kind = "quantile") -> Float[np.ndarray, "tiles 2"]:
    """The latents (z₁, z₂), [n·n, 2], to decode, in the order of the picture's tiles.

    Rows run from the top, where z₂ is largest, to the bottom; within a row z₁ rises.
    """
    grid = manifold_grid(n, kind)
    return np.stack([np.tile(grid, n), np.repeat(grid[::-1], n)], axis=1)


def manifold(images: Images, kind: Kind = "quantile") -> Figure:
    """The images [n·n, h, w, c] decoded at `manifold_latents(n, kind)`, without gaps.

    The ticks give z: the centre of a tile lies at the latent that it was decoded from.
    """
    n = math.isqrt(len(images))
    sheet, grid = tile(images, n, n), manifold_grid(n, kind)
    half = (grid[1] - grid[0]) / 2  # an end tile goes on for as much beyond its centre
    span = _SPAN[kind] if kind == "quantile" else (grid[0] - half, grid[-1] + half)
    figure, axes = _picture(sheet, 560, (100, 72, 14, 46), span)
    _latent_axes(axes, kind, ("z₁", "z₂"))
    rule = f"Φ⁻¹((i + ½)/{n})" if kind == "quantile" else f"linspace(−3, 3, {n})"
    axes.set_title(f"grid {rule}", **_TITLE)
    return figure


def latents(
    means: Float[np.ndarray, "N latent_dim"],
    labels: Num[np.ndarray, "labels"],
    *,
    kind: Kind = "quantile",
    names: tuple[str, ...] = ("z₁", "z₂"),
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
    points = _PHI(means) if kind == "quantile" else means
    low, high = _SPAN[kind]
    outside = np.sum(~np.all((points >= low) & (points <= high), axis=1))  # NaN is outside
    # Divisors of the panel's side; where there are enough, four points for each cell of a square.
    bins = next((b for b in (60, 45, 30, 20) if 4 * b * b <= len(points)), 12)
    width = _PAGE if dim == 2 else _RIGHT + _PANEL + 20
    figure = Figure((width / DPI, (_PANEL + 132) / DPI), DPI)
    left, right = (_axes(figure, start, 76, _PANEL, _PANEL) for start in (_LEFT, _RIGHT))
    draw = _plane if dim == 2 else _line
    draw(left, right, points, labels, np.linspace(low, high, bins + 1))
    for axes in (left, right):
        axes.set_xlim(low, high)
        _latent_axes(axes, kind, names[:dim])
    title = f"density of {'Φ(z)' if kind == 'quantile' else 'z'} · {len(points):,} points"
    title += f", {outside:,} outside" if outside else ""
    right.set_title(title, **_TITLE)
    return figure


def _plane(left, right, points, labels, edges) -> None:
    """Two latents: dots coloured by label, and their histogram."""
    _dots(left, points, labels)
    left.set_ylim(edges[0], edges[-1])
    counts = np.histogram2d(*points.T, bins=(edges, edges))[0].T
    density = counts / len(points) / (edges[1] - edges[0]) ** 2
    top = np.percentile(density, 99.5) or density.max() or 1  # one cell must not pale the others
    style = {"cmap": "Blues", "vmin": 0, "vmax": top, "interpolation": "none", "origin": "lower"}
    image = right.imshow(density, extent=2 * (edges[0], edges[-1]), **style)
    cut = "max" if density.max() > top else "neither"
    _colour_bar(image, (_RIGHT + _PANEL + 14, 76, 14, _PANEL), extend=cut)


def _line(left, right, points, labels, edges) -> None:
    """One latent: a histogram of each label, and that of all points over the prior."""
    z, classes = points[:, 0], np.unique(labels)
    if 0 < len(classes) <= len(_PALETTE):
        for i, k in enumerate(classes):
            count = np.histogram(z[labels == k], edges)[0]
            height = 0.9 * count / max(count.max(), 1)
            left.stairs(i + height, edges, baseline=i, fill=True, color=_PALETTE[i])
        left.set_yticks(range(len(classes)), [f"{k:g}" for k in classes])
        left.set_title("each label to its own height", **_TITLE)
    else:
        height = labels if len(labels) else np.arange(len(z))
        _dots(left, np.stack([z, height], axis=1), labels)
    left.set_ylabel("label" if len(labels) else "index", fontsize=_NORMAL, labelpad=2)
    density = np.histogram(z, edges)[0] / len(z) / np.diff(edges)
    right.stairs(density, edges, fill=True, color=_TRAIN, alpha=0.5)
    at = np.linspace(edges[0], edges[-1], 201)
    prior = np.ones(201) if edges[0] == 0 else np.exp(-(at**2) / 2) / math.sqrt(math.tau)
    right.plot(at, prior, color="black", linewidth=1, linestyle="--", label="prior")
    right.set_ylim(0, 1.15 * max(density.max(), prior.max()))
    right.legend(**_KEY)


def _dots(axes, points, labels) -> None:
    """One dot for each point, coloured by its label, and the key to the colours above."""
    order = np.random.default_rng(0).permutation(len(points))  # no class lies on top
    labels = labels if len(labels) else np.zeros(len(points))
    classes, codes = np.unique(labels, return_inverse=True)
    few = len(classes) <= len(_PALETTE)
    colours = {"cmap": ListedColormap(_PALETTE[: len(classes)]) if few else "viridis", "alpha": 0.7}
    size = np.clip(18_000 / len(points), 0.8, 8)
    dots = axes.scatter(*points[order].T, s=size, c=(codes if few else labels)[order], **colours)
    dots.set(linewidths=0, rasterized=True)  # a PDF of so many vectors would be slow
    if not few:
        place = (_LEFT, 84 + _PANEL, _PANEL, 10)
        _colour_bar(dots, place, orientation="horizontal", ticklocation="top")
    elif len(classes) > 1:
        marks, _ = dots.legend_elements(num=None, size=4, markeredgewidth=0, alpha=1)
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.995), "ncols": len(classes)}
        tight = {"handletextpad": 0, "columnspacing": 0.6, "handlelength": 1.2, "borderpad": 0}
        axes.legend(marks, [f"{k:g}" for k in classes], **place, **tight, **_KEY)


def _colour_bar(mappable, box: tuple, **options) -> None:
    bar = mappable.figure.colorbar(mappable, cax=_axes(mappable.figure, *box), **options)
    bar.locator = MaxNLocator(**_TICKING)
    bar.solids.set_alpha(1)
    bar.outline.set_linewidth(_LINE)


def _latent_axes(axes, kind: Kind, names: tuple[str, ...]) -> None:
    """Ticks at round values of z, wherever the frame puts them, on one axis or both."""
    places = _PHI(_TICKS[kind]) if kind == "quantile" else _TICKS[kind]
    for axis, name in zip((axes.xaxis, axes.yaxis), names, strict=False):
        axis.set_ticks(places, [f"{z:g}".replace("-", "−") for z in _TICKS[kind]])
        axis.set_label_text(name, fontsize=_NORMAL)
        axis.labelpad = 2
    if len(names) == 2:
        axes.yaxis.label.set(rotation=0, ha="right", va="center")


def curves(history: Mapping[str, np.ndarray]) -> Figure:
    """ELBO, rate and distortion over the epochs, in nats per image.

    `history` has "epoch", "train_elbo", "train_rate", "train_distortion" and perhaps the same with
    "valid_", all [epochs]. What is not finite is left out: a validation every fifth epoch is NaN in
    between. A transient at the start that would flatten all that follows leaves the panel.
    """
    figure = Figure((_PAGE / DPI, 400 / DPI), DPI)
    epoch, shown = np.asarray(history["epoch"], float), {}
    margin = 0.03 * np.ptp(epoch) or 0.5
    for i, title in enumerate(["ELBO", "rate", "distortion"]):
        axes = _axes(figure, 124 + i * 446, 76, 330, 270)
        for part, colour in (("train", _TRAIN), ("valid", _VALID)):
            y = np.asarray(history.get(f"{part}_{title.lower()}", np.nan * epoch), float)
            finite = np.isfinite(y)
            style: dict[str, Any] = {"color": colour, "linewidth": 1, "markersize": 4}
            if finite.any():
                shape = ".-" if finite.sum() <= 20 else "-"
                (shown[part],) = axes.plot(epoch[finite], y[finite], shape, **style)
        axes.set_xlim(epoch.min() - margin, epoch.max() + margin)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(**_TICKING))
        axes.set_ylim(*_limits([np.asarray(line.get_ydata()) for line in axes.lines]))
        axes.tick_params(left=bool(axes.lines), labelleft=bool(axes.lines))
        axes.set_title(title, fontsize=_NORMAL, pad=4)
        axes.set_xlabel("epoch", fontsize=_NORMAL)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("nats per image", fontsize=_NORMAL)
    figure.axes[0].legend([*shown.values()], [*shown], loc="lower right", **_KEY)
    return figure


def _limits(lines: list[np.ndarray]) -> tuple[float, float]:
    """Room for all but the start of each line, and for the start too where that costs little."""
    every = np.concatenate(lines) if lines else np.zeros(1)
    settled = np.concatenate([y[(len(y) + 3) // 5 :] for y in lines]) if lines else every
    low, high = np.min(settled), np.max(settled)
    # The fewer the points, the more each is worth seeing.
    room = max(3 * (high - low), (abs(low) + abs(high)) / len(settled))
    low, high = max(np.min(every), low - room), min(np.max(every), high + room)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return float(low - margin), float(high + margin)


def panels(
    count: int, aspect: float = 0.8, right: int = 20, above: int = 0
) -> tuple[Figure, list[Axes]]:
    """A row of `count` empty panels across the page, to draw in.

    Each is `aspect` times as high as wide, with `right` dots of room beside it; `above` is what the
    figure has over the titles.
    """
    each = _PAGE // count
    width = each - 104 - right  # room for tick labels and the axis's name
    height = round(aspect * width)
    figure = Figure((_PAGE / DPI, (height + 122 + above) / DPI), DPI)
    row = [_axes(figure, 104 + i * each, 76, width, height) for i in range(count)]
    for axes in row:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, row


def frame(width: int, height: int, margins: tuple[int, ...]) -> tuple[Figure, Axes]:
    """One empty panel of so many dots; margins left, bottom, right, top."""
    left, bottom, right, top = margins
    figure = Figure(((left + width + right) / DPI, (bottom + height + top) / DPI), DPI)
    return figure, _axes(figure, left, bottom, width, height)


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes the figure at 200 dpi; the suffix (.png, .pdf, .svg) names the format.

    The same figure gives the same bytes, and a reader never meets half a file.
    """
    path = Path(path)
    metadata = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    if path.suffix not in metadata:
        raise ValueError(f"a figure is saved as .png, .pdf or .svg; got {path.name!r}")
    # Text stays text in a PDF, and the salt fixes an SVG's names. Only globals set these: the lock.
    settings: Any = {"pdf.fonttype": 42, "svg.hashsalt": "vae_jax"}
    with _SAVING, matplotlib.rc_context(settings), replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=DPI, metadata=metadata[path.suffix])


def _picture(sheet: np.ndarray, target: int, margins: tuple, span=None) -> tuple[Figure, Axes]:
    """A figure around one picture, about `target` dots wide; margins left, bottom, right, top."""
    (h, w, _), room = sheet.shape, _PAGE - margins[0] - margins[2]
    # Whole dots for each pixel as long as the page is wide enough, if need be beyond the target.
    scale = max(1, target // w) if w <= room else room / w
    figure, axes = frame(round(scale * w), round(scale * h), margins)
    colours = np.broadcast_to(sheet, (h, w, 3))  # through a colour map a byte might change by one
    smooth = "none" if scale >= 1 else "antialiased"
    extent = (*span, *span) if span else (0, w, 0, h)
    axes.imshow(colours, aspect="auto", extent=extent, interpolation=smooth)
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    return figure, axes


def _axes(figure: Figure, left: int, bottom: int, width: int, height: int) -> Axes:
    """Axes at a place given in dots from the lower left corner of the figure."""
    across, up = figure.get_size_inches() * DPI
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    axes.tick_params(labelsize=_SMALL, width=_LINE, length=2, pad=2)
    axes.spines[:].set_linewidth(_LINE)
    return axes
