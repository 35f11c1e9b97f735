"""Bounds on log-scales: the identity within their range, and what leads back from beyond."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import models
from vae_jax.models.scales import BOUNDS, bounded, parse_range
from vae_jax.settings import UserError

INSIDE = jnp.asarray([-6.0, -5.999, -1e-20, 0.0, 0.3, 1.999, 2.0], jnp.float32)


@pytest.mark.parametrize("kind", BOUNDS)
def test_within_its_range_a_bound_is_the_identity_to_the_last_bit(kind):
    bound = jax.jit(bounded(kind, -6.0, 2.0))
    np.testing.assert_array_equal(bound(INSIDE), INSIDE)
    slopes = jax.vmap(jax.grad(bounded(kind, -6.0, 2.0)))(INSIDE[1:-1])
    np.testing.assert_array_equal(slopes, 1.0)


def test_beyond():
    x = jnp.asarray([-1e6, -20.0, 3.0, 30.0, 3e38])
    np.testing.assert_array_equal(bounded("none")(x), x)
    np.testing.assert_array_equal(bounded("clip", -6, 2)(x), [-6, -6, 2, 2, 2])
    soft = bounded("soft", -6.0, 2.0)
    np.testing.assert_allclose(soft(x), [-7, -6 - 14 / 15, 2.5, 2 + 28 / 29, 3], atol=2e-6)
    slopes = jax.vmap(jax.grad(soft))(x[1:4])
    np.testing.assert_allclose(slopes, [15.0**-2, 0.25, 29.0**-2], rtol=1e-5)
    assert np.all(np.diff(soft(jnp.linspace(-50, 50, 1001))) > 0)


@pytest.mark.parametrize("text", ["", "1", "2,-6", "a,b", "nan,2", "-6,2,3", "-50,2", "-6,60"])
def test_wrong_ranges_are_one_line(text):
    with pytest.raises(UserError, match="log_scale_range must be auto, or two rising numbers"):
        models.ModelConfig(log_scale_range=text)
    with pytest.raises(ValueError):
        parse_range(text)


@pytest.mark.parametrize("kind, finite", [("none", False), ("clip", True), ("soft", True)])
@pytest.mark.parametrize(
    "settings", [{}, {"posterior": "full"}, {"prior": "conditional"}, {"model": "doersch"}]
)
def test_a_net_that_runs_away_costs_no_infinite_rate(settings, kind, finite):
    """Weights times a thousand: exp of what they say is no number, unless it is bounded."""
    config = models.ModelConfig(log_scale_bound=kind, **settings)
    c_shape = (3,) if "prior" in settings else (0,)
    vae = models.build(config, (4, 4, 1), c_shape)
    params = jax.tree.map(lambda a: 1000 * (a + 0.1), vae.init(jax.random.key(0)))
    draw = vae.draw(params, jax.random.key(1), jnp.ones((4, 4, 1)), jnp.ones(c_shape))
    assert bool(jnp.isfinite(draw.rate)) == finite
