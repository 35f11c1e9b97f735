"""Pictures of a sweep: what is drawn is what was given, and no text lies on another.

The rows are those of a Gaussian source whose rate–distortion curve is known. Of x ~ N(0, diag λ),
modelled with unit noise, R = ½ Σ log⁺(λ/β) and D = ½ Σ (log 2π + min(λ, β)) minimise D + βR, so
the slope dR/dD is −1/β; with all λ ≥ 1, R + D at β = 1 is the entropy ½ Σ log(2πe λ).
"""

import itertools
import math

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from vae_jax import plots
from vae_jax.plots import sweeps

SPECTRUM = 1 + 40 * np.arange(1, 31) ** -1.5
ENTROPY = 0.5 * np.sum(np.log(2 * np.pi * np.e * SPECTRUM))
DIMS, BETAS = (1, 2, 5, 10, 20, 30), (0.25, 0.5, 1.0, 2.0, 4.0)


def member(latent_dim, beta, seed=0, **other):
    """The optimum for the leading `latent_dim` directions; seeds lie around it."""
    kl = 0.5 * np.log(np.maximum(SPECTRUM[:latent_dim] / max(beta, 0.01), 1))
    left = np.concatenate([np.minimum(SPECTRUM[:latent_dim], beta), SPECTRUM[latent_dim:]])
    rate, distortion = kl.sum(), 0.5 * np.sum(np.log(2 * np.pi) + left)
    rate, distortion = rate + 0.1 * seed, distortion + 0.05 * seed**2
    row = {"name": f"z{latent_dim}-beta{beta:g}-seed{seed}", "latent_dim": latent_dim, "beta": beta}
    row |= {"learning_rate": 1e-3, "seed": seed, "status": "finished", "elbo": -(rate + distortion)}
    row |= {"rate": rate, "distortion": distortion, "nll": rate + distortion - 1, "nll_se": 0.1}
    row |= {"nll_samples": 500, "active_units": int(np.sum(kl > 0.01)), "kl_per_unit": [*kl]}
    return row | other


def diverged(latent_dim, beta, seed):
    lost = dict.fromkeys(["elbo", "rate", "distortion", "nll", "nll_se"], math.nan)
    lost |= dict.fromkeys(["active_units", "kl_per_unit", "nll_samples"])
    return member(latent_dim, beta, seed, status="diverged", **lost)


def sweep(dims, betas, seeds):
    return [member(*each) for each in itertools.product(dims, betas, range(seeds))]


OVER_DIMS, OVER_BETAS = sweep(DIMS, (1.0,), 3), sweep((30,), BETAS, 3)
CROSSED = [diverged(20, 2.0, 0), *sweep((2, 10, 20), (0.5, 1.0, 2.0, 4.0), 2)[:-4]]
CROSSED += [member(20, 2.0, 1), *sweep((20,), (4.0,), 2)]
SWEEPS = {"dims": OVER_DIMS, "betas": OVER_BETAS, "crossed": CROSSED}


def drawn(axes, gid):
    """The data [n, 2] of each line of that name."""
    return [line.get_xydata() for line in axes.lines if line.get_gid() == gid]


def means(rows, *names):
    """Over the seeds of each setting, in the order of the setting."""
    groups = {}
    for row in rows:
        if row["status"] == "finished":
            value = [row[name] for name in names]
            groups.setdefault((row["latent_dim"], row["beta"]), []).append(value)
    return {setting: np.mean(groups[setting], axis=0) for setting in sorted(groups)}


def texts(figure):
    """Every visible text and its box on the page."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    return [(a.get_text(), a.get_window_extent(canvas.get_renderer()).extents) for a in found]


def words(figure):
    return [text for text, _ in texts(figure)]


def assert_legible(figure):
    """No text lies on another or leaves the page; outside the limits, matplotlib hides ticks."""
    page = np.tile(figure.get_size_inches() * plots.DPI, 2)
    boxes = [(text, box) for text, box in texts(figure) if not hidden(figure, text, box)]
    for text, box in boxes:
        assert np.all(box >= -0.5) and np.all(box <= page + 0.5), f"{text!r} leaves the page"
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        apart = np.any(a[2:] <= b[:2]) or np.any(b[2:] <= a[:2])
        assert apart, f"{one!r} lies on {other!r}"


def hidden(figure, text, box):
    """Tick labels beyond the ends of an axis, which are not drawn."""
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for label, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=False):
                same = np.allclose(label.get_window_extent().extents, box)
                if same and label.get_text() == text and not low <= at <= high:
                    return True
    return False


# The rate–distortion plane


@pytest.mark.parametrize("rows", SWEEPS.values(), ids=SWEEPS)
def test_discs_are_means_and_dots_are_members(rows):
    axes = sweeps.rate_distortion(rows).axes[0]
    expected = np.array([*means(rows, "distortion", "rate").values()])
    np.testing.assert_allclose(np.concatenate(drawn(axes, "means")), expected)
    finished = [(r["distortion"], r["rate"]) for r in rows if r["status"] == "finished"]
    dots = np.concatenate(drawn(axes, "members"))
    assert sorted(map(tuple, dots)) == sorted(finished)
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    assert np.all(dots > low) and np.all(dots < high)


def test_curves_join_each_dimension_and_each_beta():
    axes = sweeps.rate_distortion(CROSSED).axes[0]
    at = means(CROSSED, "distortion", "rate")
    for dim, curve in zip((2, 10, 20), drawn(axes, "curve"), strict=True):
        np.testing.assert_allclose(curve, [at[dim, beta] for beta in (0.5, 1.0, 2.0, 4.0)])
    for beta, joint in zip((0.5, 1.0, 2.0, 4.0), drawn(axes, "joint"), strict=True):
        np.testing.assert_allclose(joint, [at[dim, beta] for dim in (2, 10, 20)])
    (one,) = drawn(sweeps.rate_distortion(OVER_DIMS).axes[0], "joint")
    np.testing.assert_allclose(one, [*means(OVER_DIMS, "distortion", "rate").values()])


def test_tangents_have_the_slope_of_a_minimum():
    rows = sweep((30,), BETAS, 1)
    axes = sweeps.rate_distortion(rows).axes[0]
    curve = np.array([(r["distortion"], r["rate"]) for r in rows])
    for beta, point, line in zip(BETAS, curve, drawn(axes, "tangent"), strict=True):
        (dx, dy) = line[1] - line[0]
        assert dy / dx == pytest.approx(-1 / beta)
        np.testing.assert_allclose(line.mean(axis=0), point)
        # It touches the convex curve from below: the row is where D + βR is least.
        assert np.all(curve[:, 1] >= point[1] - (curve[:, 0] - point[0]) / beta - 1e-9)
        dots = axes.transData.transform(line)
        assert np.hypot(*(dots[1] - dots[0])) == pytest.approx(60)


def test_without_kl_weight_the_tangent_is_upright():
    axes = sweeps.rate_distortion(sweep((30,), (0.0, 1.0), 1)).axes[0]
    assert np.ptp(drawn(axes, "tangent")[0][:, 0]) == pytest.approx(0)


def test_the_bound_is_the_entropy():
    rows = sweep((30,), BETAS, 1)
    figure = sweeps.rate_distortion(rows, entropy=ENTROPY)
    axes = figure.axes[0]
    (line,) = drawn(axes, "bound")
    np.testing.assert_allclose(line.sum(axis=1), ENTROPY)
    (shade,) = axes.collections
    inside = shade.get_paths()[0].contains_points
    for row in rows:
        point = row["distortion"], row["rate"]
        assert sum(point) >= ENTROPY - 1e-9 and not inside([point], radius=0)[0]
        below = np.array(point) - (sum(point) - ENTROPY) / 2 - 0.1
        assert inside([below])[0] or not np.all(below > [axes.get_xlim()[0], axes.get_ylim()[0]])
    assert min(sum((r["distortion"], r["rate"])) for r in rows) == pytest.approx(ENTROPY)
    assert "R = H − D" in words(figure)
    assert not drawn(sweeps.rate_distortion(rows).axes[0], "bound")


@pytest.mark.parametrize("entropy", [ENTROPY - 20, ENTROPY - 60])
def test_a_bound_far_below_is_still_shown(entropy):
    axes = sweeps.rate_distortion(sweep((30,), BETAS, 1), entropy).axes[0]
    assert entropy > axes.get_xlim()[0] + axes.get_ylim()[0]
    assert all(line.sum(axis=1).min() > entropy for line in drawn(axes, "elbo"))


def test_lines_of_constant_elbo_say_their_value():
    axes = sweeps.rate_distortion(OVER_BETAS).axes[0]
    named = {}
    for text in axes.texts:
        value = text.get_text().removeprefix("ELBO = ").replace("−", "-")
        if not value.startswith("β"):
            named[float(value)] = sum(text.get_position())
    assert len(named) >= 3
    for value, total in named.items():
        assert total == pytest.approx(-value)
    totals = [line.sum(axis=1) for line in drawn(axes, "elbo")]
    assert all(np.ptp(total) == pytest.approx(0, abs=1e-9) for total in totals)
    assert set(named) <= {-round(total[0], 6) for total in totals}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (OVER_DIMS, [f"{dim} latents" for dim in DIMS]),
        (OVER_BETAS, [f"β = {beta:g}" for beta in BETAS]),
        (CROSSED, ["β = 0.5", "β = 1", "β = 2", "β = 4", "2 latents", "10 latents", "20 latents"]),
    ],
    ids=SWEEPS,
)
@pytest.mark.parametrize(("width", "entropy"), [(660, None), (1360, ENTROPY)])
def test_labels_of_the_plane_are_there_and_legible(rows, expected, width, entropy):
    figure = sweeps.rate_distortion(rows, entropy, width)
    assert figure.get_size_inches()[0] * plots.DPI == pytest.approx(width)
    said = [t for t in words(figure) if t.startswith("β = ") or t.endswith(" latents")]
    assert sorted(expected) == sorted(said)
    assert_legible(figure)


# Against one setting


@pytest.mark.parametrize("name", ["latent_dim", "beta"])
def test_points_are_means_and_bars_are_standard_errors(name):
    figure = sweeps.against(CROSSED, name)
    other, at = ("beta", 0) if name == "latent_dim" else ("latent_dim", 1)
    lines = sorted({row[other] for row in CROSSED})
    for axes, quantity in zip(figure.axes, ("elbo", "nll", "active_units"), strict=True):
        for value, bars in zip(lines, axes.containers, strict=True):
            rows = [r for r in CROSSED if r[other] == value and r["status"] == "finished"]
            line, _, (errors,) = bars if bars.has_yerr else (*bars[:2], (None,))
            expected = {s[at]: m[0] for s, m in means(rows, quantity).items()}
            np.testing.assert_allclose(line.get_xydata(), [*expected.items()])
            for i, x in enumerate(expected):
                each = [r[quantity] for r in rows if r[name] == x]
                length = np.ptp(errors.get_segments()[i][:, 1]) if errors else 0
                half = np.std(each, ddof=1) / math.sqrt(len(each)) if len(each) > 1 else 0
                assert length == pytest.approx(2 * half, abs=1e-9)
    assert "1 of 24 diverged" in words(figure)
    assert_legible(figure)


def test_axes_have_ticks_at_the_very_values():
    for name, rows, values in (("latent_dim", OVER_DIMS, DIMS), ("beta", OVER_BETAS, BETAS)):
        figure = sweeps.against(rows, name)
        for axes in figure.axes:
            assert axes.get_xscale() == "log"
            np.testing.assert_array_equal(axes.get_xticks(), values)
            assert [t.get_text() for t in axes.get_xticklabels()] == [f"{v:g}" for v in values]
        assert_legible(figure)
    assert sweeps.against(sweep((2, 4, 20), (1.0,), 1), "latent_dim").axes[0].get_xscale() == (
        "linear"
    )


def test_nought_has_a_place_and_close_values_share_a_label():
    figure = sweeps.against(sweep((0, 1, 2, 30), (1.0,), 1), "latent_dim")
    assert figure.axes[0].get_xscale() == "symlog" and "0" in words(figure)
    close = sweeps.against(sweep((5,), (0.98, 0.99, 1.0, 4.0), 1), "beta")
    assert [t.get_text() for t in close.axes[0].get_xticklabels()] == ["0.98", "", "", "4"]
    assert_legible(close)


def test_one_seed_has_no_error_bars_and_one_line_no_key():
    figure = sweeps.against(sweep((30,), BETAS, 1), "beta")
    assert not any(bars.has_yerr for axes in figure.axes for bars in axes.containers)
    assert not figure.legends
    assert not drawn(sweeps.rate_distortion(sweep((30,), BETAS, 1)).axes[0], "members")


def test_what_was_not_measured_is_left_out():
    rows = [member(10, beta, nll=None, nll_samples=None) for beta in BETAS]
    figure = sweeps.against(rows, "beta")
    assert len(figure.axes[1].containers[0][0].get_xydata()) == 0
    assert "NLL" in words(figure) and "NLL (500 samples)" in words(
        sweeps.against(OVER_DIMS, "beta")
    )


# Units


def test_the_heat_map_sorts_units_before_the_mean():
    rows = [member(3, 1.0, 0, kl_per_unit=[0.0, 4.0, 1.0], active_units=2)]
    rows += [member(3, 1.0, 1, kl_per_unit=[2.0, 0.5, 6.0], active_units=3)]
    rows += [member(2, 1.0, 0, kl_per_unit=[0.001, 0.2], active_units=1)]
    axes = sweeps.kl_heat_map(rows).axes[0]
    table = axes.get_images()[0].get_array()
    np.testing.assert_allclose(table.filled(-1), [[0.2, 0.01, -1], [5, 1.5, 0.25]])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["2 latents", "3 latents"]
    (active,) = (patch for patch in axes.patches if patch.get_label() == "active units")
    np.testing.assert_allclose(active.get_data().values, [1.5, 3.0])  # half a unit to its edge
    each = sweeps.kl_heat_map(rows, each=True).axes[0]
    np.testing.assert_allclose(
        each.get_images()[0].get_array().filled(-1)[1:], [[4, 1, 0.01], [6, 2, 0.5]]
    )
    assert [t.get_text() for t in each.get_yticklabels()][1] == "3 latents, seed 0"


@pytest.mark.parametrize("rows", SWEEPS.values(), ids=SWEEPS)
def test_the_heat_map_is_legible(rows):
    figure = sweeps.kl_heat_map(rows)
    assert_legible(figure)
    assert_legible(sweeps.kl_heat_map(rows, each=True))
    assert figure.get_size_inches()[0] * plots.DPI <= 1360.5


# Images


def test_every_tile_is_in_its_place_under_its_label():
    images = np.random.default_rng(0).integers(0, 256, (7, 9, 4, 4, 1), np.uint8)
    tiles = {f"member {i}": x for i, x in enumerate(images)}
    figure = sweeps.sheet_of(tiles, cols=4)
    axes = figure.axes[0]
    page = np.asarray(axes.get_images()[0].get_array())
    for text, x in zip(axes.texts, images, strict=True):
        sheet = plots.tile(x, 3, 3, gap=1)
        left, top = round(text.get_position()[0] - 7), math.ceil(text.get_position()[1])
        np.testing.assert_array_equal(page[top : top + 14, left : left + 14], np.tile(sheet, 3))
        page[top : top + 14, left : left + 14] = 1
    assert np.all(page == 1)  # and nothing else is there
    assert [t.get_text() for t in axes.texts] == [*tiles]
    assert_legible(figure)


@pytest.mark.parametrize(("count", "n"), [(1, 4), (2, 10), (24, 8), (60, 5)])
def test_a_sheet_of_sheets_fits_a_page(count, n):
    tiles = {f"z20-beta0.5-seed{i}": np.zeros((n * n, 28, 28, 1), np.uint8) for i in range(count)}
    figure = sweeps.sheet_of(tiles)
    assert np.all(figure.get_size_inches() * plots.DPI <= (1360.5, 2020))
    assert_legible(figure)


# Edges


def test_a_sweep_of_which_all_diverged_still_draws(tmp_path):
    rows = [diverged(5, beta, 0) for beta in BETAS]
    figures = [sweeps.rate_distortion(rows, ENTROPY), sweeps.kl_heat_map(rows)]
    for figure in [*figures, sweeps.against(rows, "beta")]:
        assert "5 of 5 diverged" in words(figure)


def test_one_member_and_a_learning_rate_draw():
    one = [member(5, 1.0)]
    for figure in (sweeps.rate_distortion(one), sweeps.against(one, "latent_dim")):
        assert_legible(figure)
    rates = [member(5, 1.0, seed, learning_rate=lr) for lr in (1e-3, 1e-2) for seed in range(2)]
    assert {"lr = 0.001", "lr = 0.01"} <= set(words(sweeps.rate_distortion(rates)))
    assert {"lr = 0.001", "lr = 0.01"} <= set(words(sweeps.against(rates, "beta")))
