"""What arrays mean: one rule, whatever their dtype."""

import numpy as np
import pytest

from vae_jax.data.split import DataError, as_examples, as_pixels

X = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1))


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "i4", "i8", ">i4"])
def test_integers_of_any_width_are_grey_levels(dtype):
    pixels = as_pixels(X.astype(dtype), "x")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, X)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8"])
def test_floats_stay_in_the_unit_interval(dtype):
    pixels = as_pixels((X / 255).astype(dtype), "x")
    np.testing.assert_allclose(pixels, X / 255, atol=1e-3)
    assert as_pixels(np.array([0.5, 1.0000001]), "x").max() == 1


@pytest.mark.parametrize(
    ("x", "fault"),
    [
        (X * 1.0, "if floats"),
        (X / 127.5 - 1, "if floats"),
        (X / 255 / 255, "twice"),
        (X * 2, "0 to 255"),
        (X - 300, "0 to 255"),
        (X % 2, "only 0 and 1"),
        ((X % 2).astype(np.uint8), "only 0 and 1"),
        (np.full((2, 2), np.nan), "if floats"),
        (np.full((2, 2), np.inf), "if floats"),
        (X.astype(str), "dtype"),
        (X.astype(object), "dtype"),
        (X * 1j, "dtype"),
    ],
)
def test_what_is_no_image_is_one_line(x, fault):
    with pytest.raises(DataError, match=fault) as error:
        as_pixels(x, "x")
    assert "\n" not in str(error.value)


def test_shapes():
    assert as_examples(X[..., 0], (4, 4, 1), "x").shape == (5, 4, 4, 1)
    with pytest.raises(DataError, match="channels come last"):
        as_examples(np.zeros((2, 3, 8, 8)), (8, 8, 3), "x")
    for wrong in (np.zeros((6, 16, 16, 1)), np.zeros((6, 8, 8, 3)), np.zeros(()), np.zeros((8, 8))):
        with pytest.raises(DataError, match="must be"):
            as_examples(wrong, (8, 8, 1), "x")
    points = np.array([[-3.0, 400.0]])
    np.testing.assert_array_equal(as_examples(points, (2,), "x"), points)
