"""What every entry of a registry keeps, by its name alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.models.build import ModelConfig, build
from vae_jax.models.domains import misfit
from vae_jax.models.likelihoods import LIKELIHOODS

KEY = jax.random.key(0)
NOTHING = jnp.zeros(0)
NUM_SAMPLES = 2000
# Most of the time goes to compiling; small arrays do not need it done well.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# Likelihoods: name, and the settings that make it

VARIANTS = [(name, {}) for name in LIKELIHOODS]
VARIANTS += [
    (name, {"likelihood_scale": scale})
    for name in ("gaussian", "laplace")
    for scale in ("0.1", "per_pixel")
]
likelihood = pytest.mark.parametrize(
    ("name", "settings"), VARIANTS, ids=["-".join([n, *s.values()]) for n, s in VARIANTS]
)


def domain(name):
    """Where every sample lies."""
    if name in ("gaussian", "laplace", "student_t"):
        return -np.inf, np.inf
    return (-0.5 / 255, 1 + 0.5 / 255) if name == "beta" else (0.0, 1.0)


def decoder(name, settings, channels=3):
    """A decoder's parameters, and (params, two latents) -> p(x|z) for images [2, 2, channels]."""
    if name == "logistic_mixture":
        settings = {"mixture_components": 2, **settings}
    config = ModelConfig(likelihood=name, widths="4", **settings)
    vae = build(config, (2, 2, channels))
    return vae.init(KEY), lambda params, z: vae.likelihood(params, z, NOTHING)


def grey_images():
    """Black, white, level 128, and any levels."""
    shape = (2, 2, 1)
    some = np.random.default_rng(0).integers(0, 256, (5, *shape))
    return (
        np.stack([np.full(shape, v) for v in (0, 255, 128)] + list(some)).astype(np.float32) / 255
    )


@likelihood
def test_likelihoods_jit_vmap_and_have_finite_gradients(name, settings):
    """As they start, and with weights that drive every output of the net to its extremes."""
    params, decode = decoder(name, settings, channels=1)
    x, z = grey_images(), jax.random.normal(KEY, (8, 2))

    @jit
    def loss_and_gradient(params):
        def loss(params):
            log_p = jax.vmap(lambda z, x: decode(params, z).log_prob(x))(z, x)
            assert log_p.shape == (8,)
            return -jnp.mean(log_p)

        return jax.value_and_grad(loss)(params)

    for factor in (1.0, 1e3, -1e3):
        values = loss_and_gradient(jax.tree.map(lambda leaf: leaf * factor, params))
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(values))
    _, gradient = loss_and_gradient(params)
    assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradient["likelihood"]))


@likelihood
def test_likelihoods_sample_what_they_describe(name, settings):
    """In the domain; with their mean; and the score identity E[∇θ log p(x|z)] = 0 along random
    directions of the network's own parameters, to 5 standard errors.
    """
    params, decode = decoder(name, settings)
    z, keys = jnp.asarray([0.3, -1.0]), jax.random.split(KEY, NUM_SAMPLES)
    directions = jax.tree.map(lambda leaf: jax.random.normal(KEY, (6, *leaf.shape)), params)

    @jit
    def draw_and_score(params, directions):
        x = jax.vmap(decode(params, z).sample)(keys)

        def score(x, direction):
            return jax.jvp(lambda p: decode(p, z).log_prob(x), (params,), (direction,))[1]

        scores = jax.vmap(jax.vmap(score, (None, 0)), (0, None))(x, directions)
        batched = jax.vmap(lambda z: decode(params, z))(jnp.stack([0 * z, z]))
        return x, scores, decode(params, z).mean, decode(params, z).mode, batched.mean

    x, scores, mean, mode, means = map(np.asarray, draw_and_score(params, directions))
    low, high = domain(name)
    assert x.dtype == np.float32 and x.shape == (NUM_SAMPLES, 2, 2, 3)
    assert np.all((x >= low) & (x <= high))
    if LIKELIHOODS[name].levels:
        v = x * (LIKELIHOODS[name].levels - 1)
        np.testing.assert_allclose(v, np.round(v), atol=1e-4)
    for values, expected in ((x, mean), (scores, 0.0)):
        error = values.std(axis=0, ddof=1) / np.sqrt(NUM_SAMPLES) + 1e-6
        assert np.all(np.abs(values.mean(axis=0, dtype=np.float64) - expected) < 5 * error)
    assert mode.shape == mean.shape == x.shape[1:]
    assert np.all((mode >= low) & (mode <= high))
    np.testing.assert_allclose(means[1], mean, rtol=1e-5, atol=1e-6)  # as of a decoded batch


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_say_what_suits_them(name):
    """At least one kind of grey image is fine; whatever is said is one line."""
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    lines = [misfit(name, grey, b) for b in ("none", "dynamic", "static", "threshold")]
    assert lines[0] == "" and not any("\n" in line for line in lines)
