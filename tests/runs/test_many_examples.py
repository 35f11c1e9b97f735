"""As many examples as one likes: what a method takes in between does not grow with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_helpers import untrained

import vae_jax
from vae_jax import evaluation, memory
from vae_jax.runs import run as module


@pytest.mark.parametrize("flags", [("--latent_dim=2",), ("--latent_dim=2", "--condition=label")])
def test_many_examples_give_the_numbers_of_few(tmp_path, monkeypatch, flags):
    untrained(tmp_path / "run", *flags)
    run = vae_jax.load(tmp_path / "run")
    images = np.random.default_rng(0).integers(0, 256, (23, 8, 8, 1), dtype=np.uint8)
    x, c = run.split(images, np.arange(23) % 10)

    def all_of():
        key = jax.random.key(0)
        return (run.encode(x, c).sample(key) if len(flags) == 1 else (), run.latents(x, c),
                run.reconstruct(x, c), run.sample(key, 23, c))  # fmt: skip

    whole = all_of()
    sizes = []
    at_once = module._at_once
    monkeypatch.setattr(module, "BLOCK", 10)
    monkeypatch.setattr(
        module, "_at_once", lambda *args: (sizes.append(len(args[-1])), at_once(*args))[1]
    )
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(all_of()), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert max(sizes) == 10 and min(sizes) == 3


def test_where_memory_is_short_fewer_are_taken_at_once_and_numbers_stay(tmp_path, monkeypatch):
    untrained(tmp_path / "run", "--latent_dim=2")
    run = vae_jax.load(tmp_path / "run")
    images = np.random.default_rng(0).integers(0, 256, (23, 8, 8, 1), dtype=np.uint8)
    data, key = run.split(images), jax.random.key(0)
    sizes, taken = [], []
    at_once = module._at_once
    monkeypatch.setattr(
        module, "_at_once", lambda *args: (sizes.append(len(args[-1])), at_once(*args))[1]
    )

    def all_of():
        numbers = evaluation.log_likelihood(
            run.vae, run.params, data, key, 10, report=taken.append
        ).log_p
        return numbers, run.reconstruct(data.x)

    whole = all_of()
    assert max(sizes) == 23 and taken == [23]
    sizes.clear(), taken.clear()
    monkeypatch.setattr(memory, "memory", lambda: 20_000)
    for one, other in zip(whole, all_of(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert max(sizes) < 23 and sum(sizes) == 2 * 23 and 1 <= max(taken) < 23 and sum(taken) == 23


def test_an_example_is_as_large_as_what_it_makes(monkeypatch):
    monkeypatch.setattr(memory, "memory", lambda: 1_000_000)

    def f(width, x):
        def one(i):
            return jnp.sum(jnp.tanh(x[:, None] * i * jnp.ones((1, width))))

        return jnp.sum(jax.lax.map(one, jnp.arange(3.0)))

    x = jnp.ones(5, jnp.float32)
    # A quarter of memory; four arrays as large as the largest one, 5 × 500 numbers of 4 bytes.
    assert memory.fitting(1000, f, (500,), x) == 250_000 // (4 * 5 * 500 * 4)
    assert memory.fitting(3, f, (500,), x) == 3
    assert memory.fitting(1000, f, (10**6,), x) == 1  # one at least


def test_no_examples_are_one_line_or_nothing(tmp_path):
    untrained(tmp_path / "run", "--latent_dim=2")
    run = vae_jax.load(tmp_path / "run")
    assert run.decode(np.zeros((0, 2), np.float32)).shape == (0, 8, 8, 1)
