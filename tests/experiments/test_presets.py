"""Presets: each is a valid set of flags, and every flag given beside it wins."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.cli.config import Config, fields, parse
from experiments.cli.presets import PRESETS, SHORTCUTS
from experiments.runner.job import assemble
from experiments.runner.report import header
from tests.data_helpers import digits_like
from vae_jax.data import download
from vae_jax.models.vae import count_parameters
from vae_jax.objectives.bounds import elbo
from vae_jax.objectives.terms import KLWeights
from vae_jax.settings import UserError
from vae_jax.training.fit import make_step
from vae_jax.training.state import TrainConfig, init_state, is_weight, make_optimiser
from vae_jax.types import Batch


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_flags(preset):
    """The same configuration, whether its values are given by name or one by one."""
    flags = [f"--{name}={value}" for name, value in PRESETS[preset].items()]
    assert parse([f"--preset={preset}"]) == parse(flags) != Config()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_names_its_data_and_takes_no_other_in_its_place(preset, tmp_path, monkeypatch):
    """Without MNIST, doersch is an error that says the ways out, not sixty thousand steps of other
    images.
    """
    monkeypatch.setattr(download, "reachable", lambda url: False)
    flags = [f"--preset={preset}", f"--data_dir={tmp_path}"]
    if preset == "oduerr_arc":  # drawn, not read
        assert assemble(parse([*flags, "--batch_size=10"])).dataset.name == "arc"
        return
    with pytest.raises(
        UserError, match="run once with a network, or use --dataset=digits"
    ) as error:
        assemble(parse(flags))
    assert "\n" not in str(error.value)
    assert assemble(parse([*flags, "--dataset=digits", "--batch_size=10"])).dataset.name == "digits"


def test_what_is_given_wins_over_the_preset():
    config = parse(["--preset=doersch", "--latent_dim=3", "--steps=10", "--beta1=0.5"])
    assert (config.model.latent_dim, config.training.steps, config.training.beta1) == (3, 10, 0.5)
    assert config.training.l2 == 5e-4
    training = parse(["--preset=doersch", "--epochs=3"]).training
    assert (training.epochs, training.steps) == (3, 0)
    assert parse(["--preset=iwae", "--steps=3"]).training.steps == 3
    assert parse(["--preset=doersch", "--model=regressor"]).model.latent_dim == 0
    assert parse(["--preset=doersch", "--epochs=2"]).training.steps == 0
    assert parse(["--preset=doersch", "--epochs=2", "--steps=7"]).training.steps == 7
    assert parse(["--model=cvae", "--condition=label"]).model.condition == "label"


def test_samples_that_a_preset_brings_are_said():
    job = assemble(parse(["--preset=iwae", "--objective=elbo"]), digits_like((6, 5, 1)))
    assert "objective  elbo with 5 samples, beta 1;" in header(job, Path("runs"))


def test_every_value_names_a_setting():
    for values in (*PRESETS.values(), *SHORTCUTS.values()):
        assert values.keys() <= fields().keys()


@pytest.mark.parametrize(("flags", "message"), [
    (["--model=vae", "--condition=label"], "model vae has no condition"),
    (["--model=cvae", "--condition=none"], "model cvae needs a condition"),
    (["--model=cvae", "--latent_dim=0"], "at least 1"),
    (["--model=regressor", "--latent_dim=2"], "latent_dim 0; got 2"),
    (["--preset=doersch", "--posterior=full"], "posterior does nothing for model doersch"),
    (["--preset=doersch", "--likelihood=gaussian"], "likelihood does nothing for model doersch"),
    (["--preset=doersch", "--widths=200"], "widths does nothing for model doersch"),
    (["--prior=conditional"], "needs a condition"),
    (["--model=regressor", "--prior=conditional"], "latent_dim must be at least 1"),
    (["--decoder_widths=5", "--network=conv"], "does nothing for network conv, only for mlp"),
    (["--initial_scale=1"], "goes with initialiser normal or truncated_normal"),
    (["--preset=dorsch"], "doersch"),
    (["--model=gan"], "regressor"),
])  # fmt: skip
def test_contradictions_are_one_line(flags, message):
    with pytest.raises(UserError, match=message) as error:
        assemble(parse(flags), digits_like((6, 5, 1)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("model", "count"), [
    ("vae", 2_844_844), ("cvae", 3_506_316), ("regressor", 2_100_756),
])  # fmt: skip
def test_doersch_systems_by_their_flags(model, count):
    job = assemble(parse([f"--model={model}", "--preset=doersch"]), digits_like((28, 28, 1)))
    assert sum(count_parameters(job.vae).values()) == count
    assert job.length == (2, 60_000)


@pytest.mark.parametrize("condition", ["label", "column", "left_half", "quadrant", "random_mask"])
@pytest.mark.parametrize("prior", ["standard", "conditional"])
def test_every_condition_trains(condition, prior):
    """The loss is finite, its gradient reaches every part, and what is given matters."""
    flags = [f"--condition={condition}", f"--prior={prior}", "--widths=8", "--model=cvae"]
    job = assemble(parse(flags), digits_like((6, 5, 1)))
    rows = jax.tree.map(lambda a: jnp.asarray(a[:16]), job.rows)
    batch = job.prepare(jax.random.key(0), rows)
    assert batch.x.shape[1:] == job.condition.x_shape
    assert batch.condition.shape[1:] == job.condition.c_shape
    params = job.vae.init(jax.random.key(1))

    def loss(params, c):
        return job.objective(job.vae, params, jax.random.key(2), Batch(batch.x, c), KLWeights())[0]

    gradient, by_c = jax.grad(loss, (0, 1))(params, batch.condition)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient)) and np.any(by_c)


def test_bad_conditions_are_one_line():
    images = digits_like((6, 5, 1))
    for flags, data, message in (
        (["--condition=label"], images._replace(
            **{s: getattr(images, s)._replace(y=np.zeros(0, np.int32))
               for s in ("train", "valid", "test")}), "needs data with labels"),
        (["--condition=column", "--network=conv"], images, "images"),
        (["--condition=column"], digits_like((1, 1, 1)), "too small"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message) as error:
            assemble(parse(flags), data)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_the_solver_is_caffes(beta1):
    """Adam with ε̂, and L2 in the gradient of weights alone, written out in NumPy."""
    config = TrainConfig(
        optimiser="adam_hat", beta1=beta1, beta2=0.999, epsilon=0.01, l2=0.1, learning_rate=0.01
    )
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    gradients = [{"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)} for _ in range(5)]
    optimiser = make_optimiser(config, 5)
    params = jax.tree.map(jnp.asarray, {"layer": start})
    state = optimiser.init(params)
    weights = {name: value.copy() for name, value in start.items()}
    mean, square = dict.fromkeys(start, 0.0), dict.fromkeys(start, 0.0)
    for t, gradient in enumerate(gradients, 1):
        updates, state = optimiser.update({"layer": gradient}, state, params)
        params = optax.apply_updates(params, updates)
        for name in start:
            g = gradient[name] + 0.1 * weights[name] * (name == "kernel")
            square[name] = 0.999 * square[name] + 0.001 * g**2
            mean[name] = beta1 * mean[name] + (1 - beta1) * g
            rate = 0.01 * np.sqrt(1 - 0.999**t) / (1 - beta1**t)
            weights[name] -= rate * mean[name] / (np.sqrt(square[name]) + 0.01)
    for name in start:
        np.testing.assert_allclose(params["layer"][name], weights[name], rtol=1e-5, atol=1e-7)


def test_only_kernels_are_weights():
    job = assemble(parse(["--preset=doersch", "--latent_dim=2"]), digits_like((4, 4, 1)))
    params = jax.eval_shape(job.vae.init, jax.random.key(0))
    for path, chosen in jax.tree_util.tree_leaves_with_path(is_weight(params)):
        assert chosen == (path[-1].key == "kernel")


def test_the_regressor_has_no_rate():
    job = assemble(parse(["--model=regressor", "--widths=8"]), digits_like((6, 5, 1)))
    optimiser = optax.sgd(0.1)
    step = make_step(job.vae, elbo, optimiser, lambda step: KLWeights())
    state = init_state(job.vae, elbo, optimiser, jax.random.key(0))
    rows = jax.tree.map(lambda a: jnp.asarray(a[:16]), job.rows)
    _, metrics = step(state, jax.random.key(0), job.prepare(jax.random.key(1), rows))
    assert metrics["rate"] == 0 and metrics["loss"] == metrics["distortion"]


def test_what_a_preset_sets_of_a_part_that_a_flag_replaces_goes_with_it():
    config = parse(["--preset=iwae", "--model=two_layer"])
    assert config.model.model == "two_layer" and config.objective.num_samples == 5
    assert config.training.batch_size == 20 and config.model.latent_dim == 2  # the default
    with pytest.raises(UserError, match="latent_dim does nothing for model two_layer"):
        parse(["--preset=iwae", "--model=two_layer", "--latent_dim=50"])


def test_points_are_gaussian_unless_said_otherwise():
    assert parse(["--dataset=arc"]).model.likelihood == "gaussian"
    assert parse(["--dataset=digits"]).model.likelihood == "bernoulli"
    assert parse(["--dataset=arc", "--likelihood=laplace"]).model.likelihood == "laplace"
    with pytest.raises(UserError, match=r"likelihood must be one of .* for points"):
        assemble(parse(["--dataset=arc", "--likelihood=bernoulli"]))
