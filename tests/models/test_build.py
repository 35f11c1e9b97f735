"""The model builder: every name with every other, and exact values where there are any."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import models, objectives, settings, training
from vae_jax.data.batches import preparer, rows
from vae_jax.data.conditions import none
from vae_jax.data.split import Split
from vae_jax.models.build import ModelConfig
from vae_jax.models.families import logits_at
from vae_jax.models.likelihoods import LIKELIHOODS
from vae_jax.models.posteriors import POSTERIORS
from vae_jax.models.priors import PRIORS
from vae_jax.networks.architectures import ACTIVATIONS, DTYPES, INITIALISERS, NETWORKS
from vae_jax.objectives import bounds
from vae_jax.settings import UserError

KEY = jax.random.key(0)
X_SHAPE = (5, 4, 1)
SMALL = {"mlp": "4", "conv": "2", "resnet": "2"}
MEAN = np.linspace(0, 1, 20, dtype=np.float32).reshape(X_SHAPE)


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Most of these tests' time is the compiler's."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def small(**settings):
    network = settings.setdefault("network", "mlp")
    return ModelConfig(**{"widths": SMALL[network], "latent_dim": 2, **settings})


def loss(vae, x, c):
    """A batch's negative ELBO as a function of the parameters."""
    keys = jax.random.split(KEY, len(x))
    terms = jax.vmap(models.rate_distortion, (None, None, 0, 0, 0))
    return lambda params: jnp.mean(sum(terms(vae, params, keys, x, c)))


def check(config, c_shape=(0,)):
    """init, jit, vmap and the gradient; everything finite, every parameter float32."""
    vae = models.build(config, X_SHAPE, c_shape, x_mean=MEAN, examples=examples)
    params = jax.jit(vae.init)(KEY)
    x = jax.random.bernoulli(KEY, 0.5, (3, *X_SHAPE)).astype(jnp.float32)
    c = jax.random.normal(KEY, (3, *c_shape))
    value, gradient = jax.jit(jax.value_and_grad(loss(vae, x, c)))(params)
    assert jnp.isfinite(value) and value.dtype == jnp.float32
    for leaf in jax.tree.leaves((params, gradient)):
        assert jnp.isfinite(leaf).all() and leaf.dtype == jnp.float32


def examples(k):
    return np.broadcast_to(MEAN, (k, *X_SHAPE))


def quick(*parts: str) -> bool:
    """Every part with the usual others; the Gaussian ones with each other too."""
    unusual = {*parts} - {"mlp", "diagonal", "standard", "bernoulli"}
    return len(unusual) <= 1 or unusual <= {*NETWORKS, "full", "conditional"}


MODELS = [
    parts if quick(*parts) else pytest.param(*parts, marks=pytest.mark.slow)
    for parts in itertools.product(NETWORKS, POSTERIORS, PRIORS, LIKELIHOODS)
]


@pytest.mark.parametrize("network, posterior, prior, likelihood", MODELS)
def test_every_combination_of_parts_builds_and_differentiates(
    network, posterior, prior, likelihood
):
    parts = {"posterior": posterior, "prior": prior, "likelihood": likelihood}
    given = "label" if prior == "conditional" else "none"
    check(small(network=network, condition=given, **parts), c_shape=(3,) if given else (0,))


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_has_every_style(network):
    styles = {"activation": "gated", "compute_dtype": "bfloat16", "initialiser": "he"}
    check(small(network=network, **styles))


@pytest.mark.parametrize("setting, names", [
    ("activation", ACTIVATIONS), ("initialiser", INITIALISERS), ("compute_dtype", DTYPES),
])  # fmt: skip
def test_every_style_has_a_name(setting, names):
    for name in names:
        check(small(**{setting: name}))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("latent_dim, c_shape", [(0, (3,)), (3, X_SHAPE)])
def test_conditions_go_with_every_network(network, latent_dim, c_shape):
    check(small(network=network, latent_dim=latent_dim), c_shape=c_shape)


def test_models_start_under_vmap_over_seeds():
    """Two seeds at once are the two alone, to rounding, at the mean both."""
    vae = models.build(small(output_bias="data_mean"), X_SHAPE, x_mean=MEAN)
    keys = jax.random.split(KEY, 2)
    both = jax.jit(jax.vmap(vae.init))(keys)
    for i, key in enumerate(keys):
        for a, b in zip(
            jax.tree.leaves(jax.jit(vae.init)(key)), jax.tree.leaves(both), strict=True
        ):
            np.testing.assert_allclose(a, b[i], rtol=1e-6)


# The start of the output


def test_logits_at_the_mean():
    values = jnp.asarray([0, 1e-4, 0.25, 0.5, 0.9, 1])
    expected = [0.001, 0.001, 0.25, 0.5, 0.9, 0.999]
    np.testing.assert_allclose(jax.nn.sigmoid(logits_at(values)), expected, rtol=1e-5)


def at_zero(vae):
    """E[x|z] of untrained weights at z = 0."""
    return jax.jit(lambda: vae.likelihood(vae.init(KEY), jnp.zeros(2), jnp.zeros(0)).mean)()


@pytest.mark.parametrize("network", NETWORKS)
def test_the_output_starts_at_the_mean_image(network):
    """At z = 0, where hidden biases of 0 leave nothing but the output's bias."""
    config = small(network=network, output_bias="data_mean")
    vae = models.build(config, X_SHAPE, x_mean=MEAN)
    np.testing.assert_allclose(at_zero(vae), np.clip(MEAN, 1e-3, 0.999), atol=1e-5)
    vae = models.build(small(network=network), X_SHAPE)
    np.testing.assert_allclose(at_zero(vae), 0.5, atol=1e-6)


def test_a_start_at_the_mean_needs_the_mean():
    with pytest.raises(UserError, match="x_mean"):
        models.build(small(output_bias="data_mean"), X_SHAPE)


# No latents at all


@pytest.mark.parametrize("network", NETWORKS)
def test_without_latents_there_is_nothing_to_encode(network):
    vae = models.build(small(network=network, latent_dim=0), X_SHAPE)
    assert models.count_parameters(vae)["posterior"] == 0
    params = jax.jit(vae.init)(KEY)
    terms = jax.jit(lambda *a: models.rate_distortion(vae, *a))
    rate, distortion = terms(params, KEY, jnp.ones(X_SHAPE), jnp.zeros(0))
    assert rate == 0
    assert jnp.isfinite(distortion)


def entropy(p):
    """Of Bernoullis in nats, 0·log 0 = 0."""
    p = np.asarray(p, np.float64)
    q = 1 - p
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0)) - np.sum(
        np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0)
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_without_latents_training_ends_at_the_entropy_of_the_mean_image(network):
    """min −ELBO = Σ_pixels H(mean pixel): the decoder can only draw the mean image."""
    images = np.random.default_rng(0).integers(30, 226, (8, 20)).astype(np.uint8)
    config = training.TrainConfig(batch_size=8, steps=600, learning_rate=0.03, schedule="cosine")
    vae = models.build(small(network=network, latent_dim=0), X_SHAPE)
    *_, progress = training.fit(
        vae, bounds.elbo, rows(Split(images)), config,
        prepare=preparer("none", none(X_SHAPE)), weights=lambda step: objectives.KLWeights(),
    )  # fmt: skip
    best = entropy((images / 255).mean(axis=0))
    assert -1e-4 < progress.metrics["loss"] - best < 0.01


def test_starting_at_the_mean_without_latents_is_that_optimum_already():
    images = np.random.default_rng(0).integers(30, 226, (8, *X_SHAPE)) / 255
    config = small(latent_dim=0, output_bias="data_mean")
    vae = models.build(config, X_SHAPE, x_mean=images.mean(axis=0))
    value = loss(vae, jnp.asarray(images, jnp.float32), jnp.zeros((8, 0)))(vae.init(KEY))
    np.testing.assert_allclose(value, entropy(images.mean(axis=0)), rtol=1e-6)


# Numbers


def test_count_parameters_by_hand():
    counts = models.count_parameters(models.build(small(), X_SHAPE))
    assert counts == {
        "posterior": (20 * 4 + 4) + (4 * 4 + 4),
        "likelihood": (2 * 4 + 4) + (4 * 20 + 20),
        "prior": 0,
    }


def test_log_weight_and_rate_distortion_agree_without_noise_in_z():
    """log w = −distortion − [log q(z) − log p(z)] at the same z; E over z of the bracket is KL."""
    vae = models.build(small(), X_SHAPE)
    params, x, c = vae.init(KEY), jnp.ones(X_SHAPE), jnp.zeros(0)
    keys = jax.random.split(KEY, 4000)
    log_w = jax.vmap(lambda k: models.log_weight(vae, params, k, x, c))(keys)
    elbo = -jax.vmap(lambda k: sum(models.rate_distortion(vae, params, k, x, c)))(keys)
    gap = log_w - elbo
    error = 5 * float(jnp.std(gap)) / 4000**0.5
    assert abs(float(jnp.mean(gap))) < error


@pytest.mark.parametrize("wrong, message", [
    ({"network": "cnn"}, "network must be one of mlp, conv, resnet"),
    ({"widths": "32,64"}, "widths must be auto, or layer widths"),
    ({"latent_dim": -1}, "latent_dim must be a whole number ≥ 0"),
    ({"compute_dtype": "float16"}, "compute_dtype must be one of float32, bfloat16"),
])  # fmt: skip
def test_wrong_settings_are_one_line(wrong, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**wrong)


@pytest.mark.parametrize("posterior", [name for name in POSTERIORS if name != "diagonal"])
def test_a_posterior_that_is_asked_for_has_latents(posterior):
    config = settings.make(models.ModelConfig, {"posterior": posterior, "latent_dim": 0})
    with pytest.raises(UserError, match="latent"):
        models.build(config, (4, 4, 1))
