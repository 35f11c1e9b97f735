"""Figures on request: what is decoded for them, their options, and what is one line."""

import shutil
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from run_helpers import untrained
from scipy.stats import norm

import vae_jax
from experiments import cli, evaluate, plot
from experiments import pack as packing
from experiments import run as training
from experiments.cli.config import parse
from experiments.figures import catalogue
from experiments.figures.context import Scene
from vae_jax import plots
from vae_jax.runs import checkpoints
from vae_jax.settings import UserError


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("figures") / "run"
    job = untrained(path, "--latent_dim=3")
    for epoch in (1, 2, 3):
        params = jax.tree.map(lambda a, e=epoch: a * e, vae_jax.load(path).params)
        checkpoints.save_kept(path, params, {"step": epoch, "epoch": float(epoch)})
    assert job.config.model.latent_dim == 3
    return path


@pytest.fixture(scope="module")
def pack(directory, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "p.vae"
    assert packing.main(parse([str(directory), f"--out={out}"], packing.Config, "run_dir")) == 0
    return out


def draw(run, *flags: str) -> int:
    return plot.main(parse([str(run), *flags], plot.Config, "run"))


@pytest.fixture
def asked(monkeypatch):
    """What the drawing functions are given, by their names."""
    seen = {}

    def note(name):
        function = getattr(plots, name)

        def call(*arguments, **options):
            seen[name] = (arguments, options)
            return function(*arguments, **options)

        return call

    for name in ("manifold", "latents", "rows", "posterior", "reconstructions"):
        monkeypatch.setattr(plots, name, note(name))
    return seen


def view(directory, **options) -> Scene:
    run = vae_jax.load(directory)
    return Scene(run, lambda: plot.images(run, plot.PlotConfig(run=str(directory))), **options)


# From the command line


def test_everything_from_a_directory(directory, tmp_path, capsys):
    folder = tmp_path / "new" / "here"
    assert draw(directory, f"--out={folder}", "--n=3", "--figure_format=svg") == 0
    assert {p.stem for p in folder.iterdir()} == {*catalogue.FIGURES} - {
        "data",
        "reconstructed",
        "decoder",
        "decoded",
        "components",
        "prior",
        "pseudo_inputs",
        "rates",
        "levels",
    }
    assert {p.suffix for p in folder.iterdir()} == {".svg"}
    shown = capsys.readouterr().out.split()
    assert sorted(shown) == sorted(str(p) for p in folder.iterdir())


def test_from_a_pack_where_there_is_no_data_set(pack, tmp_path, monkeypatch):
    """What needs no images is drawn all the same; the rest is one line, and nothing is drawn."""
    from vae_jax.data import DataError, identity

    def missing(config):
        raise DataError("no digits here")

    monkeypatch.setattr(identity, "load", missing)
    flags = (f"--out={tmp_path}", "--axes=3,1", "--n=2")
    assert draw(pack, "--figures=curves,manifold,samples,temperatures,traversals", *flags) == 0
    assert len([*tmp_path.iterdir()]) == 5
    with pytest.raises(UserError, match="images are needed, and cannot be had: no digits here"):
        draw(pack, "--figures=curves,latents", f"--out={tmp_path / 'more'}")
    assert not (tmp_path / "more").exists()


def test_a_pack_is_drawn_as_its_run(pack, directory, tmp_path):
    flags = ("--figures=posterior", "--images=3")
    for name, run in (("a", pack), ("b", directory)):
        assert draw(run, *flags, f"--out={tmp_path / name}") == 0
    assert (tmp_path / "a/posterior.png").read_bytes() == (
        tmp_path / "b/posterior.png"
    ).read_bytes()


def test_where_figures_go(pack, directory, tmp_path):
    packed = shutil.copy(pack, tmp_path)
    assert draw(packed, "--figures=curves") == draw(directory, "--figures=curves") == 0
    assert (tmp_path / "p-figures/curves.png").exists()
    assert (directory / "figures/curves.png").exists()


def test_an_animation_has_a_frame_for_each_checkpoint(directory, tmp_path):
    flags = ("--figures=animation", "--n=2", "--frame_seconds=0.1", f"--out={tmp_path}")
    assert draw(directory, *flags) == 0
    with Image.open(tmp_path / "animation.gif") as film:
        frames = []
        for i in range(getattr(film, "n_frames", 1)):
            film.seek(i)
            frames.append(np.asarray(film.convert("L"), float))
            assert film.info["duration"] == (800 if i == 2 else 100)
    assert len(frames) == 3 and np.abs(frames[0] - frames[2]).max() > 20


BAD = {
    "--figures=faces": "figures must be some of manifold, ",
    "--axes=4": "axes must be at most 3; got 4",
    "--axes=0,1": "axes must be different whole numbers ≥ 1",
    "--axes=1,1": "axes must be different whole numbers",
    "--axes=x": "axes must be different whole numbers",
    "--axes=2": "manifold needs two axes",
    "--images=297": "images must be below 297, the number of test images; got 297",
    "--images=1": "interpolation is between two images; got 1",
    "--digits=3,11": "digits must be labels of the test set",
    "--temperatures=1,hot": "temperatures must be numbers from 0 to 100",
    "--temperatures=-1": "temperatures must be numbers from 0 to 100",
    "--n=1": "n must be a whole number ≥ 2",
    "--range=0": "range must be a finite number > 0",
    "--manifold_grid=polar": "manifold_grid must be one of run, quantile, linspace",
    "--out=/dev/null/x": "cannot be made",
    "--checkpoint=last": "no checkpoint that can be read",
}


@pytest.mark.parametrize("flag", BAD)
def test_bad_options_are_one_line(directory, flag, monkeypatch, capsys, tmp_path):
    flags = ["--figures=manifold,interpolation", "--n=2", f"--out={tmp_path / 'out'}", flag]
    monkeypatch.setattr(sys, "argv", ["plot", str(directory), *flags])
    with pytest.raises(SystemExit) as stop:
        cli.main("experiments.plot", plot.main, plot.Config, "run")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and str(BAD[flag]) in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_a_run_has_not(tmp_path, pack):
    untrained(tmp_path / "none", "--latent_dim=0")
    with pytest.raises(UserError, match="latents needs 1 latent; the run has 0"):
        draw(tmp_path / "none", "--figures=latents")
    with pytest.raises(UserError, match=r"has kept no checkpoints: train with --keep_checkpoints"):
        draw(pack, "--figures=animation", "--n=2")


# What is drawn


def test_the_manifold_is_a_plane_of_two_axes(directory, asked):
    look = view(directory, n=3, axes=(2, 0), kind="linspace", high=1.5)
    catalogue.manifold(look, "epoch 7")
    (images, kind), options = asked["manifold"]
    z = np.zeros((9, 3))
    z[:, 2], z[:, 0] = np.tile([-1.5, 0, 1.5], 3), np.repeat([1.5, 0, -1.5], 3)
    np.testing.assert_allclose(images, look.run.decode(z), atol=1e-6)
    assert kind == "linspace"
    assert options == {"high": 1.5, "names": ("z₃", "z₁"), "note": "epoch 7"}


def test_without_axes_the_two_whose_means_vary_most(directory):
    look = view(directory)
    assert look.units(2) == sorted(np.argsort(look.means.var(axis=0))[1:].tolist())
    assert look.units(3) == [0, 1, 2]


def test_interpolation_begins_and_ends_at_the_reconstructions(directory, asked):
    look = view(directory, images=(5, 9))
    catalogue.interpolation(look)
    (rows, ticks, _), _ = asked["rows"]
    ends = look.run.reconstruct(look.split.x[[5, 9]])
    assert list(rows) == ["linear", "spherical"] and ticks[0] == "0" and ticks[-1] == "1"
    for images in rows.values():
        np.testing.assert_allclose(images[[0, -1]], ends, atol=1e-5)


def test_traversals_move_one_unit_from_an_image(directory, asked):
    look = view(directory, images=(4,), axes=(1,), high=2.0)
    catalogue.traversals(look)
    (rows, ticks, _), _ = asked["rows"]
    z = np.array(np.repeat(look.run.encode(look.split.x[4:5]).mean, 11, axis=0))
    z[:, 1] = np.linspace(-2, 2, 11)
    np.testing.assert_allclose(rows["z₂"], look.run.decode(z), atol=1e-6)
    assert ticks[0] == "−2" and len(rows) == 1


def test_temperature_scales_what_the_prior_draws(directory, asked):
    look = view(directory, temperatures=(0.0, 0.5, 1.0), seed=3)
    catalogue.temperatures(look)
    (rows,), _ = asked["rows"]
    key, run = jax.random.key(3), look.run
    keys = jax.random.split(key, 10)
    z = jax.vmap(lambda k: run.vae.prior(run.params, np.zeros(0)).sample(k))(keys)
    for t in look.temperatures:
        np.testing.assert_allclose(rows[f"T = {t:g}"], run.decode(t * z), atol=1e-5)
    np.testing.assert_array_equal(rows["T = 1"], run.sample(key, 10))


def test_temperature_is_around_the_mean_of_a_conditional_prior(tmp_path):
    untrained(tmp_path / "r", "--condition=label", "--prior=conditional")
    run, c = vae_jax.load(tmp_path / "r"), np.eye(10)[3]
    mean = run.vae.prior(run.params, c).mean
    cold = run.sample(jax.random.key(0), 2, c, temperature=0)
    np.testing.assert_allclose(cold, run.decode(np.stack([mean, mean]), c), atol=1e-6)


def test_the_posterior_of_the_most_ambiguous_image(directory, asked):
    from vae_jax.evaluation import latent_space

    look = view(directory, axes=(0, 2))
    catalogue.posterior(look)
    (means, _, mean, covariance, shown), _ = asked["posterior"]
    at = int(np.argmax(latent_space.disagreement(look.means, look.split.y)))
    q = look.run.encode(look.split.x[at : at + 1])
    np.testing.assert_allclose(mean, q.mean[0, [0, 2]], atol=1e-6)
    np.testing.assert_allclose(covariance, np.diag(np.exp(2 * q.log_scale[0, [0, 2]])), rtol=1e-5)
    assert means.shape == (297, 2) and f"test image {at}" in shown
    assert [len(images) for images in shown.values()] == [1, 10]


def test_digits_are_all_that_is_shown(directory, asked):
    look = view(directory, digits=("3", "8"))
    catalogue.latents(look)
    (means, labels), _ = asked["latents"]
    assert set(labels) == {3, 8} and len(means) == len(labels) < 100


def test_conditional_models_draw_the_rest_of_one_image(tmp_path, asked):
    untrained(tmp_path / "r", "--condition=left_half")
    assert draw(tmp_path / "r", "--n=2") == 0
    (images, _), _ = asked["manifold"]
    assert images.shape == (4, 8, 8, 3)
    np.testing.assert_array_equal(images[0][:, :4], images[3][:, :4])  # the given half, coloured
    assert (images[0][:, :4] != images[0][:, :4, :1]).any()


def test_the_data_set_of_ones_own_file_is_found_again(tmp_path, monkeypatch):
    """By its path, not by the name that its file has in the run's directory."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x_train=rng.integers(0, 256, (40, 4, 4), dtype=np.uint8))
    untrained(tmp_path / "r", f"--dataset={tmp_path / 'mine.npz'}", "--batch_size=8")
    assert draw(tmp_path / "r", "--figures=reconstructions") == 0
    settings = evaluate.EvaluationConfig(run_dir=str(tmp_path / "r"))
    assert len(evaluate.load_split(vae_jax.load(tmp_path / "r"), settings)[0].x) == 4
    np.savez(tmp_path / "mine.npz", x_train=rng.integers(0, 256, (40, 4, 4), dtype=np.uint8))
    with pytest.raises(UserError, match="images are not the ones it was trained on"):
        draw(tmp_path / "r", "--figures=reconstructions")


def test_checkpoints_are_kept_on_the_way(tmp_path, monkeypatch):
    """Every second epoch, the weights alone."""
    monkeypatch.setattr(catalogue, "draw", lambda *_: [])
    flags = ["--dataset=digits", "--widths=8", "--epochs=5", "--nll_samples=1", "--batch_size=450"]
    chosen = [f"--run_dir={tmp_path / 'a'}", "--keep_checkpoints=2"]
    assert training.main(parse([*flags, *chosen])) == 0
    run = vae_jax.load(tmp_path / "a")
    kept = checkpoints.read_kept(tmp_path / "a", run.params)
    assert [meta for _, meta in kept] == [{"step": 6, "epoch": 2.0}, {"step": 12, "epoch": 4.0}]
    assert checkpoints.read_kept(tmp_path / "b", run.params) == []
    broken = tmp_path / "a/checkpoints/weights-0000000006.npz"
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"weights-0000000006.npz is broken"):
        checkpoints.read_kept(tmp_path / "a", run.params)


# The pictures themselves


def test_rows_put_every_image_in_its_place():
    images = np.random.default_rng(0).random((6, 4, 5, 1)).astype(np.float32)
    figure = plots.rows({"a": images[:3], "long name": images[3:]}, ["0", "½", "1"], "t")
    (axes,) = figure.axes
    sheet = np.asarray(axes.get_images()[0].get_array())
    np.testing.assert_array_equal(sheet, np.broadcast_to(plots.tile(images, 2, 3, 1), sheet.shape))
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "long name"]
    np.testing.assert_allclose(axes.get_yticks(), [9 - 2, 9 - 7])  # the axis runs upwards
    np.testing.assert_allclose(axes.get_xticks(), [2.5, 8.5, 14.5])


@pytest.mark.parametrize("kind", plots.KINDS)
def test_ellipses_are_one_and_two_standard_deviations(kind):
    rng = np.random.default_rng(0)
    mean, root = np.array([0.3, -0.5]), np.array([[0.2, 0], [0.1, 0.15]])
    images = {"x": np.zeros((1, 4, 4, 1)), "draws": np.zeros((10, 4, 4, 1))}
    arguments = rng.normal(size=(50, 2)), np.arange(50) % 3, mean, root @ root.T, images
    figure = plots.posterior(*arguments, kind=kind)
    for axes, frame in zip(figure.axes[:2], (kind, "linspace"), strict=True):
        paths = [np.asarray(line.get_xydata()) for line in axes.lines if len(line.get_xdata()) > 9]
        back = [norm.ppf(path) if frame == "quantile" else path for path in paths]
        whitened = [np.linalg.solve(root, (path - mean).T) for path in back]
        radii = [np.linalg.norm(white, axis=0) for white in whitened]
        np.testing.assert_allclose(radii, np.repeat([[1], [1], [2], [2]], 181, 1), rtol=1e-8)
    page = figure.get_size_inches() * plots.DPI
    for axes in figure.axes:
        assert (axes.get_position().extents * np.tile(page, 2) <= np.tile(page, 2) + 0.5).all()


def test_an_animation_is_a_gif_of_at_least_one_figure(tmp_path):
    figure = plots.samples(np.zeros((1, 2, 2, 1)))
    for figures_, name in (([], "a.gif"), ([figure], "a.png")):
        with pytest.raises(ValueError, match="at least one figure in a"):
            plots.animate(figures_, tmp_path / name)
    plots.animate([figure], tmp_path / "a.gif")
    assert Image.open(tmp_path / "a.gif").size == tuple(map(round, figure.get_size_inches() * 200))
