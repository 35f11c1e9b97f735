"""What arrays mean: one rule, whatever their dtype."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_helpers import untrained

from vae_jax import data, evaluation, models, runs, training
from vae_jax.data.split import DataError, as_examples, as_pixels
from vae_jax.objectives import bounds
from vae_jax.settings import UserError
from vae_jax.types import Batch, unconditional

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


# What fit, evaluation and Run make of them

KEY = jax.random.key(0)
SAME = {
    "int64": X.astype(np.int64),
    "uint16": X.astype(np.uint16),
    "float64": X / 255,
    "on the device": jnp.asarray(X, jnp.uint8),
    "floats on the device": jnp.asarray(X / 255, jnp.float32),
}
NONE = {"floats to 255": X * 1.0, "0 and 1": (X % 2).astype(np.uint8), "NaN": X * np.nan}


@functools.cache
def vae():
    return models.build(models.ModelConfig(widths="4", latent_dim=2), (4, 4, 1))


def elbo(x):
    return evaluation.elbo(vae(), vae().init(KEY), unconditional(x), KEY)


def trained(x):
    config = training.TrainConfig(batch_size=2, steps=3)
    *_, last = training.fit(vae(), bounds.elbo, x, config)
    return last.metrics["loss"]


@pytest.mark.parametrize("x", SAME.values(), ids=SAME)
def test_the_same_images_are_the_same_numbers(x):
    grey = X.astype(np.uint8)
    assert elbo(x)["elbo"] == pytest.approx(elbo(grey)["elbo"], rel=1e-6)
    assert trained(x) == pytest.approx(trained(grey), rel=1e-6)


@pytest.mark.parametrize("x", NONE.values(), ids=NONE)
@pytest.mark.parametrize("door", [elbo, trained])
def test_no_door_takes_what_is_no_image(door, x):
    with pytest.raises(DataError):
        door(x)


def test_a_list_is_an_array_and_a_generator_is_one_line():
    assert trained([*X]) == trained(X)
    with pytest.raises(DataError, match=r"np\.stack"):
        trained(x for x in X)
    with pytest.raises(DataError, match="condition must be"):
        evaluation.elbo(vae(), vae().init(KEY), Batch(X, np.zeros((2, 0))), KEY)


def test_points_stay_as_they_are_and_are_finite():
    points = np.array([[-3.0, 400.0]])
    assert evaluation.per_example(
        lambda vae, params, key, x, c: x, vae(), {}, KEY, unconditional(points)
    ) == pytest.approx(points)
    for wrong in (points * np.nan, np.array([[np.inf, 0.0]])):
        with pytest.raises(DataError, match="finite"):
            as_examples(wrong, (2,), "x")
    with pytest.raises(DataError, match="floats"):
        as_examples(np.array([[1, 2]]), (2,), "x")


def test_a_run_takes_latents_and_images_of_its_own_shapes(tmp_path):
    untrained(tmp_path / "run", "--latent_dim=2")
    run = runs.load(tmp_path / "run")
    for z in (
        np.zeros((3, 5)),
        np.zeros((3, 2, 1)),
        np.full((1, 2), np.nan),
        np.array([["a", "b"]]),
    ):
        with pytest.raises(UserError):
            run.decode(z)
    assert run.decode(np.zeros(2)).shape == (1, 8, 8, 1)
    with pytest.raises(UserError, match=r"x\[None\]"):
        run.encode(np.zeros((8, 8, 1)))
    with pytest.raises(UserError, match="n must be"):
        run.sample(KEY, 0)
    with pytest.raises(UserError):
        run.decode(np.zeros((3, 2)), np.zeros((2, 7)))


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_come_last(channels):
    first = np.zeros((6, channels, 16, 16), np.uint8)
    for door in (trained, elbo, lambda x: data.from_arrays(x)):
        with pytest.raises(DataError, match="channels come last"):
            door(first)


LABELS = {
    "left out": None, "too few": np.arange(4), "too many": np.arange(7), "negative": np.full(6, -1),
    "not a class": np.full(6, 10), "halves": np.full(6, 1.7), "text": np.array(["a"] * 6),
    "one-hot": np.eye(10, dtype=int)[:6],
}  # fmt: skip


@pytest.mark.parametrize("case", LABELS)
def test_labels_that_a_model_of_labels_cannot_mean(case, tmp_path):
    untrained(tmp_path / "run", "--condition=label")
    run = runs.load(tmp_path / "run")
    x = np.zeros((6, 8, 8, 1), np.uint8)
    assert run.split(x, np.arange(6)).condition.shape == (6, 10)
    with pytest.raises(UserError) as error:
        run.split(x, LABELS[case])
    assert "\n" not in str(error.value)
