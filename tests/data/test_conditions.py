"""Conditions: nothing of an image is lost, nothing of the target is given away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.data.conditions import CONDITIONS
from vae_jax.settings import UserError

SHAPES = [(28, 28, 1), (8, 8, 1), (5, 7, 3)]


def image(shape, seed=0):
    """Binary, so that drawing the given pixels changes nothing."""
    return jnp.asarray(np.random.default_rng(seed).integers(0, 2, shape), jnp.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CONDITIONS)
def test_split_has_the_declared_shapes_and_merges_to_the_image(name, shape):
    condition = CONDITIONS[name](shape, 10)
    x, c = jax.jit(condition.split)(jax.random.key(0), image(shape), jnp.asarray(3))
    assert x.shape == condition.x_shape and c.shape == condition.c_shape
    np.testing.assert_array_equal(condition.merge(x, c), image(shape))


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("column", (slice(None), slice(13, 14))),
        ("left_half", (slice(None), slice(0, 14))),
        ("top_half", (slice(0, 14), slice(None))),
        ("quadrant", (slice(14, 28), slice(0, 14))),
    ],
)
def test_regions_of_mnist(name, where):
    """The given pixels are that region's; a change there does not reach the target."""
    condition = CONDITIONS[name]((28, 28, 1), 0)
    wanted = np.zeros((28, 28), bool)
    wanted[where] = True
    np.testing.assert_array_equal(condition.given(jnp.zeros(condition.c_shape)), wanted)
    one, other = image((28, 28, 1)), image((28, 28, 1), seed=1)
    mixed = jnp.where(wanted[..., None], other, one)
    key, label = jax.random.key(0), jnp.asarray(0)
    np.testing.assert_array_equal(
        condition.split(key, one, label)[0], condition.split(key, mixed, label)[0]
    )
    np.testing.assert_array_equal(
        condition.split(key, mixed, label)[1], np.asarray(other)[where].reshape(-1, 1)
    )


def test_a_given_column_is_drawn_anew_with_its_grey_as_probability():
    condition = CONDITIONS["column"]((28, 28, 1), 0)
    assert (condition.x_shape, condition.c_shape) == ((756, 1), (28, 1))
    grey = jnp.full((28, 28, 1), 0.3)
    keys = jax.random.split(jax.random.key(0), 2000)
    x, c = jax.vmap(lambda key: condition.split(key, grey, jnp.asarray(0)))(keys)
    assert set(np.unique(c)) == {0.0, 1.0} and np.all(x == np.float32(0.3))
    sigma = np.sqrt(0.3 * 0.7 / c.size)
    assert abs(float(c.mean()) - 0.3) < 5 * sigma


def test_a_random_mask_gives_about_half_and_hides_the_rest():
    condition = CONDITIONS["random_mask"]((28, 28, 1), 0)
    _, c = condition.split(jax.random.key(0), jnp.ones((28, 28, 1)), jnp.asarray(0))
    mask = np.asarray(c[..., 1])
    assert abs(mask.mean() - 0.5) < 5 * 0.5 / 28
    np.testing.assert_array_equal(c[..., 0], mask)
    np.testing.assert_array_equal(condition.given(c), mask > 0)


def test_labels_are_one_hot_and_must_exist():
    condition = CONDITIONS["label"]((4, 4, 1), 10)
    x, c = condition.split(jax.random.key(0), image((4, 4, 1)), jnp.asarray(7))
    np.testing.assert_array_equal(c, np.eye(10)[7])
    np.testing.assert_array_equal(x, image((4, 4, 1)))
    with pytest.raises(UserError, match="needs data with labels"):
        CONDITIONS["label"]((4, 4, 1), 0)


@pytest.mark.parametrize("name", ["column", "left_half", "top_half"])
def test_an_image_of_one_pixel_has_no_parts(name):
    with pytest.raises(UserError, match="too small"):
        CONDITIONS[name]((1, 1, 1), 0)
