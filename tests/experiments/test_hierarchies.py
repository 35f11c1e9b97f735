"""Hierarchies from the command line: a run and what follows it, sweeps, and what cannot be."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

import vae_jax
from experiments import evaluate, kl_weight, latent_dim, plot
from experiments import pack as packing
from experiments import run as single
from experiments.cli.config import parse
from experiments.figures import catalogue
from experiments.figures.context import Scene
from vae_jax import distributions, evaluation, models, objectives, plots
from vae_jax.evaluation import latents
from vae_jax.settings import UserError

HVAE = ["--model=hvae", "--layer_latents=2-3", "--layer_widths=6-6,8-8"]
TINY = ["--dataset=digits", "--epochs=1", "--nll_samples=3", "--batch_size=256"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("hierarchies") / "run"
    assert single.main(parse([*TINY, *HVAE, f"--run_dir={path}"])) == 0
    return path


def test_a_run_has_the_rates_of_its_groups(directory, capsys):
    summary = json.loads((directory / "summary.json").read_text())
    assert len(summary["rates"]) == 2 and summary["shapes"] == [[2], [3]]
    np.testing.assert_allclose(sum(summary["rates"]), summary["rate"], rtol=1e-5)
    assert summary["posterior_means"].startswith("estimated")
    assert evaluate.main(parse(
        [str(directory), "--nll_samples=3", "--images=20"], evaluate.Config, "run_dir"
    )) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "rates, top down" in out
    assert "no aggregate posterior: each of the N² densities of a hierarchy" in out


def test_a_run_is_drawn_and_packed(directory, tmp_path):
    flags = [str(directory), f"--out={tmp_path / 'p.safetensors'}"]
    assert packing.main(parse(flags, packing.Config, "run_dir")) == 0
    pack = tmp_path / "p.safetensors"
    assert plot.main(parse([str(pack), f"--out={tmp_path}"], plot.Config, "run")) == 0
    drawn = {path.stem for path in tmp_path.glob("*.png")}
    assert {"samples", "reconstructions", "temperatures", "curves", "rates", "levels"} <= drawn
    with pytest.raises(UserError, match="manifold needs z to be one vector"):
        plot.main(parse([str(pack), "--figures=manifold"], plot.Config, "run"))


def test_a_ladder_from_the_command_line(tmp_path):
    """With latents at places; its numbers do not depend on how many z are drawn at a time."""
    flags = ["--model=ladder", "--groups=1x1-2x2", "--channels=4", "--group_latents=2"]
    path = tmp_path / "ladder"
    assert single.main(parse([*TINY, *flags, f"--run_dir={path}"])) == 0
    summary = json.loads((path / "summary.json").read_text())
    assert summary["shapes"] == [[1, 1, 2], [2, 2, 2], [2, 2, 2]]
    np.testing.assert_allclose(sum(summary["rates"]), summary["rate"], rtol=1e-5)
    assert {"rates.png", "levels.png"} <= set(summary["figures"])
    run = vae_jax.load(path)
    x = run.data().test.x[:5]
    data = vae_jax.types.unconditional(x)
    measured = [
        evaluation.summary(run.vae, run.params, data, jax.random.key(0), num_samples=7, at_once=n)
        for n in (3, 5000)
    ]
    for name in ("nll", "elbo", "rates"):
        one, other = (m.numbers[name] for m in measured)
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_levels_shown_keep_what_is_above(directory, monkeypatch):
    """The sheet's last row is the reconstruction, ten times."""
    seen = {}
    monkeypatch.setattr(plots, "rows", lambda rows, *_: seen.update(rows) or Figure())
    scene = Scene(vae_jax.load(directory), vae_jax.load(directory).data, images=(4,))
    catalogue.levels(scene)
    assert [*seen] == ["0 of 2 kept", "1 of 2 kept", "2 of 2 kept"]
    x, c = scene.some(1)
    expected = scene.run.reconstruct(x, c)
    for image in seen["2 of 2 kept"]:
        np.testing.assert_allclose(image, expected[0], atol=1e-5)
    assert np.std(seen["0 of 2 kept"], axis=0).max() > 0


def test_a_temperature_scales_each_layer_given_those_above(directory):
    run = vae_jax.load(directory)
    key, nothing = jax.random.key(3), np.zeros(0)
    p = run.vae.prior(run.params, nothing)
    of_z2, of_z1 = jax.random.split(key)
    z2 = 0.5 * jax.random.normal(of_z2, (2,))
    below = p.then(p.params, z2)
    z1 = below.mean + 0.5 * np.exp(below.log_scale) * jax.random.normal(of_z1, (3,))
    cooled = distributions.cooled(p, key, 0.5)
    for ours, expected in zip(cooled, (z2, z1), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    whole = distributions.cooled(p, key, 1.0)
    for ours, expected in zip(whole, p.sample(key), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
    x = run.sample(key, 2, temperature=0.0)
    np.testing.assert_array_equal(x[0], x[1])


def test_a_unit_that_tells_nothing_is_not_active():
    """Of means that are estimated from samples, which vary by themselves."""
    vae = models.build(
        models.ModelConfig(model="two_layer", layer_latents="2-3", layer_widths="4,4"), (2, 2, 1)
    )
    params = vae.init(jax.random.key(0))
    params["posterior"] = jax.tree.map(np.zeros_like, params["posterior"])
    x = np.random.default_rng(0).uniform(size=(50, 2, 2, 1)).astype(np.float32)
    data = vae_jax.types.unconditional(x)
    assert not latents.active_units(latents.posterior_means(vae, params, data)).any()


def test_a_sweep_over_kl_weights(tmp_path: Path):
    flags = [*TINY, *HVAE, "--betas=0.5,1", f"--run_dir={tmp_path / 'sweep'}"]
    assert kl_weight.main(parse(flags, kl_weight.Config)) == 0
    result = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert [row["status"] for row in result["members"]] == ["finished"] * 2


@pytest.mark.parametrize("flags, message", [
    (["--latent_dims=2"], "latent_dims does nothing for model hvae"),
    (["--latent_dims=2,5"], "latent_dims does nothing for model hvae"),
])  # fmt: skip
def test_there_is_no_sweep_over_latent_dim(flags, message, tmp_path):
    with pytest.raises(UserError, match=message):
        latent_dim.main(parse([*TINY, *HVAE, *flags, f"--run_dir={tmp_path}"], latent_dim.Config))


@pytest.mark.parametrize("flags, message", [
    (["--decode_at=1,2"], "decode_at is a z of latent_dim numbers; model hvae"),
    (["--objective=beta_tc"], "total correlation needs"),
    (["--objective=dip_i"], "needs a Gaussian posterior"),
    (["--free_bits=1", "--free_bits_groups=3"], "free_bits_groups must be 0 .each group"),
])  # fmt: skip
def test_what_needs_one_vector_is_one_line_before_training(flags, message, tmp_path):
    with pytest.raises(UserError, match=message):
        single.main(parse([*TINY, *HVAE, *flags, f"--run_dir={tmp_path / 'no'}"]))
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("objective", ["iwae", "dreg", "score_function", "info", "factor"])
def test_other_objectives_take_a_hierarchy(objective):
    settings = {"num_samples": 2} if objective in ("iwae", "dreg", "score_function") else {}
    vae = models.build(
        models.ModelConfig(model="hvae", layer_latents="2-3", layer_widths="4,4"), (2, 2, 1)
    )
    config = objectives.ObjectiveConfig(objective=objective, **settings)
    assert objectives.build(config, vae, (2, 2, 1), 100)
