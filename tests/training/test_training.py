"""Training: one step by hand, the order of the images, and that stopping leaves no trace."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vae_jax import models, training
from vae_jax.data.batches import epoch_order, preparer, rows
from vae_jax.data.conditions import none
from vae_jax.data.split import Split
from vae_jax.models.vae import VAE
from vae_jax.objectives import bounds
from vae_jax.objectives.terms import KLWeights
from vae_jax.settings import UserError
from vae_jax.training.schedules import LEARNING_RATES
from vae_jax.training.state import TrainConfig
from vae_jax.types import unconditional

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 16)).astype(np.uint8)  # 24 of 4 × 4 × 1
DIM = 3

# A linear model without a VAE around it: the loss is ½‖w − mean of the batch‖².
LINEAR = VAE(lambda key: {"w": jnp.ones(DIM)}, *[lambda *_: None] * 4)
ROWS = np.random.default_rng(1).normal(size=(10, DIM)).astype(np.float32)


def quadratic(vae, params, key, batch, weights):
    loss = 0.5 * jnp.sum((params["w"] - jnp.mean(batch.x, axis=0)) ** 2)
    return loss, {"first": batch.x[0, 0]}


def as_they_are(key, rows):
    return unconditional(rows)


def fit(config, objective=quadratic, vae=LINEAR, data=ROWS, **options):
    options = {"prepare": as_they_are, "weights": lambda step: KLWeights(), **options}
    return list(training.fit(vae, objective, data, config, **options))


def fit_vae(config, **options):
    vae = models.build(models.ModelConfig(widths="4"), (4, 4, 1))
    prepare = preparer("dynamic", none((4, 4, 1)))
    return fit(config, bounds.elbo, vae, rows(Split(IMAGES)), prepare=prepare, **options)


def same(a, b):
    return jax.tree.all(jax.tree.map(jnp.array_equal, a, b))


# One step, exactly


def adam(gradients, w, rates, b1=0.9, b2=0.999, epsilon=1e-8):
    """Kingma & Ba 2015, algorithm 1, in NumPy."""
    m = v = 0.0
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        g = gradient(w)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)
        yield w


def batches(config, steps):
    """The rows of each step, by the library's order of an epoch."""
    order_key = training.keys_from_seed(config.seed).order
    order = epoch_order(order_key, 0, len(ROWS), config.batch_size)
    return [ROWS[np.asarray(rows)].mean(axis=0, dtype=np.float64) for rows in order[:steps]]


def gradients(config, steps):
    return [lambda w, mean=mean: w - mean for mean in batches(config, steps)]


def test_steps_are_adams():
    for steps in (1, 3):
        config = TrainConfig(batch_size=3, steps=steps, learning_rate=0.1)
        *_, expected = adam(gradients(config, steps), np.ones(DIM), [0.1] * steps)
        np.testing.assert_allclose(fit(config)[-1].state.params["w"], expected, rtol=1e-5)


def test_warm_up_starts_at_zero():
    config = TrainConfig(batch_size=3, steps=3, learning_rate=0.1, warmup=2)
    *_, expected = adam(gradients(config, 3), np.ones(DIM), [0, 0.05, 0.1])
    np.testing.assert_allclose(fit(config)[-1].state.params["w"], expected, rtol=1e-5)


def test_the_moving_average_is_of_the_weights_after_each_step():
    config = TrainConfig(batch_size=3, steps=3, learning_rate=0.1, ema=0.75)
    average = np.ones(DIM)
    for w in adam(gradients(config, 3), np.ones(DIM), [0.1] * 3):
        average = 0.75 * average + 0.25 * w
    state = fit(config)[-1].state
    np.testing.assert_allclose(state.averaged["w"], average, rtol=1e-5)
    assert not np.allclose(state.params["w"], average, rtol=1e-3)


def test_without_a_moving_average_the_weights_themselves_are_evaluated():
    state = fit(TrainConfig(batch_size=3, steps=1))[-1].state
    assert state.ema == () and state.averaged is state.params


@pytest.mark.parametrize("clip", [0.01, 100.0])
def test_clipping_bounds_the_norm_of_the_gradient(clip):
    config = TrainConfig(batch_size=3, steps=1, learning_rate=1.0, optimiser="sgd", clip=clip)
    gradient = np.ones(DIM) - batches(config, 1)[0]
    norm = np.linalg.norm(gradient)
    expected = np.ones(DIM) - gradient * min(1, clip / norm)
    np.testing.assert_allclose(fit(config)[-1].state.params["w"], expected, rtol=1e-5)


def test_schedules_at_every_step():
    constant = LEARNING_RATES["constant"](0.4, 4, 10)
    cosine = LEARNING_RATES["cosine"](0.4, 4, 10)
    iwae, ends = LEARNING_RATES["iwae"](0.4, 4, 3280), np.cumsum(3 ** np.arange(8))
    for t in (0, 1, 3, 4, *ends[1:-1] - 1, *ends[1:-1], 3279, 4000):
        stage = 10 * round(10 ** (1 - min(np.sum(t >= ends), 7) / 7), 1) / 10
        np.testing.assert_allclose(iwae(t), min(t / 4, 1) * 0.04 * stage, rtol=1e-5)
    assert float(LEARNING_RATES["iwae"](0.4, 0, 3280)(0)) == np.float32(0.4)
    for t in range(14):
        rise = min(t / 4, 1) * 0.4
        fall = 0.2 * (1 + np.cos(np.pi * np.clip((t - 4) / 6, 0, 1)))
        np.testing.assert_allclose(constant(t), rise, atol=1e-7)
        np.testing.assert_allclose(cosine(t), min(rise, fall), atol=1e-7)
    assert LEARNING_RATES["constant"](0.4, 0, 10)(0) == 0.4


def test_the_objective_sees_the_weights_of_its_step():
    def objective(vae, params, key, batch, weights):
        return jnp.sum(params["w"] ** 2), {"beta": weights.beta}

    config = TrainConfig(batch_size=3, steps=6)
    seen = fit(config, objective, weights=lambda step: KLWeights(beta=10.0 * step), chunk=1)
    assert [p.metrics["beta"] for p in seen] == [0, 10, 20, 30, 40, 50]


# The order of the images, and means


@pytest.mark.parametrize("batch_size, used", [(3, 9), (5, 10), (10, 10), (7, 7)])
def test_every_image_at_most_once_an_epoch_and_in_another_order_the_next(batch_size, used):
    """Where the batch divides the data, every image exactly once."""

    def objective(vae, params, key, batch, weights):
        counts = jnp.zeros(10).at[batch.x.ravel().astype(int)].add(1)
        code = jnp.sum(batch.x[:, 0] * 10.0 ** jnp.arange(batch_size))  # the order, as a number
        return jnp.sum(params["w"] ** 2), {f"n{i}": counts[i] for i in range(10)} | {"code": code}

    data = np.arange(10, dtype=np.float32)[:, None]
    config = TrainConfig(batch_size=batch_size, epochs=2)
    first, second = fit(config, objective, data=data, chunk=1000)
    for progress in (first, second):
        counts = [round(progress.metrics[f"n{i}"] * progress.chunk) for i in range(10)]
        assert sum(counts) == used == progress.chunk * batch_size and max(counts) == 1
    assert first.metrics["code"] != second.metrics["code"]


def test_metrics_are_means_over_the_steps():
    config = TrainConfig(batch_size=2, steps=5)
    single = [p.metrics for p in fit(config, chunk=1)]
    together = fit(config, chunk=5)[0].metrics
    for name in ("loss", "first"):
        np.testing.assert_allclose(together[name], np.mean([m[name] for m in single]), rtol=1e-6)


# Stopping and going on


def test_stopping_in_mid_epoch_leaves_no_trace():
    """7 steps and then 13 are 20 in a row, bit for bit: weights, moments, averages, metrics."""
    config = TrainConfig(batch_size=4, steps=20, ema=0.9)  # 6 steps an epoch
    whole = fit_vae(config, chunk=20)
    assert [p.step for p in whole] == [6, 12, 18, 20]
    stopped = fit_vae(TrainConfig(batch_size=4, steps=7, ema=0.9), chunk=1)[-1].state
    assert stopped.step == 7
    resumed = fit_vae(config, state=stopped, chunk=20)
    assert [p.step for p in resumed] == [12, 18, 20]
    assert same(whole[-1].state, resumed[-1].state)
    assert whole[-1].metrics == resumed[-1].metrics


def test_convolutions_are_the_same_bits_wherever_a_run_is_stopped():
    vae = models.build(models.ModelConfig(network="conv", widths="2"), (4, 4, 1))
    step = training.make_step(vae, bounds.elbo, optax.adam(0.1), lambda step: KLWeights())
    run = training.make_run(step, preparer("dynamic", none((4, 4, 1))))
    order = jnp.arange(24).reshape(6, 4)
    ends = []
    for counts in ([6], [2, 3, 1]):
        state, first = training.init_state(vae, bounds.elbo, optax.adam(0.1), KEY), 0
        for count in counts:
            state, _ = run(state, KEY, rows(Split(IMAGES)), order, first, count)
            first += count
        ends.append(state)
    assert same(*ends)


def test_the_seed_decides_everything():
    config = TrainConfig(batch_size=2, steps=3, seed=7)
    runs = [fit(config), fit(config), fit(TrainConfig(batch_size=2, steps=3, seed=8))]
    assert same(runs[0][-1].state, runs[1][-1].state)
    assert runs[0][-1].metrics == runs[1][-1].metrics
    assert not same(runs[0][-1].state.params, runs[2][-1].state.params)


def test_the_seed_decides_the_order_of_the_images_too():
    orders = [
        [p.metrics["first"] for p in fit(TrainConfig(batch_size=2, steps=5, seed=s), chunk=1)]
        for s in (0, 1)
    ]
    assert orders[0] != orders[1]


def test_every_step_draws_anew_from_its_number():
    """Step t has the keys that split(fold_in(key, t)) gives: first the data's, then the noise's."""

    def objective(vae, params, key, batch, weights):
        draws = {"noise": jax.random.uniform(key), "data": batch.x[0, 0]}
        return jnp.sum(params["w"] ** 2), draws

    def prepare(key, rows):
        return unconditional(jax.random.uniform(key, (1, 1)))

    config = TrainConfig(batch_size=2, steps=3)
    steps = training.keys_from_seed(config.seed).steps
    for t, progress in enumerate(fit(config, objective, prepare=prepare, chunk=1)):
        data, noise = jax.random.split(jax.random.fold_in(steps, t))
        assert progress.metrics["noise"] == jax.random.uniform(noise)
        assert progress.metrics["data"] == jax.random.uniform(data, (1, 1))[0, 0]


def test_progress_counts_epochs():
    progress = fit(TrainConfig(batch_size=5, epochs=3), chunk=1)
    assert [p.epoch for p in progress] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert all(p.chunk == 1 and p.total_steps == 6 for p in progress)


def test_chunks_end_with_every_epoch_and_at_every_chunk():
    steps = [p.step for p in fit(TrainConfig(batch_size=1, epochs=2), chunk=4)]
    assert steps == [4, 8, 10, 14, 18, 20]


# What goes wrong


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_loss_that_is_not_finite_stops_training_at_its_step(value):
    def objective(vae, params, key, batch, weights):
        loss, metrics = quadratic(vae, params, key, batch, weights)
        return jnp.where(weights.beta == 4, value, loss), metrics

    config = TrainConfig(batch_size=1, epochs=2)
    steps = fit(config, objective, weights=lambda step: KLWeights(beta=step))
    assert len(steps) == 1
    assert not steps[0].finite
    assert (steps[0].step, steps[0].chunk) == (5, 5)  # step 4, counted from 0, was the fifth


def test_a_batch_larger_than_the_data_is_a_users_error():
    with pytest.raises(UserError, match=r"batch_size must be at most .* 10; got 11"):
        fit(TrainConfig(batch_size=11))


def test_more_steps_than_int32_counts_are_a_users_error():
    config = TrainConfig(batch_size=1, epochs=2**28)
    with pytest.raises(UserError, match="epochs must make fewer than 2³¹ steps, 10 each"):
        training.length(config, 10)


# Compilation


def test_any_number_of_steps_runs_without_compiling_anew():
    """Traces are counted: an objective is called only while a program is made."""
    traces = []

    def objective(*arguments):
        traces.append(1)
        return quadratic(*arguments)

    step = training.make_step(LINEAR, objective, optax.adam(0.1), lambda step: KLWeights())
    run = training.make_run(step, as_they_are)
    state = training.init_state(LINEAR, objective, optax.adam(0.1), KEY)
    order = jnp.arange(8).reshape(8, 1)
    state, _ = run(state, KEY, jnp.asarray(ROWS), order, 0, 1)
    before = len(traces)
    for first, count in ((1, 3), (4, 4), (0, 8)):
        state, _ = run(state, KEY, jnp.asarray(ROWS), order, first, count)
    assert int(state.step) == 16
    assert len(traces) == before


def test_fit_compiles_once_whatever_the_chunks():
    traces = []

    def objective(*arguments):
        traces.append(1)
        return quadratic(*arguments)

    fit(TrainConfig(batch_size=3, steps=1), objective)
    once = len(traces)
    fit(TrainConfig(batch_size=3, steps=11), objective, chunk=2)
    assert len(traces) == 2 * once


def test_the_state_holds_arrays_only():
    """So that it can be saved, and vmapped over seeds."""
    config = TrainConfig(batch_size=4, ema=0.9)
    vae = models.build(models.ModelConfig(widths="4"), (4, 4, 1))
    state = training.initial_state(vae, bounds.elbo, config, 24)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert not any(
        jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state)
    )
