"""Data sets: a name -> uint8 images on the host; their binarisation; the order of an epoch.

Images stay uint8 [n, height, width, channels] until a batch is needed: the training step gathers
it on the device (`epoch_order`) and makes numbers in [0, 1] of it (`binarise`). A stored value v
is the grey level v/255, taken as the mean of a Bernoulli pixel:

    dynamic    x ~ Bernoulli(v/255), drawn anew at each use; held-out images are drawn once
    static     x ~ Bernoulli(v/255), drawn once for every image
    threshold  x = 1 where v ≥ 128
    none       x = v/255

What is drawn once hangs on `data_seed` alone, never on the training seed, and is stored as 0 and
255: `binarise` leaves those values as they are, whatever the name, so every split may go through
it. Drawing from the grey levels: Salakhutdinov & Murray (ICML 2008); anew at each use: Burda,
Grosse & Salakhutdinov (ICLR 2016). "static" is not Larochelle's file of fixed draws (AISTATS
2011): likelihoods on the two are close, but belong in different tables.
"""

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import importlib.util
import json
import math
import os
import re
import shutil
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from vae_jax.settings import UserError, setting, validate
from vae_jax.types import Batch, Key, unconditional

BINARISATIONS = ("dynamic", "static", "threshold", "none")


class Split(NamedTuple):
    """Images x, uint8 [n, height, width, channels]; labels y, int32 [n], or [0] without any."""

    x: np.ndarray
    y: np.ndarray


class Dataset(NamedTuple):
    """Three splits on the host (`valid` may hold no images), and where they came from.

    binarisation: what `binarise` has to do with the training images. fallback: why this is not the
    data set one would expect; "" where it is.
    """

    name: str
    source: str
    train: Split
    valid: Split
    test: Split
    binarisation: str = "none"
    fallback: str = ""

    @property
    def x_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        height, width, channels = self.train.x.shape[1:]
        return height, width, channels

    @property
    def x_mean(self) -> np.ndarray:
        """The mean training image, float32 [height, width, channels] in [0, 1]."""
        return (np.mean(self.train.x, axis=0) / 255).astype(np.float32)


class DataError(UserError):
    """One line: what is wrong with the data, and what would be right."""


class _UnavailableError(DataError):
    """Nothing is wrong, but the data set is not here and cannot be fetched."""


# On the device ------------------------------------------------------------------------------------


def binarise(name: str, key: Key, x: UInt8[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """Float32 pixels in [0, 1] from uint8 ones; only "dynamic" uses the key. Pure, for use in jit.

    "dynamic" compares 16 random bits with round(v·2¹⁶/255), so that P(x=1) is v/255 to within
    7.7e-6, and exactly 0 at v = 0 and 1 at v = 255. "static" expects images drawn by `load`.
    """
    if name == "dynamic":
        return (_uniform16(key, x.shape) < _threshold16(x.astype(jnp.int32))).astype(jnp.float32)
    if name == "threshold":
        return (x >= 128).astype(jnp.float32)
    if name in BINARISATIONS:
        return x.astype(jnp.float32) / 255
    raise DataError(f"binarisation must be one of {', '.join(BINARISATIONS)}; got {name!r}")


def flat(x: UInt8[np.ndarray, "n *shape"]) -> UInt8[np.ndarray, "n pixels"]:
    """Images as rows: gathering and binarising [n, 28, 28, 1] does not vectorise on CPUs."""
    return x.reshape(len(x), -1)


def preparer(binarisation: str, x_shape: tuple[int, ...]) -> Callable[[Key, Any], Batch]:
    """What makes a training batch of rows of `flat` images: (key, rows) -> Batch, pure."""

    def prepare(key: Key, rows: UInt8[Array, "batch pixels"]) -> Batch:
        return unconditional(binarise(binarisation, key, rows).reshape(-1, *x_shape))

    return prepare


def epoch_order(
    key: Key, epoch: int | Int[Array, ""], num_images: int, batch_size: int
) -> Int[Array, "steps batch"]:
    """Indices of one epoch's batches: every image at most once, the remainder left out.

    Each epoch has its own permutation, a function of (key, epoch) only. Raises DataError where not
    even one batch can be filled.
    """
    if not 1 <= batch_size <= num_images:
        raise DataError(f"batch_size must be 1 to {num_images} (the images); got {batch_size}")
    steps = num_images // batch_size
    order = jax.random.permutation(jax.random.fold_in(key, epoch), num_images)
    return order[: steps * batch_size].reshape(steps, batch_size)


def _uniform16(key: Key, shape: tuple[int, ...]) -> Int[Array, "..."]:
    """Whole numbers uniform on [0, 2¹⁶). Two to a random word: `bits` of 16 bits costs as much."""
    size = math.prod(shape[1:])
    words = jax.random.bits(key, (shape[0], -(-size // 2)), jnp.uint32)  # the batch axis survives
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(shape[0], 2 * words.shape[1])
    return halves[:, :size].reshape(shape).astype(jnp.int32)


def _threshold16(v: Any) -> Any:
    """round(v·2¹⁶/255) for v = 0, …, 255 in whole numbers, since 2¹⁶ = 257·255 + 1."""
    return 257 * v + (v >> 7)


# Draws made once, on the host ---------------------------------------------------------------------

_STREAMS = ("train", "valid", "test", "validation images", "test images")  # each independent


def _generator(data_seed: int, stream: str) -> np.random.PCG64:
    """Its raw words are the same in every version of NumPy; `Generator`'s draws need not be."""
    return np.random.PCG64([data_seed, _STREAMS.index(stream)])


def _permutation(data_seed: int, stream: str, size: int) -> np.ndarray:
    return np.argsort(_generator(data_seed, stream).random_raw(size), kind="stable")


def _draw_once(x: np.ndarray, data_seed: int, stream: str) -> np.ndarray:
    """Bernoulli(v/255) pixels as 0 and 255; P(x=1) as in `binarise`."""
    size, generator = math.prod(x.shape[1:]), _generator(data_seed, stream)
    words = -(-size // 4)  # per image, so that image i has the same draw among any number of them
    thresholds, drawn = _threshold16(np.arange(256)).astype(np.int32), np.empty_like(x)
    for start in range(0, len(x), 4096):  # blocks bound the memory
        v = x[start : start + 4096]
        u = generator.random_raw(len(v) * words).view(np.uint16).reshape(len(v), 4 * words)
        drawn[start : start + 4096] = 255 * (u[:, :size].reshape(v.shape) < thresholds[v])
    return drawn


def _fixed(split: Split, binarisation: str, data_seed: int, stream: str) -> Split:
    """The split with all of its binarisation that is not left to the training step."""
    if binarisation == "static" or (binarisation == "dynamic" and stream != "train"):
        return split._replace(x=_draw_once(split.x, data_seed, stream))
    if binarisation == "threshold":
        return split._replace(x=np.where(split.x >= 128, np.uint8(255), np.uint8(0)))
    return split


def _select(split: Split, indices: np.ndarray) -> Split:
    return Split(split.x[indices], split.y[indices] if len(split.y) else split.y)


def _unsplit(name: str, source: str, train: Split, test: Split) -> Dataset:
    """A data set before its validation images are held out."""
    if train.x.shape[1:] != test.x.shape[1:]:
        shapes = f"{list(train.x.shape[1:])} and {list(test.x.shape[1:])}"
        raise DataError(f"{source}: training and test images have different shapes, {shapes}")
    return Dataset(name, source, train, _select(train, np.arange(0)), test)


def _finish(dataset: Dataset, validation_size: int, binarisation: str, data_seed: int) -> Dataset:
    """Holds the validation images out of the training ones, then draws what is drawn once."""
    num_images = len(dataset.train.x)
    order = _permutation(data_seed, "validation images", num_images)
    size = min(validation_size, num_images // 10)
    train = _select(dataset.train, np.sort(order[size:])) if size else dataset.train
    valid = _select(dataset.train, order[:size])  # a smaller validation set is part of a larger
    fixed = functools.partial(_fixed, binarisation=binarisation, data_seed=data_seed)
    return dataset._replace(
        train=fixed(train, stream="train"),
        valid=fixed(valid, stream="valid"),
        test=fixed(dataset.test, stream="test"),
        binarisation=binarisation,
    )


# A user's own arrays ------------------------------------------------------------------------------


def from_arrays(
    x_train: Any,
    x_test: Any = None,
    y_train: Any = None,
    y_test: Any = None,
    *,
    name: str = "arrays",
    validation_size: int = 0,
    data_seed: int = 0,
    binarisation: str = "none",
) -> Dataset:
    """A data set of your own images [n, height, width] or [n, height, width, channels].

    Images are uint8 (0 to 255), floats in [0, 1], rounded to the nearest of the 256 levels, or
    bool. Labels are whole numbers [n]. Without `x_test` a tenth of the images, drawn with
    `data_seed`, is held out as the test set. The other settings are those of `DataConfig`. Raises
    DataError on images and labels that are none of these.
    """
    DataConfig(data_seed=data_seed, validation_size=validation_size, binarisation=binarisation)
    if (y_test is not None) != (x_test is not None and y_train is not None):
        raise DataError("y_test goes with x_test and y_train: give it with both, or not at all")
    train = _as_split(x_train, y_train, "train")
    if x_test is not None:
        test = _as_split(x_test, y_test, "test")
    elif len(train.x) > 1:
        order, size = _permutation(data_seed, "test images", len(train.x)), len(train.x) // 10 or 1
        train, test = _select(train, np.sort(order[size:])), _select(train, order[:size])
    else:
        raise DataError("x_train must hold at least 2 images where there is no x_test; got 1")
    return _finish(_unsplit(name, "arrays", train, test), validation_size, binarisation, data_seed)


def _as_split(x: Any, y: Any, which: str) -> Split:
    x = _as_images(_as_array(x, f"x_{which}"), f"x_{which}")
    if y is None:
        return Split(x, np.zeros(0, np.int32))
    y = _as_array(y, f"y_{which}")
    if y.shape != (len(x),):
        raise DataError(f"y_{which} must hold {len(x)} labels, as many as x; got {list(y.shape)}")
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= 2**31:
        raise DataError(f"y_{which} must be whole numbers from 0 to 2³¹−1; got dtype {y.dtype}")
    return Split(x, y.astype(np.int32))


def _as_array(values: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what} must be one array; {_line(error)}") from error


def _as_images(x: np.ndarray, what: str) -> np.ndarray:
    if x.ndim not in (3, 4) or x.size == 0:
        wanted = "[n, height, width] or [n, height, width, channels], each at least 1"
        raise DataError(f"{what} must be {wanted}; got shape {list(x.shape)}")
    if x.dtype == bool:
        x = 255 * x.astype(np.uint8)
    elif np.issubdtype(x.dtype, np.floating):
        if not (x.min() >= 0 and x.max() <= 1):  # NaN fails both
            raise DataError(f"{what} must be in [0, 1] if floats; got {x.min():g} to {x.max():g}")
        x = np.rint(255 * x.astype(np.float32)).astype(np.uint8)
    elif x.dtype != np.uint8:
        raise DataError(f"{what} must be uint8, bool or floats in [0, 1]; got dtype {x.dtype}")
    elif x.max() == 1:  # would pass for images that are almost black
        raise DataError(f"{what} is uint8 but holds only 0 and 1: give 0 and 255, or bool")
    return x[..., None] if x.ndim == 3 else x


# MNIST and its like -------------------------------------------------------------------------------

_ORIGINALS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def _mnist_like(name: str, data_dir: Path) -> Dataset:
    """The four original files, a set prepared by tensorflow-datasets, or a download."""
    folders = {folder: _find_originals(folder) for folder in (data_dir / name, data_dir)}
    for folder, files in folders.items():
        if len(files) == 4:
            return _read_originals(name, files, f"{folder}, original files")
    if prepared := _read_prepared(name, data_dir):
        return prepared
    try:
        files = _download(name, data_dir)
    except _UnavailableError as error:
        for folder, files in folders.items():
            if files:  # somebody's unfinished work: not to be passed over
                have = f"{folder} has only {', '.join(path.name for path in files.values())}"
                raise DataError(f"{have}; {error}") from error
        raise
    return _read_originals(name, files, f"{data_dir}, downloaded by tensorflow-datasets")


def _find_originals(folder: Path) -> dict[str, Path]:
    """The original files that are there, gzipped or not: name -> path."""
    names = [name for pair in _ORIGINALS.values() for name in pair]
    paths = ((name, folder / (name + end)) for name in names for end in (".gz", ""))
    return {name: path for name, path in paths if path.is_file()}


def _read_originals(name: str, files: dict[str, Path], source: str) -> Dataset:
    splits = []
    for images, labels in _ORIGINALS.values():
        x, y = _read_idx(files[images], rank=3), _read_idx(files[labels], rank=1)
        if len(x) != len(y):
            raise DataError(f"{files[images]} has {len(x)} images, {files[labels]} {len(y)} labels")
        splits.append(Split(x[..., None], y.astype(np.int32)))
    return _unsplit(name, source, *splits)


def _read_idx(path: Path, rank: int) -> np.ndarray:
    """One file in LeCun's IDX format: magic number, sizes, uint8 values."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {_line(error)}") from error
    start = 4 + 4 * rank
    if raw[:4] != bytes([0, 0, 8, rank]) or len(raw) < start:
        raise DataError(f"{path} is not an IDX file of uint8 values with {rank} dimension(s)")
    shape = np.frombuffer(raw, ">u4", rank, offset=4).tolist()
    if math.prod(shape) != len(raw) - start or 0 in shape:
        raise DataError(f"{path} states shape {shape} and holds {len(raw) - start} values")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _read_prepared(name: str, data_dir: Path) -> Dataset | None:
    """The newest set prepared as array_record, the one format that needs no TensorFlow.

    Unpacking 70,000 PNG files takes seconds; they come in another order than in the originals.
    """
    found = [f for f in (data_dir / name).glob("*") if re.fullmatch(r"\d+\.\d+\.\d+", f.name)]
    for folder in sorted(found, key=lambda f: [int(n) for n in f.name.split(".")], reverse=True):
        try:
            info = json.loads((folder / "dataset_info.json").read_text())
            if info["fileFormat"] != "array_record" or not importlib.util.find_spec("array_record"):
                continue
            with _quiet_tfds() as tfds:
                builder = tfds.builder_from_directory(str(folder))
                sources = [builder.as_data_source(split) for split in ("train", "test")]
                rows = [source.__getitems__(range(len(source))) for source in sources]
            x = [np.stack([row["image"] for row in split]) for split in rows]
            y = [np.array([row["label"] for row in split], np.int32) for split in rows]
        except Exception as error:  # whatever tensorflow-datasets and its readers raise
            raise DataError(f"{folder} cannot be read: {_line(error)}") from error
        source = f"{folder}, prepared by tensorflow-datasets"
        return _unsplit(name, source, Split(x[0], y[0]), Split(x[1], y[1]))
    return None


def _download(name: str, data_dir: Path) -> dict[str, Path]:
    """The original files, from tensorflow-datasets' cache of downloads; copied for the next time.

    tensorflow-datasets knows the addresses and the checksums, and can fetch without TensorFlow.
    """
    with _quiet_tfds() as tfds:
        infos = tfds.builder_cls(name).url_infos
        paths = _cached(name, data_dir, infos) or _fetch(tfds, name, data_dir, infos)
    files = {}
    for (url, info), path in zip(infos.items(), paths, strict=True):
        if hashlib.sha256(path.read_bytes()).hexdigest() != info.checksum:
            raise DataError(f"{path} is damaged: delete it")
        target = data_dir / name / url.rsplit("/", 1)[-1]
        files[target.stem] = path
        with contextlib.suppress(OSError):  # where nothing may be written the cache has to do
            target.parent.mkdir(exist_ok=True)
            unfinished = target.with_name(f".{uuid.uuid4().hex}")
            shutil.copyfile(path, unfinished)
            unfinished.replace(target)  # so that no other process sees half a file
    return files


def _cached(name: str, data_dir: Path, infos: Any) -> list[Path]:
    """Where former downloads are, if all of them are there; older versions used one folder."""
    from tensorflow_datasets.core.download import resource

    folders, paths = (data_dir / "downloads" / name, data_dir / "downloads"), []
    for url, info in infos.items():
        file = resource.get_dl_fname(url, info.checksum)
        paths += [folder / file for folder in folders if (folder / file).is_file()][:1]
    return paths if len(paths) == len(infos) else []


def _fetch(tfds: Any, name: str, data_dir: Path, infos: Any) -> list[Path]:
    url = next(iter(infos))
    if not _reachable(url):
        raise _UnavailableError(
            f"{name} is not in {data_dir} and {urlsplit(url).netloc} cannot be reached: give the "
            "folder of its four original files with --data_dir, run once with a network, or use "
            "--dataset=digits"
        )
    try:
        manager = tfds.download.DownloadManager(
            download_dir=data_dir / "downloads",
            dataset_name=name,
            url_infos=infos,
            register_checksums=False,
        )
        return [Path(path) for path in manager.download(list(infos))]
    except Exception as error:  # a full disc, a wrong checksum, a lost connection
        message = f"{name} could not be downloaded to {data_dir}: {_line(error)}"
        raise _UnavailableError(message) from error


def _reachable(url: str, seconds: float = 3.0) -> bool:
    """Whether the file can be had. Left alone, tensorflow-datasets retries for minutes."""
    import requests

    status = []

    def ask():
        with contextlib.suppress(Exception):
            status.append(requests.head(url, timeout=seconds, allow_redirects=True).status_code)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)  # `timeout` alone does not cover a slow name server
    return status == [200]


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[Any]:
    """Imports tensorflow-datasets (a second) and keeps its warnings off the screen."""
    from absl import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        import tensorflow_datasets as tfds

        yield tfds
    finally:
        logging.set_verbosity(level)


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


# The registry -------------------------------------------------------------------------------------


def _digits(data_dir: Path) -> Dataset:
    """scikit-learn's 1,797 digits of 8 × 8: the same 297 are the test set for every seed."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)  # 0 to 16
    x = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    everything, order = Split(x, labels.astype(np.int32)), _permutation(0, "test images", len(x))
    train, test = _select(everything, np.sort(order[297:])), _select(everything, order[:297])
    return _unsplit("digits", "scikit-learn", train, test)


# name -> function of the data folder; a new data set is one function and one line
DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "mnist": functools.partial(_mnist_like, "mnist"),
    "fashion_mnist": functools.partial(_mnist_like, "fashion_mnist"),
    "digits": _digits,
}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, and what becomes of them."""

    dataset: str = setting(
        "auto",
        "the data set; auto: mnist, or digits where MNIST cannot be had, and says so",
        choices=("auto", *DATASETS),
    )
    data_dir: str = setting(
        "",
        "folder of the original files or of what tensorflow-datasets has prepared; "
        "empty: $TFDS_DATA_DIR or ~/tensorflow_datasets",
    )
    data_seed: int = setting(0, "seed of the validation split and the fixed draws", at_least=0)
    validation_size: int = setting(
        5000,
        "held out of the training set, at most a tenth of it; 0 trains on everything",
        unit="images",
        at_least=0,
    )
    binarisation: str = setting(
        "dynamic",
        "dynamic: drawn anew at each use; static: drawn once; threshold: at 128; none: grey levels",
        choices=BINARISATIONS,
    )

    def __post_init__(self):
        validate(self)


def load(config: DataConfig) -> Dataset:
    """Finds or fetches the data set, holds the validation images out, draws what is drawn once.

    Raises DataError where a file is damaged, or where a data set asked for by name cannot be had.
    """
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    data_dir = Path(config.data_dir or default).expanduser()
    if config.data_dir and not data_dir.is_dir():
        raise DataError(f"data_dir must be a folder that exists; got {config.data_dir!r}")
    try:
        dataset = DATASETS["mnist" if config.dataset == "auto" else config.dataset](data_dir)
    except _UnavailableError as error:
        if config.dataset != "auto":
            raise
        source = "scikit-learn, in place of MNIST"
        dataset = _digits(data_dir)._replace(source=source, fallback=str(error))
    return _finish(dataset, config.validation_size, config.binarisation, config.data_seed)
