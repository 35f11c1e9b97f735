"""A data set as its files hold it, and where these are: in a folder, prepared, or to be fetched."""

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.data import arc, download, formats, sprites
from vae_jax.data.fixed_draws import hold_out, uniform
from vae_jax.data.split import DataError, Split, as_split, coded
from vae_jax.files import replacing
from vae_jax.settings import is_outside, outside


class Table(NamedTuple):
    """A data set before anything is held out or drawn; valid and test are None where its files
    have no such split. factors: name -> number of values, for the columns of `Split.factors`.
    classes: what the labels are called, where they are not called 0, 1, ….
    """

    name: str
    source: str
    train: Split
    valid: Split | None = None
    test: Split | None = None
    factors: tuple[tuple[str, int], ...] = ()
    classes: tuple[str, ...] = ()


TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}


def local(name: str, data_dir: Path, names: tuple[str, ...]) -> tuple[dict[str, Path], str]:
    """The original files in the folder of the data set's name, the one above, or where torchvision
    keeps them; or nothing.
    """
    raw = Path(TORCHVISION.get(name, name)) / "raw"
    for folder in (data_dir / name, data_dir, data_dir / raw, data_dir / raw.name):
        files = download.find(folder, names)
        if len(files) == len(names):
            return files, f"{folder}, original files"
    return {}, ""


def downloaded(
    name: str, data_dir: Path, names: tuple[str, ...], urls: dict[str, str] | None = None
) -> tuple[dict[str, Path], str]:
    try:
        files = download.download(name, data_dir, names, urls)
    except download.UnavailableError as error:
        for folder in (data_dir / name, data_dir):
            if found := download.find(folder, names):  # somebody's unfinished work: not passed over
                have = f"{folder} has only {', '.join(path.name for path in found.values())}"
                raise DataError(f"{have}; {error}") from error
        raise
    return files, f"{data_dir}, downloaded by tensorflow-datasets"


def prepared(name: str, data_dir: Path) -> Table | None:
    if found := download.read_prepared(name, data_dir):
        splits, folder = found
        return Table(
            name, f"{folder}, prepared by tensorflow-datasets", **splits, factors=(), classes=()
        )
    return None


# MNIST and its like -------------------------------------------------------------------------------

_PAIRS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_IDX = tuple(name for pair in _PAIRS.values() for name in pair)


# sha256 of train-labels-idx1-ubyte.gz: the files of these sets have the same names
_LABELS = {
    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c": "mnist",
    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845": "fashion_mnist",
    "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17": "kmnist",
}


def _check_identity(name: str, labels: Path) -> None:
    """Raises DataError where the files are known to be another set's."""
    with open(labels, "rb") as file:
        found = _LABELS.get(hashlib.file_digest(file, "sha256").hexdigest(), name)
    if found != name:
        raise DataError(f"{labels.parent} holds {found}, not {name}")


def _mnist_like(name: str, data_dir: Path) -> Table:
    """The four original files, a set prepared by tensorflow-datasets, or a download.

    MNIST: LeCun, Bottou, Bengio & Haffner (1998). Fashion-MNIST: Xiao, Rasul & Vollgraf (2017).
    KMNIST, cursive Japanese: Clanuwat et al. (2018).
    """
    files, source = local(name, data_dir, _IDX)
    if not files:
        if found := prepared(name, data_dir):
            return found
        files, source = downloaded(name, data_dir, _IDX)
    _check_identity(name, files["train-labels-idx1-ubyte"])
    splits = {}
    for split, (images, labels) in _PAIRS.items():
        x, y = formats.read_idx(files[images], rank=3), formats.read_idx(files[labels], rank=1)
        if len(x) != len(y):
            raise DataError(f"{files[images]} has {len(x)} images, {files[labels]} {len(y)} labels")
        splits[split] = Split(x[..., None], y.astype(np.int32))
    return Table(name, source, **splits)


_AMAT = {split: f"binarized_mnist_{split}.amat" for split in ("train", "valid", "test")}


def _binarized_mnist(data_dir: Path) -> Table:
    """MNIST drawn once and for all, by Larochelle & Murray (AISTATS 2011); 50,000, 10,000 and
    10,000 images after Salakhutdinov & Murray (ICML 2008), not in MNIST's order, no labels.

    Reads the three .amat texts, or the same packed 8 pixels to a byte in one npz.
    """
    name = "binarized_mnist"
    for folder in (data_dir / name, data_dir):
        path = folder / f"{name}_packed.npz"
        if path.is_file():
            packed = formats.read_npz(path, _AMAT)
            splits = {split: _unpacked(packed[split], f"{path}: {split}") for split in _AMAT}
            return Table(name, str(path), **splits, factors=(), classes=())
    files, source = local(name, data_dir, tuple(_AMAT.values()))
    if not files:
        if found := prepared(name, data_dir):
            return found
        files, source = downloaded(name, data_dir, tuple(_AMAT.values()))
    rows = {split: formats.read_amat(files[file], 784) for split, file in _AMAT.items()}
    splits = {split: _binary(x) for split, x in rows.items()}
    return Table(name, source, **splits, factors=(), classes=())


def _unpacked(packed: np.ndarray, what: str) -> Split:
    if packed.dtype != np.uint8 or packed.shape[1:] != (98,) or not len(packed):
        raise DataError(f"{what} must be uint8 [n, 98]; got {packed.dtype} {list(packed.shape)}")
    return _binary(np.unpackbits(packed, axis=1))


def _binary(digits: np.ndarray) -> Split:
    return Split((digits * np.uint8(255)).reshape(-1, 28, 28, 1))


# Omniglot -----------------------------------------------------------------------------------------

_OMNIGLOT = {"background": "images_background.zip", "evaluation": "images_evaluation.zip"}


def _omniglot(data_dir: Path) -> Table:
    """Handwritten characters of 50 alphabets, ink bright, 28 × 28 by averages; the
    964 characters of the background set train, the 659 of the evaluation set test (Lake,
    Salakhutdinov & Tenenbaum 2015). Labels are characters.

    Not the images of Burda et al. (ICLR 2016): their likelihoods belong in another table.
    """
    folders = (data_dir / "omniglot", data_dir)
    name = "omniglot_28x28_area_uint8.npz"
    path = next((f / name for f in folders if (f / name).is_file()), None)
    if path:
        images, source = formats.read_npz(path, _OMNIGLOT), str(path)
    else:
        zips = tuple(_OMNIGLOT.values())
        files, source = local("omniglot", data_dir, zips)
        if not files:
            files, source = downloaded("omniglot", data_dir, zips)
        images = {key: formats.read_characters(files[file]) for key, file in _OMNIGLOT.items()}
        # Unpacking 32,460 pictures takes a while: kept where it can be.
        with (
            contextlib.suppress(OSError),
            replacing(folders[0] / name) as unfinished,
            open(unfinished, "wb") as file,
        ):
            np.savez_compressed(file, allow_pickle=False, **images)
    splits, first = {}, 0
    for split, key in (("train", "background"), ("test", "evaluation")):
        splits[split] = _characters(images[key], first, f"{source}: {key}")
        first += len(images[key])
    return Table("omniglot", source, **splits)


def _characters(x: np.ndarray, first: int, what: str) -> Split:
    """[characters, drawings, 28, 28] as a split, each character a label of its own."""
    if x.dtype != np.uint8 or x.shape[2:] != (28, 28) or not x.size:
        wanted = "uint8 [characters, drawings, 28, 28]"
        raise DataError(f"{what} must be {wanted}; got {x.dtype} {list(x.shape)}")
    labels = np.repeat(np.arange(first, first + len(x), dtype=np.int32), x.shape[1])
    return Split(x.reshape(-1, 28, 28, 1), labels)


# Known factors ------------------------------------------------------------------------------------


def _sprites(data_dir: Path) -> Table:
    x, factors = sprites.draw()
    return _factorial("sprites", "drawn on the spot", x, factors, sprites.FACTORS)


_DSPRITES = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
# The address is the authors'; they publish no checksum: this one is what many other programs
# that use the file check it with.
_DSPRITES_URLS = {
    f"https://github.com/google-deepmind/dsprites-dataset/raw/master/{_DSPRITES}": (
        "7da33b31b13a06f4b04a70402ce90c2e"
    )
}


def _dsprites(data_dir: Path) -> Table:
    """737,280 binary images of 64 × 64: three shapes in every scale, orientation and position
    (Matthey, Higgins, Hassabis & Lerchner 2017). Its first factor, the colour, is always white.
    """
    files, source = local("dsprites", data_dir, (_DSPRITES,))
    if not files:
        files, source = downloaded("dsprites", data_dir, (_DSPRITES,), _DSPRITES_URLS)
    path = files[_DSPRITES]
    arrays = formats.read_npz(path, ("imgs", "latents_classes"))  # "metadata" is pickled
    x, classes = arrays["imgs"], arrays["latents_classes"]
    right = x.ndim == 3 and x.dtype == np.uint8 and len(x) and x.max() <= 1
    if not right or classes.shape != (len(x), 6) or classes.dtype.kind != "i":
        raise DataError(f"{path} must hold imgs, 0 and 1 [n, 64, 64], and latents_classes [n, 6]")
    x *= np.uint8(255)
    names = ("shape", "scale", "orientation", "x", "y")
    factors = classes[:, 1:].astype(np.int32)
    sizes: dict[str, int] = dict(zip(names, (factors.max(0) + 1).tolist(), strict=True))
    return _factorial("dsprites", source, x[..., None], factors, sizes)


def _factorial(
    name: str, source: str, x: np.ndarray, factors: np.ndarray, sizes: dict[str, int]
) -> Table:
    """Images of known factors; labels are the first of them. A tenth, the same for every seed, is
    the test set.
    """
    everything = Split(x, factors[:, 0], factors)
    train, test = hold_out(everything, len(x) // 10 or 1, 0, "test images")
    return Table(name, source, train, test=test, factors=tuple(sizes.items()))


# Others -------------------------------------------------------------------------------------------


def digits(data_dir: Path) -> Table:
    """scikit-learn's 1,797 digits of 8 × 8: the same 297 are the test set for every seed."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)  # 0 to 16
    x = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    train, test = hold_out(Split(x, labels.astype(np.int32)), 297, 0, "test images")
    return Table("digits", "scikit-learn", train, test=test)


def _arc(data_seed: int) -> Table:
    """Points in the plane (see `arc`), real numbers without grey levels."""
    sizes = {"train": 64_000, "test": 10_000}
    splits = {s: Split(arc.arc(uniform((n, 3), data_seed, s))) for s, n in sizes.items()}
    return Table("arc", f"drawn with data_seed {data_seed}", **splits, factors=(), classes=())


def arrays(name: str, source: str, given: dict[str, Any], where: str = "") -> Table:
    """A user's own x_train, x_valid, x_test and y_…, of which only x_train has to be there."""
    splits = {}
    for split in ("train", "valid", "test"):
        x, y = given.get(f"x_{split}"), given.get(f"y_{split}")
        if split != "train" and (y is None) != (x is None or given.get("y_train") is None):
            both = f"give it with both x_{split} and y_train, or not at all"
            raise DataError(f"{where}y_{split} goes with x_{split} and y_train: {both}")
        if split == "train" or x is not None:
            splits[split] = as_split(x, y, split, where)
    splits, classes = coded(splits)
    return Table(name, source, **splits, factors=(), classes=classes)


def _npz(dataset: str) -> Table:
    path = Path(dataset).expanduser()
    keys = tuple(f"{kind}_{split}" for split in ("train", "valid", "test") for kind in "xy")
    for key in formats.npz_keys(path):
        if key[:2] in ("x_", "y_") and key not in keys:  # a slip that would go unnoticed
            raise DataError(f"{path} has {ascii(key)[:60]}; expected {', '.join(keys)}")
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).strip("._-") or "images"
    return arrays(name, str(path), formats.read_npz(path, ("x_train",), keys[1:]), f"{path}: ")


def _of_function(dataset: str) -> Table:
    """What a function without arguments gives: a mapping such as an .npz file is, or x_train."""
    function = outside(dataset)
    try:
        given = function()
    except Exception as error:  # whatever somebody's function raises
        reason = next(iter(str(error).splitlines()), "")
        raise DataError(f"{dataset} cannot be read: {type(error).__name__}: {reason}") from error
    given = {"x_train": given} if hasattr(given, "shape") else given
    known = {f"{kind}_{split}" for split in ("train", "valid", "test") for kind in "xy"}
    if not isinstance(given, Mapping) or "x_train" not in given or not given.keys() <= known:
        got = list(given) if isinstance(given, Mapping) else type(given).__name__
        wanted = "x_train, and where there are some x_valid, x_test and y_… of each"
        raise DataError(f"{dataset} must give a dict of {wanted}; got {got}")
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", dataset)
    return arrays(name, dataset, dict(given), f"{dataset}: ")


def _catalogue(name: str, data_dir: Path) -> Table:
    splits, folder = download.catalogue(name, data_dir)
    source = f"{folder}, prepared by tensorflow-datasets"
    return Table(name.replace("/", "-"), source, **splits, factors=(), classes=())


DATASETS: dict[str, Callable[[Path], Table]] = {
    "mnist": functools.partial(_mnist_like, "mnist"),
    "fashion_mnist": functools.partial(_mnist_like, "fashion_mnist"),
    "kmnist": functools.partial(_mnist_like, "kmnist"),
    "binarized_mnist": _binarized_mnist,
    "omniglot": _omniglot,
    "dsprites": _dsprites,
    "sprites": _sprites,
    "digits": digits,
}

# Drawn on the spot: name -> function of data_seed
DRAWN: dict[str, Callable[[int], Table]] = {"arc": _arc}

NAMES = (*DATASETS, *DRAWN)


def known(dataset: str) -> None:
    """Raises ValueError, with what a data set may be, where no source takes the name."""
    given = re.fullmatch(r"tfds:\w+(/[\w.-]+)?", dataset)
    own = dataset.endswith(".npz") or is_outside(dataset)
    if not given and not own and dataset not in ("auto", *NAMES):
        names = ", ".join(("auto", *NAMES))
        raise ValueError(
            f"{names}, a file of images ending in .npz, tfds:NAME, or package.module:function"
        )


def read(dataset: str, data_dir: Path, data_seed: int = 0) -> Table:
    """The table of one of `NAMES`, of FILE.npz, of tfds:NAME, or of package.module:function.

    Raises DataError, with one line, where it is damaged or cannot be had.
    """
    if dataset.startswith("tfds:"):
        return _catalogue(dataset.removeprefix("tfds:"), data_dir)
    if dataset.endswith(".npz"):
        return _npz(dataset)
    if is_outside(dataset):
        return _of_function(dataset)
    return DRAWN[dataset](data_seed) if dataset in DRAWN else DATASETS[dataset](data_dir)
