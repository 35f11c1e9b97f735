"""Every example has noise of its own, whatever the batch it is in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.evaluation.per_example import per_example
from vae_jax.models import ModelConfig, build
from vae_jax.types import unconditional


def _drawn(vae, params, key, x, c):
    return jax.random.normal(key)


@pytest.mark.parametrize("batch_size", [1, 3, 500])
def test_no_two_examples_share_a_key(batch_size):
    data, key = unconditional(np.zeros((7, 4, 4, 1), np.uint8)), jax.random.key(3)
    vae = build(ModelConfig(widths="4"), (4, 4, 1))
    drawn = per_example(_drawn, vae, {}, key, data, batch_size)
    wanted = [jax.random.normal(jax.random.fold_in(key, i)) for i in range(7)]
    np.testing.assert_array_equal(drawn, jnp.stack(wanted))
    assert len(set(drawn.tolist())) == 7
