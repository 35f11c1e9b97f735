"""Likelihoods: what a net's numbers become, how far scales can go, and what suits which images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.distributions.continuous import Laplace, Normal, StudentT
from vae_jax.models import domains, likelihoods
from vae_jax.models.build import ModelConfig, build
from vae_jax.models.likelihoods import FLOOR, LIKELIHOODS
from vae_jax.models.vae import count_parameters
from vae_jax.settings import UserError
from vae_jax.types import Net

KEY = jax.random.key(0)
SHAPE = (2, 3, 1)
NOTHING = jnp.zeros(0)


def net():
    """A net whose output is its parameters: an image with any number of channels."""
    return Net(lambda key: jnp.zeros(SHAPE), lambda params, z, condition: params)


def image(seed=0, channels=1):
    return jax.random.uniform(jax.random.key(seed), (2, 3, channels))


def at(likelihood, params):
    return likelihood.apply(params, NOTHING, NOTHING)


# Scales


def test_a_fixed_scale_is_the_number():
    p = at(likelihoods.gaussian(net(), scale=0.1), image())
    assert isinstance(p, Normal)
    np.testing.assert_array_equal(p.mean, image())
    np.testing.assert_allclose(np.exp(p.log_scale), 0.1, rtol=1e-6)
    assert p.log_scale.shape == SHAPE


@pytest.mark.parametrize("family", [likelihoods.gaussian, likelihoods.laplace])
def test_a_learned_scale_is_one_parameter_beside_the_nets(family):
    likelihood = family(net())
    params = likelihood.init(KEY)
    assert set(params) == {"net", "log_scale"} and params["log_scale"].shape == ()
    p = at(likelihood, params | {"log_scale": jnp.asarray(0.7)})
    expected = at(likelihood, params).log_scale + 0.7  # raw itself, well above the floor
    np.testing.assert_allclose(p.log_scale, expected, atol=0.02)


def test_scales_start_at_those_of_uniform_pixels():
    learned, per_pixel = likelihoods.gaussian(net()), likelihoods.gaussian(net(), "per_pixel")
    for p in (at(learned, learned.init(KEY)), at(per_pixel, jnp.zeros((2, 3, 2)))):
        np.testing.assert_allclose(np.exp(p.log_scale), 12**-0.5, rtol=0.02)


def test_per_pixel_scales_are_the_second_half_of_the_channels():
    p = at(likelihoods.laplace(net(), "per_pixel"), image(channels=6))
    assert isinstance(p, Laplace) and p.mean.shape == p.log_scale.shape == (2, 3, 3)
    np.testing.assert_array_equal(p.mean, image(channels=6)[..., :3])
    raw = image(channels=6)[..., 3:]
    assert np.all(np.argsort(p.log_scale.ravel()) == np.argsort(raw.ravel()))


@pytest.mark.parametrize("floor", [FLOOR, 0.05])
def test_no_density_exceeds_that_at_the_floor(floor):
    """A perfect reconstruction and a scale that wants to vanish."""
    x, vanishing = image(), jnp.asarray(-1e4)
    raw = jnp.concatenate([x, jnp.full_like(x, vanishing)], axis=-1)
    params = {"net": x, "log_scale": vanishing}
    for p in (
        at(likelihoods.gaussian(net(), "per_pixel", floor), raw),
        at(likelihoods.gaussian(net(), "learned", floor), params),
    ):
        np.testing.assert_allclose(np.exp(p.log_scale), floor, rtol=1e-5)
        limit = -x.size * np.log(floor * np.sqrt(2 * np.pi))
        np.testing.assert_allclose(p.log_prob(x), limit, rtol=1e-5)
    student = at(likelihoods.student_t(net(), floor), params)
    np.testing.assert_allclose(np.exp(student.log_scale), floor, rtol=1e-5)


def test_the_floor_keeps_its_gradient():
    likelihood, x = likelihoods.gaussian(net()), image()

    def log_p(log_scale):
        return at(likelihood, {"net": x + 0.5, "log_scale": log_scale}).log_prob(x)

    assert jax.grad(log_p)(jnp.asarray(-12.0)) > 1  # far below the floor, where the error is 0.5


def test_the_best_learned_scale_is_the_root_mean_squared_error():
    """σ-VAE's optimum (Rybkin et al. 2021)."""
    likelihood, x, mean = likelihoods.gaussian(net()), image(0), image(1)

    def log_p(log_scale):
        return at(likelihood, {"net": mean, "log_scale": log_scale}).log_prob(x)

    grid = jnp.linspace(-2, 1, 3001)
    best = grid[jnp.argmax(jax.vmap(log_p)(grid))]
    scale = jnp.exp(at(likelihood, {"net": mean, "log_scale": best}).log_scale)
    np.testing.assert_allclose(scale, np.sqrt(np.mean((x - mean) ** 2)), rtol=1e-3)


@pytest.mark.parametrize("dof", [1e-6, 4.0])
def test_student_t_pulls_the_mean_as_a_gaussian_of_the_images_own_scale(dof):
    """σ̂² = (ν s² + ‖x−μ‖²)/(ν + d); as ν → 0 the mean squared error, per-image optimal σ-VAE."""
    likelihood, x, mean = likelihoods.student_t(net(), dof=dof), image(0), image(1)
    p = at(likelihood, {"net": mean, "log_scale": jnp.zeros(())})
    assert isinstance(p, StudentT) and p.log_scale.shape == p.dof.shape == ()
    squares, d = np.sum((x - mean) ** 2), x.size
    variance = (dof * np.exp(2 * p.log_scale) + squares) / (dof + d)
    if dof < 1:
        np.testing.assert_allclose(variance, np.mean((x - mean) ** 2), rtol=1e-5)
    gradient = jax.grad(lambda m: StudentT(m, p.log_scale, p.dof).log_prob(x))(mean)
    gaussian = Normal(mean, jnp.full(SHAPE, 0.5 * np.log(variance)))
    expected = jax.grad(lambda m: Normal(m, gaussian.log_scale).log_prob(x))(mean)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


def test_beta_concentrations_are_bounded():
    for raw, expected in ((-1e4, 0.01), (0.0, 1.0), (1e4, 1 / (8 * FLOOR**2))):
        p = at(likelihoods.beta(net()), jnp.full((2, 3, 2), raw))
        assert p.log_alpha.shape == SHAPE
        np.testing.assert_allclose(np.exp(p.log_alpha), expected, rtol=0.02)
    a = 1 / (8 * FLOOR**2)
    np.testing.assert_allclose(np.sqrt(0.25 / (2 * a + 1)), FLOOR, rtol=1e-3)  # sd of Beta(a, a)


def test_logistic_mixture_reads_weights_then_locations_then_scales():
    k, c = 4, 3
    raw = jnp.concatenate(
        [jnp.full((2, 3, n), v) for n, v in ((k - 1, 7.0), (c * k, 0.2), (c * k, 0.3))], -1
    )
    p = at(likelihoods.logistic_mixture(net(), k), raw)
    np.testing.assert_array_equal(p.log_weights, np.broadcast_to([0, 7, 7, 7], (2, 3, k)))
    spread = np.asarray([0.125, 0.375, 0.625, 0.875]) + 0.2
    np.testing.assert_allclose(p.location, np.broadcast_to(spread, (2, 3, c, k)), rtol=1e-6)
    np.testing.assert_allclose(p.log_scale, 0.3 - np.log(12) / 2, atol=0.02)


def test_categorical_reads_256_numbers_a_channel():
    raw = jax.random.normal(KEY, (2, 3, 512))
    p = at(likelihoods.categorical(net()), raw)
    np.testing.assert_array_equal(p.logits, raw.reshape(2, 3, 2, 256))


# Settings


def build_with(x_shape=(4, 4, 1), **settings):
    return build(ModelConfig(widths="8", **settings), x_shape)


def test_one_learned_scale_is_one_parameter_more():
    sizes = {
        scale: count_parameters(build_with(likelihood="gaussian", likelihood_scale=scale))
        for scale in ("0.1", "learned", "per_pixel")
    }
    fixed = sizes["0.1"]["likelihood"]
    assert sizes["learned"]["likelihood"] == fixed + 1
    assert sizes["per_pixel"]["likelihood"] == fixed + 16 * (8 + 1)


def test_settings_reach_the_likelihood():
    def p(**settings):
        vae = build_with(**settings)
        decode = jax.jit(lambda key: vae.likelihood(vae.init(key), jnp.zeros(2), NOTHING))
        return decode(KEY)

    assert p(likelihood="logistic_mixture", mixture_components=3).location.shape == (4, 4, 1, 3)
    assert p(likelihood="discretized_logistic").location.shape == (4, 4, 1, 1)
    fixed = p(likelihood="laplace", likelihood_scale="0.25")
    np.testing.assert_allclose(np.exp(fixed.log_scale), 0.25, rtol=1e-6)
    assert np.exp(p(likelihood="gaussian", scale_floor=0.1).log_scale).min() > 0.3
    assert isinstance(p(likelihood="gaussian", likelihood_scale="optimal"), StudentT)
    with pytest.raises(UserError, match="optimal goes with likelihood gaussian"):
        ModelConfig(likelihood="laplace", likelihood_scale="optimal")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("likelihood_scale", text) for text in ("0", "-1", "inf", "nan", "often", "")],
        ("scale_floor", 0.0),
        ("scale_floor", 0.5),
        ("mixture_components", 0),
    ],
)
def test_wrong_settings_are_one_line(name, value):
    with pytest.raises(UserError, match=name) as error:
        ModelConfig(**{name: value})
    assert "\n" not in str(error.value)


# What suits which images

BINARY = np.asarray([0, 255, 255, 0], np.uint8).reshape(1, 2, 2, 1)
GREY = np.asarray([0, 7, 128, 255], np.uint8).reshape(1, 2, 2, 1)
COLOUR = np.repeat(GREY, 3, axis=-1)


@pytest.mark.parametrize(
    ("name", "x", "binarisation", "words"),
    [
        ("bernoulli", GREY, "dynamic", ()),
        ("bernoulli", GREY, "none", ()),  # usual practice
        ("bernoulli", BINARY, "none", ()),
        ("bernoulli", BINARY, "static", ()),
        ("bernoulli", COLOUR, "none", ("colour", "logistic_mixture")),
        ("bernoulli", COLOUR, "dynamic", ("colour", "0 or 1", "--binarisation=none")),
        ("gaussian", GREY, "none", ()),
        ("gaussian", COLOUR, "none", ()),
        ("gaussian", GREY, "dynamic", ("0 or 1", "--binarisation=none", "--likelihood=bernoulli")),
        ("gaussian", BINARY, "static", ("0 or 1", "--binarisation=none")),
        ("gaussian", BINARY, "none", ("0 or 1", "--likelihood=bernoulli")),
        ("continuous_bernoulli", GREY, "threshold", ("density", "--binarisation=none")),
        ("categorical", GREY, "none", ()),
        ("categorical", GREY, "dynamic", ("256 levels", "--binarisation=none")),
        ("logistic_mixture", BINARY, "none", ("256 levels", "--likelihood=bernoulli")),
    ],
)
def test_misfits(name, x, binarisation, words):
    line = domains.misfit(name, x, binarisation)
    assert bool(line) == bool(words) and "\n" not in line
    assert all(word in line for word in words), line


def test_no_advice_that_would_not_help():
    """Images that are black and white already have no grey levels to model."""
    for name in set(LIKELIHOODS) - {"bernoulli"}:
        for binarisation in ("none", "dynamic"):
            assert "--binarisation" not in domains.misfit(name, BINARY, binarisation)


def test_what_is_a_probability():
    assert domains.is_probability("bernoulli", BINARY)
    assert not domains.is_probability("bernoulli", GREY)  # a cross-entropy
    assert domains.is_probability("categorical", GREY)
    assert not domains.is_probability("gaussian", BINARY)
