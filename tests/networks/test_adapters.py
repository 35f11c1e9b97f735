"""Networks of other libraries are nets like our own: pure, trained, kept on disk."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vae_jax import assemble, networks, objectives, training
from vae_jax.models import likelihoods, posteriors, priors
from vae_jax.runs import checkpoints
from vae_jax.settings import UserError

KEY = jax.random.key(0)
X = jax.random.bernoulli(KEY, 0.3, (64, 4, 4, 1)).astype(jnp.float32)


class Linen(nn.Module):
    output: tuple

    @nn.compact
    def __call__(self, *inputs):
        h = jnp.concatenate([jnp.ravel(x) for x in inputs])
        return nn.Dense(int(np.prod(self.output)))(jnp.tanh(nn.Dense(8)(h))).reshape(self.output)


class NNX(nnx.Module):
    def __init__(self, inputs, output, rngs):
        self.output = output
        self.layers = nnx.List(
            [nnx.Linear(inputs, 8, rngs=rngs), nnx.Linear(8, int(np.prod(output)), rngs=rngs)]
        )

    def __call__(self, *inputs):
        h = jnp.concatenate([jnp.ravel(x) for x in inputs])
        return self.layers[1](jnp.tanh(self.layers[0](h))).reshape(self.output)


class Equinox(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    output: tuple = eqx.field(static=True)

    def __init__(self, inputs, output, key):
        a, b = jax.random.split(key)
        self.first = eqx.nn.Linear(inputs, 8, key=a)
        self.second = eqx.nn.Linear(8, int(np.prod(output)), key=b)
        self.output = output

    def __call__(self, *inputs):
        h = jnp.concatenate([jnp.ravel(x) for x in inputs])
        return self.second(jnp.tanh(self.first(h))).reshape(self.output)


def size(shapes):
    return sum(int(np.prod(shape)) for shape in shapes)


LIBRARIES = {
    "linen": lambda shapes, output: networks.from_linen(Linen(output), shapes),
    "nnx": lambda shapes, output: networks.from_nnx(lambda r: NNX(size(shapes), output, r)),
    "equinox": lambda shapes, output: networks.from_equinox(
        lambda key: Equinox(size(shapes), output, key)
    ),
}


def vae_of(net):
    q = posteriors.diagonal(net([(4, 4, 1), (0,)], (2, 2)))
    p = likelihoods.bernoulli(net([(2,), (0,)], (4, 4, 1)))
    return assemble(q, p, priors.standard(2))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_vae_of_its_modules_trains_and_is_kept(library, tmp_path):
    vae = vae_of(LIBRARIES[library])
    params = vae.init(KEY)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    config = training.TrainConfig(batch_size=64, steps=20, learning_rate=0.02)
    objective = objectives.build(objectives.ObjectiveConfig(), vae, (4, 4, 1), 64)
    losses = [p.metrics["loss"] for p in training.fit(vae, objective, X, config, chunk=1)]
    assert losses[-1] < losses[0] - 0.5
    *_, last = training.fit(vae, objective, X, config)
    checkpoints.save_checkpoint(tmp_path, last.state, {})
    names = checkpoints.named_leaves(last.state)
    assert len(set(names)) == len(jax.tree.leaves(last.state))
    restored, _ = checkpoints.restore_checkpoint(tmp_path, jax.eval_shape(lambda: last.state))
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(last.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_same_weights_are_the_same_network():
    """An Equinox and an NNX layer with a Linen layer's weights."""
    linen, other = (LIBRARIES[n]([(3,)], (2,)) for n in ("linen", "nnx"))
    p, x = linen.init(KEY), jnp.arange(3.0)
    q = {"layers": {i: p[f"Dense_{1 - i}"] for i in (0, 1)}}  # Linen counts from the outside
    np.testing.assert_allclose(other.apply(q, x), linen.apply(p, x), rtol=1e-6)
    eq = LIBRARIES["equinox"]([(3,)], (2,))
    mine = {}
    for name, own in (("first", p["Dense_1"]), ("second", p["Dense_0"])):
        mine |= {f"{name}.weight": own["kernel"].T, f"{name}.bias": own["bias"]}
    assert mine.keys() == eq.init(KEY).keys()
    np.testing.assert_allclose(eq.apply(mine, x), linen.apply(p, x), rtol=1e-6)


class LinenWithState(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(x)


class NNXWithState(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        return self.norm(x)


class NNXWithDropout(nnx.Module):
    def __init__(self, rngs):
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop(x)


@pytest.mark.parametrize("make", [
    lambda: networks.from_linen(LinenWithState(), [(3,)]).init(KEY),
    lambda: networks.from_nnx(NNXWithState),
    lambda: networks.from_nnx(NNXWithDropout),
    lambda: networks.from_equinox(lambda key: eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")),
], ids=["linen", "nnx", "nnx dropout", "equinox"])  # fmt: skip
def test_a_module_that_keeps_state_is_one_line(make):
    with pytest.raises(UserError, match="LayerNorm or GroupNorm") as error:
        make()
    assert "\n" not in str(error.value)
