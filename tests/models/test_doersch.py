"""Doersch's nets: their sizes, their initial weights, and their wiring, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.models.doersch import doersch
from vae_jax.models.vae import count_parameters

SYSTEMS = {
    "vae": ((784,), (0,), 30, 2_844_844),
    "cvae": ((756,), (28,), 30, 3_506_316),
    "regressor": ((756,), (28,), 0, 2_100_756),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_parameter_counts(name):
    *shapes, count = SYSTEMS[name]
    assert sum(count_parameters(doersch(*shapes)).values()) == count


def test_initial_weights_are_sparse_gaussians():
    """15 nonzero weights an output's row on average; mu, logsd and the condition's last dense."""
    params = doersch((756,), (28,), 30).init(jax.random.key(0))
    layers = {
        (part, name): layer for part, named in params.items() for name, layer in named.items()
    }
    assert len(layers) == 5 + 4 + 4
    for place, layer in layers.items():
        kernel = np.asarray(layer["kernel"])
        dense = place in {("posterior", "mu"), ("posterior", "logsd"), ("condition", "4")}
        probability = 1 if dense else 15 / kernel.shape[1]
        sigma = np.sqrt(probability * (1 - probability) / kernel.size)
        kept = kernel[kernel != 0]
        assert abs(kept.size / kernel.size - probability) <= 5 * sigma, place
        assert abs(kept.std() - 0.1) < 5 * 0.1 / np.sqrt(2 * kept.size), place
        assert not np.any(layer["bias"])


def relu(x):
    return np.maximum(x, 0)


def test_wiring_of_the_cvae():
    """Forward passes written out in NumPy, biases and all."""
    vae = doersch((756,), (28,), 30)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: rng.normal(0, 0.1, a.shape), vae.init(jax.random.key(0)))
    x, c, z = rng.random(756), rng.integers(0, 2, 28).astype(float), rng.normal(size=30)

    def layer(part, name, value):
        return value @ params[part][name]["kernel"] + params[part][name]["bias"]

    second = layer("condition", "2", relu(layer("condition", "1", c)))
    last = layer("condition", "4", relu(layer("condition", "3", relu(second))))
    hidden = relu(layer("posterior", "2", relu(layer("posterior", "1", x))) + second)
    hidden = layer("posterior", "3", hidden)
    q = vae.posterior(params, jnp.asarray(x), jnp.asarray(c))
    np.testing.assert_allclose(q.mean, layer("posterior", "mu", relu(hidden)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        q.log_scale, layer("posterior", "logsd", hidden), rtol=1e-4, atol=1e-5
    )
    hidden = relu(layer("likelihood", "1", z) + last)
    hidden = relu(layer("likelihood", "3", relu(layer("likelihood", "2", hidden))))
    logits = vae.likelihood(params, jnp.asarray(z), jnp.asarray(c)).logits
    np.testing.assert_allclose(logits, layer("likelihood", "4", hidden), rtol=1e-4, atol=1e-5)


def test_the_regressor_has_neither_encoder_nor_z():
    vae = doersch((756,), (28,), 0)
    params = vae.init(jax.random.key(0))
    assert params["posterior"] == {} and "1" not in params["likelihood"]
    q = vae.posterior(params, jnp.ones(756), jnp.ones(28))
    assert q.sample(jax.random.key(0)).shape == (0,)
    assert vae.likelihood(params, jnp.zeros(0), jnp.ones(28)).logits.shape == (756,)
