"""The page that pictures are drawn on: its measures, fonts and colours, and how a file is written.

Images are [n, h, w, c], values in [0, 1] or uint8 in 0..255; c = 3 is colour, any other number of
channels is shown as their mean, grey. A grey value of 1 is white and 0 is black whatever the data
set: every image is shown as it is stored.
"""

import dataclasses
import functools
import io
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from jaxtyping import Bool, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from vae_jax.files import replacing

Images = Num[np.ndarray, "n h w c"]

# Sizes are in dots of 1/200 inch: an image pixel covers whole dots, so that a PNG shows it exactly.
DPI = 200
PAGE = 1360  # both columns of a paper; one has about 660
SMALL, NORMAL, LINE = 7, 8, 0.5  # fonts and frames, in points
TITLE: dict[str, Any] = {"fontsize": SMALL, "pad": 4}
KEY: dict[str, Any] = {"fontsize": SMALL, "frameon": False}
TICKING = {"nbins": 6, "steps": (1, 2, 5, 10)}
TRAIN, VALID = "#0072B2", "#D55E00"
# Any two are CIELAB ΔE ≥ 30 apart, to protanopes and deuteranopes too (Machado et al., 2009).
PALETTE = [f"#{rgb:06x}" for rgb in (0x0762CE, 0xFABC0A, 0x000000, 0x31D0FF, 0x540566)]
PALETTE += [f"#{rgb:06x}" for rgb in (0x32845F, 0x727197, 0x9D2701, 0xEFB9BD, 0xB2B15C)]
_STYLE = threading.RLock()  # styles are matplotlib's globals: one thread at a time
_DEFAULTS: dict[Any, Any] = {
    name: value for name, value in matplotlib.rcParamsDefault.items() if "backend" not in name
}
P = ParamSpec("P")
T = TypeVar("T")


def own_style(draw: Callable[P, T]) -> Callable[P, T]:
    """The function under matplotlib's own defaults, whatever a style or a notebook has set."""

    @functools.wraps(draw)
    def drawn(*arguments: P.args, **named: P.kwargs) -> T:
        with _STYLE, matplotlib.rc_context(_DEFAULTS):
            return draw(*arguments, **named)

    return drawn


def _shown(images: Images) -> np.ndarray:
    """Images as floats, of 1 or 3 channels."""
    values = images / (255 if images.dtype == np.uint8 else 1)
    return values if values.shape[-1] in (1, 3) else values.mean(axis=-1, keepdims=True)


def tile(images: Images, rows: int, cols: int, gap: int = 0, blank: float = 1.0) -> np.ndarray:
    """One picture [rows·h + (rows−1)·gap, cols·w + (cols−1)·gap, c] in [0, 1], filled row by row.

    `gap` is in image pixels; gaps and places without an image have the value `blank`.
    """
    values = _shown(images)
    n, h, w, c = values.shape
    if n > rows * cols:
        raise ValueError(f"{rows}·{cols} images at most; got {images.shape}")
    cells = np.full((rows * cols, h + gap, w + gap, c), blank, np.float32)
    cells[:n, :h, :w] = np.clip(np.nan_to_num(values, nan=0.5), 0, 1)  # NaN is mid-grey
    cells = cells.reshape(rows, cols, h + gap, w + gap, c).swapaxes(1, 2)
    sheet = cells.reshape(rows * (h + gap), cols * (w + gap), c)
    return sheet[: rows * (h + gap) - gap, : cols * (w + gap) - gap]


_GIVEN = np.array([[0.10, 0.20, 0.45], [1.0, 0.60, 0.10]])  # colours of 0 and 1


def coloured(images: Images, given: Bool[np.ndarray, "n h w"]) -> np.ndarray:
    """Images [n, h, w, 3] with the given pixels from blue (0) to orange (1) instead of grey."""
    values = np.clip(_shown(images), 0, 1)
    grey = np.broadcast_to(values, (*values.shape[:3], 3))
    level = values.mean(axis=-1, keepdims=True)
    return np.where(given[..., None], _GIVEN[0] + level * (_GIVEN[1] - _GIVEN[0]), grey)


def picture(sheet: np.ndarray, target: int, margins: tuple, span=None) -> tuple[Figure, Axes]:
    """A figure around one picture, about `target` dots wide; margins left, bottom, right, top."""
    (h, w, _), room = sheet.shape, PAGE - margins[0] - margins[2]
    # Whole dots for each pixel as long as the page is wide enough, if need be beyond the target.
    scale = max(1, target // w) if w <= room else room / w
    figure, axes = frame(round(scale * w), round(scale * h), margins)
    colours = np.broadcast_to(sheet, (h, w, 3))  # through a colour map a byte might change by one
    smooth = "none" if scale >= 1 else "antialiased"
    extent = span or (0, w, 0, h)
    axes.imshow(colours, aspect="auto", extent=extent, interpolation=smooth)
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    return figure, axes


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in dots from the lower left corner of the figure."""
    across, up = figure.get_size_inches() * DPI
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    axes.tick_params(labelsize=SMALL, width=LINE, length=2, pad=2)
    axes.spines[:].set_linewidth(LINE)
    return axes


def strip(figure: Figure, groups: Mapping[str, Images], box: tuple[int, int, int, int]) -> None:
    """One row of images in a figure, a space between the groups and each group's name below.

    box: left, bottom, and the most width and height, in dots.
    """
    left, bottom, width, height = box
    sheets = {name: tile(images, 1, len(images), gap=1) for name, images in groups.items()}
    space = next(iter(sheets.values())).shape[0] // 2
    across = sum(sheet.shape[1] + space for sheet in sheets.values()) - space
    side = min(width / across, *(height / len(sheet) for sheet in sheets.values()))  # of a pixel
    for name, sheet in sheets.items():
        axes = axes_at(figure, left, bottom, side * sheet.shape[1], side * len(sheet))
        axes.imshow(np.broadcast_to(sheet, (*sheet.shape[:2], 3)), aspect="auto")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_xlabel(name, fontsize=SMALL, labelpad=3)
        left += side * (sheet.shape[1] + space)


@own_style
def panels(
    count: int, aspect: float = 0.8, right: int = 20, above: int = 0
) -> tuple[Figure, list[Axes]]:
    """A row of `count` empty panels across the page, to draw in.

    Each is `aspect` times as high as wide, with `right` dots of room beside it; `above` is what the
    figure has over the titles.
    """
    each = PAGE // count
    width = each - 104 - right  # room for tick labels and the axis's name
    height = round(aspect * width)
    figure = Figure((PAGE / DPI, (height + 122 + above) / DPI), DPI)
    row = [axes_at(figure, 104 + i * each, 76, width, height) for i in range(count)]
    for axes in row:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, row


@own_style
def frame(width: int, height: int, margins: tuple[int, ...]) -> tuple[Figure, Axes]:
    """One empty panel of so many dots; margins left, bottom, right, top."""
    left, bottom, right, top = margins
    figure = Figure(((left + width + right) / DPI, (bottom + height + top) / DPI), DPI)
    return figure, axes_at(figure, left, bottom, width, height)


def colour_bar(mappable: Any, box: tuple[int, int, int, int], **options: Any) -> None:
    """The key to a picture's colours, at a place given in dots as in `axes_at`."""
    bar = mappable.figure.colorbar(mappable, cax=axes_at(mappable.figure, *box), **options)
    bar.locator = MaxNLocator(**TICKING)
    bar.solids.set_alpha(1)
    bar.outline.set_linewidth(LINE)


@own_style
def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes the figure at 200 dpi; the suffix (.png, .pdf, .svg) names the format.

    The same figure gives the same bytes, and a reader never meets half a file.
    """
    path = Path(path)
    metadata = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    if path.suffix not in metadata:
        raise ValueError(f"a figure is saved as .png, .pdf or .svg; got {path.name!r}")
    # Text stays text in a PDF, and the salt fixes an SVG's names. Only globals set these.
    settings: Any = {"pdf.fonttype": 42, "svg.hashsalt": "vae_jax"}
    with matplotlib.rc_context(settings), replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=DPI, metadata=metadata[path.suffix])


@own_style
def animate(figures: Sequence[Figure], path: str | os.PathLike, seconds: float = 0.25) -> None:
    """Writes the figures, all of one size, as a GIF that goes round, `seconds` to each.

    The last one stays for eight times as long.
    """
    path = Path(path)
    if path.suffix != ".gif" or not figures:
        raise ValueError(f"an animation is at least one figure in a .gif; got {path.name!r}")
    frames = []
    for figure in figures:
        page = io.BytesIO()
        figure.savefig(page, format="png", dpi=DPI)
        # One palette for black text and grey images; colours where there are some.
        frames.append(Image.open(page).convert("RGB").quantize(64, dither=Image.Dither.NONE))
    milliseconds = [round(1000 * seconds)] * (len(frames) - 1) + [round(8000 * seconds)]
    with replacing(path) as temporary:
        frames[0].save(
            temporary, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0
        )


@dataclasses.dataclass(frozen=True)
class Shown:
    """A picture as a notebook shows it where it is a cell's last line."""

    png: bytes = dataclasses.field(repr=False)

    def _repr_png_(self) -> bytes:
        return self.png


@own_style
def show(figure: Figure, dpi: float = DPI) -> Shown:
    """The figure for a notebook, which keeps it: a smaller `dpi` keeps fewer bytes."""
    page = io.BytesIO()
    figure.savefig(page, format="png", dpi=dpi, metadata={"Software": None})
    return Shown(page.getvalue())
