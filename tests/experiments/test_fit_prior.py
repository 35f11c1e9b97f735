"""Another prior for a trained model: what stays, what is gained, what is left."""

import json

import jax
import numpy as np
import pytest
from run_helpers import untrained

import vae_jax
from experiments import evaluate, fit_prior, pack, plot
from experiments.cli.config import parse
from experiments.figures import catalogue
from experiments.runner.job import assemble, targets
from experiments.runner.run import perform
from vae_jax import data
from vae_jax.data import conditions
from vae_jax.settings import UserError

FAST = ["--epochs=25", "--nll_samples=20", "--learning_rate=0.01"]


def fitted(run_dir, *flags):
    return fit_prior.main(parse([str(run_dir), *flags], fit_prior.Config, "run_dir"))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A model of two latents whose q(z) is far from N(0, I): trained at β = 0.1."""
    directory = tmp_path_factory.mktemp("runs") / "digits"
    flags = ("--dataset=digits", "--widths=16", "--epochs=6", "--nll_samples=20", "--beta=0.1")
    assert perform(assemble(parse([*flags, "--latent_dim=2", f"--run_dir={directory}"]))) == 0
    return directory


@pytest.fixture(scope="module")
def vamp(run_dir):
    assert fitted(run_dir, "--prior=vamp", "--pseudo_inputs=30", *FAST) == 0
    return run_dir.with_name("digits-vamp")


def test_encoder_and_decoder_stay_to_the_last_bit(run_dir, vamp):
    old, new = vae_jax.load(run_dir), vae_jax.load(vamp)
    for part in ("posterior", "likelihood"):
        assert jax.tree.all(jax.tree.map(np.array_equal, old.params[part], new.params[part]))
    start = targets(old.data(), old.condition, 30)
    assert np.abs(np.asarray(new.params["prior"]["pseudo_inputs"]) - start).max() > 0.05


def test_what_the_rate_loses_is_the_marginal_kl(vamp):
    before, after = (json.loads((vamp / "prior.json").read_text())[n] for n in ("before", "after"))
    np.testing.assert_allclose(after["distortion"], before["distortion"], rtol=1e-5)
    assert after["marginal_kl"] < before["marginal_kl"] - 3 * before["marginal_kl_se"]
    gained = after["elbo"] - before["elbo"]
    errors = 5 * (before["marginal_kl_se"] + after["marginal_kl_se"])
    assert abs(gained - (before["marginal_kl"] - after["marginal_kl"])) < errors
    assert gained > 0.2 and after["nll"] < before["nll"]


def test_what_is_left_is_a_run_like_any_other(vamp, tmp_path, capsys):
    summary = json.loads((vamp / "summary.json").read_text())
    after = json.loads((vamp / "prior.json").read_text())["after"]
    assert summary["elbo"] == after["elbo"] and summary["nll"] == after["nll"]
    assert {"prior.png", "components.png", "pseudo_inputs.png"} <= set(summary["figures"])
    packed = tmp_path / "vamp.safetensors"
    assert pack.main(parse([str(vamp), f"--out={packed}"], pack.Config, "run_dir")) == 0
    run = vae_jax.load(packed)
    assert run.sample(jax.random.key(0), 3).shape == (3, 8, 8, 1)
    flags = [str(vamp), "--images=20", "--nll_samples=2"]
    assert evaluate.main(parse(flags, evaluate.Config, "run_dir")) == 0
    flags = [str(vamp), "--figures=prior,components,pseudo_inputs", f"--out={tmp_path}"]
    assert plot.main(parse(flags, plot.Config, "run")) == 0
    assert sorted(p.name for p in tmp_path.glob("*.png")) == [
        "components.png", "prior.png", "pseudo_inputs.png",
    ]  # fmt: skip


def test_fitting_goes_on_where_it_was(vamp, capsys):
    run = str(vamp.with_name("digits"))
    assert fitted(run, "--prior=vamp", "--pseudo_inputs=30", *FAST, "--resume") == 0
    assert "holds this run, finished" in capsys.readouterr().out
    with pytest.raises(UserError, match="pseudo_inputs was 30, now 20"):
        fitted(run, "--prior=vamp", "--pseudo_inputs=20", *FAST, "--resume")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prior=standard"], "the model's has no parameters"),
        (["--prior=conditional"], "prior conditional needs a condition"),
        (["--prior=vamp", "--pseudo_inputs=5000"], "only 1,350 training examples"),
        (["--prior=mixture", "--prior_components=0"], "prior_components must be a whole"),
        (["--prior=mixture", "--pseudo_inputs=5"], "pseudo_inputs does nothing for prior mixture"),
        (["--prior=mixture", "--log_scale_bound=clip"], "log_scale_bound is the trained model's"),
        (["--prior=gmm"], "prior must be one of"),
    ],
)
def test_what_cannot_be_fitted_is_one_line_and_leaves_nothing(tmp_path, flags, said):
    untrained(tmp_path / "run", "--latent_dim=2")
    with pytest.raises(UserError, match=said) as error:
        fitted(tmp_path / "run", *flags, f"--to={tmp_path / 'new'}", *FAST)
    assert "\n" not in str(error.value) and not (tmp_path / "new").exists()


def test_a_label_s_own_mixture(tmp_path):
    """p(z|c): the classes of a conditional model get mixtures of their own."""
    untrained(tmp_path / "run", "--latent_dim=2", "--condition=label")
    flags = ("--prior=mixture", "--prior_components=2", "--prior_weights=learned", "--epochs=2")
    assert fitted(tmp_path / "run", *flags, "--nll_samples=2") == 0
    run = vae_jax.load(tmp_path / "run-mixture")
    means = [run.vae.prior(run.params, np.eye(10, dtype=np.float32)[c]).mean for c in (0, 1)]
    assert np.abs(means[0] - means[1]).max() > 1e-3


def test_the_figures_are_of_what_has_them(run_dir):
    run = vae_jax.load(run_dir)
    scene = catalogue.Scene(run, run.data)
    lacks = {name: catalogue.FIGURES[name].lacks(scene) for name in ("components", "pseudo_inputs")}
    assert "needs a prior that is a mixture" in lacks["components"]
    assert "needs --prior=vamp" in lacks["pseudo_inputs"]


# Where training starts


def test_training_starts_from_the_parts_that_fit(tmp_path):
    untrained(tmp_path / "run", "--latent_dim=2")
    trained = vae_jax.load(tmp_path / "run").params
    flags = ("--dataset=digits", "--widths=8", f"--start_from={tmp_path / 'run'}")
    whole = assemble(parse([*flags, "--latent_dim=2"]))
    start = whole.vae.init(jax.random.key(1))
    assert jax.tree.all(jax.tree.map(np.array_equal, start, trained)) and not whole.fresh
    other = assemble(parse([*flags, "--latent_dim=2", "--posterior=full"]))
    start = other.vae.init(jax.random.key(1))
    assert other.fresh == ("posterior",) and "from the seed: posterior" in " ".join(other.notes)
    assert jax.tree.all(jax.tree.map(np.array_equal, start["likelihood"], trained["likelihood"]))
    with pytest.raises(UserError, match="parts of this model's shapes"):
        assemble(parse([*flags[:1], flags[2], "--latent_dim=5"]))
    with pytest.raises(UserError, match="does not exist"):
        assemble(parse([*flags[:2], f"--start_from={tmp_path / 'nothing'}"]))


def test_examples_are_spread_over_the_training_images():
    dataset = data.load(parse(["--dataset=digits"]).data)
    condition = conditions.make("none", dataset.x_shape)
    some = targets(dataset, condition, 3)
    np.testing.assert_array_equal(some, dataset.train.x[[0, 450, 900]] / np.float32(255))
    column = conditions.make("column", dataset.x_shape)
    assert targets(dataset, column, 5).shape == (5, 56, 1)
