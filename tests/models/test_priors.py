"""Priors and posteriors that are mixtures, against what is known of them exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax import evaluation, models, settings
from vae_jax.distributions import KL, Mixture, Normal, kl
from vae_jax.models.vae import compose
from vae_jax.settings import UserError
from vae_jax.types import unconditional

KEY = jax.random.key(0)
X_SHAPE = (4, 4, 1)
SMALL = {"latent_dim": 2, "widths": "8"}


def examples(k):
    return np.random.default_rng(0).random((k, *X_SHAPE), np.float32)


def built(c_shape=(0,), **given):
    config = settings.make(models.ModelConfig, {**SMALL, **given})
    return models.build(config, X_SHAPE, c_shape, examples=examples)


def moved(params):
    """Weights that are no longer where they start."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    return jax.tree.unflatten(
        tree, [a + 0.3 * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
    )


PRIORS = [
    {"prior": "mixture", "prior_components": 3},
    {"prior": "mixture", "prior_components": 3, "prior_weights": "learned"},
    {"prior": "vamp", "pseudo_inputs": 3},
    {"prior": "vamp", "pseudo_inputs": 3, "prior_weights": "learned"},
]


def grid(half=8.0, n=161):
    line = np.linspace(-half, half, n)
    points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2).astype(np.float32)
    return points, (line[1] - line[0]) ** 2


@pytest.mark.parametrize("given", PRIORS)
@pytest.mark.parametrize(
    ("posterior", "c_shape"), [("diagonal", (0,)), ("full", (0,)), ("mixture", (3,))]
)
def test_the_density_in_the_plane_integrates_to_one(given, posterior, c_shape):
    """A mixture over joint densities: with the logsumexp taken latent by latent it would not."""
    condition = "label" if c_shape != (0,) else "none"
    vae = built(c_shape, **given, posterior=posterior, condition=condition, log_scale_range="-1,0")
    params = moved(vae.init(KEY))
    prior = vae.prior(params, jnp.ones(c_shape))
    points, area = grid()
    density = np.exp(np.asarray(jax.vmap(prior.log_prob)(points), np.float64))
    np.testing.assert_allclose(density.sum() * area, 1, atol=2e-3)
    np.testing.assert_allclose((density @ points) * area, prior.mean, atol=0.02)


def test_vamp_is_the_mixture_of_the_posteriors_of_its_images():
    vae = built(prior="vamp", pseudo_inputs=3, prior_weights="learned")
    params = moved(vae.init(KEY))
    images = np.clip(params["prior"]["pseudo_inputs"], 0, 1)
    weights = jax.nn.softmax(params["prior"]["log_weights"])
    z = np.array([0.3, -0.8], np.float32)
    expected = 0
    for w, u in zip(weights, images, strict=True):
        q = vae.posterior(params, u, jnp.zeros(0))
        expected += w * np.prod(stats.norm.pdf(z, q.mean, np.exp(q.log_scale)))
    got = vae.prior(params, jnp.zeros(0)).log_prob(z)
    np.testing.assert_allclose(got, np.log(expected), rtol=1e-5)


def test_pseudo_inputs_start_from_data_or_as_published():
    x = built(prior="vamp", pseudo_inputs=200).init(KEY)["prior"]["pseudo_inputs"]
    noise = np.asarray(x) - examples(200)
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 0.01], atol=5e-4)
    given = {"prior": "vamp", "pseudo_inputs": 200, "pseudo_inputs_start": "noise"}
    x = np.asarray(built(**given).init(KEY)["prior"]["pseudo_inputs"])
    np.testing.assert_allclose([x.mean(), x.std()], [0.05, 0.01], atol=5e-4)


def test_one_component_is_a_gaussian():
    z = jax.random.normal(KEY, (2,))
    one = built(prior="mixture", prior_components=1)
    p = one.prior(one.init(KEY), jnp.zeros(0))
    np.testing.assert_allclose(p.log_prob(z), stats.norm.logpdf(z).sum(), rtol=1e-5)
    one = built(posterior="mixture", posterior_components=1)
    q = one.posterior(moved(one.init(KEY)), examples(1)[0], jnp.zeros(0))
    alone = jax.tree.map(lambda a: a[0], q.components)
    np.testing.assert_allclose(q.log_prob(z), alone.log_prob(z), rtol=1e-5)


def test_the_prior_that_is_the_aggregate_posterior_leaves_no_marginal_kl():
    """(1/N) Σ_n q(z|x_n) as a mixture of N components: the rate is the mutual information."""
    vae = built()
    params, x = moved(vae.init(KEY)), examples(40)
    q = jax.vmap(lambda x: vae.posterior(params, x, jnp.zeros(0)))(x)
    prior = compose(
        vae.init, vae.posterior, vae.likelihood, lambda params, c: Mixture(q, jnp.zeros(40))
    )
    got = evaluation.latents.aggregate_posterior(prior, params, unconditional(x), KEY)
    np.testing.assert_allclose(got["marginal_kl"], 0, atol=1e-5)
    assert got["mutual_information"] > 0.05


# The rate of a posterior that is a mixture


def test_the_stratified_rate_is_unbiased_and_less_noisy_than_one_sample():
    means = jnp.asarray([[2.0, 0.0], [-2.0, 1.0], [0.0, -1.0]])
    q = Mixture(Normal(means, jnp.full((3, 2), -1.0)), jnp.asarray([0.0, 1.0, -1.0]))
    p = Normal(jnp.zeros(2), jnp.zeros(2))
    points, area = grid(8.0, 321)
    log_q, log_p = (np.asarray(jax.vmap(d.log_prob)(points), np.float64) for d in (q, p))
    exact = np.sum(np.exp(log_q) * (log_q - log_p)) * area

    def one(key):
        z = q.sample(key)
        return q.log_prob(z) - p.log_prob(z)

    keys = jax.random.split(KEY, 4000)
    stratified, single = (np.asarray(jax.jit(jax.vmap(f))(keys)) for f in
                          (lambda key: kl(q, p, key), one))  # fmt: skip
    for values in (stratified, single):
        assert abs(values.mean() - exact) < 5 * values.std() / np.sqrt(4000)
    assert stratified.var() < 0.5 * single.var()


def test_the_rate_of_equal_components_is_that_of_one():
    one = Normal(jnp.asarray([0.5, -1.0]), jnp.asarray([-0.3, 0.2]))
    p = Normal(jnp.zeros(2), jnp.zeros(2))
    q = Mixture(jax.tree.map(lambda a: jnp.stack([a, a]), one), jnp.zeros(2))
    rates = jax.vmap(lambda key: kl(q, p, key))(jax.random.split(KEY, 4000))
    exact = KL[Normal, Normal](one, p, KEY)
    assert abs(rates.mean() - exact) < 5 * rates.std() / np.sqrt(4000)


@pytest.mark.parametrize("posterior", ["diagonal", "full", "mixture"])
@pytest.mark.parametrize("given", [{}, PRIORS[1], PRIORS[2]])
def test_bounds_rise_with_the_number_of_samples(posterior, given):
    vae = built(**given, posterior=posterior)
    params, data = moved(vae.init(KEY)), unconditional(np.round(examples(30)))
    estimates = [evaluation.log_likelihood(vae, params, data, KEY, k) for k in (1, 5, 100)]
    bounds = [np.mean(e.log_p) for e in estimates]
    elbos = [evaluation.elbo(vae, params, data, jax.random.key(i))["elbo"] for i in range(20)]
    assert bounds[0] < bounds[1] < bounds[2]
    error = np.std(elbos) / np.sqrt(20) + np.std(estimates[0].log_p) / np.sqrt(30)
    assert abs(np.mean(elbos) - bounds[0]) < 5 * error


# What they are not for


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prior": "mixture", "latent_dim": 0}, "prior mixture is one of latents"),
        ({"prior": "vamp", "latent_dim": 0}, "prior vamp is one of latents"),
        (
            {"prior": "mixture", "prior_components": 0},
            "prior_components must be a whole",
        ),
        ({"prior": "vamp", "pseudo_inputs": 0}, "pseudo_inputs must be a whole number ≥ 1"),
        ({"pseudo_inputs": 3}, "pseudo_inputs does nothing for prior standard"),
        ({"prior": "vamp", "prior_components": 3}, "prior_components does nothing for prior vamp"),
        ({"posterior_components": 3}, "posterior_components does nothing for posterior diagonal"),
        ({"prior": "vamp", "prior_weights": "some"}, "prior_weights must be one of uniform"),
    ],
)
def test_wrong_settings_are_one_line(given, said):
    with pytest.raises(UserError, match=said) as error:
        built(**given)
    assert "\n" not in str(error.value)


def test_pseudo_inputs_from_data_need_data():
    with pytest.raises(UserError, match="needs training data"):
        models.build(models.ModelConfig(prior="vamp"), X_SHAPE)
