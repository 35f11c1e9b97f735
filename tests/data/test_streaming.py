"""Streaming: the same batches as from the device, and so the same weights, bit for bit."""

import itertools
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import models, training
from vae_jax.data import streaming
from vae_jax.data.batches import preparer, rows
from vae_jax.data.conditions import none
from vae_jax.data.split import Split
from vae_jax.data.streaming import pieces
from vae_jax.parallel import devices
from vae_jax.training.state import TrainConfig


def linear_vae(size: int):
    """Just enough of a model for `fit`: one matrix."""
    return models.VAE(
        init=lambda key: {"w": 0.1 * jax.random.normal(key, (size, size))},
        posterior=None, likelihood=None, prior=None, draw=None,
    )  # fmt: skip


def objective(vae, params, key, batch, weights):
    """Depends on the pixels, on their order within the batch, and on the noise."""
    x = batch.x.reshape(len(batch.x), -1)
    noise = jax.random.normal(key, x.shape)
    error = ((x + 0.1 * noise) @ params["w"] - x[::-1]) ** 2
    return jnp.mean(jnp.sum(error, axis=1)), {"first": jnp.mean(x[0])}


X = np.random.default_rng(0).integers(0, 256, (53, 3, 4, 1), dtype=np.uint8)
ROW = X[0].nbytes + 4  # and a label


def fit(limit=None, state=None, x=X, chunk=7, objective=objective, **settings):
    config = TrainConfig(**{"batch_size": 4, "epochs": 3, "learning_rate": 0.01, **settings})
    progress = training.fit(
        linear_vae(12), objective, rows(Split(x)), config,
        prepare=preparer("dynamic", none((3, 4, 1))), weights=lambda step: None,
        state=state, chunk=chunk, limit=limit,
    )  # fmt: skip
    # Copies, since the arrays are given up to the next chunk.
    return [p._replace(state=jax.tree.map(np.array, p.state)) for p in progress]


def same(a, b) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.fixture(scope="module")
def kept():
    """A training whose images are on the device."""
    return fit(ema=0.9)


@pytest.mark.parametrize("steps", [1, 5])
def test_streamed_training_ends_in_the_same_bits(kept, steps):
    streamed = fit(limit=2 * steps * 4 * ROW + 1, ema=0.9)
    assert [p.step for p in kept] == [p.step for p in streamed]
    assert [p.chunk for p in kept] == [p.chunk for p in streamed] == [7, 6] * 3
    for a, b in zip(kept, streamed, strict=True):
        assert same(a.state, b.state)
        for name in a.metrics:
            np.testing.assert_allclose(a.metrics[name], b.metrics[name], rtol=1e-6)


def test_streamed_training_goes_on_where_another_stopped(kept):
    state = jax.tree.map(jnp.asarray, kept[2].state)
    assert same(fit(limit=300, state=state, ema=0.9)[-1].state, kept[-1].state)


def test_metrics_of_a_chunk_are_means_over_its_steps():
    each = fit(chunk=1)
    chunked = fit(chunk=7, limit=2 * 2 * 4 * ROW)  # 7 steps in pieces of 2, 2, 2 and 1
    for start, stop, p in zip(*pairs(chunked), chunked, strict=True):
        for name in p.metrics:
            mean = np.mean([q.metrics[name] for q in each[start:stop]])
            np.testing.assert_allclose(p.metrics[name], mean, rtol=1e-5)


def pairs(progress):
    stops = [p.step for p in progress]
    return [0, *stops[:-1]], stops


@pytest.mark.parametrize("limit", [None, 2 * 2 * 4 * ROW])
def test_a_loss_that_is_not_finite_ends_it_at_its_step(limit):
    def diverging(vae, params, key, batch, weights):
        loss, metrics = objective(vae, params, key, batch, weights)
        return jnp.where(weights == 10, jnp.nan, loss), metrics

    config = TrainConfig(batch_size=4, epochs=3)
    progress = list(training.fit(
        linear_vae(12), diverging, rows(Split(X)), config, limit=limit, chunk=7,
        prepare=preparer("dynamic", none((3, 4, 1))), weights=lambda step: step,
    ))  # fmt: skip
    assert [(p.step, p.chunk, p.finite) for p in progress] == [(7, 7, True), (11, 4, False)]


def test_pieces_of_any_length_run_without_compiling_anew():
    traced, counts = [], []

    def counting(vae, params, key, batch, weights):
        traced.append(1)
        return objective(vae, params, key, batch, weights)

    config = TrainConfig(batch_size=4, epochs=3)
    for _ in training.fit(
        linear_vae(12), counting, rows(Split(X)), config,
        prepare=preparer("dynamic", none((3, 4, 1))),
        weights=lambda step: None, chunk=7, limit=2 * 4 * 4 * ROW,
    ):  # fmt: skip
        counts.append(len(traced))
    assert len(counts) == 6 and len(set(counts)) == 1  # pieces of 4, 3, 4 and 2 steps


def test_no_more_than_two_blocks_within_the_limit():
    x = rows(Split(X))
    size = 53 * ROW
    for limit, steps in ((size, 0), (size - 1, 6), (400, 3), (1, 1), (0, 1)):
        assert streaming.steps_per_block(x, 4, limit, 100) == steps
        assert steps <= 1 or 2 * steps * 4 * ROW <= limit
    assert streaming.steps_per_block(x, 4, 400, 2) == 2
    assert streaming.steps_per_block(x, 4, None, 3) == 0  # a CPU keeps everything


@pytest.mark.parametrize(
    ("at", "total", "per_epoch", "chunk", "longest"),
    [
        (0, 30, 10, 4, 3),
        (7, 30, 10, 4, 3),
        (0, 5, 10, 100, 100),
        (9, 11, 10, 1, 5),
        (3, 3, 4, 4, 4),
    ],
)
def test_pieces_cover_every_step_once(at, total, per_epoch, chunk, longest):
    cut = list(pieces(at, total, per_epoch, chunk, longest))
    steps = [p.epoch * per_epoch + p.first + i for p in cut for i in range(p.count)]
    assert steps == list(range(at, total))
    ends = list(itertools.accumulate([p.count for p in cut], initial=at))[1:]
    for p, end in zip(cut, ends, strict=True):
        assert 1 <= p.count <= longest and p.first + p.count <= per_epoch
        assert p.ends == (end == total or end % per_epoch == 0 or (end % per_epoch) % chunk == 0)


def test_streamed_rows_are_those_of_the_order():
    tree = {"x": X, "y": np.arange(len(X))}
    order = np.random.default_rng(1).permutation(52).reshape(13, 4)
    cut = pieces(0, 26, 13, 100, 5)
    place = devices.placer()
    for piece, inputs in streaming.streamed(tree, lambda e: order, cut, 5, place):
        block, steps, first, count = inputs
        assert block["x"].shape == (5, 4, 3, 4, 1) and (first, count) == (0, piece.count)
        rows = steps[first : first + count]
        asked = order[piece.first : piece.first + count]
        np.testing.assert_array_equal(block["x"][rows], X[asked])
        np.testing.assert_array_equal(block["y"][rows], asked)


def test_prefetched_works_one_ahead_in_another_thread():
    made = []

    def items():
        for i in range(4):
            made.append((i, threading.current_thread()))
            yield i

    for i in streaming.prefetched(items()):
        deadline = time.monotonic() + 5
        while len(made) < min(i + 2, 4) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert [j for j, _ in made] == list(range(min(i + 2, 4)))
    assert threading.current_thread() not in [thread for _, thread in made]


def test_prefetched_raises_what_went_wrong_and_may_be_left():
    def failing():
        yield 1
        raise OSError("no more")

    items = streaming.prefetched(failing())
    assert next(items) == 1
    with pytest.raises(OSError, match="no more"):
        next(items)
    items = streaming.prefetched(iter(range(10**9)))
    assert next(items) == 0
    items.close()
