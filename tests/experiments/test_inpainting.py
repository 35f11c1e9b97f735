"""Models of p(x|c) end to end: runs, their methods, inpainting."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vae_jax
from experiments import cli, evaluate, inpainting
from experiments import run as single
from experiments.cli.config import parse
from vae_jax import data, evaluation
from vae_jax.settings import UserError

TINY = ["--dataset=digits", "--widths=8", "--steps=30", "--nll_samples=3", "--batch_size=64"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cvae") / "run"
    flags = ["--model=cvae", "--prior=conditional", "--latent_dim=2", f"--run_dir={directory}"]
    flags += ["--figures=all", "--decode_at=0,-1"]
    assert single.main(parse([*TINY, *flags])) == 0
    return directory


def test_a_conditional_run_is_opened_and_used(run_dir):
    run = vae_jax.load(run_dir)
    test = data.load(parse(TINY).data).test
    batch = run.split(test.x[:6], test.y[:6])
    assert batch.x.shape == (6, 56, 1) and batch.condition.shape == (6, 8, 1)
    np.testing.assert_array_equal(run.merge(batch.x, batch.condition), test.x[:6] / 255)
    q = run.encode(*batch)
    assert q.mean.shape == (6, 2)
    decoded = run.decode(q.mean, batch.condition)
    np.testing.assert_allclose(decoded, run.reconstruct(*batch), rtol=1e-6)
    one = batch.condition[0]
    assert run.sample(jax.random.key(0), 5, one).shape == (5, 56, 1)
    for wrong in (None, jnp.zeros(3)):
        with pytest.raises(UserError, match=r"give c of shape \(8, 1\)"):
            run.decode(q.mean, wrong)


def test_a_conditional_run_has_no_manifold_but_a_decoded_z(run_dir):
    """With all figures: the plane of the latents is another for every condition."""
    names = {path.stem for path in (run_dir / "figures").iterdir()}
    usual = {"samples", "reconstructions", "latents", "curves"}
    assert names == usual | {"training_latents", "decoded"}


def test_its_summary_is_log_p_of_the_target_given_the_condition(run_dir):
    """Not the whole image's, and with what is given drawn by data_seed."""
    run = vae_jax.load(run_dir)
    test = data.load(parse(TINY).data).test
    batch = run.split(test.x, test.y, jax.random.key(0))
    estimate = evaluation.log_likelihood(run.vae, run.params, batch, jax.random.key(0), 3)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["nll"] == pytest.approx(evaluation.nll(estimate)["nll"], rel=1e-5)


def test_it_is_evaluated(run_dir, capsys):
    flags = [str(run_dir), "--nll_samples=3"]
    settings = cli.parse(flags, evaluate.Config, "run_dir")
    assert evaluate.main(settings) == 0
    result = json.loads((run_dir / "evaluation-test.json").read_text())
    summary = json.loads((run_dir / "summary.json").read_text())
    assert result["nll"] == pytest.approx(summary["nll"], rel=1e-5)
    assert "mutual_information" not in result  # of one prior for all images
    assert "aggregate posterior" in capsys.readouterr().out


def test_inpainting_compares_the_two(tmp_path, capsys):
    flags = [*TINY[:1], *TINY[2:], "--preset=", "--widths=8", "--latent_dim=2", "--digits=3"]
    config = parse([*flags, f"--run_dir={tmp_path}"], inpainting.Config)
    assert inpainting.main(config) == 0
    numbers = json.loads((tmp_path / "inpainting.json").read_text())
    assert numbers["steps"] == 30 and {"cvae", "regressor", "truth"} <= numbers.keys()
    regressor = vae_jax.load(tmp_path / "regressor")
    assert regressor.config["settings"]["model"]["latent_dim"] == 0
    test = data.load(config.data).test
    batch = regressor.split(test.x, test.y)
    exact = evaluation.elbo(regressor.vae, regressor.params, batch, jax.random.key(0))
    assert numbers["regressor"]["log_p"] == pytest.approx(exact["elbo"], rel=1e-5)
    for name in ("sheets", "completions"):
        assert len(np.unique(np.asarray(Image.open(tmp_path / f"{name}.png")))) > 10
    first = capsys.readouterr().out.splitlines()[-2]
    assert inpainting.main(config) == 0  # finished: nothing is trained again
    assert capsys.readouterr().out.splitlines()[-2] == first


@pytest.mark.parametrize(("flag", "message"), [
    ("--model=regressor", "model must be cvae"),
    ("--model=vae", "model must be cvae"),
    ("--latent_dim=0", "at least 1"),
    ("--condition=none", "needs a condition"),
])  # fmt: skip
def test_inpainting_needs_latents_and_a_condition(flag, message):
    with pytest.raises(UserError, match=message):
        parse([flag], inpainting.Config)


def test_sharpness_of_known_images():
    assert inpainting.mean_entropy(np.array([[0.0, 1.0], [0.5, 0.5]])) == pytest.approx(
        np.log(2) / 2, rel=1e-6
    )
    step = np.zeros((2, 4, 5, 1))
    step[0, :, 2:] = 1  # one edge of four pixels in one of two images
    assert inpainting.gradient_energy(step) == pytest.approx(2.0)
