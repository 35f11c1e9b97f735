"""Objectives with parameters of their own: FactorVAE's discriminator, GECO's multiplier."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vae_jax import evaluation, models, objectives, training
from vae_jax.objectives import KLWeights, ObjectiveConfig
from vae_jax.objectives.factor import permuted
from vae_jax.settings import UserError
from vae_jax.types import unconditional

KEY = jax.random.key(0)
X = jax.random.bernoulli(KEY, jax.random.uniform(jax.random.key(1), (64, 1, 1, 1)), (64, 4, 4, 1))
X = X.astype(jnp.float32)


def made(latent_dim=3, **settings):
    vae = models.build(models.ModelConfig(latent_dim=latent_dim, widths="8"), X.shape[1:])
    objective = objectives.build(ObjectiveConfig(**settings), vae, X.shape[1:], len(X))
    return vae, objective, objectives.init_params(vae, objective, KEY)


def gradient(vae, objective, params, key=KEY):
    def loss(params):
        return objective(vae, params, key, unconditional(X), KLWeights())

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


def largest(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


FACTOR = {"objective": "factor", "discriminator_widths": "16-16"}
GECO = {"objective": "geco", "target_distortion": 8.0}


@pytest.mark.parametrize("settings", [FACTOR, GECO], ids=["factor", "geco"])
def test_the_model_starts_as_with_the_elbo(settings):
    """An objective's parameters leave the model's alone."""
    vae, _, params = made(**settings)
    alone = vae.init(KEY)
    assert params.keys() == {*alone, "objective"}
    for a, b in zip(
        jax.tree.leaves(alone), jax.tree.leaves({k: params[k] for k in alone}), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_permuting_keeps_each_latents_values_and_breaks_their_ties():
    z = jnp.repeat(jnp.arange(500.0)[:, None], 2, axis=1)
    shuffled = permuted(KEY, z)
    for column in shuffled.T:
        np.testing.assert_array_equal(jnp.sort(column), z[:, 0])
    assert abs(np.corrcoef(shuffled.T)[0, 1]) < 0.2


def test_each_player_has_the_gradient_of_its_own_loss():
    vae, objective, params = made(**FACTOR)
    (loss, metrics), both = gradient(vae, objective, params)
    (_, _), free = gradient(vae, made(**FACTOR, tc_weight=0.0)[1], params)
    (_, _), elbo = gradient(vae, made()[1], params, jax.random.split(KEY)[0])
    # The discriminator's gradient knows nothing of the weight of the total correlation,
    np.testing.assert_allclose(
        *map(np.concatenate, zip(*[
            (np.ravel(a), np.ravel(b)) for a, b in zip(
                jax.tree.leaves(both["objective"]), jax.tree.leaves(free["objective"]), strict=True
            )
        ], strict=True)), rtol=1e-6,
    )  # fmt: skip
    assert largest(free["objective"]) > 0
    # and the model's, with weight 0, is the ELBO's: cross-entropy does not reach the encoder.
    for part in ("posterior", "likelihood"):
        for a, b in zip(jax.tree.leaves(free[part]), jax.tree.leaves(elbo[part]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    expected = metrics["distortion"] + metrics["rate"] + 6.4 * metrics["tc"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_the_discriminator_learns_the_total_correlation():
    """Of two latents with correlation ρ, TC = −½ log(1 − ρ²): here from a posterior that is fixed,
    so that only the discriminator learns.
    """
    rho = 0.9
    chol = jnp.asarray([[1.0, 0.0], [rho, (1 - rho**2) ** 0.5]])
    zero = jnp.zeros(2)

    def posterior(params, x, c):
        from vae_jax.distributions import MultivariateNormal

        return MultivariateNormal(zero, chol)

    from vae_jax.distributions import Bernoulli, Normal

    vae = models.compose(
        lambda key: {"model": zero},
        posterior,
        lambda params, z, c: Bernoulli(jnp.zeros((4, 4, 1))),
        lambda params, c: Normal(zero, zero),
    )
    config = ObjectiveConfig(objective="factor", discriminator_widths="64-64")
    objective = objectives.build(config, vae, (4, 4, 1), 512)
    x = np.zeros((512, 4, 4, 1), np.float32)
    train = training.TrainConfig(batch_size=512, steps=1500, schedule="cosine")
    *_, last = training.fit(vae, objective, x, train)
    keys = jax.random.split(KEY, 40)
    batch = unconditional(jnp.asarray(x))
    estimate = jax.jit(
        jax.vmap(lambda key: objective(vae, last.state.params, key, batch, KLWeights())[1]["tc"])
    )(keys)
    exact = -0.5 * np.log(1 - rho**2)
    assert abs(float(estimate.mean()) - exact) < 0.1


def test_geco_multiplies_until_the_constraint_is_kept():
    """λ rises while the distortion is above its target, and the training ends near the target."""
    vae, objective, params = made(**GECO)
    (_, metrics), slope = gradient(vae, objective, params)
    excess = metrics["distortion"] - 8.0
    np.testing.assert_allclose(slope["objective"]["log_multiplier"], -excess, rtol=1e-5)
    config = training.TrainConfig(batch_size=64, steps=3000, learning_rate=3e-3)
    state = None
    for progress in training.fit(vae, objective, X, config):
        state = progress.state
    reached = evaluation.elbo(vae, state.params, unconditional(X), KEY)
    assert abs(reached["distortion"] - 8.0) < 0.5
    free = models.count_parameters(vae)
    assert "objective" not in free


def test_an_optimiser_of_ones_own():
    vae, objective, _ = made(**FACTOR)
    config = training.TrainConfig(batch_size=64, steps=3, learning_rate=1.0)
    *_, moved = training.fit(vae, objective, X, config, optimiser=optax.sgd(1e-3))
    *_, still = training.fit(vae, objective, X, config, optimiser=optax.sgd(0.0))
    start = jax.tree.leaves(objectives.init_params(vae, objective, training.keys_from_seed(0).init))
    for a, b, c in zip(
        start, jax.tree.leaves(still.state.params), jax.tree.leaves(moved.state.params), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        assert a.shape == c.shape
    assert largest(jax.tree.map(lambda a, b: a - b, moved.state.params, still.state.params)) > 0


@pytest.mark.parametrize("settings, message", [
    ({"objective": "geco"}, "needs --target_distortion"),
    ({"objective": "factor", "discriminator_widths": "a"}, "discriminator_widths must be"),
    ({"target_distortion": 3.0}, "does nothing for objective elbo, only for geco"),
])  # fmt: skip
def test_wrong_settings_are_one_line(settings, message):
    with pytest.raises(UserError, match=message):
        ObjectiveConfig(**settings)


def test_one_latent_has_no_total_correlation():
    with pytest.raises(UserError, match="at least 2 latents"):
        made(latent_dim=1, **FACTOR)
