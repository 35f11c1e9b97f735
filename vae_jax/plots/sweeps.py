"""Pictures of a sweep: its rows in, a matplotlib figure out.

Rows are as `seed_means` has them; what diverged is left out and mentioned. Points are means over
seeds, error bars their standard errors.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, NullLocator

from vae_jax.plots import page, rd_plane, seed_means
from vae_jax.plots.page import own_style
from vae_jax.plots.seed_means import Mean, Row, Setting

COLUMN, PAGE = 660, 1360  # widths of a paper's column and page, in dots
_SMALL, _NORMAL = 7, 8  # fonts, in points
_BLUE, _ORANGE = "#0072B2", "#D55E00"
_KEY: dict[str, Any] = {"fontsize": _SMALL, "frameon": False, "handlelength": 1.2}
_CHARACTER = 10.5  # dots of width, at the small size
_FAINT = 0.01  # nats: a unit of less is drawn as one of none
_CELL = 26  # dots of height
_LABEL, _SPACE, _HEIGHT = 36, 24, 1960  # of a page of tiles: over each, between them, in all
_QUANTITIES = {"elbo": "ELBO", "nll": "NLL", "active_units": "active units"}

Images = Num[np.ndarray, "n h w c"]


# The rate–distortion plane


@own_style
def rate_distortion(
    rows: Sequence[Row], entropy: float | None = None, width: int = COLUMN
) -> Figure:
    """Rate over distortion, in nats per image, between lines of constant ELBO.

    Small dots are members; discs are their means over seeds, each with the tangent of slope −1/β.
    The discs of one latent dimension are joined in the order of β, those of one β (dotted) in the
    order of the dimension. `entropy` is that of the data, in nats, where it is known: what lies
    below R = H − D is then shaded. `width` is in dots.
    """
    each = _plane_points(rows)
    varies = seed_means.varying(each)
    curves = seed_means.grouped(each, [name for name in varies if name != "beta"])
    keyed = len(curves) > 1 and "beta" in varies
    right = 80 + round(_CHARACTER * max(map(len, curves))) if keyed else 20
    side = width - 104 - right
    figure, axes = page.frame(side, round(min(0.8 * side, 640)), (104, 100, right, 46))
    axes.set_xlabel("distortion (nats per image)", fontsize=_NORMAL, labelpad=2)
    axes.set_ylabel("rate (nats per image)", fontsize=_NORMAL, labelpad=2)
    _note(figure, rows)
    if each:
        curves = curves if "beta" in varies else {"": [*each]}
        rd_plane.draw(axes, each, curves, _colours(len(curves)), entropy)
    if keyed:
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, **_KEY)
    return figure


def _plane_points(rows: Sequence[Row]) -> dict[Setting, np.ndarray]:
    """Distortion and rate, [members, 2], for each setting that has any."""
    points = {}
    for setting, members in seed_means.by_setting(rows).items():
        pairs = np.array([(row["distortion"], row["rate"]) for row in members], float)
        points[setting] = pairs[np.isfinite(pairs).all(axis=1)]
    return {setting: pairs for setting, pairs in points.items() if len(pairs)}


# Against one setting


@own_style
def against(rows: Sequence[Row], name: Literal["latent_dim", "beta"]) -> Figure:
    """ELBO, NLL and active units over the latent dimension or over β.

    One line for each value of what else varies. β has a logarithmic axis, and so has a latent
    dimension of more than a decade; the ticks are the very values.
    """
    settings = seed_means.by_setting(rows)
    others = [other for other in seed_means.varying(settings) if other != name]
    lines = seed_means.grouped(settings, others)
    across = max(1, PAGE // (80 + round(_CHARACTER * max(map(len, lines), default=1))))
    keyed = len(lines) > 1
    figure, row = page.panels(3, 0.85, above=32 * math.ceil(len(lines) / across) * keyed)
    values = sorted({getattr(setting, name) for setting in settings})
    for axes, (quantity, title) in zip(row, _QUANTITIES.items(), strict=True):
        _errors(axes, seed_means.over_seeds(rows, quantity), lines, name)
        _value_axis(axes, values, name)
        title += _samples(rows) if quantity == "nll" else ""
        axes.set_title(title, fontsize=_NORMAL, pad=4)
    row[0].set_ylabel("nats per image", fontsize=_NORMAL, labelpad=2)
    row[-1].yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=(1, 2, 5, 10)))
    row[-1].set_ylim(bottom=0)
    if name == "latent_dim":
        _all_units(row[-1], values)
    _note(figure, rows, "bottom")
    if keyed:
        handles: Any = row[0].containers
        figure.legend(handles, [*lines], loc="upper center", ncols=across, **_KEY)
    return figure


def _errors(
    axes: Axes, means: Mapping[Setting, Mean], lines: Mapping[str, list[Setting]], name: str
) -> None:
    """Means joined in order, with error bars where there is more than one seed."""
    style: dict[str, Any] = {"linewidth": 1, "marker": "o", "markersize": 3, "markeredgewidth": 0}
    caps: dict[str, Any] = {"elinewidth": 0.8, "capsize": 2, "capthick": 0.8}
    for settings, colour in zip(lines.values(), _colours(len(lines)), strict=True):
        line = {getattr(s, name): means[s] for s in settings if s in means}
        error = np.nan_to_num([mean.error for mean in line.values()])  # one seed has none
        bars = {"yerr": error, **caps} if error.any() else {}
        y = [mean.value for mean in line.values()]
        axes.errorbar([*line], y, color=colour, **style, **bars)


def _all_units(axes: Axes, values: list[float]) -> None:
    """As many active units as there are, as far as the others leave room for that."""
    dashed: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": "--", "zorder": 3}
    axes.plot(values, values, scaley=False, gid="all units", **dashed)
    axes.set_title("active units (dashed: all)", fontsize=_NORMAL, pad=4)


def _value_axis(axes: Axes, values: list[float], name: str) -> None:
    """Ticks at the values, each labelled as far as there is room."""
    positive = [v for v in values if v > 0]
    if positive and (name == "beta" or positive[-1] > 10 * positive[0]):
        # Nought has a place too, one decade below the least of the others.
        scale = {"value": "log"} if values[0] > 0 else {"value": "symlog", "linthresh": positive[0]}
        axes.set_xscale(**scale)
    axes.get_xlim()  # which settles where the values are
    texts, last = [], -math.inf
    for value in values:
        half = (len(f"{value:g}") + 0.5) * _CHARACTER / 2
        at = axes.transData.transform((value, 0))[0]
        texts.append(f"{value:g}" if at - half >= last else "")
        last = at + half if texts[-1] else last
    axes.set_xticks(values, texts)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("β" if name == "beta" else "latent dimension", fontsize=_NORMAL, labelpad=2)


# Units


@own_style
def kl_heat_map(rows: Sequence[Row], each: bool = False) -> Figure:
    """KL of each unit in nats, a row for each setting, or else for each member.

    The units of a member are sorted, the largest first, before the mean over seeds. A model has no
    unit where the map is blank; the line is the number of its active units.
    """
    lines = _unit_lines(rows, each)
    shape = max(len(lines), 1), max((len(kl) for kl, _ in lines.values()), default=1)
    table = np.full(shape, np.nan)
    for row, (kl, _) in zip(table, lines.values(), strict=False):
        row[: len(kl)] = np.maximum(kl, _FAINT)
    left = 40 + round(_CHARACTER * max(map(len, lines), default=0))
    width = max(min(PAGE - left - 130, 40 * shape[1]), 400)
    figure, axes = page.frame(width, max(_CELL * shape[0], 150), (left, 76, 130, 46))
    image = _cells(axes, table)
    _active_line(axes, [active for _, active in lines.values()])
    axes.set_yticks(range(len(lines)), [*lines])
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=(1, 2, 5, 10), min_n_ticks=1))
    axes.set_xlabel("unit, by its KL", fontsize=_NORMAL, labelpad=2)
    _colour_bar(figure, image, axes.inset_axes((1 + 20 / width, 0, 20 / width, 1)))
    _note(figure, rows)
    return figure


def _cells(axes: Axes, table: Float[np.ndarray, "rows units"]) -> AxesImage:
    # From pale blue, for white is no unit.
    colours = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.1, 1, 256)))
    scale = LogNorm(_FAINT, max(1.0, np.nanmax(table, initial=1)))
    extent = (0.5, table.shape[1] + 0.5, table.shape[0] - 0.5, -0.5)
    style: dict[str, Any] = {"aspect": "auto", "interpolation": "none", "extent": extent}
    axes.spines[:].set_visible(False)
    return axes.imshow(table, cmap=colours, norm=scale, **style)


def _colour_bar(figure: Figure, image: AxesImage, place: Axes) -> None:
    bar = figure.colorbar(image, cax=place, extend="min")  # its lowest colour is of all below
    place.tick_params(labelsize=_SMALL, width=0.5, length=2, pad=2)
    place.yaxis.set_major_formatter("{x:g}")
    place.yaxis.set_minor_locator(NullLocator())
    bar.outline.set_linewidth(0.5)
    bar.set_label("KL (nats)", fontsize=_NORMAL)


def _unit_lines(rows: Sequence[Row], each: bool) -> dict[str, tuple[np.ndarray, float]]:
    """For each row of the map, under its label: the sorted KL of its units, and how many act."""
    groups, lines = seed_means.by_setting(rows), {}
    varies = seed_means.varying(groups)
    for setting, members in groups.items():
        known = [row for row in members if row["kl_per_unit"]]
        names = [seed_means.label(setting, varies)] * len(known)
        if each:
            names = [f"{name}, seed {row['seed']}" for name, row in zip(names, known, strict=True)]
        for name in dict.fromkeys(names):
            part = [row for row, own in zip(known, names, strict=True) if own == name]
            kl = np.mean([sorted(row["kl_per_unit"], reverse=True) for row in part], axis=0)
            lines[name.removeprefix(", ")] = kl, float(np.mean([r["active_units"] for r in part]))
    return lines


def _active_line(axes: Axes, numbers: list[float]) -> None:
    if numbers:
        right, edges = 0.5 + np.array(numbers), np.arange(len(numbers) + 1) - 0.5
        step: dict[str, Any] = {"orientation": "horizontal", "baseline": None, "linewidth": 1.2}
        axes.stairs(right, edges, color=_ORANGE, label="active units", clip_on=False, **step)
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
        axes.legend(**place, **_KEY)


# Images


@own_style
def sheet_of(tiles: Mapping[str, Images], gap: int = 1, cols: int | None = None) -> Figure:
    """A page of square sheets of images [n·n, h, w, c], one for each member, under its label.

    `gap` is in image pixels, 0 for manifolds. Without `cols` there are as few in a row as fit on a
    page, three at least.
    """
    sides = [math.ceil(math.sqrt(len(x))) for x in tiles.values()]
    sheets = [page.tile(x, n, n, gap) for x, n in zip(tiles.values(), sides, strict=True)]
    h, w = (max(sheet.shape[axis] for sheet in sheets) for axis in (0, 1))
    cols, scale = _fitted(len(sheets), h, w, cols)
    rows, cols = math.ceil(len(sheets) / cols), min(cols, len(sheets))
    label, space = math.ceil(_LABEL / scale), math.ceil(_SPACE / scale)
    whole = np.ones((rows * (label + h) - label, cols * (w + space) - space, 3), np.float32)
    corners = [((i // cols) * (label + h), (i % cols) * (w + space)) for i in range(len(sheets))]
    for sheet, (top, left) in zip(sheets, corners, strict=True):
        whole[top : top + sheet.shape[0], left : left + sheet.shape[1]] = sheet
    size = round(scale * whole.shape[1]), round(scale * whole.shape[0])
    figure, axes = page.frame(*size, (10, 10, 10, 10 + _LABEL))
    extent = (0, whole.shape[1], whole.shape[0], 0)
    smooth = "none" if scale >= 1 else "antialiased"
    axes.imshow(whole, aspect="auto", extent=extent, interpolation=smooth)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    font = min(_SMALL, _SMALL * (scale * w + _SPACE) / _CHARACTER / (1 + max(map(len, tiles))))
    for name, sheet, (top, left) in zip(tiles, sheets, corners, strict=True):
        place: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": font}
        axes.text(left + sheet.shape[1] / 2, top - 6 / scale, name, **place)
    return figure


def _fitted(count: int, h: int, w: int, cols: int | None) -> tuple[int, float]:
    """How many in a row, and dots for each pixel, so that all fit on a page."""
    for across in [cols] if cols else range(3, max(count, 3) + 1):
        scale = (PAGE - 20 - (across - 1) * _SPACE) / across / w
        scale = math.floor(scale) if scale >= 1 else scale
        if math.ceil(count / across) * (scale * h + _LABEL) <= _HEIGHT:
            break
    return across, scale


# What they share


def _colours(count: int) -> list:
    """Blue for one; for more, a scale from dark to light."""
    scale = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, count))
    return [_BLUE] if count == 1 else [*scale]


def _note(figure: Figure, rows: Sequence[Row], corner: Literal["top", "bottom"] = "top") -> None:
    """What was left out, in a corner on the left."""
    across, up = 8 / (figure.get_size_inches() * page.DPI)
    place: dict[str, Any] = {"ha": "left", "va": corner, "fontsize": _SMALL, "gid": "note"}
    if remark := seed_means.remark(rows):
        figure.text(across, up if corner == "bottom" else 1 - up, remark, **place)


def _samples(rows: Sequence[Row]) -> str:
    """How many samples the NLL takes, where all took as many."""
    counts = {row["nll_samples"] for row in rows if row["status"] == "finished"}
    return f" ({counts.pop():,} samples)" if len(counts) == 1 and None not in counts else ""
