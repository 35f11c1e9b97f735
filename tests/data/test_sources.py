"""Sources: every form of every data set is read as written; every wrong file is one line.

Tests of the real files need VAE_JAX_TEST_DATA (see test_data).
"""

import hashlib
import importlib.util
import io
import itertools
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_helpers import one_line, real
from idx import write_idx_set

from vae_jax import data, memory
from vae_jax.data import download, formats, sources, sprites
from vae_jax.data.dataset import DataConfig
from vae_jax.data.split import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 5, 4), dtype=np.uint8)
LABELS = np.arange(40) % 3


pytestmark = pytest.mark.usefixtures("no_network")


def load(dataset, folder="", binarisation="none", **settings):
    return data.load(DataConfig(str(dataset), str(folder), binarisation=binarisation, **settings))


# A file of one's own ------------------------------------------------------------------------------


def npz(folder: Path, *, name="mine.npz", save=np.savez, **arrays) -> Path:
    save(folder / name, **arrays)
    return folder / name


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_read_as_written(tmp_path, save):
    path = npz(tmp_path, save=save, x_train=GREY, y_train=LABELS, x_test=GREY[:7],
               y_test=LABELS[:7], x_valid=GREY[:5], y_valid=LABELS[:5, None], more=[1])  # fmt: skip
    dataset = load(path)
    assert dataset.name == "mine" and dataset.source == str(path)
    for split, size in zip(dataset[2:5], (40, 5, 7), strict=True):
        np.testing.assert_array_equal(split.x[..., 0], GREY[:size])
        np.testing.assert_array_equal(split.y, LABELS[:size])
    folded = load(path, validation_size=0)
    assert len(folded.train.x) == len(folded.train.y) == 45 and not len(folded.valid.x)


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "big endian", "fortran", "bool"])
def test_npz_of_any_kind_of_images(tmp_path, kind):
    x = np.repeat(GREY[..., None], 3, axis=3) & np.array([255, 15, 240], np.uint8)
    kinds = {
        "float64": x / 255,
        "float32": (x / 255).astype(np.float32),
        "float16": (x / 255).astype(np.float16),
        "big endian": (x / 255).astype(">f4"),
        "fortran": np.asfortranarray(x),
        "bool": x > 99,
    }
    dataset = load(npz(tmp_path, x_train=kinds[kind], x_test=kinds[kind]), validation_size=0)
    want = 255 * (x > 99) if kind == "bool" else x
    assert dataset.x_shape == (5, 4, 3) and dataset.train.x.dtype == np.uint8
    np.testing.assert_array_equal(dataset.train.x, want)


def test_npz_without_a_test_split_holds_one_out_and_says_so(tmp_path):
    path = npz(tmp_path, x_train=GREY, y_train=LABELS)
    a, b, c = (load(path, data_seed=seed, validation_size=0) for seed in (0, 0, 1))
    assert len(a.test.x) == 4 and len(a.train.x) == 36
    assert a.source == f"{path}; no test split, so 4 images drawn with data_seed 0 are held out"
    together = {x.tobytes() for split in (a.train, a.test) for x in split.x}
    assert together == {x.tobytes() for x in GREY}
    np.testing.assert_array_equal(a.test.x, b.test.x)
    assert not np.array_equal(a.test.x, c.test.x)


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.npz", "a"), ("my set (2).npz", "my_set_2"), ("-a.b.npz", "a.b"), ("..npz", "images"),
     ("Größe.npz", "Gr_e"), ("çà.npz", "images")],
)  # fmt: skip
def test_name_of_a_file_is_safe_in_a_path(tmp_path, file, name):
    assert load(npz(tmp_path, name=file, x_train=GREY)).name == name


def test_home_and_labels_of_one_class(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    npz(tmp_path, x_train=GREY, y_train=np.full(40, 7), x_test=GREY, y_test=LABELS)
    assert load("~/mine.npz").source.endswith("; all labels are the same")


class Bomb:
    def __reduce__(self):
        return os._exit, (13,)  # unpickling it would end the tests


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, raw in members.items():
            file.writestr(f"{name}.npy", raw)
    return path


def npy(array: np.ndarray, **header) -> bytes:
    """An array as .npy, its header telling something else where asked."""
    raw = io.BytesIO()
    told = {**np.lib.format.header_data_from_array_1_0(array), **header}
    np.lib.format.write_array_header_1_0(raw, told)
    return raw.getvalue() + array.tobytes()


def damaged(path: Path, change) -> Path:
    npz(path.parent, name=path.name, save=np.savez_compressed, x_train=GREY)
    path.write_bytes(change(path.read_bytes()))
    return path


def flip(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 255]) + raw[middle + 1 :]


def encrypted(raw: bytes) -> bytes:
    """The flag that says so, in both of the archive's headers."""
    raw = bytearray(raw)
    raw[6] |= 1
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(raw)


def text(path: Path) -> Path:
    path.write_text("x_train, y_train\n1, 2\n")
    return path


def nothing(path: Path) -> Path:
    path.touch()
    return path


def pickled(path: Path) -> Path:
    path.write_bytes(pickle.dumps({"x_train": Bomb()}))
    return path


def lone_npy(path: Path) -> Path:
    path.write_bytes(npy(GREY))
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


OBJECTS = np.array([Bomb()] * 3, object)
HUGE = (10**6, 1000, 1000)
FLOATS = GREY / 255


def given(**arrays):
    return lambda path: npz(path.parent, name=path.name, **arrays)


WRONG = {
    "missing": (lambda path: path, "does not exist"),
    "a folder": (folder, "is a folder"),
    "empty file": (nothing, "cannot be read as an npz archive"),
    "text": (text, "cannot be read as an npz archive"),
    "a pickle": (pickled, "cannot be read as an npz archive"),
    "a lone npy": (lone_npy, "cannot be read as an npz archive"),
    "truncated": (lambda path: damaged(path, lambda raw: raw[: len(raw) // 2]), "cannot be read"),
    "no directory": (lambda path: damaged(path, lambda raw: raw[:-30]), "cannot be read"),
    "flipped bits": (lambda path: damaged(path, flip), "cannot be read"),
    "encrypted": (lambda path: damaged(path, encrypted), "cannot be read"),
    "not an array": (lambda path: archive(path, x_train=b"hello"), "cannot be read"),
    "an empty member": (lambda path: archive(path, x_train=b""), "cannot be read"),
    "an empty archive": (lambda path: archive(path), "has no x_train; it has nothing"),
    "wrong keys": (given(images=GREY, labels=LABELS), "has no x_train; it has images, labels"),
    "many keys": (given(**{f"a{i}": [1] for i in range(99)}), "a7, …"),
    "a slip": (given(x_train=GREY, y_trian=LABELS), "'y_trian'; expected x_train, y_train"),
    "hostile keys": (lambda path: archive(path, **{"x_\n\x1b[2J": b""}), "expected x_train"),
    "objects": (given(x_train=OBJECTS), "Python objects"),
    "object labels": (given(x_train=GREY, y_train=np.array([Bomb()] * 40)), "Python objects"),
    "a field of objects": (given(x_train=np.zeros((3, 2, 2), [("a", object)])), "Python objects"),
    "structured": (given(x_train=np.zeros((3, 2, 2), [("a", "u1")])), "dtype [('a', 'u1')]"),
    "header too large": (
        lambda path: archive(path, x_train=npy(GREY, shape=HUGE)), "holds 800 bytes"
    ),
    "header too small": (
        lambda path: archive(path, x_train=npy(GREY, shape=(1, 5, 4))), "holds 800 bytes"
    ),
    "negative header": (lambda path: archive(path, x_train=npy(GREY, shape=(-1, 5, 4))), "-1"),
    "code in the header": (
        lambda path: archive(path, x_train=npy(GREY, descr="__import__('os')._exit(13)")),
        "cannot be read",
    ),
    "complex": (given(x_train=FLOATS + 0j), "dtype complex128"),
    "int64": (given(x_train=GREY.astype(int) - 1), "0 to 255 if whole numbers"),
    "uint16": (given(x_train=GREY.astype(np.uint16) * 256), "0 to 255 if whole numbers"),
    "dates": (given(x_train=GREY.astype("datetime64[D]")), "dtype datetime64"),
    "words": (given(x_train=GREY.astype(str)), "dtype <U"),
    "NaN": (given(x_train=np.where(np.eye(5, 4), np.nan, FLOATS)), "got nan"),
    "infinite": (given(x_train=np.where(np.eye(5, 4), np.inf, FLOATS)), "to inf"),
    "0 to 255 floats": (given(x_train=GREY * 1.0), "in [0, 1]"),
    "centred": (given(x_train=FLOATS * 2 - 1), "in [0, 1]"),
    "0/1 bytes": (given(x_train=GREY & 1), "only 0 and 1"),
    "flat": (given(x_train=GREY.reshape(40, 20)), "shape [40, 20]"),
    "five axes": (given(x_train=GREY[..., None, None]), "shape [40, 5, 4, 1, 1]"),
    "a scalar": (given(x_train=1), "shape []"),
    "no images": (given(x_train=GREY[:0]), "shape [0, 5, 4]"),
    "no pixels": (given(x_train=GREY[:, :0]), "shape [40, 0, 4]"),
    "no channels": (given(x_train=np.zeros((3, 5, 4, 0), np.uint8)), "shape [3, 5, 4, 0]"),
    "no test images": (given(x_train=GREY, x_test=GREY[:0]), "x_test"),
    "one image": (given(x_train=GREY[:1]), "at least 3 images"),
    "two images": (given(x_train=GREY[:2]), "at least 3 images"),
    "one image to learn from": (given(x_train=GREY[:1], x_test=GREY), "nothing to learn"),
    "constant images": (given(x_train=np.zeros((40, 5, 4), np.uint8)), "all of them the same"),
    "constant, with labels": (
        given(x_train=np.full((40, 5, 4), 0.5), y_train=LABELS), "all of them the same"
    ),
    "other test shape": (given(x_train=GREY, x_test=GREY[:, 1:]), "[5, 4, 1] and [4, 4, 1]"),
    "colour test": (given(x_train=GREY, x_test=np.zeros((3, 5, 4, 3))), "[5, 4, 1] and [5, 4, 3]"),
    "other validation shape": (
        given(x_train=GREY, x_test=GREY, x_valid=GREY[:, 1:]), "valid images have different shapes"
    ),
    "few labels": (given(x_train=GREY, y_train=LABELS[1:]), "40 labels"),
    "many labels": (given(x_train=GREY, y_train=np.arange(41)), "40 labels"),
    "no labels": (given(x_train=GREY, y_train=[]), "40 labels"),
    "one-hot": (given(x_train=GREY, y_train=np.eye(40)), "40 labels"),
    "float labels": (given(x_train=GREY, y_train=LABELS / 2), "whole numbers"),
    "labels of one split": (given(x_train=GREY, y_train=LABELS, x_test=GREY), "y_test goes with"),
    "labels without images": (given(x_train=GREY, y_train=LABELS, y_test=LABELS), "y_test goes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_npz_is_one_line_that_names_it(tmp_path, kind):
    make, expected = WRONG[kind]
    path = make(tmp_path / "wrong.npz")
    with pytest.raises(DataError) as error:
        load(path)
    line = one_line(error)
    assert expected in line and str(path) in line and line.isprintable() and len(line) < 400


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = npz(tmp_path, save=np.savez_compressed, x_train=np.zeros((9, 1000, 1000), np.uint8))
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("was unpacked"))
    monkeypatch.setattr(formats, "memory_limit", lambda: 8 * 10**6)
    with pytest.raises(DataError, match="too large") as error:
        load(path)
    assert str(path) in one_line(error)
    monkeypatch.setattr(formats, "memory_limit", lambda: 10**12)
    monkeypatch.setattr(formats, "GIB", 8 * 10**6)
    with pytest.raises(DataError, match="to 1, as images never are") as error:
        load(path)
    one_line(error)


def test_a_bomb_that_lies_about_its_size_is_stopped_at_what_it_states(tmp_path):
    path = npz(tmp_path, save=np.savez_compressed, x_train=np.zeros((9, 1000, 1000), np.uint8))
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02") + 24  # the size in the archive's directory
    raw[at : at + 4] = (800 + 128).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"holds 800 bytes|cannot be read") as error:
        load(path)
    one_line(error)


def test_a_gzip_bomb_is_stopped(tmp_path, monkeypatch):
    write_idx_set(tmp_path, 3000, 5, seed=0)
    monkeypatch.setattr(formats, "memory_limit", lambda: 10**6)
    with pytest.raises(DataError, match="too large") as error:
        load("mnist", tmp_path)
    assert "train-images" in one_line(error)


def test_memory_limit_is_half_of_some_memory():
    assert 2**24 < memory.memory_limit() < 2**50


@pytest.mark.parametrize("wrong", ["", "cifar", "photos/", "a.npy", "a.NPZ", "tfds:", "tfds:../x",
                                   "tfds:a b", "tfds:huggingface:mnist", "mnist "])  # fmt: skip
def test_an_unknown_name_says_what_there_is(wrong):
    with pytest.raises(ValueError) as error:
        DataConfig(wrong)
    line = str(error.value)
    assert "mnist" in line and ".npz" in line and "tfds:NAME" in line and "\n" not in line


# MNIST's like -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_sets_in_the_form_of_mnist(tmp_path, name):
    written = write_idx_set(tmp_path / name, 40, 9, seed=3)
    dataset = load(name, tmp_path, validation_size=0)
    assert dataset.name == name
    np.testing.assert_array_equal(dataset.train.x[..., 0], written["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.test.y, written["t10k-labels-idx1-ubyte"])


def write_amat(folder: Path, sizes=(40, 9, 7)) -> dict[str, np.ndarray]:
    digits = {}
    for split, size in zip(("train", "valid", "test"), sizes, strict=True):
        digits[split] = RNG.integers(0, 2, (size, 784), dtype=np.uint8)
        lines = [" ".join(map(str, row)) for row in digits[split]]
        (folder / f"binarized_mnist_{split}.amat").write_text("\n".join(lines) + "\n")
    return digits


FOLDERS = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw", "kmnist": "KMNIST/raw"}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", FOLDERS)
def test_torchvision_s_folders_are_known(tmp_path, name, zipped):
    """--data_dir=the root that torchvision was given, or the folder it made there."""
    written = write_idx_set(tmp_path / FOLDERS[name], 40, 9, seed=3, zipped=zipped)
    for folder in (tmp_path, tmp_path / FOLDERS[name].split("/")[0]):
        dataset = load(name, folder, validation_size=0)
        np.testing.assert_array_equal(dataset.train.x[..., 0], written["train-images-idx3-ubyte"])


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("other", [True, False])
def test_kaggle_s_names_are_known(tmp_path, nested, other):
    """train-images.idx3-ubyte, and each file in a folder of its own name."""
    written = write_idx_set(tmp_path / "as they were", 40, 9, seed=3, zipped=False)
    for name in written:
        new = name.replace("-idx", ".idx") if other else name
        to = tmp_path / "archive" / (f"{new}/{new}" if nested else new)
        to.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "as they were" / name).rename(to)
    dataset = load("mnist", tmp_path / "archive", validation_size=0)
    np.testing.assert_array_equal(dataset.train.x[..., 0], written["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.test.y, written["t10k-labels-idx1-ubyte"])


@pytest.mark.parametrize("form", ["amat", "packed"])
@pytest.mark.parametrize("inside", ["", "binarized_mnist"])
def test_binarized_mnist_has_its_own_splits(tmp_path, form, inside):
    folder = tmp_path / inside
    folder.mkdir(exist_ok=True)
    digits = write_amat(folder)
    if form == "packed":
        packed = {split: np.packbits(x, axis=1) for split, x in digits.items()}
        npz(folder, name="binarized_mnist_packed.npz", **packed)
        for path in folder.glob("*.amat"):
            path.unlink()
    dataset = load("binarized_mnist", tmp_path, binarisation="dynamic", validation_size=3)
    assert dataset.binarisation == "none"  # nothing is left to draw
    for split, x in zip(dataset[2:5], digits.values(), strict=True):
        assert split.x.shape == (len(x), 28, 28, 1) and not len(split.y)
        np.testing.assert_array_equal(split.x.reshape(-1, 784), 255 * x)
    folded = load("binarized_mnist", tmp_path, validation_size=0)
    both = np.concatenate([digits["train"], digits["valid"]])
    np.testing.assert_array_equal(folded.train.x.reshape(-1, 784), 255 * both)
    assert not len(folded.valid.x)


AMAT = {
    "empty": lambda raw: b"",
    "no end": lambda raw: raw[:-1],
    "a two": lambda raw: b"2" + raw[1:],
    "a letter": lambda raw: b"x" + raw[1:],
    "a comma": lambda raw: raw[:1] + b"," + raw[2:],
    "a long row": lambda raw: raw[: 2 * 784 - 1] + b" 0" + raw[2 * 784 - 1 :],
    "two rows in one": lambda raw: raw.replace(b"\n", b" ", 1),
    "half": lambda raw: raw[: len(raw) // 2 - 5],
    "floats": lambda raw: raw.replace(b"1", b"1.0"),
}


@pytest.mark.parametrize("kind", AMAT)
def test_a_damaged_text_is_an_error_that_names_it(tmp_path, kind):
    write_amat(tmp_path)
    path = tmp_path / "binarized_mnist_valid.amat"
    path.write_bytes(AMAT[kind](path.read_bytes()))
    with pytest.raises(DataError, match="784 zeros and ones") as error:
        load("binarized_mnist", tmp_path)
    assert str(path) in one_line(error)


@pytest.mark.parametrize("wrong", [np.zeros((3, 784), np.uint8), np.zeros((3, 98)), np.zeros(98)])
def test_a_wrong_packed_file(tmp_path, wrong):
    right = np.zeros((3, 98), np.uint8)
    npz(tmp_path, name="binarized_mnist_packed.npz", train=right, valid=right, test=wrong)
    with pytest.raises(DataError, match="n, 98") as error:
        load("binarized_mnist", tmp_path)
    one_line(error)


# Omniglot -----------------------------------------------------------------------------------------


def write_pictures(path: Path, characters: list[str], seed: int) -> np.ndarray:
    """A zip in the form of the originals: squares of ink, 3 drawings of each character."""
    from PIL import Image

    corners = np.random.default_rng(seed).integers(0, 60, (len(characters), 3, 2))
    with zipfile.ZipFile(path, "w") as file:
        for (i, name), j in itertools.product(enumerate(characters), range(3)):
            paper = np.ones((105, 105), bool)
            top, left = corners[i, j]
            paper[top : top + 30, left : left + 30] = False
            raw = io.BytesIO()
            Image.fromarray(paper).save(raw, "png")
            file.writestr(f"{path.stem}/{name}/{i:04}_{j + 1:02}.png", raw.getvalue())
    return corners


def test_omniglot_from_its_pictures_and_again_from_what_was_kept(tmp_path):
    folder = tmp_path / "omniglot"
    folder.mkdir()
    names = [f"Greek/character{i:02}" for i in range(1, 5)]
    corners = write_pictures(folder / "images_background.zip", names, 0)
    write_pictures(folder / "images_evaluation.zip", names[:2], 1)
    first = load("omniglot", tmp_path, validation_size=0)
    assert first.train.x.shape == (12, 28, 28, 1) and first.test.x.shape == (6, 28, 28, 1)
    assert first.train.y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert first.test.y.tolist() == [4, 4, 4, 5, 5, 5]
    ink = first.train.x.reshape(12, 784).sum(1) / 255 * (105 / 28) ** 2
    np.testing.assert_allclose(ink, 900, rtol=0.1)  # bright, and its area kept
    for image, (top, left) in zip(first.train.x, corners.reshape(-1, 2), strict=True):
        centre = np.argwhere(image[..., 0] > 127).mean(0) * 105 / 28 + 105 / 56
        np.testing.assert_allclose(centre, [top + 15, left + 15], atol=2.5)
    for path in folder.glob("*.zip"):
        path.unlink()
    again = load("omniglot", tmp_path, validation_size=0)
    assert again.source.endswith("omniglot_28x28_area_uint8.npz")
    for a, b in zip(first[2:5], again[2:5], strict=True):
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.y, b.y)


def test_omniglot_damaged(tmp_path):
    write_pictures(tmp_path / "images_background.zip", ["Greek/character01"], 0)
    (tmp_path / "images_evaluation.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"images_evaluation.zip cannot be read") as error:
        load("omniglot", tmp_path)
    one_line(error)
    (tmp_path / "images_evaluation.zip").write_bytes(archive(tmp_path / "a.zip").read_bytes())
    with pytest.raises(DataError, match=r"images_evaluation.zip cannot be read"):
        load("omniglot", tmp_path)
    npz(tmp_path, name="omniglot_28x28_area_uint8.npz", background=GREY, evaluation=GREY)
    with pytest.raises(DataError, match="characters, drawings, 28, 28"):
        load("omniglot", tmp_path)


# Known factors ------------------------------------------------------------------------------------


def test_sprites_hold_every_combination_once():
    x, factors = sprites.draw()
    sizes = tuple(sprites.FACTORS.values())
    assert x.shape == (9216, 32, 32, 1) and len(x) == np.prod(sizes)
    np.testing.assert_array_equal(factors, list(itertools.product(*map(range, sizes))))
    assert len({image.tobytes() for image in x}) == len(x)
    assert not x[:, [0, -1]].any() and not x[:, :, [0, -1]].any()  # nothing is cut off
    again, _ = sprites.draw()
    assert hashlib.sha256(x).hexdigest() == hashlib.sha256(again).hexdigest()


def test_sprites_never_change():
    """Scores on them are comparable only where they are the same images."""
    assert hashlib.sha256(sprites.draw()[0]).hexdigest()[:16] == "917f140ee5bc595a"


def test_factors_of_sprites_mean_what_they_say():
    x, _ = sprites.draw()
    x = x[..., 0].reshape(*sprites.FACTORS.values(), 32, 32).astype(float)
    area = x.sum((-2, -1))
    assert (np.diff(area.mean((2, 3, 4)), axis=1) > 0).all()  # each scale larger than the last
    np.testing.assert_array_equal(x[:, :, :, 1:, :, :, 2:], x[:, :, :, :-1, :, :, :-2])
    np.testing.assert_array_equal(x[..., 1:, 2:, :], x[..., :-1, :-2, :])
    turned = np.rot90(x[:, :, 0, 0, 0, 1:16, 1:16], axes=(-2, -1))
    np.testing.assert_allclose(x[:, :, 3, 0, 0, 1:16, 1:16], turned, atol=8)  # a quarter


@pytest.mark.parametrize("name", ["sprites", "dsprites"])
def test_factors_stay_with_their_images(tmp_path, name):
    everything = write_dsprites(tmp_path)
    if name == "sprites":
        everything = dict(zip(*(map(bytes, a) for a in sprites.draw()), strict=True))
    dataset = load(name, tmp_path)
    sizes = [len(split.x) for split in dataset[2:5]]
    assert sum(sizes) == len(everything) and min(sizes) >= len(everything) * 0.08
    for split in (dataset.train, dataset.valid, dataset.test):
        assert split.factors.dtype == np.int32 and split.factors.shape[1] == 5
        assert all(everything[bytes(x)] == bytes(f) for x, f in zip(split.x, split.factors))  # noqa: B905
        np.testing.assert_array_equal(split.y, split.factors[:, 0])
    assert dataset.factors[0] == ("shape", 3)
    together = np.concatenate([split.factors for split in dataset[2:5]])
    assert [size for _, size in dataset.factors] == (together.max(0) + 1).tolist()
    np.testing.assert_array_equal(dataset.test.x, load(name, tmp_path, data_seed=1).test.x)


def write_dsprites(folder: Path, **changes) -> dict[bytes, bytes]:
    """A tiny file of the same form; "metadata" is pickled there too. Returns image -> factors."""
    sizes = (1, 3, 2, 4, 2, 2)
    classes = np.array(list(itertools.product(*map(range, sizes))))
    bits = (np.arange(96)[:, None] >> np.arange(8) & 1).astype(np.uint8)
    imgs = np.kron(bits[:, None], np.ones((1, 64, 8), np.uint8))
    arrays = {
        "imgs": imgs,
        "latents_classes": classes,
        "latents_values": classes / 3,
        "metadata": np.array({"sizes": Bomb()}, object),
    }
    (folder / "dsprites").mkdir(exist_ok=True)
    np.savez_compressed(folder / "dsprites" / sources._DSPRITES, **{**arrays, **changes})
    factors = classes[:, 1:].astype(np.int32)
    return {bytes(255 * x): bytes(f) for x, f in zip(imgs, factors, strict=True)}


@pytest.mark.parametrize("changes", [
    {"imgs": GREY}, {"imgs": GREY / 255}, {"imgs": np.zeros((96, 8), np.uint8)},
    {"latents_classes": np.zeros((95, 6), int)}, {"latents_classes": np.zeros((96, 5), int)},
    {"latents_classes": np.zeros((96, 6))}, {"imgs": np.array([Bomb()])},
])  # fmt: skip
def test_a_wrong_dsprites_file(tmp_path, changes):
    write_dsprites(tmp_path, **changes)
    with pytest.raises(DataError, match=r"must hold imgs|Python objects") as error:
        load("dsprites", tmp_path)
    assert "dsprites" in one_line(error)


def test_dsprites_is_binary_and_known_to_be():
    binary = np.array([[0, 255]] * 30 + [[255, 255]] * 10, np.uint8).reshape(40, 2, 1)
    assert data.from_arrays(binary, binarisation="dynamic").binarisation == "none"
    assert (
        data.from_arrays(binary + np.uint8(0) * 1, binarisation="static").binarisation == "static"
    )
    nearly = binary.copy()
    nearly[-1, 0] = 254
    assert data.from_arrays(nearly, nearly, binarisation="dynamic").binarisation == "dynamic"


# The catalogue ------------------------------------------------------------------------------------


class Source(list):
    """What `as_data_source` returns, as far as it is used."""

    def __getitems__(self, indices):
        return [self[i] for i in indices]


class Builder:
    """A set of the catalogue, prepared or to be prepared."""

    def __init__(self, folder, images, labels=None, image="image", splits=("train", "test")):
        import tensorflow_datasets as tfds

        self.data_dir, self.prepared, self.url_infos = str(folder), 0, {"http://x.invalid/a": None}
        features = {image: tfds.features.Image(shape=(None, None, 3))}
        if labels is not None:
            features["label"] = tfds.features.ClassLabel(num_classes=10)
        self.info = type("Info", (), {"features": features, "splits": dict.fromkeys(splits)})
        labels = labels or itertools.repeat(0)
        self.rows = Source({image: x, "label": y} for x, y in zip(images, labels))  # noqa: B905

    def as_data_source(self, split):
        return Source(self.rows[: {"train": None, "validation": 3, "test": 5}[split]])

    def download_and_prepare(self):
        self.prepared += 1
        Path(self.data_dir).mkdir(parents=True)


@pytest.fixture
def tfds(monkeypatch):
    """tensorflow-datasets, and array_record said to be here, so that fakes can be handed out."""
    found = importlib.util.find_spec
    here = {"array_record": True, "tensorflow": False}
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: here.get(n) or found(n, *a))
    import tensorflow_datasets

    monkeypatch.setattr(tensorflow_datasets, "here", here, raising=False)
    return tensorflow_datasets


def prepared(monkeypatch, tfds, folder: Path, builder: Builder) -> None:
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text('{"fileFormat": "array_record"}')
    monkeypatch.setattr(tfds, "builder_from_directory", lambda path: builder)


COLOUR = list(RNG.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8))


@pytest.mark.parametrize("image", ["image", "picture"])
@pytest.mark.parametrize("name", ["cifar10", "imagenet_resized/8x8"])
def test_a_set_that_is_prepared_needs_no_tensorflow(tmp_path, monkeypatch, tfds, image, name):
    folder = tmp_path / name / "3.0.2"
    labels = list(range(10)) * 3
    prepared(monkeypatch, tfds, folder, Builder(folder, COLOUR, labels, image))
    dataset = load(f"tfds:{name}", tmp_path, validation_size=0)
    assert dataset.name == name.replace("/", "-") and dataset.x_shape == (6, 5, 3)
    assert dataset.source == f"{folder}, prepared by tensorflow-datasets"
    np.testing.assert_array_equal(dataset.train.x, COLOUR)
    assert dataset.train.y.tolist() == labels and dataset.test.y.tolist() == labels[:5]


@pytest.mark.parametrize("labels", [None, [0] * 29 + [-1]])
def test_splits_and_labels_of_a_prepared_set(tmp_path, monkeypatch, tfds, labels):
    folder = tmp_path / "cifar10" / "3.0.2"
    splits = ("train", "validation", "extra")
    prepared(monkeypatch, tfds, folder, Builder(folder, COLOUR, labels, splits=splits))
    dataset = load("tfds:cifar10", tmp_path, validation_size=1)
    assert [len(split.x) for split in dataset[2:5]] == [27, 3, 3]
    assert "no test split" in dataset.source and not len(dataset.train.y)  # -1 is not a label


def test_zeros_and_ones_of_a_prepared_set_are_black_and_white(tmp_path, monkeypatch, tfds):
    folder = tmp_path / "binarized_mnist" / "1.0.0"
    images = [x & 1 for x in COLOUR]
    splits = ("train", "validation", "test")
    prepared(monkeypatch, tfds, folder, Builder(folder, images, splits=splits))
    for name in ("tfds:binarized_mnist", "binarized_mnist"):
        dataset = load(name, tmp_path)
        np.testing.assert_array_equal(dataset.train.x, 255 * np.array(images))
        assert len(dataset.valid.x) == 3


@pytest.mark.parametrize(("images", "splits", "image", "expected"), [
    ([*COLOUR, COLOUR[0][1:]], ("train",), "image", "different sizes, [6, 5, 3] and [5, 5, 3]"),
    ([256 * x.astype(np.uint16) for x in COLOUR], ("train",), "image", "0 to 255 if whole"),
    (COLOUR, ("test",), "image", "no data set of images with a split called train"),
])  # fmt: skip
def test_a_prepared_set_that_does_not_fit(
    tmp_path, monkeypatch, tfds, images, splits, image, expected
):
    folder = tmp_path / "cifar10" / "3.0.2"
    prepared(monkeypatch, tfds, folder, Builder(folder, images, splits=splits))
    with pytest.raises(DataError) as error:
        load("tfds:cifar10", tmp_path)
    assert expected in one_line(error) and "tfds:cifar10" in str(error.value)


def test_a_prepared_set_without_images(tmp_path, monkeypatch, tfds):
    folder = tmp_path / "cifar10" / "3.0.2"
    builder = Builder(folder, COLOUR, [0] * 30)
    del builder.info.features["image"]
    prepared(monkeypatch, tfds, folder, builder)
    with pytest.raises(DataError, match="features label; splits train, test") as error:
        load("tfds:cifar10", tmp_path)
    one_line(error)


def test_a_prepared_set_larger_than_memory(tmp_path, monkeypatch, tfds):
    folder = tmp_path / "cifar10" / "3.0.2"
    prepared(monkeypatch, tfds, folder, Builder(folder, COLOUR))
    monkeypatch.setattr(formats, "memory_limit", lambda: 30 * 89)
    with pytest.raises(DataError, match="tfds:cifar10 is too large") as error:
        load("tfds:cifar10", tmp_path)
    one_line(error)


def test_a_set_that_is_not_prepared_names_the_extra(tmp_path, tfds):
    with pytest.raises(DataError) as error:
        load("tfds:cifar10", tmp_path)
    line = one_line(error)
    assert "pip install 'vae-jax[tfds]'" in line and "cifar10" in line
    assert not list(tmp_path.iterdir())


def test_a_name_that_the_catalogue_does_not_know(tmp_path, tfds):
    for name in ("tfds:cifar11", "tfds:cifar11/plain"):
        with pytest.raises(DataError, match="knows no data set 'cifar11") as error:
            load(name, tmp_path)
        one_line(error)


def test_a_set_is_prepared_where_tensorflow_is_here(tmp_path, monkeypatch, tfds):
    builder = Builder(tmp_path / "cifar10" / "3.0.2", COLOUR)
    asked = []
    monkeypatch.setattr(tfds, "builder_cls", lambda name: builder)
    monkeypatch.setattr(tfds, "builder", lambda *args, **kw: asked.append((args, kw)) or builder)
    tfds.here["tensorflow"] = True
    with pytest.raises(DataError, match=r"x.invalid cannot be reached"):
        load("tfds:cifar10", tmp_path)
    monkeypatch.setattr(download, "reachable", lambda url: True)
    dataset = load("tfds:cifar10", tmp_path, validation_size=0)
    assert builder.prepared == 1 and len(dataset.train.x) == 30
    settings = {"data_dir": str(tmp_path), "file_format": "array_record"}
    assert asked[-1] == (("cifar10",), settings)
    monkeypatch.setattr(builder, "download_and_prepare", lambda: 1 / 0)
    with pytest.raises(DataError, match="tfds:cifar10 cannot be prepared: division by zero"):
        load("tfds:cifar10")


# The real files -----------------------------------------------------------------------------------


def test_real_binarized_mnist():
    dataset = load("binarized_mnist", real("binarized_mnist").parent, "dynamic")
    sizes = [len(split.x) for split in dataset[2:5]]
    assert sizes == [50_000, 10_000, 10_000] and dataset.x_shape == (28, 28, 1)
    text = np.full((10_000, 2 * 784), ord(" "), np.uint8)
    text[:, ::2] = dataset.test.x.reshape(-1, 784) // 255 + ord("0")
    text[:, -1] = ord("\n")
    digest = "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"
    assert hashlib.sha256(text).hexdigest() == digest  # as tensorflow-datasets lists the original


@pytest.mark.parametrize(("here", "asked"), [("mnist", "kmnist"), ("fashion_mnist", "mnist")])
def test_files_of_another_set_are_not_taken_for_it(here, asked):
    folder = real(here)
    with pytest.raises(DataError, match=f"holds {here}, not {asked}") as error:
        load(asked, folder)
    assert str(folder) in one_line(error)


def test_what_tensorflow_datasets_knows_is_what_is_asked_of_it():
    """Every file that is looked for has an address there, and each set's labels are known."""
    tfds = pytest.importorskip("tensorflow_datasets")
    labels = {}
    for name, files in {
        **dict.fromkeys(("mnist", "fashion_mnist", "kmnist"), sources._IDX),
        "binarized_mnist": sources._AMAT.values(),
        "omniglot": sources._OMNIGLOT.values(),
    }.items():
        known = {download._file_name(url): i for url, i in tfds.builder_cls(name).url_infos.items()}
        assert set(files) <= set(known)
        if files is sources._IDX:
            labels[known["train-labels-idx1-ubyte"].checksum] = name
    assert labels == sources._LABELS


def test_real_omniglot():
    dataset = load("omniglot", real("omniglot").parent, validation_size=0)
    assert len(dataset.train.x) == 19_280 and len(dataset.test.x) == 13_180
    assert len(np.unique(dataset.train.y)) == 964 and set(np.bincount(dataset.test.y)) == {0, 20}
    assert 15 < dataset.train.x.mean() < 25  # bright ink on black
