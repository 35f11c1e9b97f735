"""Numbers about a model agree with what is known exactly."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from vae_jax import evaluation, models
from vae_jax.distributions.continuous import MultivariateNormal, Normal
from vae_jax.evaluation import annealing, disentanglement, latents
from vae_jax.settings import UserError
from vae_jax.types import unconditional


@functools.cache
def wide(full=False, off=0.1):
    """The linear world with 40 images."""
    return oracles.linear(off=off, full=full, batch=40)


def estimate(world, num_samples, seed=0, **options):
    key = jax.random.key(seed)
    return evaluation.log_likelihood(
        world.vae, world.params, world.batch, key, num_samples, **options
    )


# The loss of a data set


def test_a_loss_counts_every_image_once_whatever_the_batches():
    """40 images in batches of 16, 16 and 8; each batch has a key of its own."""
    world, weight = wide(), 3.0

    def objective(vae, params, key, batch, weights):
        return weights * jnp.mean(batch.x), {"noise": jax.random.normal(key)}

    arguments = (world.vae, objective, world.params, world.batch, jax.random.key(0), weight)
    got = evaluation.objective_value(*arguments, batch_size=16)
    np.testing.assert_allclose(got["loss"], weight * np.mean(world.batch.x), rtol=1e-5)
    noise = [jax.random.normal(jax.random.fold_in(jax.random.key(0), i)) for i in range(3)]
    np.testing.assert_allclose(got["noise"], np.average(noise, weights=[16, 16, 8]), rtol=1e-5)


# NLL by importance weighting


def test_at_the_true_posterior_the_nll_is_exact():
    world = wide(full=True, off=0.0)
    got = estimate(world, 60)
    np.testing.assert_allclose(got.log_p, world.log_p, rtol=1e-5)
    np.testing.assert_allclose(got.ess, 60, rtol=1e-3)
    np.testing.assert_allclose(got.variance, 0, atol=1e-5)


def test_the_nll_agrees_with_quadrature_and_its_error_is_honest():
    world = oracles.bernoulli(batch=40)
    broad = jax.tree.map(lambda a: 0.2 * a, world.params["posterior"])  # near the prior
    got = estimate(world._replace(params=world.params | {"posterior": broad}), 3000)
    errors = (got.log_p - world.log_p) / np.sqrt(got.variance)
    assert np.abs(errors).max() < 5 and 0.5 < np.std(errors) < 2
    numbers = evaluation.nll(got)
    assert abs(numbers["nll"] + world.log_p.mean()) < 5 * numbers["nll_mc_se"] + 1e-3
    spread = np.std(world.log_p, ddof=1) / np.sqrt(40)
    np.testing.assert_allclose(numbers["nll_se"], spread, rtol=0.05)


def test_one_image_has_no_standard_error():
    """None, which JSON has, rather than NaN, which it has not and a pack refuses."""
    one = evaluation.LogLikelihood(*np.ones((3, 1)), np.zeros((1, 0)))
    assert evaluation.nll(one)["nll_se"] is None
    json.dumps(evaluation.nll(one), allow_nan=False)


def test_the_kept_weights_are_those_of_the_estimate():
    """Exactly as many as asked for (130 is no multiple of 50), whatever the batch size."""
    world = wide()
    got = estimate(world, 130, keep_weights=True)
    assert got.log_w.shape == (40, 130)
    log_w = got.log_w.astype(np.float64)
    log_p = np.logaddexp.reduce(log_w, axis=1) - np.log(130)
    np.testing.assert_allclose(got.log_p, log_p, rtol=1e-5)
    w = np.exp(log_w - log_w.max(axis=1, keepdims=True))
    np.testing.assert_allclose(got.ess, w.sum(1) ** 2 / (w**2).sum(1), rtol=1e-3)
    other = estimate(world, 130, batch_size=7)
    np.testing.assert_allclose(got.log_p, other.log_p, rtol=1e-5)
    assert other.log_w.shape == (40, 0)
    with pytest.raises(ValueError, match="at least 1"):
        estimate(world, 0)


# What the latents carry


def test_units_rates_are_their_kl():
    world = wide()
    q = jax.vmap(lambda x: world.vae.posterior(world.params, x, jnp.zeros(0)))(world.batch.x)
    units = evaluation.unit_rates(world.vae, world.params, world.batch)
    mean, scale = np.asarray(q.mean, np.float64), np.exp(np.asarray(q.log_scale, np.float64))
    expected = 0.5 * (scale**2 + mean**2 - 1) - np.log(scale)
    np.testing.assert_allclose(units, expected.mean(axis=0), rtol=1e-5)
    numbers = evaluation.elbo(world.vae, world.params, world.batch, jax.random.key(0))
    np.testing.assert_allclose(units.sum(), numbers["rate"], rtol=1e-5)
    with pytest.raises(UserError, match="diagonal"):
        full = wide(full=True)
        evaluation.unit_rates(full.vae, full.params, full.batch)


def aggregate(world, **options):
    return evaluation.aggregate_posterior(
        world.vae, world.params, world.batch, jax.random.key(0), **options
    )


@pytest.mark.parametrize("full", [False, True])
def test_the_aggregate_posterior_is_that_of_all_images(full):
    """Against the plain double sum, in float64; in blocks that do not divide the images."""
    from scipy import stats

    world = wide(full=full)
    got = aggregate(world, block=17)
    args = (world.vae, world.params, jax.random.key(0), world.batch)
    q, z, _, _ = evaluation.per_example(latents._posterior_and_sample, *args)
    q, z = jax.tree.map(lambda a: np.asarray(a, np.float64), (q, z))
    scales = q.scale_tril if full else [np.diag(np.exp(s)) for s in q.log_scale]
    covariances = [s @ s.T for s in scales]
    log_q = np.stack(
        [
            stats.multivariate_normal.logpdf(z, m, c)
            for m, c in zip(q.mean, covariances, strict=True)
        ],
        axis=1,
    )
    log_aggregate = np.logaddexp.reduce(log_q, axis=1) - np.log(40)
    information = np.diagonal(log_q) - log_aggregate
    marginal = log_aggregate - stats.norm.logpdf(z).sum(axis=1)
    np.testing.assert_allclose(got["mutual_information"], information.mean(), rtol=1e-4)
    np.testing.assert_allclose(got["marginal_kl"], marginal.mean(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(got["ceiling"], np.log(40))
    for name, each in (("mutual_information", information), ("marginal_kl", marginal)):
        np.testing.assert_allclose(got[f"{name}_se"], np.std(each, ddof=1) / 40**0.5, rtol=1e-3)


def test_mutual_information_is_flagged_at_its_ceiling():
    """Point-like posteriors tell every image from every other; posteriors all alike, none."""
    world = wide()
    for log_scale, expected, flagged in ((-8.0, np.log(40), True), (None, 0.0, False)):
        encoder = dict(world.params["posterior"])
        if log_scale is None:
            encoder["matrix"] = jnp.zeros_like(encoder["matrix"])
        else:
            encoder["log_scale"] = jnp.full(2, log_scale)
        got = aggregate(world._replace(params=world.params | {"posterior": encoder}))
        np.testing.assert_allclose(got["mutual_information"], expected, atol=1e-3)
        assert got["at_ceiling"] is flagged


def test_the_rate_is_information_plus_marginal_kl():
    """In the linear world at the truth q(z) is p(z) for ever more images: KL(q(z)‖p(z)) -> 0."""
    world = oracles.linear(off=0.0, full=True, batch=3000)
    got = aggregate(world)
    posterior = world.params["likelihood"].posterior(world.batch.x[0])
    covariance = np.asarray(posterior.covariance, np.float64)
    exact = -0.5 * np.linalg.slogdet(covariance)[1]  # I(x; z) = H(z) − H(z|x)
    assert abs(got["mutual_information"] - exact) < 5 * got["mutual_information_se"] + 0.05
    assert abs(got["marginal_kl"]) < 0.05 and not got["at_ceiling"]


# Annealed importance sampling


def annealed(f, world, seed=0):
    key = jax.random.key(seed)
    return evaluation.per_example(f, world.vae, world.params, key, world.batch)


@pytest.mark.parametrize("name", oracles.WORLDS)
def test_ais_is_unbiased_at_any_number_of_temperatures(name):
    """E[w] = p(x) exactly, also with few temperatures, because the steps are tuned beforehand."""
    world = oracles.WORLDS[name]()
    log_w = annealed(annealing.ais(4, 4000), world).log_w.astype(np.float64)
    w = np.exp(log_w - world.log_p[:, None])
    assert np.abs(oracles.z_scores(w.T, 1.0)).max() < 5


def test_ais_reaches_log_p_without_an_encoder():
    world = oracles.WORLDS["bernoulli"]()
    got = annealed(annealing.ais(100, 20), world)
    log_p = np.logaddexp.reduce(got.log_w, axis=1) - np.log(20)
    np.testing.assert_allclose(log_p, world.log_p, atol=0.1)
    assert np.all(got.acceptance > 0.5) and np.all(got.acceptance < 0.95)


def test_both_ways_enclose_log_p_and_close_in():
    """x is the model's own: in the linear world its exact log p(x) is known for the same key."""
    world = wide()
    truth = world.params["likelihood"]

    def drawn(index):
        key = jax.random.fold_in(jax.random.key(0), index)
        z_key, x_key, _ = jax.random.split(key, 3)
        z = Normal(jnp.zeros(2), jnp.zeros(2)).sample(z_key)
        return truth.marginal.log_prob(truth.likelihood(z).sample(x_key))

    log_p = jax.vmap(drawn)(jnp.arange(40))
    gaps = []
    for count in (3, 60):
        got = annealed(annealing.bidirectional(count, 20), world)
        below, above = log_p - got.lower, got.upper - log_p
        assert oracles.z_scores(below) > -5 and oracles.z_scores(above) > -5
        gaps.append(np.mean(got.upper - got.lower))
    assert -0.01 < gaps[1] < 0.3 * gaps[0] and gaps[1] < 0.1


def test_hmc_leaves_its_density_invariant():
    """From exact samples of a correlated Gaussian, after a rough step, the moments stay."""
    q = MultivariateNormal(jnp.asarray([1.0, -1.0]), jnp.asarray([[1.0, 0.0], [0.8, 0.5]]))

    def one(key):
        start, move = jax.random.split(key)
        return annealing.transition(q.log_prob, q.sample(start), move, 0.4)

    z, accepted = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 20_000))
    assert 0.3 < accepted.mean() < 0.95  # rough enough that the rejections matter
    centred = np.asarray(z, np.float64) - np.asarray(q.mean)
    assert np.abs(oracles.z_scores(centred)).max() < 5
    products = centred[:, :, None] * centred[:, None, :]
    assert np.abs(oracles.z_scores(products, q.covariance)).max() < 5


def test_temperatures_rise_from_0_to_1():
    betas = annealing.temperatures(50)
    assert betas[0] == 0 and betas[-1] == 1 and len(betas) == 51
    assert np.all(np.diff(betas) > 0) and np.diff(betas)[25] > 3 * np.diff(betas)[0]
    with pytest.raises(ValueError, match="temperatures"):
        annealing.ais(1, 5)


# Disentanglement, on codes whose score is known


def factors(n=2000, seed=0):
    """Three independent factors of 4 values each."""
    return np.random.default_rng(seed).integers(0, 4, (n, 3))


def rotated(v):
    """Every code a mixture of all factors."""
    rotation = np.asarray([[2, 2, 1], [-2, 1, 2], [1, -2, 2]]) / 3
    return (v - v.mean(0)) @ rotation


def test_a_perfect_code_has_perfect_scores():
    v = factors()
    for codes in (v.astype(float), -3.0 * v[:, ::-1] + 1):
        assert disentanglement.mig(codes, v) > 0.99
        assert min(disentanglement.dci(codes, v)) > 0.99
        assert disentanglement.factor_vae_score(codes, v) == 1


def test_a_code_with_a_spare_copy_has_no_gap_but_is_disentangled():
    v = factors()
    codes = np.concatenate([v, v], axis=1) + 0.01 * np.random.default_rng(0).normal(size=(2000, 6))
    assert disentanglement.mig(codes, v) < 0.02
    scores = disentanglement.dci(codes, v)
    assert scores.disentanglement > 0.98 and scores.completeness < 0.95


def test_rotated_codes_score_low_though_they_know_everything():
    v = factors()
    codes = rotated(v)
    assert disentanglement.mig(codes, v) < 0.4
    scores = disentanglement.dci(codes, v)
    assert scores.disentanglement < 0.5 and scores.completeness < 0.5
    assert scores.informativeness > 0.9
    assert disentanglement.factor_vae_score(codes, v) < 0.9


def test_the_factor_vae_score_compares_variances_with_those_of_all_images():
    """A latent of small scale is not the one that always varies least."""
    v = factors()
    codes = (v + np.random.default_rng(1).normal(size=v.shape)) * (1, 0.1, 0.4)
    assert disentanglement.factor_vae_score(codes, v) > 0.95


def test_concentration_weighs_rows_by_their_share_to_the_base_of_the_choices():
    """One latent of importance 6 for one factor alone, one of 3 for all three alike: 6/9."""
    importance = np.array([[6.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(disentanglement._concentration(importance), 6 / 9, atol=1e-12)


def test_noise_scores_nothing():
    v = factors()
    codes = np.random.default_rng(1).normal(size=(2000, 3))
    assert disentanglement.mig(codes, v) < 0.02
    assert disentanglement.dci(codes, v).informativeness < 0.05
    assert disentanglement.factor_vae_score(codes, v) < 0.5  # chance is a third


def test_mutual_information_of_known_tables():
    a = np.repeat([0, 1], 50)
    np.testing.assert_allclose(disentanglement.mutual_information(a, a), np.log(2))
    np.testing.assert_allclose(
        disentanglement.mutual_information(a, np.tile([0, 1], 50)), 0, atol=1e-12
    )
    np.testing.assert_allclose(
        disentanglement.mutual_information(np.arange(4), np.asarray([0, 0, 7, 7])), np.log(2)
    )


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((10, 0)),
        np.zeros(10),
        np.zeros((9, 2)),
        np.zeros((10, 2)),
        np.full((10, 1), 0.5),
        np.full((10, 1), np.nan),
        np.full((10, 1), "red"),
    ],
)
def test_factors_that_are_none_are_one_line(bad):
    with pytest.raises(UserError) as error:
        disentanglement.mig(np.random.default_rng(0).normal(size=(10, 2)), bad)
    assert "\n" not in str(error.value)


# The command


def command(*arguments, module="experiments.evaluate", cwd):
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True, text=True, cwd=cwd, env=environment, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    code, _, error = command(
        "--dataset=digits", "--steps=20", "--widths=8", "--nll_samples=5", "--run_dir=run",
        "--objective=dreg", "--num_samples=3", "--kl_schedule=linear", "--kl_warmup=10",
        module="experiments.run", cwd=folder,
    )  # fmt: skip
    assert code == 0, error
    return folder


def test_the_command_evaluates_a_run(trained):
    np.save(trained / "factors.npy", factors(60))
    code, out, error = command(
        "run", "--nll_samples=70", "--images=60", "--save=log_p.npz", "--save_weights",
        "--ais_images=3", "--ais_temperatures=5", "--ais_chains=2", "--factors=factors.npy",
        cwd=trained,
    )  # fmt: skip
    assert code == 0, error
    result = json.loads((trained / "run" / "evaluation-test.json").read_text())
    for name in ("nll", "nll_se", "ess_median", "mutual_information", "ais_nll", "ais_gap", "mig"):
        assert np.isfinite(result[name])
    assert result["ais_nll_se"] > 0 and result["ais_gap_se"] > 0
    assert "nll " in out and len(result["kl_per_unit"]) == 2
    saved = np.load(trained / "log_p.npz")
    assert saved["log_w"].shape == (60, 70)
    np.testing.assert_allclose(-saved["log_p"].mean(), result["nll"], rtol=1e-5)


def test_what_cannot_be_written_is_refused_before_anything_is_computed(tmp_path):
    from experiments.evaluate import EvaluationConfig

    (tmp_path / "folder.npz").mkdir()
    for place in ("folder.npz", "nowhere/file.npz"):
        with pytest.raises(UserError, match="save must be a file in a folder that exists"):
            EvaluationConfig(run_dir="run", save=str(tmp_path / place))
    (tmp_path / "run.vae").touch()
    with pytest.raises(UserError, match="run_dir must be a run directory, not a file"):
        EvaluationConfig(run_dir=str(tmp_path / "run.vae"))


def test_a_data_set_is_scored_by_its_own_factors_that_vary(trained):
    from experiments import evaluate
    from vae_jax import runs

    run = runs.load(trained / "run")
    own = np.stack([np.zeros(6), np.arange(6), np.ones(6)], axis=1).astype(np.int32)
    nothing = np.zeros((0, 0), np.int32)

    def load(wanted, known, run=run):
        settings = evaluate.EvaluationConfig(run_dir="run", factors=wanted)
        return evaluate.load_factors(run, settings, known, 6)

    for wanted in ("", "own"):
        np.testing.assert_array_equal(load(wanted, own), own[:, 1:2])
    assert load("", nothing) is None
    with pytest.raises(UserError, match="digits has none"):
        load("own", nothing)
    without = models.build(models.ModelConfig(latent_dim=0), run.condition.x_shape)
    empty = dataclasses.replace(run, vae=without)
    assert load("", own, empty) is None
    with pytest.raises(UserError, match="scores the latents"):
        load("own", own, empty)


def test_what_cannot_be_evaluated_is_one_line(trained, monkeypatch, capsys):
    from experiments import cli, evaluate

    monkeypatch.chdir(trained)
    np.save("short.npy", factors(7))
    for arguments in (
        [], ["nowhere"], ["run", "another"], ["run", "--nll_samples=0"],
        ["run", "--factors=no.npy"], ["run", "--factors=own"],
        ["run", "--factors=short.npy"], ["run", "--save_weights"], ["run", "--save=w.txt"],
        ["run", "--ais_temperatures=1"], ["run", "--split=all"], ["run", "--nll_samples=2.5"],
        ["run", "--images=-1"],
        ["run", "--checkpoint=first"], ["run", "--save=no/w.npz"], ["run", "--data_dir=nowhere"],
        ["run", "--ais_chains=0"], ["run", "--latent_dim=3"],
    ):  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main("experiments.evaluate", evaluate.main, evaluate.Config, "run_dir")
        error = capsys.readouterr().err
        assert stop.value.code == 2, arguments
        assert error.startswith("error: ") and error.count("\n") == 1, error


@pytest.mark.parametrize(
    "settings",
    [
        ["--objective=beta_tc", "--posterior=full"],
        ["--objective=iwae", "--num_samples=0"],
        ["--objective=stl", "--num_samples=5"],
        ["--free_bits=1", "--posterior=full"],
    ],
)
def test_wrong_objectives_leave_nothing_behind(settings, tmp_path, monkeypatch, capsys):
    from experiments import cli, run

    monkeypatch.chdir(tmp_path)
    arguments = ["run", "--dataset=digits", "--widths=8", "--run_dir=new", *settings]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        cli.main("experiments.run", run.main)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and not Path("new").exists()


# The linear VAE


def test_the_optimum_of_the_linear_vae_is_the_likelihood_at_its_maximum():
    """The closed form equals the mean log-density at the maximum-likelihood parameters."""
    from scipy import stats

    from experiments.linear_vae import optimum

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 6)) + 0.3 * rng.normal(size=(300, 6)) + 2
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    noise = values[:4].mean()
    w = vectors[:, 4:] * np.sqrt(values[4:] - noise)
    density = stats.multivariate_normal(x.mean(0), w @ w.T + noise * np.eye(6))
    np.testing.assert_allclose(optimum(x, 2), density.logpdf(x).mean(), rtol=1e-9)
    with pytest.raises(UserError, match="below the number of pixels"):
        optimum(x, 6)


@pytest.mark.slow
def test_the_linear_vae_learns_its_optimum_and_never_passes_it():
    from experiments import linear_vae

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(200, 5))
    x, variances = linear_vae.principal_axes(x)
    config = linear_vae.LinearConfig(latent_dim=2, steps=60)
    params = linear_vae.train(variances.astype(np.float32), config)
    elbo, best = linear_vae.evaluate(x, variances, params), linear_vae.optimum(x, 2)
    assert best - 0.005 < elbo <= best + 1e-9
    np.testing.assert_allclose(linear_vae.exact_elbo(variances, params), elbo, rtol=1e-5)
    vae, x = linear_vae.linear_vae(variances.astype(np.float32), 2), x.astype(np.float32)
    sampled = evaluation.elbo(vae, params, unconditional(x), jax.random.key(0))["elbo"]
    assert abs(sampled - elbo) < 0.5


def test_turning_images_to_their_principal_axes_changes_no_likelihood():
    from experiments import linear_vae

    x = np.random.default_rng(1).normal(size=(50, 4)) @ np.diag([3.0, 1.0, 0.5, 0.2]) + 1
    turned, variances = linear_vae.principal_axes(x)
    np.testing.assert_allclose(turned.T @ turned / 50, np.diag(variances), atol=1e-12)
    np.testing.assert_allclose(linear_vae.optimum(turned, 2), linear_vae.optimum(x, 2))
