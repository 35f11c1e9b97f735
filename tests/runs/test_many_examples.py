"""As many examples as one likes: what a method takes in between does not grow with them."""

import jax
import numpy as np
import pytest
from run_helpers import untrained

import vae_jax
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
