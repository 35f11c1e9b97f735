"""Members of a sweep against the same trainings one by one; masking; what diverges; devices."""

import dataclasses
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from vae_jax import models, objectives, training
from vae_jax.data import conditions
from vae_jax.data.batches import Rows, preparer
from vae_jax.models.build import ModelConfig
from vae_jax.objectives.config import ObjectiveConfig
from vae_jax.training import masking, sweeps
from vae_jax.training.state import TrainConfig
from vae_jax.training.sweeps import Member, Program

ROOT = Path(__file__).parents[2]
SHAPE = (8, 8, 1)
NOTHING, LABEL = conditions.none(SHAPE), conditions.make("label", SHAPE, 10)
SMALL, ELBO = ModelConfig(widths="8"), ObjectiveConfig()


def images(n: int = 160) -> Rows:
    x, y = load_digits(return_X_y=True)
    return Rows((x[:n] * 15).astype(np.uint8), y[:n].astype(np.int32))


def program(
    shape: ModelConfig = SMALL, objective: ObjectiveConfig = ELBO, condition=NOTHING, **settings
) -> Program:
    """Five steps an epoch."""
    config = TrainConfig(**{"batch_size": 32, "steps": 8, **settings})
    built = {}

    def vae(latent_dim: int):
        if latent_dim not in built:
            sized = dataclasses.replace(shape, latent_dim=latent_dim)
            built[latent_dim] = models.build(sized, condition.x_shape, condition.c_shape)
        return built[latent_dim]

    loss = objectives.build(objective, vae(2), condition.x_shape, 160, condition.c_shape)
    weights = partial(objectives.kl_weights, objective)
    return Program(vae, loss, weights, config, preparer("dynamic", condition))


def last(progress) -> dict:
    """Every member's last Progress; its arrays copied."""
    found = {}
    for some in progress:
        found |= {i: p._replace(state=jax.tree.map(np.array, p.state)) for i, p in some.items()}
    return found


def alone(p: Program, member: Member) -> training.Progress:
    """The same training by itself."""
    fit = training.fit(
        p.vae(member.latent_dim), p.objective, images(), p.of(member),
        prepare=p.prepare, weights=p.weights(member.beta),
    )  # fmt: skip
    return last({0: progress} for progress in fit)[0]


def distance(a, b) -> float:
    """The largest difference of two pytrees of the same shapes."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(
        float(np.max(np.abs(np.subtract(x, y, dtype=np.float64)), initial=0)) for x, y in pairs
    )


def bits(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


MEMBERS = [
    Member(3, 1.0, 1e-3, 0),
    Member(2, 0.25, 3e-3, 1),
    Member(3, 4.0, 1e-3, 1),
]


# A member is the single training


@pytest.mark.parametrize("fit", [sweeps.fit, sweeps.fit_in_turn])
def test_members_are_single_trainings(fit):
    """Over the end of an epoch, with everything that changes with the step."""
    objective = ObjectiveConfig(kl_schedule="cosine", kl_warmup=6)
    p = program(objective=objective, schedule="cosine", warmup=2, ema=0.9, clip=1.0, l2=1e-3)
    ends = last(fit(p, images(), MEMBERS, [None] * 3))
    assert sorted(ends) == [0, 1, 2]
    for i, member in enumerate(MEMBERS):
        single = alone(p, member)
        assert distance(ends[i].state, single.state) < 2e-5
        assert ends[i][1:5] == single[1:5]  # steps, and of how many
        for name, value in single.metrics.items():
            assert ends[i].metrics[name] == pytest.approx(value, rel=1e-4), name


# Masks

UNEQUAL = {
    "iwae": (ModelConfig(widths="8"), ObjectiveConfig(objective="iwae", num_samples=2), {}),
    "given labels, gated, Adagrad": (
        ModelConfig(widths="", decoder_widths="8-8", activation="gated", condition="label"),
        ObjectiveConfig(),
        {"optimiser": "adagrad", "clip": 1.0, "l2": 0.1},
    ),
    "dreg by Caffe's Adam": (
        ModelConfig(widths="8", initial_bias=0.1),
        ObjectiveConfig(objective="dreg", num_samples=2),
        {"optimiser": "adam_hat", "ema": 0.5},
    ),
}


slow = pytest.mark.slow


@pytest.mark.parametrize("case", [pytest.param(c, marks=[slow] * ("," not in c)) for c in UNEQUAL])
def test_a_masked_member_is_the_model_of_its_size(case):
    """After one step, to 1e-5, in one program with a larger one."""
    shape, objective, settings = UNEQUAL[case]
    condition = conditions.make(shape.condition, SHAPE, 10)
    p = program(shape, objective, condition, steps=1, **settings)
    assert masking.maskable(shape, objective)
    ends = last(
        sweeps.fit(p, images(), [Member(5, 1.0, 0.1, 0), Member(2, 1.0, 0.1, 3)], [None] * 2)
    )
    single = alone(p, Member(2, 1.0, 0.1, 3))
    assert distance(ends[1].state, single.state) < 1e-5
    assert ends[1].metrics["rate"] == pytest.approx(single.metrics["rate"], abs=1e-5)


def test_masked_units_do_nothing_at_all():
    """Their KL is 0, their z changes no image, their arrays have no gradient: exactly."""
    p = program(steps=1)
    small, large = (p.start(Member(k, 1.0, 1e-3, 0), 160) for k in (2, 5))
    params = masking.pad(small, large, (2, 5)).params
    vae, on = masking.masked(p.vae(5), jnp.arange(5) < 2), np.arange(5) < 2
    x, c = jnp.ones(SHAPE), jnp.zeros(0)
    encode, decode = jax.jit(vae.posterior), jax.jit(vae.likelihood)
    q = encode(params, x, c)
    mine = jax.jit(p.vae(2).posterior)(small.params, x, c)
    np.testing.assert_array_equal(q.mean, [*mine.mean, 0, 0, 0])
    np.testing.assert_array_equal(q.log_scale, [*mine.log_scale, 0, 0, 0])
    key = jax.random.key(1)
    np.testing.assert_array_equal(q.sample(key)[:2], mine.sample(key))
    z = jnp.asarray([1.0, 2, 30, 40, 50])
    logits = decode(params, z, c).logits
    np.testing.assert_array_equal(logits, decode(params, jnp.where(on, z, -7), c).logits)

    def loss(params):
        batch = p.prepare(key, jax.tree.map(jnp.asarray, images(32)))
        return p.objective(vae, params, key, batch, objectives.KLWeights())[0]

    gradient = jax.jit(jax.grad(loss))(params)
    kept = masking.unpad(gradient, small.params, (2, 5))
    assert bits(masking.pad(kept, gradient, (2, 5))) == bits(gradient)  # nothing but zeros outside


def test_padding_is_undone():
    for condition in (NOTHING, LABEL):
        p = program(condition=condition)
        small, large = (p.start(Member(k, 1.0, 1e-3, 0), 160) for k in (2, 5))
        padded = masking.pad(small, large, (2, 5))
        assert jax.tree.map(jnp.shape, padded) == jax.tree.map(jnp.shape, large)
        assert bits(masking.unpad(padded, small, (2, 5))) == bits(small)


def test_padding_at_most_doubles_the_work():
    flat = masking.together([1, 2, 5, 10, 20, 50], lambda k: 784_000 + 1_500 * k)
    assert flat == [[50, 20, 10, 5, 2, 1]]
    assert masking.together([1, 2, 3, 4, 9, 4], lambda k: k) == [[9], [4, 3, 2], [1]]
    assert masking.together([0, 1], lambda k: 1) == [[1], [0]]  # without latents, other nets


def test_what_can_be_masked():
    plain = ModelConfig(widths="8")
    assert masking.maskable(plain, ObjectiveConfig(capacity=2.0))
    for changed in ({"posterior": "full"}, {"network": "conv"}, {"model": "doersch"}):
        shape = ModelConfig(**{"widths": "auto", **changed})
        assert not masking.maskable(shape, ObjectiveConfig())
    for settings in ({"objective": "info"}, {"objective": "dip_i"}, {"free_bits": 0.1}):
        assert not masking.maskable(plain, ObjectiveConfig(**settings))


# What diverges, and going on


@pytest.fixture(scope="module")
def twelve_steps():
    """Three members, chunk by chunk; and their program."""
    p = program(steps=12)
    return p, list(sweeps.fit(p, images(), MEMBERS, [None] * 3, chunk=2))


def test_a_member_that_diverges_leaves_the_others_as_they_were():
    """Bit for bit; it stops at the step at which it would alone."""
    p = program(optimiser="sgd")
    good, bad = MEMBERS[0], Member(2, 1.0, 999.0, 5)
    ends = last(sweeps.fit(p, images(), [good, bad, good], [None] * 3))
    calm = last(sweeps.fit(p, images(), [good, bad._replace(learning_rate=1e-3), good], [None] * 3))
    assert not ends[1].finite and ends[1].step < 8 and calm[1].step == 8
    assert bits(ends[0].state) == bits(calm[0].state) == bits(ends[2].state) == bits(calm[2].state)
    assert ends[0].metrics == calm[0].metrics
    single = alone(p, bad)
    assert (single.step, single.finite) == (ends[1].step, False)


def test_going_on_is_the_same_as_never_having_stopped(twelve_steps):
    """From wherever each member was: one starts, one is in the middle, one is done."""
    p, whole = twelve_steps
    ends = last(whole)
    middle, done = whole[3][1].state, whole[-1][2].state  # at steps 7 and 12
    assert int(middle.step) == 7
    chunks = list(sweeps.fit(p, images(), MEMBERS, [None, middle, done], chunk=2))
    assert [sorted(some) for some in chunks[:4]] == [[0]] * 4
    assert all(2 not in some for some in chunks)
    again = last(chunks)
    for i in (0, 1):
        assert bits(again[i].state) == bits(ends[i].state)
    assert again[1].metrics == ends[1].metrics


# Devices and memory

DEVICES = """
import sys
sys.path[:0] = ["tests", "tests/training"]
from test_sweeps import *
assert len(jax.devices()) == 8
ends = last(sweeps.fit(program(steps=12), images(), MEMBERS, [None] * 3, chunk=2))
np.savez(sys.argv[1], *[leaf for i in range(3) for leaf in jax.tree.leaves(ends[i].state)])
"""


def test_the_same_members_on_eight_devices(twelve_steps, tmp_path):
    """Fewer members than devices, too."""
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", DEVICES, tmp_path / "ends.npz"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = last(twelve_steps[1])
    here = [leaf for i in range(3) for leaf in jax.tree.leaves(ends[i].state)]
    with np.load(tmp_path / "ends.npz") as there:
        assert distance(here, [there[name] for name in there.files]) < 1e-5


def test_memory_decides_how_many(monkeypatch):
    p, data = program(), images()
    each = sweeps.member_bytes(p, 3, data)
    state = p.start(MEMBERS[0], 160)
    assert each > sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    size = sum(a.nbytes for a in data)
    monkeypatch.setattr(sweeps, "memory", lambda: (10.5 * each + size) / sweeps.MEMORY)
    assert sweeps.how_many(p, 3, data, 1) == 10
    assert sweeps.how_many(p, 3, data, 4) == 40
    monkeypatch.setattr(sweeps, "memory", lambda: 0.0)
    assert sweeps.how_many(p, 3, data, 2) == 2  # at least one on each
