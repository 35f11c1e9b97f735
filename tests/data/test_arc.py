"""Points in the plane, from their law to a trained run: nothing takes them for an image."""

import io
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import z_scores
from scipy import stats
from scipy.integrate import quad

import vae_jax
from experiments import cli, evaluate
from experiments import run as job
from experiments.cli.config import parse
from vae_jax import data, evaluation
from vae_jax.data import arc as plane
from vae_jax.data import fixed_draws
from vae_jax.models.build import ModelConfig, build
from vae_jax.plots import points
from vae_jax.types import unconditional

PRESET = ["--preset=oduerr_arc", "--steps=100", "--nll_samples=5"]
MODEL = ModelConfig(
    latent_dim=1, widths="5-6", activation="softplus", likelihood="gaussian",
    likelihood_scale="per_pixel", scale_floor=1e-4,
)  # fmt: skip


def arc(**settings):
    return data.load(data.DataConfig("arc", **settings))


# The data


def test_noise_is_standard_normal_about_the_curve():
    uniform = fixed_draws.uniform((20_000, 3), 0, "train")
    uniform[:, 0] = 0.1 + 0.9 * uniform[:, 0]  # float32 points resolve the noise there
    t = uniform[:, 0]
    noise = (plane.arc(uniform) - plane.curve(t)) / (0.1 * t[:, None] ** 2)
    for values in noise.T:
        assert stats.kstest(values, "norm").pvalue > 1e-4
    assert np.all(np.abs(z_scores(noise.prod(axis=1))) < 5)
    np.testing.assert_allclose(plane.curve(np.array([0.0, 1.0])), [[0, 0], [0.5**0.5] * 2])


def test_moments_of_the_arc():
    """By quadrature over t; E‖x‖² = E[t] + 2 E[(t²/10)²]."""
    x = arc().train.x.astype(np.float64)
    for i, turn in enumerate((np.cos, np.sin)):
        mean = quad(lambda t, turn=turn: np.sqrt(t) * turn(np.pi * t / 4), 0, 1)[0]
        assert abs(z_scores(x[:, i], mean)) < 5
    assert abs(z_scores((x**2).sum(axis=1), 0.5 + 2 * 0.01 / 5)) < 5


def test_draws_hang_on_data_seed_alone():
    one, again, other = arc(), arc(), arc(data_seed=1)
    assert one.x_shape == (2,) and one.train.x.dtype == np.float32
    assert [len(split.x) for split in one[2:5]] == [59_000, 5000, 10_000]
    np.testing.assert_array_equal(one.train.x, again.train.x)
    assert not np.any(one.test.x == other.test.x)
    assert not np.any(arc(validation_size=0).train.x[:10_000] == one.test.x)
    np.testing.assert_allclose(one.test.x[0], FIRST, rtol=1e-6)


FIRST = (0.28318995, 0.01764072)  # a regression number


def test_points_have_no_grey_levels():
    dataset = arc()
    assert dataset.binarisation == "none" and dataset.num_classes == 0
    np.testing.assert_allclose(dataset.x_mean, dataset.train.x.mean(axis=0), rtol=1e-4)


# The likelihood, with its 2π


@pytest.fixture(scope="module")
def model():
    vae = build(MODEL, (2,))
    return vae, jax.jit(vae.init)(jax.random.key(0))


def log_p(model, x):
    """log ∫ p(x|z) N(z; 0, 1) dz by the trapezoidal rule, for points [n, 2]."""
    vae, params = model
    z = jnp.linspace(-6, 6, 241)
    p = jax.jit(jax.vmap(lambda z: vae.likelihood(params, z, jnp.zeros(0))))(z[:, None])
    mean, scale = np.asarray(p.mean, np.float64), np.exp(np.asarray(p.log_scale, np.float64))
    log_x = stats.norm.logpdf(x[:, None], mean, scale).sum(axis=-1)
    joint = log_x + stats.norm.logpdf(np.asarray(z, np.float64))
    return np.logaddexp.reduce(joint, axis=1) + np.log(0.05)


def test_log_density_is_scipys(model):
    vae, params = model
    for z, x in ((-1.0, [0.1, 0.0]), (2.0, [0.7, 0.9])):
        p = vae.likelihood(params, jnp.array([z]), jnp.zeros(0))
        expected = stats.norm.logpdf(x, p.mean, np.exp(p.log_scale)).sum()
        np.testing.assert_allclose(p.log_prob(jnp.array(x)), expected, rtol=1e-5)
        assert p.log_scale[0] != p.log_scale[1]  # one for each output, by the decoder


def test_density_of_the_model_integrates_to_one(model):
    """And not to 2π, as without its constant."""
    line = np.linspace(-5, 5, 101)
    x = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    assert np.exp(log_p(model, x)).sum() * 0.1**2 == pytest.approx(1, abs=1e-4)


def test_nll_is_that_of_quadrature(model):
    vae, params = model
    x = arc().test.x[:200]
    estimate = evaluation.log_likelihood(
        vae, params, unconditional(x), jax.random.key(0), 2000, batch_size=200
    )
    exact = log_p(model, x)
    np.testing.assert_allclose(estimate.log_p, exact, atol=6 * np.sqrt(estimate.variance.max()))
    assert evaluation.elbo(vae, params, unconditional(x), jax.random.key(1))["elbo"] < exact.mean()


# Pictures


def test_every_picture_has_the_frame_of_the_data():
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32) * [1, 3]
    z, mean = np.linspace(-2, 2, 4), x[:4]
    scale = np.array([[0.1, 0.2], [0.3, 0.1], [0.5, 0.5], [1.0, 2.0]])
    drawn = (
        points.points(x),
        points.reconstructed(x, x[::-1]),
        points.decoder(x, z, mean, scale),
    )
    for figure in drawn:
        axes = figure.axes[0]
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert np.all((x > [left, bottom]) & (x < [right, top]))
        box = axes.get_window_extent()
        assert (right - left) / (top - bottom) == pytest.approx(box.width / box.height)
        np.testing.assert_array_equal(axes.collections[0].get_offsets(), x)
    np.testing.assert_array_equal(drawn[1].axes[0].collections[1].get_offsets(), x[::-1])


def test_areas_go_as_the_variances():
    x, z = np.array([[-9.0, -9], [9, 9]]), np.array([-1.0, 0, 1])
    scale = np.array([[1.0, 1], [2, 2], [1, 4]])
    figure = points.decoder(x, z, np.zeros((3, 2)), scale)
    ellipses = figure.axes[0].collections[1]
    figure.savefig(io.BytesIO(), format="png")
    half_axes = np.asarray(ellipses.get_transforms())[:, [0, 1], [0, 1]]
    np.testing.assert_allclose(half_axes, 2 * scale, rtol=1e-6)
    np.testing.assert_array_equal(ellipses.get_array(), z)
    assert figure.axes[1].get_ylabel() == "z"


# A run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("arc") / "run"
    assert job.main(parse([*PRESET, f"--run_dir={directory}"])) == 0
    return directory


def test_a_run_leaves_its_three_pictures_and_none_of_images(run_dir):
    names = {path.stem for path in (run_dir / "figures").iterdir()}
    assert names == {"data", "reconstructed", "decoder", "latents", "curves"}
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["bits_per_dim"] is None and summary["latent_dim"] == 1
    assert np.isfinite([summary["nll"], summary["elbo"]]).all()


def test_a_run_is_opened_and_used(run_dir):
    run = vae_jax.load(run_dir)
    x = arc().test.x[:7]
    q = run.encode(x)
    assert run.x_shape == (2,) and q.mean.shape == (7, 1)
    np.testing.assert_allclose(run.reconstruct(x), run.decode(q.mean), rtol=1e-6)
    assert run.sample(jax.random.key(0), 5).shape == (5, 2)
    np.testing.assert_array_equal(run.merge(*run.split(x)), x)


def test_a_run_is_evaluated(run_dir, capsys):
    flags = [str(run_dir), "--nll_samples=5", "--images=300", "--split=train"]
    assert evaluate.main(cli.parse(flags, evaluate.Config, "run_dir")) == 0
    result = json.loads((run_dir / "evaluation-train.json").read_text())
    assert result["elbo"] == pytest.approx(-(result["rate"] + result["distortion"]))
    assert sum(result["kl_per_unit"]) == pytest.approx(result["rate"], rel=1e-3)
    assert "300 points, nats per point" in capsys.readouterr().out


@pytest.mark.slow
def test_the_notebook_learns_its_arc(tmp_path):
    flags = ["--preset=oduerr_arc", "--nll_samples=100", f"--run_dir={tmp_path / 'r'}"]
    assert job.main(parse(flags)) == 0
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    assert summary["active_units"] == 1 and -2.3 < summary["nll"] < -1.9


# What it refuses

BAD = {
    "pixels' likelihood": (
        ["--dataset=arc", "--likelihood=bernoulli"],
        "likelihood must be one of gaussian",
    ),
    "labels where there are none": (["--condition=label"], "needs data with labels"),
    "a column of a point": (["--condition=column"], "some of an image's pixels"),
    "the left half of a point": (["--condition=left_half"], "some of an image's pixels"),
    "the top half of a point": (["--condition=top_half"], "some of an image's pixels"),
    "a quadrant of a point": (["--condition=quadrant"], "some of an image's pixels"),
    "a mask of a point": (["--condition=random_mask"], "some of an image's pixels"),
    "a model that needs a column": (["--model=cvae"], "some of an image's pixels"),
    "fixed pixels": (["--binarisation=static"], "arc has no grey levels"),
    "convolutions": (["--network=conv", "--decoder_widths=mirrored"], "need images"),
    "convolutions in place of the preset's layers": (["--network=conv"], "need images"),
    "the preset's initialiser": (["--initialiser=he"], "initial_scale goes with"),
    "a likelihood in place of the preset's": (["--likelihood=bernoulli"], "for points"),
    "the preset's batches": (["--batch_size=64001"], "batch_size must be at most"),
    "a z of another dimension": (["--decode_at=1,2"], "latent_dim = 1 numbers"),
    "a z where nothing is seen": (["--decode_at=1"], "data of images; got '1' for arc"),
    "no z": (["--decode_at=here"], "finite numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(case, tmp_path, monkeypatch, capsys):
    flags, message = BAD[case]
    preset = [] if "--dataset=arc" in flags else PRESET
    monkeypatch.setattr(sys, "argv", ["run", *preset, *flags, f"--run_dir={tmp_path / 'r'}"])
    with pytest.raises(SystemExit) as stop:
        cli.main("experiments.run", job.main)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
