"""KL weights and learning rates at the steps where they are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.objectives.config import ObjectiveConfig, kl_weights
from vae_jax.objectives.kl_schedules import KL_SCHEDULES
from vae_jax.training.schedules import LEARNING_RATES
from vae_jax.training.state import TrainConfig, make_optimiser


def betas(steps, **settings):
    weights = kl_weights(ObjectiveConfig(**settings))
    return [float(weights(step).beta) for step in steps]


def test_constant():
    assert betas([0, 1, 10**6], beta=0.5) == [0.5] * 3


def test_linear_rises_to_beta_and_stays():
    got = betas([0, 25, 50, 100, 101, 10**6], beta=4.0, kl_schedule="linear", kl_warmup=100)
    np.testing.assert_allclose(got, [0, 1, 2, 4, 4, 4])


def test_cosine_rises_by_half_a_cosine():
    got = betas([0, 25, 50, 75, 100, 500], beta=2.0, kl_schedule="cosine", kl_warmup=100)
    r = np.cos(np.pi / 4)
    np.testing.assert_allclose(got, [0, 1 - r, 1, 1 + r, 2, 2], atol=1e-6)


def test_cyclical_starts_again_and_ends_at_beta():
    """Fu et al. (2019): half of each cycle rises, half stays."""
    settings = {"beta": 2.0, "kl_schedule": "cyclical", "kl_warmup": 10, "kl_cycles": 3}
    cycle = [*np.arange(10) / 5, *[2.0] * 10]
    np.testing.assert_allclose(betas(range(60), **settings), cycle * 3, rtol=1e-6)
    assert betas([60, 65, 10**6], **settings) == [2.0] * 3


def test_capacity_rises_to_its_end():
    weights = kl_weights(ObjectiveConfig(beta=1000.0, capacity=25.0, capacity_steps=100))
    got = [float(weights(step).capacity) for step in (0, 20, 100, 200)]
    np.testing.assert_allclose(got, [0, 5, 25, 25])
    assert float(weights(20).beta) == 1000
    assert float(kl_weights(ObjectiveConfig(capacity=3.0))(0).capacity) == 3


@pytest.mark.parametrize("name", KL_SCHEDULES)
def test_weights_are_functions_of_a_traced_step(name):
    warmup = {} if name == "constant" else {"kl_warmup": 7}
    weights = kl_weights(ObjectiveConfig(beta=3.0, kl_schedule=name, **warmup))
    steps = np.arange(80)
    got = jax.jit(jax.vmap(lambda step: weights(step).beta + 0.0 * step))(steps)
    np.testing.assert_allclose(got, [float(weights(int(s)).beta) for s in steps], atol=1e-5)
    assert np.all(got >= 0) and np.all(got <= 3.00001)


def test_learning_rates():
    cosine = LEARNING_RATES["cosine"](1.0, 10, 110)
    np.testing.assert_allclose(
        [cosine(s) for s in (0, 5, 10, 60, 110)], [0, 0.5, 1, 0.5, 0], atol=1e-6
    )
    constant = LEARNING_RATES["constant"](1.0, 10, 110)
    np.testing.assert_allclose([constant(s) for s in (0, 5, 10, 60)], [0, 0.5, 1, 1])
    assert LEARNING_RATES["constant"](0.3, 0, 10)(0) == 0.3


def test_stages_of_burda():
    """Stage i lasts 3ⁱ of 3,280 epochs, at 1e-3·10^(−i/7), rounded as in their code."""
    rate = LEARNING_RATES["iwae"](1e-3, 0, 3280)
    first = (3 ** np.arange(8) - 1) // 2
    assert first[-1] + 3**7 == 3280
    rates = np.round(10 ** (1 - np.arange(8) / 7), 1) * 1e-4
    np.testing.assert_allclose([rate(s) for s in first], rates, rtol=1e-6)
    np.testing.assert_allclose([rate(s) for s in first[1:] - 1], rates[:-1], rtol=1e-6)
    assert LEARNING_RATES["iwae"](1e-3, 0, 328)(327) == rate(3279)  # in proportion


# Optimisers


def test_adam_norm_grad_is_its_formula():
    """Each array's gradient over its norm, then Adam with ε beside √v, as in their code."""
    config = TrainConfig(optimiser="adam_norm_grad", learning_rate=0.1, beta1=0.5, beta2=0.9)
    optimiser = make_optimiser(config, 10)
    params = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    state, m, v = optimiser.init(params), {"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0}
    for t in (1, 2, 3):
        g = {"a": np.arange(3.0) + t, "b": np.full((2, 2), -100.0 * t)}
        updates, state = optimiser.update(jax.tree.map(jnp.float32, g), state, params)
        for name in g:
            unit = g[name] / (np.linalg.norm(g[name]) + 1e-7)
            m[name], v[name] = 0.5 * m[name] + 0.5 * unit, 0.9 * v[name] + 0.1 * unit**2
            size = 0.1 * np.sqrt(1 - 0.9**t) / (1 - 0.5**t)
            expected = -size * m[name] / (np.sqrt(v[name]) + 1e-8)
            np.testing.assert_allclose(updates[name], expected, rtol=1e-5)


@pytest.mark.parametrize("huge", [1e3, np.inf])
def test_a_step_of_a_huge_gradient_is_left_out(huge):
    """As if it had not been: the next ones are those of a training without it."""
    optimiser, plain = (make_optimiser(TrainConfig(skip=s), 10) for s in (10.0, 0.0))
    params = jnp.zeros(2)
    state, other = optimiser.init(params), plain.init(params)
    for size in (1.0, huge, 2.0):
        gradient = jnp.asarray([size, -size], jnp.float32)
        updates, state = optimiser.update(gradient, state, params)
        if size == huge:
            np.testing.assert_array_equal(updates, 0.0)
        else:
            expected, other = plain.update(gradient, other, params)
            np.testing.assert_array_equal(updates, expected)
