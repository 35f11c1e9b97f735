"""Sheets of images, and the curves of a training."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae_jax.plots.page import (
    DPI,
    KEY,
    NORMAL,
    PAGE,
    PALETTE,
    SMALL,
    TICKING,
    TRAIN,
    VALID,
    Images,
    axes_at,
    own_style,
    picture,
    tile,
)


@own_style
def samples(images: Images) -> Figure:
    """The images [n, h, w, c] on one roughly square sheet, row by row."""
    n, h, w, _ = images.shape
    cols = min(n, math.ceil(math.sqrt(n * h / w)))
    sheet = tile(images, math.ceil(n / cols), cols, gap=math.ceil(h / 16))
    return picture(sheet, min(640, 100 * cols), (10, 10, 10, 10))[0]


@own_style
def sheets(groups: Mapping[str, Images], cols: int) -> Figure:
    """Sheets of `cols` images across, side by side, each under its name."""
    sheets = [tile(x, math.ceil(len(x) / cols), cols, gap=1) for x in groups.values()]
    return _side_by_side(sheets, [*groups], next(iter(groups.values())).shape[2])


@own_style
def columns(groups: Mapping[str, Images], rows: int) -> Figure:
    """Columns of `rows` images: group by group, row by row, each group under its name."""
    sheets = [tile(x, rows, len(x) // rows, gap=1) for x in groups.values()]
    return _side_by_side(sheets, [*groups], next(iter(groups.values())).shape[2])


@own_style
def rows(groups: Mapping[str, Images], ticks: Sequence[str] = (), axis: str = "") -> Figure:
    """Rows of as many images each, a name before each row; `ticks` under the columns, and `axis`,
    what they are.
    """
    images = np.concatenate([*groups.values()])
    cols, (h, w) = len(images) // len(groups), images.shape[1:3]
    sheet = tile(images, len(groups), cols, gap=1)
    left, bottom = 24 + 11 * max(map(len, groups)), 10 + 30 * bool(ticks) + 24 * bool(axis)
    target = min(PAGE - left - 10, 100 * cols)
    figure, axes = picture(sheet, target, (left, bottom, 10, 10))
    axes.set_yticks(len(sheet) - h / 2 - (h + 1) * np.arange(len(groups)), [*groups])
    if ticks:
        axes.set_xticks(w / 2 + (w + 1) * np.arange(cols), [*ticks])
    axes.set_xlabel(axis, fontsize=SMALL, labelpad=2)
    axes.tick_params(left=False, bottom=False)
    return figure


@own_style
def group_rates(rates: Sequence[float], shapes: Sequence[Sequence[int]]) -> Figure:
    """The rate of each group of a hierarchy, the top one first; a colour for each resolution, with
    its sum. rates: nats; shapes: of each group's z.
    """
    figure = Figure((PAGE / DPI, 300 / DPI), DPI)
    axes = axes_at(figure, 110, 90, PAGE - 130, 190)
    kinds = list(dict.fromkeys("×".join(map(str, shape)) for shape in shapes))
    for kind, colour in zip(kinds, itertools.cycle(PALETTE), strict=False):
        at = [i for i, shape in enumerate(shapes) if "×".join(map(str, shape)) == kind]
        total = sum(rates[i] for i in at)
        label = f"{kind}: {total:.2f} nats"
        axes.bar([i + 1 for i in at], [rates[i] for i in at], color=colour, label=label)
    axes.set_xlim(0.4, len(rates) + 0.6)
    axes.set_xlabel("group, from the top", fontsize=SMALL)
    axes.set_ylabel("rate, nats", fontsize=SMALL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(fontsize=SMALL, frameon=False)
    return figure


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
    figure, axes = picture(whole, PAGE - 20, (10, 10, 10, 44))
    axes.xaxis.tick_top()
    axes.set_xticks(centres, names, fontsize=NORMAL)
    axes.tick_params(top=False)
    return figure


@own_style
def reconstructions(originals: Images, reconstructions: Images, *, cols: int = 16) -> Figure:
    """Originals [n, h, w, c] over their reconstructions [n, h, w, c], `cols` pairs side by side."""
    n, h, w, _ = originals.shape
    cols, gap, space = min(n, cols), math.ceil(h / 16), math.ceil(h / 2)
    above, below = (tile(x, n, 1).reshape(*x.shape[:3], -1) for x in (originals, reconstructions))
    white = np.ones((n, space, w, above.shape[-1]), np.float32)
    pairs = np.concatenate([above, white[:, :gap], below, white], axis=1)
    sheet = tile(pairs, math.ceil(n / cols), cols, gap)[:-space]
    figure, axes = picture(sheet, min(PAGE - 110, 110 * cols), (90, 10, 10, 10))
    tops = np.arange(0, len(sheet), 2 * h + 2 * gap + space)
    centres = np.stack([tops, tops + h + gap], axis=1).ravel() + h / 2
    axes.set_yticks(len(sheet) - centres, ["data", "recon."] * len(tops))
    axes.tick_params(left=False)
    return figure


@own_style
def curves(history: Mapping[str, np.ndarray], example: str = "image") -> Figure:
    """ELBO, rate and distortion over the epochs, in nats per image, or whatever an example is.

    `history` has "epoch", "train_elbo", "train_rate", "train_distortion" and perhaps the same with
    "valid_", all [epochs]. What is not finite is left out: a validation every fifth epoch is NaN in
    between. A transient at the start that would flatten all that follows leaves the panel.
    """
    figure = Figure((PAGE / DPI, 400 / DPI), DPI)
    epoch, shown = np.asarray(history["epoch"], float), {}
    margin = 0.03 * np.ptp(epoch) or 0.5
    for i, title in enumerate(["ELBO", "rate", "distortion"]):
        axes = axes_at(figure, 124 + i * 446, 76, 330, 270)
        for part, colour in (("train", TRAIN), ("valid", VALID)):
            y = np.asarray(history.get(f"{part}_{title.lower()}", np.nan * epoch), float)
            finite = np.isfinite(y)
            style: dict[str, Any] = {"color": colour, "linewidth": 1, "markersize": 4}
            if finite.any():
                shape = ".-" if finite.sum() <= 20 else "-"
                (shown[part],) = axes.plot(epoch[finite], y[finite], shape, **style)
        axes.set_xlim(epoch.min() - margin, epoch.max() + margin)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(**TICKING))
        axes.set_ylim(*_limits([np.asarray(line.get_ydata()) for line in axes.lines]))
        axes.tick_params(left=bool(axes.lines), labelleft=bool(axes.lines))
        axes.set_title(title, fontsize=NORMAL, pad=4)
        axes.set_xlabel("epoch", fontsize=NORMAL)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel(f"nats per {example}", fontsize=NORMAL)
    figure.axes[0].legend([*shown.values()], [*shown], loc="lower right", **KEY)
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
