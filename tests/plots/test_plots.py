"""Pictures: where every pixel goes, what every axis says, and that a file is what was drawn."""

import concurrent.futures
import io
import itertools
import os
import subprocess
import sys

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.stats import norm
from sklearn.datasets import load_digits

from vae_jax import plots

KINDS = ["quantile", "linspace"]
NONE = np.zeros(0, int)


@pytest.fixture(scope="module")
def digits():
    return load_digits().images[:, :, :, None] / 16


def shown(figure, panel=0):
    """The array that a panel draws; a sheet is drawn in colours, which for grey are all equal."""
    return np.asarray(figure.axes[panel].get_images()[0].get_array())


def coloured(sheet):
    return np.broadcast_to(sheet, (*sheet.shape[:2], 3))


def points(n, dim=2, scale=1.0):
    return scale * np.random.default_rng(0).normal(size=(n, dim))


def text_of(figure):
    """Every text that the figure would show, drawn first so that ticks exist."""
    figure.savefig(io.BytesIO(), format="png")
    return [t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text"))]


# Tiles


@pytest.mark.parametrize(("shape", "gap"), [((3, 5, 1), 0), ((3, 5, 1), 2), ((4, 4, 3), 1)])
def test_tile_puts_every_pixel_in_its_place(shape, gap):
    h, w, c = shape
    images = np.random.default_rng(0).random((5, *shape)).astype(np.float32)
    sheet = plots.tile(images, 2, 3, gap, blank=0.25)
    assert sheet.shape == (2 * h + gap, 3 * w + 2 * gap, c)
    expected = np.full_like(sheet, 0.25)
    for i, image in enumerate(images):
        top, left = (i // 3) * (h + gap), (i % 3) * (w + gap)
        expected[top : top + h, left : left + w] = image
    np.testing.assert_array_equal(sheet, expected)


def test_tile_scales_bytes_clips_and_marks_nan():
    as_bytes = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(plots.tile(as_bytes, 1, 1).ravel(), [0, 0.2, 1], rtol=1e-6)
    wild = np.array([-1, np.nan, 7.0]).reshape(1, 1, 3, 1)
    np.testing.assert_array_equal(plots.tile(wild, 1, 1).ravel(), [0, 0.5, 1])


def test_tile_refuses_too_many_images():
    with pytest.raises(ValueError):
        plots.tile(np.zeros((5, 2, 2, 1)), 2, 2)


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_are_no_colours_are_shown_as_their_mean(channels):
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 2, channels), dtype=np.uint8)
    grey = images.mean(axis=-1, keepdims=True) / 255
    np.testing.assert_allclose(plots.tile(images, 2, 2), plots.tile(grey, 2, 2), rtol=1e-6)
    given = np.zeros((4, 3, 2), bool)
    np.testing.assert_allclose(
        plots.coloured(images, given), np.broadcast_to(grey, (4, 3, 2, 3)), rtol=1e-6
    )
    sheet = shown(plots.reconstructions(images, images))
    np.testing.assert_array_equal(sheet, shown(plots.reconstructions(grey, grey)))


def test_samples_are_read_row_by_row(digits):
    sheet = shown(plots.samples(digits[:10]))
    np.testing.assert_array_equal(sheet, coloured(plots.tile(digits[:10], 3, 4, gap=1)))
    colours = np.random.default_rng(0).random((7, 12, 20, 3))
    np.testing.assert_array_equal(shown(plots.samples(colours)), plots.tile(colours, 3, 3, gap=1))
    assert shown(plots.samples(digits[:1])).shape == (8, 8, 3)


def test_reconstructions_stand_below_their_originals(digits):
    images, n, h, gap, space = digits[:20], 20, 8, 1, 4
    figure = plots.reconstructions(images, 1 - images)
    sheet, axes = shown(figure), figure.axes[0]
    for i in range(n):
        top, left = (i // 16) * (2 * h + 2 * gap + space), (i % 16) * (h + gap)
        above = sheet[top : top + h, left : left + h]
        below = sheet[top + h + gap : top + 2 * h + gap, left : left + h]
        np.testing.assert_allclose(above, coloured(images[i]), atol=1e-6)
        np.testing.assert_allclose(below, coloured(1 - images[i]), atol=1e-6)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["data", "recon."] * 2
    tops = np.array([0, 9, 22, 31])  # of the rows; the axis runs upwards from the bottom
    np.testing.assert_allclose(axes.get_yticks(), len(sheet) - (tops + h / 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_shows_every_image_pixel_exactly(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 20, channels), np.uint8)
    plots.save(plots.samples(images), tmp_path / "samples.png")
    drawn = matplotlib.image.imread(tmp_path / "samples.png")[10:-10, 10:-10, :3]
    sheet = plots.tile(images, 3, 2, gap=1)
    scale = len(drawn) // len(sheet)
    assert drawn.shape[:2] == tuple(scale * side for side in sheet.shape[:2])
    wide = coloured(sheet).repeat(scale, 0).repeat(scale, 1)
    np.testing.assert_array_equal(np.rint(255 * drawn), np.rint(255 * wide))


def test_a_wide_sheet_is_fitted_to_the_page():
    figure = plots.manifold(np.zeros((400, 80, 80, 1), np.uint8))
    assert figure.get_size_inches()[0] * plots.DPI == pytest.approx(1360)
    assert shown(figure).shape == (1600, 1600, 3)


# Manifold


@pytest.mark.parametrize("n", [2, 5, 20])
def test_grids_are_quantiles_or_even_steps(n):
    np.testing.assert_allclose(
        plots.manifold_grid(n, "quantile"), norm.ppf((np.arange(n) + 0.5) / n), atol=1e-14
    )
    np.testing.assert_array_equal(plots.manifold_grid(n, "linspace"), np.linspace(-3, 3, n))
    np.testing.assert_array_equal(
        plots.manifold_grid(n, "linspace", 0.0, 1.0), np.linspace(0, 1, n)
    )


def test_a_grid_of_one_is_refused():
    with pytest.raises(ValueError, match="n ≥ 2"):
        plots.manifold_grid(1, "quantile")


@pytest.mark.parametrize("kind", KINDS)
def test_latents_run_from_the_top_left(kind):
    grid, z = plots.manifold_grid(4, kind), plots.manifold_latents(4, kind)
    assert z.shape == (16, 2)
    np.testing.assert_array_equal(z[0], [grid[0], grid[-1]])  # smallest z₁, largest z₂
    np.testing.assert_array_equal(z[1], [grid[1], grid[-1]])  # then to the right
    np.testing.assert_array_equal(z[-1], [grid[-1], grid[0]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("height", [3, 20])
def test_each_tile_lies_at_its_latent_and_ticks_tell_it(kind, height):
    n = 4
    z = plots.manifold_latents(n, kind)
    images = np.linspace(0, 1, n * n).reshape(-1, 1, 1, 1) * np.ones((1, height, 5, 1))
    figure = plots.manifold(images, kind)
    axes, sheet = figure.axes[0], shown(figure)
    gap = int(height <= 16)
    np.testing.assert_array_equal(sheet, coloured(plots.tile(images, n, n, gap)))
    place = norm.cdf if kind == "quantile" else np.asarray
    left, right, bottom, top = axes.get_images()[0].get_extent()
    for i, (z1, z2) in enumerate(z):
        col = (place(z1) - left) / (right - left) * sheet.shape[1]  # in pixels of the sheet
        row = (top - place(z2)) / (top - bottom) * sheet.shape[0]
        assert row == pytest.approx((height + gap) * (i // n) + height / 2)
        assert col == pytest.approx((5 + gap) * (i % n) + 2.5)
    for axis in (axes.xaxis, axes.yaxis):
        values = [float(t.get_text().replace("−", "-")) for t in axis.get_ticklabels()]
        np.testing.assert_allclose(axis.get_ticklocs(), place(values))
    assert any(("Φ⁻¹" if kind == "quantile" else "linspace") in t for t in text_of(figure))


@pytest.mark.parametrize("n", [0, 1, 8])
def test_a_manifold_needs_a_square_number_of_images(n):
    with pytest.raises(ValueError):
        plots.manifold(np.zeros((n, 2, 2, 1)))


# Latents


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [30, 2000])
def test_density_integrates_to_the_share_inside(kind, n):
    means = points(n, scale=1.5)
    means[0] = np.nan
    figure = plots.latents(means, NONE, kind=kind)
    density, side = shown(figure, 1), {"quantile": 1, "linspace": 6}[kind]
    total = density.sum() * (side / len(density)) ** 2
    limit = {"quantile": np.inf, "linspace": 3}[kind]
    outside = n - np.sum(np.all(np.abs(means) <= limit, axis=1))
    assert total == pytest.approx(1 - outside / n)
    assert f"{n:,} points, {outside:,} outside" in figure.axes[1].get_title()


@pytest.mark.parametrize("kind", KINDS)
def test_the_histogram_has_the_orientation_of_the_manifold(kind):
    means = np.tile([[1.9, -1.2]], (20, 1))  # right and below the middle
    figure = plots.latents(means, NONE, kind=kind)
    row, col = np.unravel_index(shown(figure, 1).argmax(), shown(figure, 1).shape)
    assert figure.axes[1].get_images()[0].origin == "lower"
    assert col > len(shown(figure, 1)) / 2 > row
    place = norm.cdf if kind == "quantile" else np.asarray
    np.testing.assert_allclose(
        figure.axes[0].collections[0].get_offsets()[0], place([1.9, -1.2]), atol=1e-12
    )


def test_every_class_keeps_its_colour_and_is_named():
    means, labels = points(600, scale=0.1), np.arange(600) % 3 * 2 + 1
    means[labels == 1] += 50  # a class wholly outside must not shift the others' colours
    figure = plots.latents(means, labels, kind="linspace", names=("z₇", "z₁₂"))
    dots = figure.axes[0].collections[0]
    figure.savefig(io.BytesIO(), format="png")
    z = np.asarray(dots.get_offsets())
    for i, k in enumerate([1, 3, 5]):
        row = np.flatnonzero((z == means[labels == k][0]).all(1))[0]
        np.testing.assert_allclose(dots.get_facecolors()[row, :3], to_rgb(plots.PALETTE[i]))
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["1", "3", "5"]
    assert (figure.axes[1].get_xlabel(), figure.axes[1].get_ylabel()) == ("z₇", "z₁₂")
    assert dots.get_rasterized()


def test_a_frame_that_all_points_miss_is_empty_and_says_so():
    figure = plots.latents(np.full((5, 2), 9.0), NONE, kind="linspace")
    assert not shown(figure, 1).any()
    assert figure.axes[1].get_images()[0].get_clim() == (0, 1)
    assert figure.axes[1].get_title().endswith("5 points, 5 outside")


def test_more_labels_than_colours_get_other_marks_and_are_named():
    labels = np.arange(520) % 26
    figure = plots.latents(points(520, scale=0.3), labels)
    groups, legend = figure.axes[0].collections, figure.axes[0].get_legend()
    assert [t.get_text() for t in legend.get_texts()] == [str(k) for k in range(26)]
    looks = {(tuple(g.get_facecolors()[0]), len(g.get_paths()[0].vertices)) for g in groups}
    assert len(looks) == len(groups) == 26
    figure.savefig(io.BytesIO(), format="png")
    box = legend.get_window_extent()
    assert box.x0 > 0 and box.x1 < figure.bbox.x1 and box.y1 < figure.bbox.y1


def test_axes_that_are_not_even_say_so_and_ticks_stay_apart(digits):
    names = plots.latents(points(50), NONE, kind="quantile").axes[0].get_xlabel()
    assert names == "z₁ (spaced by Φ, the prior's CDF)"
    assert plots.latents(points(50), NONE, kind="linspace").axes[0].get_xlabel() == "z₁"
    draws = np.zeros((3, 5, 2))
    figure = plots.encodings(digits[:3], draws, digits[:3], points(40))
    figure.savefig(io.BytesIO(), format="png")
    for axes in figure.axes:
        boxes = [t.get_window_extent() for t in axes.get_xticklabels() if t.get_text()]
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_many_labels_get_a_scale_and_none_gets_no_key():
    many = plots.latents(points(50), np.arange(50.0))
    none = plots.latents(points(50), NONE)
    assert len(many.axes) == 4  # two panels, a bar for the labels and one for the density
    assert len(none.axes) == 3
    assert many.axes[0].get_legend() is None
    assert none.axes[0].get_legend() is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [NONE, np.arange(400) % 4, np.arange(400.0)])
def test_one_latent(kind, labels):
    figure = plots.latents(points(400, 1, scale=1.5), labels, kind=kind, names=("z₃",))
    text_of(figure)
    right = figure.axes[1]
    density, edges, _ = right.patches[0].get_data()
    inside = np.mean(np.abs(points(400, 1, scale=1.5)) <= (np.inf if kind == "quantile" else 3))
    assert np.sum(density * np.diff(edges)) == pytest.approx(inside)
    at, prior = right.get_lines()[0].get_data()
    expected = norm.pdf(at) if kind == "linspace" else np.ones_like(at)
    np.testing.assert_allclose(prior, expected)
    assert right.get_xlabel().startswith("z₃")


@pytest.mark.parametrize("kind", KINDS)
def test_long_names_of_latents_stay_on_the_page(kind):
    figure = plots.latents(points(10), np.zeros(10), kind=kind, names=("z₁₇", "z₁₀₈"))
    figure.draw_without_rendering()
    for axes in figure.axes[:2]:
        name = axes.yaxis.label.get_window_extent()
        ticks = [t.label1.get_window_extent() for t in axes.yaxis.get_major_ticks()]
        assert name.x0 > 0 and not any(name.overlaps(box) for box in ticks)
        assert axes is figure.axes[0] or name.x0 > figure.axes[0].get_window_extent().x1


@pytest.mark.parametrize(("dim", "labels"), [(3, 10), (0, 10), (2, 9)])
def test_latents_of_a_wrong_shape_are_refused(dim, labels):
    with pytest.raises(ValueError):
        plots.latents(points(10, dim), np.zeros(labels))


def test_colours_stay_apart_without_red_or_green_cones():
    rgb = np.array([to_rgb(c) for c in plots.PALETTE])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    sights = {  # Machado, Oliveira and Fernandes 2009, severity 1
        "all": np.eye(3),
        "deutan": [[0.3673, 0.8606, -0.228], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
        "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.052]],
    }
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    for sight in sights.values():
        xyz = np.clip(linear @ np.array(sight).T, 0, 1) @ to_xyz.T / [0.9505, 1, 1.089]
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        lab = np.stack([116 * f[:, 1], 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)) > 30


# From images to latents and back


@pytest.mark.parametrize("kind", KINDS)
def test_encodings_stand_side_by_side(digits, kind):
    originals, back = digits[:3], 1 - digits[:3]
    draws, cloud = points(12, scale=0.5).reshape(3, 4, 2), points(30)
    figure = plots.encodings(originals, draws, back, cloud, kind, names=("z₁₇", "z₁₉"))
    rows = [figure.axes[i : i + 3] for i in (0, 3, 6)]
    place = norm.cdf if kind == "quantile" else np.asarray
    for i, (left, right, plane) in enumerate(rows):
        for axes, images in ((left, originals), (right, back)):
            np.testing.assert_allclose(
                axes.get_images()[0].get_array(), coloured(images[i]), atol=1e-6
            )
        for dots, z in zip(plane.collections, (cloud, draws[i]), strict=True):
            np.testing.assert_allclose(dots.get_offsets(), place(z), atol=1e-12)
        boxes = [axes.get_position() for axes in (left, plane, right)]
        assert boxes[0].x1 < boxes[1].x0 and boxes[1].x1 < boxes[2].x0
        assert plane.get_xlim() == plane.get_ylim() == ((0, 1) if kind == "quantile" else (-3, 3))
    assert [a.get_title() for a in rows[0]] == ["input", "reconstruction", "draws of q(z|x)"]
    assert {(r[2].get_xlabel(), r[2].get_ylabel()) for r in rows} == {("z₁₇", "z₁₉")}
    heights = [plane.get_position().y0 for _, _, plane in rows]
    assert heights == sorted(heights, reverse=True)


def test_one_decoded_z_is_named(digits):
    figure = plots.decoded(digits[0], (1.0, -2.5))
    np.testing.assert_allclose(shown(figure), coloured(digits[0]), atol=1e-6)
    assert figure.axes[0].get_title() == "E[x|z], z = (1, −2.5)"


# Curves


def history(epochs, parts=("train", "valid")):
    e = np.arange(1, epochs + 1)
    result = {"epoch": e}
    for i, part in enumerate(parts):
        rate, distortion = 25 * (1 - np.exp(-e / 5)) + i, 80 + i + 100 * np.exp(-e / 5)
        result |= {f"{part}_rate": rate, f"{part}_distortion": distortion}
        result |= {f"{part}_elbo": -rate - distortion}
    return result


@pytest.mark.parametrize("parts", [("train",), ("train", "valid")])
@pytest.mark.parametrize("epochs", [1, 2, 100])
def test_curves_draw_what_there_is(parts, epochs):
    given = history(epochs, parts)
    figure = plots.curves(given)
    assert [a.get_title() for a in figure.axes] == ["ELBO", "rate", "distortion"]
    for axes in figure.axes:
        assert len(axes.lines) == len(parts)
        for line, part in zip(axes.lines, parts, strict=True):
            expected = given[f"{part}_{axes.get_title().lower()}"]
            np.testing.assert_array_equal(line.get_data(), [given["epoch"], expected])
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == list(parts)
    assert "nats per image" in text_of(figure)
    assert "nats per point" in text_of(plots.curves(given, "point"))


def test_curves_connect_across_epochs_without_a_validation():
    given = history(20)
    given["valid_elbo"][np.arange(20) % 5 != 4] = np.nan
    line = plots.curves(given).axes[0].lines[1]
    np.testing.assert_array_equal(line.get_xdata(), [5, 10, 15, 20])
    assert line.get_marker() == "."


def test_a_huge_first_value_does_not_flatten_the_rest():
    given = history(100)
    given["train_distortion"][0] = 1e9
    low, high = plots.curves(given).axes[2].get_ylim()
    assert low < 80 and 81 < high < 120


def test_a_short_history_is_shown_whole():
    axes = plots.curves(history(5)).axes[0]
    low, high = axes.get_ylim()
    assert all(low < y < high for line in axes.lines for y in line.get_ydata())


def test_curves_without_one_finite_value():
    given = history(3, ("train",)) | {"train_elbo": np.full(3, np.nan)}
    given["train_rate"][1:] = np.inf
    figure = plots.curves(given)
    assert [len(a.lines) for a in figure.axes] == [0, 1, 1]
    assert text_of(figure)


# Files


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_figure_gives_the_same_bytes(tmp_path, digits, suffix):
    def figure():
        return plots.latents(points(300), np.arange(300) % 10, kind="linspace")

    first, second, again = (tmp_path / f"{name}.{suffix}" for name in ("a", "b", "c"))
    plots.save(kept := figure(), first)
    plots.save(figure(), second)
    plots.save(kept, again)
    assert first.read_bytes() == second.read_bytes() == again.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{n}.{suffix}" for n in "abc"]


def test_a_pdf_keeps_its_text_as_truetype(tmp_path):
    plots.save(plots.curves(history(3)), tmp_path / "curves.pdf")
    data = (tmp_path / "curves.pdf").read_bytes()
    assert b"/Type3" not in data and b"CreationDate" not in data


def test_a_failed_save_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def broken(*_):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError):
        plots.save(Figure(), path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.pdf or \.svg"):
        plots.save(Figure(), tmp_path / "a.jpeg")


def test_pyplot_is_not_imported():
    code = "import sys, vae_jax.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_rates_of_groups_are_bars_of_a_colour_for_each_resolution():
    """A group that has collapsed has no bar; the legend has sums."""
    figure = plots.group_rates([3.0, 0.0, 1.25], [(1, 1, 2), (4, 4, 2), (4, 4, 2)])
    bars = [(p.get_x() + p.get_width() / 2, p.get_height()) for p in figure.axes[0].patches]
    np.testing.assert_allclose(bars, [(1, 3.0), (2, 0.0), (3, 1.25)])
    colours = [p.get_facecolor() for p in figure.axes[0].patches]
    assert colours[0] != colours[1] == colours[2]
    texts = text_of(figure)
    assert {"1×1×2: 3.00 nats", "4×4×2: 1.25 nats", "rate, nats"} <= set(texts)


def test_a_notebooks_style_does_not_reach_the_figures(tmp_path):
    def bytes_of():
        figure = plots.latents(np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 3)
        plots.save(figure, tmp_path / "latents.png")
        history = {"epoch": np.arange(3.0), "train_elbo": -np.arange(3.0), "valid_elbo": np.ones(3)}
        plots.save(plots.curves(history), tmp_path / "curves.png")
        return [(tmp_path / f"{name}.png").read_bytes() for name in ("latents", "curves")]

    plain = bytes_of()
    given = {"axes.facecolor": "black", "font.size": 20, "lines.linewidth": 9, "axes.grid": True,
             "font.family": "serif", "savefig.dpi": 30, "text.usetex": False}  # fmt: skip
    with matplotlib.rc_context(given):
        assert bytes_of() == plain
        assert matplotlib.rcParams["font.size"] == 20  # the notebook's stays


def test_threads_that_draw_leave_the_style_as_it_was():
    def drawn(_):
        plots.curves({"epoch": np.arange(3.0), "train_elbo": -np.arange(3.0)})

    with matplotlib.rc_context({"font.size": 20}):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(drawn, range(16)))
        assert matplotlib.rcParams["font.size"] == 20
