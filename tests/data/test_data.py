"""Data: what is read is what was written; every draw has its probability; every error is one line.

Tests of the real files need VAE_JAX_TEST_DATA, a folder with mnist/, fashion_mnist/ (the original
files) and tfds/ (sets prepared by tensorflow-datasets).
"""

import gzip
import hashlib
import math
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_helpers import load, one_line, real
from idx import idx_bytes, write_idx_set

from vae_jax import data
from vae_jax.data import batches, fixed_draws
from vae_jax.data.batches import Rows, preparer
from vae_jax.data.conditions import none
from vae_jax.data.dataset import DataConfig
from vae_jax.data.split import DataError, Split

LEVELS = np.arange(256)


pytestmark = pytest.mark.usefixtures("no_network")


def rows(split: Split) -> set[bytes]:
    return {image.tobytes() for image in split.x}


# Binarisation -------------------------------------------------------------------------------------


def test_threshold_of_every_level_is_its_probability():
    """Counting the 2¹⁶ equally likely draws gives P(x=1) exactly."""
    ones = np.array([np.sum(np.arange(2**16) < fixed_draws.threshold16(int(v))) for v in LEVELS])
    np.testing.assert_array_equal(ones, [round(v * 2**16 / 255) for v in LEVELS])
    assert ones[0] == 0 and ones[255] == 2**16
    assert np.abs(ones / 2**16 - LEVELS / 255).max() < 7.7e-6


def test_uniform16_is_uniform():
    """Chi-squared of both bytes of both halves; 255 degrees of freedom, five sigma."""
    u = np.asarray(batches._uniform16(jax.random.key(0), (1000, 1001)))
    assert u.min() >= 0 and u.max() < 2**16
    for byte in (u & 255, u >> 8, u[:, ::2] >> 8, u[:, 1::2] & 255):
        counts = np.bincount(byte.ravel(), minlength=256)
        chi2 = np.sum((counts - counts.mean()) ** 2) / counts.mean()
        assert abs(chi2 - 255) < 5 * math.sqrt(2 * 255)
    neighbours = np.corrcoef(u[:, 0:-1:2].ravel(), u[:, 1::2].ravel())[0, 1]
    assert abs(neighbours) < 5 / math.sqrt(u.size / 2)


@pytest.mark.parametrize("where", ["device", "host"])
def test_draws_have_the_mean_of_their_level(where):
    num = 4001
    x = np.broadcast_to(LEVELS.astype(np.uint8), (num, 256))
    if where == "device":
        drawn = np.asarray(batches.binarise("dynamic", jax.random.key(1), jnp.asarray(x)))
    else:
        drawn = fixed_draws.draw_once(x, 1, "test") / 255
    assert set(np.unique(drawn)) == {0, 1}
    p = LEVELS / 255
    assert np.all(np.abs(drawn.mean(0) - p) <= 5 * np.sqrt(p * (1 - p) / num))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 7, 3, 1), (4, 28, 28, 1), (3,), (0, 4)])
def test_binarise_any_shape(shape):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    for name in batches.BINARISATIONS:
        y = jax.jit(batches.binarise, static_argnums=0)(name, jax.random.key(0), x)
        assert y.shape == shape and y.dtype == jnp.float32


def test_binarise_differs_between_keys_and_images():
    x = jnp.full((2, 28, 28, 1), 128, jnp.uint8)
    a, b = (batches.binarise("dynamic", jax.random.key(seed), x) for seed in (0, 1))
    assert not jnp.array_equal(a, b) and not jnp.array_equal(a[0], a[1])
    assert jnp.array_equal(a, batches.binarise("dynamic", jax.random.key(0), x))


def test_binarise_grey_threshold_and_fixed_points():
    x, key = jnp.arange(256, dtype=jnp.uint8)[None], jax.random.key(0)
    np.testing.assert_allclose(batches.binarise("none", key, x)[0], LEVELS / 255, rtol=2e-7)
    np.testing.assert_array_equal(batches.binarise("threshold", key, x)[0], LEVELS >= 128)
    fixed = jnp.array([[0, 255] * 50], jnp.uint8)
    for name in batches.BINARISATIONS:
        np.testing.assert_array_equal(batches.binarise(name, key, fixed), fixed == 255)
    with pytest.raises(DataError) as error:
        batches.binarise("sometimes", key, x)
    assert "dynamic, static, threshold, none" in one_line(error)


# The order of an epoch ----------------------------------------------------------------------------


@pytest.mark.parametrize(("num", "batch"), [(100, 10), (103, 10), (7, 7), (5, 1)])
def test_epoch_order_sees_every_image_at_most_once(num, batch):
    order = jax.jit(batches.epoch_order, static_argnums=(2, 3))
    first = np.asarray(order(jax.random.key(0), 0, num, batch))
    assert first.shape == (num // batch, batch)
    assert len(np.unique(first)) == first.size and first.min() >= 0 and first.max() < num
    again = np.asarray(batches.epoch_order(jax.random.key(0), 0, num, batch))
    np.testing.assert_array_equal(first, again)


def test_epoch_order_is_fresh_each_epoch_and_leaves_out_others():
    orders = [np.asarray(batches.epoch_order(jax.random.key(0), e, 103, 10)) for e in range(30)]
    assert len({order.tobytes() for order in orders}) == 30
    assert set(np.concatenate([order.ravel() for order in orders])) == set(range(103))
    other = np.asarray(batches.epoch_order(jax.random.key(1), 0, 103, 10))
    assert not np.array_equal(orders[0], other)


@pytest.mark.parametrize("batch", [0, 11])
def test_epoch_order_rejects_a_batch_that_cannot_be_filled(batch):
    with pytest.raises(DataError) as error:
        batches.epoch_order(jax.random.key(0), 0, 10, batch)
    assert "1 to 10" in one_line(error)


# Splits and fixed draws ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small set in the original format, in the folder of its name."""
    folder = tmp_path_factory.mktemp("idx")
    write_idx_set(folder / "mnist", 200, 30, seed=0, size=8)
    return folder


@pytest.mark.parametrize(("asked", "got"), [(0, 0), (7, 7), (20, 20), (5000, 20)])
def test_validation_is_split_off(folder, asked, got):
    whole = load(folder, validation_size=0)
    dataset = load(folder, validation_size=asked)
    assert len(dataset.valid.x) == len(dataset.valid.y) == got
    assert len(dataset.train.x) == len(dataset.train.y) == 200 - got
    assert dataset.valid.x.shape[1:] == dataset.x_shape == (8, 8, 1)
    assert not rows(dataset.train) & rows(dataset.valid)
    assert rows(dataset.train) | rows(dataset.valid) == rows(whole.train)
    label = {x.tobytes(): y for x, y in zip(*whole.train[:2], strict=True)}
    for split in (dataset.train, dataset.valid):
        assert [label[x.tobytes()] for x in split.x] == list(split.y)


def test_validation_hangs_on_data_seed_and_nests():
    seeds = [load(dataset="digits", data_seed=seed) for seed in (0, 0, 1)]
    assert len(seeds[0].valid.x) == 150
    np.testing.assert_array_equal(seeds[0].valid.x, seeds[1].valid.x)
    assert not np.array_equal(seeds[0].valid.x, seeds[2].valid.x)
    smaller = load(dataset="digits", validation_size=40)
    np.testing.assert_array_equal(smaller.valid.x, seeds[0].valid.x[:40])
    np.testing.assert_array_equal(seeds[0].test.x, seeds[2].test.x)


@pytest.mark.parametrize("binarisation", batches.BINARISATIONS)
def test_what_is_drawn_once(folder, binarisation):
    grey = load(folder)
    dataset = load(folder, binarisation=binarisation)
    assert dataset.binarisation == binarisation
    for which in ("train", "valid", "test"):
        x, before = getattr(dataset, which).x, getattr(grey, which).x
        assert x.dtype == np.uint8 and x.shape == before.shape
        if binarisation == "none" or (binarisation == "dynamic" and which == "train"):
            np.testing.assert_array_equal(x, before)
        elif binarisation == "threshold":
            np.testing.assert_array_equal(x, 255 * (before >= 128))
        else:
            assert set(np.unique(x)) == {0, 255}
            assert np.all(x[before == 0] == 0) and np.all(x[before == 255] == 255)
            p = before / 255
            assert abs((x / 255 - p).sum()) < 5 * math.sqrt((p * (1 - p)).sum())


def test_fixed_draws_hang_on_data_seed_and_split_only(folder):
    a = load(folder, binarisation="dynamic")
    b = load(folder, binarisation="static", validation_size=7)
    np.testing.assert_array_equal(a.test.x, b.test.x)
    np.testing.assert_array_equal(a.valid.x[:7], b.valid.x)
    c = load(folder, binarisation="dynamic", data_seed=1)
    assert not np.array_equal(a.test.x, c.test.x)
    grey = np.full((30, 8, 8, 1), 128, np.uint8)
    drawn = [fixed_draws.draw_once(grey, 0, stream) for stream in ("train", "valid", "test")]
    assert len({draw.tobytes() for draw in drawn}) == 3


def test_fixed_draw_of_an_image_is_the_same_among_any_number():
    x = np.random.default_rng(0).integers(0, 256, (5000, 3, 3, 1), dtype=np.uint8)
    whole = fixed_draws.draw_once(x, 3, "test")
    for num in (0, 1, 100, 4097):
        np.testing.assert_array_equal(fixed_draws.draw_once(x[:num], 3, "test"), whole[:num])


def test_fixed_draws_never_change():
    """A published likelihood is on these draws: another digest is another test set."""
    drawn = load(dataset="digits", binarisation="dynamic")
    digests = [hashlib.sha256(split.x.tobytes()).hexdigest()[:16] for split in drawn[2:5]]
    assert digests == ["e9c57d13acbba747", "9c104236bc07ae77", "c717d7c503e3c9d3"]


def test_digits():
    dataset = load(dataset="digits", validation_size=0)
    assert dataset.name == "digits" and dataset.source == "scikit-learn" and not dataset.fallback
    assert dataset.train.x.shape == (1500, 8, 8, 1) and dataset.test.x.shape == (297, 8, 8, 1)
    values = np.unique(dataset.train.x)
    np.testing.assert_array_equal(values, np.rint(np.arange(17) * 255 / 16))
    assert set(dataset.train.y) == set(dataset.test.y) == set(range(10))


# The original files -------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", ["", "fashion_mnist"])
def test_original_files_are_read_as_written(tmp_path, zipped, inside):
    written = write_idx_set(tmp_path / inside, 12, 5, seed=1, size=6, zipped=zipped)
    dataset = load(tmp_path, "fashion_mnist", validation_size=0)
    assert dataset.name == "fashion_mnist" and str(tmp_path / inside) in dataset.source
    for split, stem in ((dataset.train, "train"), (dataset.test, "t10k")):
        np.testing.assert_array_equal(split.x[..., 0], written[f"{stem}-images-idx3-ubyte"])
        np.testing.assert_array_equal(split.y, written[f"{stem}-labels-idx1-ubyte"])
        assert split.x.dtype == np.uint8 and split.y.dtype == np.int32
    assert dataset.valid.x.shape == (0, 6, 6, 1) and dataset.valid.y.shape == (0,)


def test_a_folder_of_the_name_comes_first(tmp_path):
    write_idx_set(tmp_path, 12, 5, seed=1)
    write_idx_set(tmp_path / "fashion_mnist", 11, 4, seed=2)
    assert len(load(tmp_path, "fashion_mnist", validation_size=0).train.x) == 11
    assert len(load(tmp_path, "mnist", validation_size=0).train.x) == 12


def test_data_dir_may_come_from_the_environment_or_home(tmp_path, monkeypatch):
    write_idx_set(tmp_path / "default" / "mnist", 12, 5, seed=1)
    assert load(dataset="auto").name == "mnist"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/default").name == "mnist"
    monkeypatch.setenv("TFDS_DATA_DIR", "")
    (tmp_path / "default").rename(tmp_path / "tensorflow_datasets")
    assert load().name == "mnist"


def test_original_files_need_neither_tensorflow_datasets_nor_network(folder):
    code = (
        "import sys; from vae_jax.data import *; "
        f"load(DataConfig(dataset='mnist', data_dir={str(folder)!r})); "
        "assert not {'tensorflow_datasets', 'sklearn', 'requests'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


IMAGES = np.zeros((12, 6, 6), np.uint8)
DAMAGE = {
    "empty": (lambda raw: b"", "not an IDX file"),
    "garbage": (lambda raw: b"garbage" * 9, "not an IDX file"),
    "web page": (lambda raw: b"<html>404</html>", "not an IDX file"),
    "truncated gzip": (lambda raw: raw[:-20], "cannot be read"),
    "gzip of half": (lambda raw: gzip.compress(gzip.decompress(raw)[:100]), "holds 84 values"),
    "flipped bits": (lambda raw: raw[:30] + bytes(20) + raw[50:], "cannot be read"),
    "short head": (lambda raw: gzip.compress(bytes([0, 0, 8, 3, 0])), "not an IDX file"),
    "labels": (lambda raw: gzip.compress(idx_bytes(np.zeros(12, np.uint8))), "not an IDX file"),
    "floats": (lambda raw: bytes([0, 0, 13, 3]) + idx_bytes(IMAGES)[4:], "not an IDX file"),
    "trailing": (lambda raw: idx_bytes(IMAGES) + b"x", "holds 433 values"),
    "no images": (lambda raw: idx_bytes(IMAGES[:0]), "shape [0, 6, 6]"),
    "one too few": (lambda raw: idx_bytes(IMAGES[1:]), "11 images"),
    "other size": (lambda raw: idx_bytes(IMAGES[:, 1:]), "different shapes"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("dataset", ["mnist", "auto"])
def test_damaged_file_is_an_error_that_names_it(tmp_path, kind, dataset):
    write_idx_set(tmp_path, 12, 5, seed=1, size=6)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    damage, expected = DAMAGE[kind]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as error:
        load(tmp_path, dataset)
    text = one_line(error)
    assert expected in text and str(tmp_path) in text


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
def test_missing_file_is_an_error_that_names_what_is_there(tmp_path, dataset):
    write_idx_set(tmp_path, 12, 5, seed=1, size=6)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as error:
        load(tmp_path, dataset)
    assert "has only train-images" in one_line(error)


# Where nothing is to be had -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("given", [True, False])
def test_named_and_not_to_be_had_says_what_to_do(tmp_path, name, given):
    with pytest.raises(DataError) as error:
        load(tmp_path if given else "", name)
    text = one_line(error)
    assert all(way in text for way in (name, "--data_dir", "network", "--dataset=digits"))
    assert not list(tmp_path.iterdir())  # nothing left behind


@pytest.mark.parametrize("given", [True, False])
def test_auto_falls_back_to_digits_and_says_so(tmp_path, given):
    dataset = load(tmp_path if given else "", "auto", "dynamic")
    assert dataset.name == "digits" and "in place of MNIST" in dataset.source
    assert "cannot be reached" in dataset.fallback and "\n" not in dataset.fallback
    asked = load(dataset="digits", binarisation="dynamic")
    np.testing.assert_array_equal(dataset.test.x, asked.test.x)


@pytest.mark.parametrize("dataset", ["auto", "mnist", "digits"])
def test_a_data_dir_that_is_no_folder(tmp_path, dataset):
    (tmp_path / "file").touch()
    for wrong in ("missing", "file"):
        with pytest.raises(DataError, match="data_dir must be a folder") as error:
            load(tmp_path / wrong, dataset)
        one_line(error)


# The user's own arrays ----------------------------------------------------------------------------


def test_from_arrays_takes_what_it_should():
    grey = np.random.default_rng(0).integers(0, 256, (40, 5, 4), dtype=np.uint8)
    y = np.arange(40) % 3
    a = data.from_arrays(grey, grey[:7], y, y[:7], name="mine")
    assert a.name == "mine" and a.binarisation == "none" and a.x_shape == (5, 4, 1)
    np.testing.assert_array_equal(a.train.x[..., 0], grey)
    np.testing.assert_array_equal(a.test.y, y[:7])
    for floats in (grey / 255, (grey / 255).astype(np.float32), jnp.asarray(grey) / 255):
        np.testing.assert_array_equal(data.from_arrays(floats, floats).train.x, a.train.x)
    b = data.from_arrays(grey > 100, grey > 100)
    np.testing.assert_array_equal(b.train.x[..., 0], 255 * (grey > 100))
    assert a.valid.x.shape == (0, 5, 4, 1) and b.train.y.shape == b.test.y.shape == (0,)
    colour = data.from_arrays(np.eye(60).reshape(60, 5, 4, 3))
    assert colour.x_shape == (5, 4, 3)


def test_from_arrays_holds_out_a_tenth():
    x = np.arange(1, 51, dtype=np.uint8).reshape(50, 1, 1)
    y = np.arange(1, 51)
    a, b, c = (data.from_arrays(x, y_train=y, data_seed=s, validation_size=4) for s in (0, 0, 1))
    assert [len(split.x) for split in (a.train, a.valid, a.test)] == [41, 4, 5]
    together = np.concatenate([a.train.x, a.valid.x, a.test.x]).ravel()
    assert sorted(together) == list(range(1, 51))
    for split in (a.train, a.valid, a.test):
        np.testing.assert_array_equal(split.x.ravel(), np.array(a.classes, int)[split.y])
    np.testing.assert_array_equal(a.test.x, b.test.x)
    assert not np.array_equal(a.test.x, c.test.x)
    assert len(data.from_arrays(x[:3]).test.x) == 1
    drawn = data.from_arrays(x, binarisation="dynamic")
    assert set(np.unique(drawn.test.x)) <= {0, 255} and len(np.unique(drawn.train.x)) > 2


GOOD = np.full((10, 4, 4), 0.5)
WRONG = {
    "NaN": (dict(x_train=np.where(np.eye(4), np.nan, GOOD)), "got nan"),
    "infinite": (dict(x_train=GOOD * np.inf), "got inf"),
    "0 to 255 floats": (dict(x_train=GOOD * 510), "[0, 1]"),
    "negative": (dict(x_train=GOOD - 1), "[0, 1]"),
    "int64": (dict(x_train=np.ones((10, 4, 4), int)), "int64 but holds only 0 and 1"),
    "0/1 bytes": (dict(x_train=np.ones((10, 4, 4), np.uint8)), "only 0 and 1"),
    "object": (dict(x_train=np.full((10, 4, 4), None)), "dtype object"),
    "text": (dict(x_train=np.full((10, 4, 4), "a")), "dtype <U1"),
    "ragged": (dict(x_train=[[[1.0]], [[1.0, 2.0]]]), "one array"),
    "flat": (dict(x_train=np.zeros((10, 16))), "shape [10, 16]"),
    "five axes": (dict(x_train=np.zeros((10, 4, 4, 1, 1))), "shape [10, 4, 4, 1, 1]"),
    "none": (dict(x_train=None), "one array; got a NoneType"),
    "empty": (dict(x_train=GOOD[:0]), "shape [0, 4, 4]"),
    "empty test": (dict(x_train=GOOD, x_test=GOOD[:0]), "x_test"),
    "one image": (dict(x_train=GOOD[:1]), "at least 3"),
    "other shape": (dict(x_train=GOOD, x_test=GOOD[:, :3]), "[4, 4, 1] and [3, 4, 1]"),
    "few labels": (dict(x_train=GOOD, y_train=range(9)), "10 labels"),
    "one-hot": (dict(x_train=GOOD, y_train=np.eye(10)), "10 labels"),
    "float labels": (dict(x_train=GOOD, y_train=np.ones(10)), "whole numbers"),
    "lone y_test": (dict(x_train=GOOD, y_test=range(10)), "goes with"),
    "no y_test": (dict(x_train=GOOD, x_test=GOOD, y_train=range(10)), "goes with"),
    "no y_train": (dict(x_train=GOOD, x_test=GOOD, y_test=range(10)), "goes with"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_from_arrays_rejects_in_one_line(kind):
    arguments, expected = WRONG[kind]
    with pytest.raises(DataError) as error:
        data.from_arrays(**arguments)
    assert expected in one_line(error)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(dataset="cifar"),
        dict(data_seed=-1),
        dict(validation_size=-1),
        dict(binarisation="maybe"),
    ],
)
def test_config_rejects_in_one_line(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))) as error:
        DataConfig(**wrong)
    assert "\n" not in str(error.value)


# Rows and batches --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3, 4, 2), (5, 3, 4, 1), (1, 1, 1, 1)])
def test_flat_images_are_rows_and_become_images_again(shape):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    some = batches.rows(Split(x))
    assert some.x.shape == (shape[0], math.prod(shape[1:])) and np.shares_memory(some.x, x)
    batch = jax.jit(preparer("none", none(shape[1:])))(jax.random.key(0), some)
    np.testing.assert_allclose(batch.x, x / 255, rtol=2e-7)
    assert batch.condition.shape == (shape[0], 0)


@pytest.mark.parametrize("binarisation", batches.BINARISATIONS)
def test_preparer_binarises_with_its_key(binarisation):
    some = Rows(jnp.full((3, 200), 100, jnp.uint8), jnp.zeros(3, jnp.int32))
    prepare = preparer(binarisation, none((10, 20, 1)))
    a, b, c = (prepare(jax.random.key(seed), some).x for seed in (0, 0, 1))
    want = batches.binarise(binarisation, jax.random.key(0), some.x)
    np.testing.assert_array_equal(a.reshape(3, 200), want)
    np.testing.assert_array_equal(a, b)
    assert np.array_equal(a, c) == (binarisation != "dynamic")


# The real files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "mean"), [("mnist", 0.1307), ("fashion_mnist", 0.2860)])
def test_real_files(name, mean):
    dataset = load(real(name), name)
    sizes = [len(split.x) for split in (dataset.train, dataset.valid, dataset.test)]
    assert sizes == [55_000, 5_000, 10_000] and dataset.x_shape == (28, 28, 1)
    pixels = [split.x.mean(dtype=np.float64) * len(split.x) for split in dataset[2:4]]
    assert abs(sum(pixels) / 60_000 / 255 - mean) < 5e-5  # the published mean of the training set
    counts = np.bincount(dataset.test.y, minlength=10)
    tens = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(counts, tens if name == "mnist" else [1000] * 10)
