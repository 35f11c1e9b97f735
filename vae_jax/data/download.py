"""What tensorflow-datasets does for us: addresses, downloads, their cache, sets it has prepared.

It knows the addresses and checksums of the original files and fetches them without TensorFlow;
sets prepared as array_record are read without it too. Only preparing another set needs it.

Any number of processes may ask at once: one fetches, the others wait for it. Nothing depends on
that lock but the waste: every file appears whole, checked, or not at all.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import re
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from vae_jax.data.formats import check_size
from vae_jax.data.split import DataError, Split, as_images, first_line

BLOCK = 1024  # examples decoded at a time


class UnavailableError(DataError):
    """Nothing is wrong, but the data set is not here and cannot be fetched."""


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


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time, waiting for it; without a lock where the folder cannot be written."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(open(path, "a")), fcntl.LOCK_EX)
        yield


# Original files -----------------------------------------------------------------------------------


def find(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Those of the files that are in the folder, gzipped or not: name -> path.

    Kaggle has train-images.idx3-ubyte, or each file in a folder of its own name.
    """
    found = {}
    for name in names:
        other = name.replace("-idx", ".idx")
        stems = (name, other, f"{name}/{name}", f"{other}/{other}")
        paths = (folder / (stem + end) for stem in stems for end in (".gz", ""))
        if path := next(filter(Path.is_file, paths), None):
            found[name] = path
    return found


def download(
    name: str, data_dir: Path, names: Iterable[str], urls: dict[str, str] | None = None
) -> dict[str, Path]:
    """The files of a data set in data_dir/name, fetched where they are not there: name -> path.

    urls: address -> sha256 or md5; by default what tensorflow-datasets knows under this name.
    Raises UnavailableError where they cannot be had, DataError where one is damaged.
    """
    names, folder = tuple(names), data_dir / name
    with _quiet_tfds() as tfds:
        infos = {} if urls else tfds.builder_cls(name).url_infos
        urls = urls or {url: info.checksum for url, info in infos.items()}
        urls = {url: digest for url, digest in urls.items() if _file_name(url) in names}
        if not _cached(name, data_dir, urls):
            _check_reachable(name, data_dir, next(iter(urls)))
        with locked(data_dir / f".{name}.lock"):
            here = find(folder, names)  # since another process may have come first
            if len(here) == len(names):
                return here
            paths = _cached(name, data_dir, urls) or _fetch(tfds, name, data_dir, urls, infos)
            for url, path in zip(urls, paths, strict=True):
                _check(path, urls[url])
            return {_file_name(url): _keep(path, folder, url) for url, path in zip(urls, paths)}  # noqa: B905


def _file_name(url: str) -> str:
    return urlsplit(url).path.rsplit("/", 1)[-1].removesuffix(".gz")


def _cached(name: str, data_dir: Path, urls: dict[str, str]) -> list[Path]:
    """Where former downloads are, if all of them are there; older versions used one folder."""
    from tensorflow_datasets.core.download import resource

    folders, paths = (data_dir / "downloads" / name, data_dir / "downloads"), []
    for url, digest in urls.items():
        file = resource.get_dl_fname(url, digest)
        paths += [folder / file for folder in folders if (folder / file).is_file()][:1]
    return paths if len(paths) == len(urls) else []


def _check_reachable(name: str, data_dir: Path, url: str) -> None:
    if not reachable(url):
        raise UnavailableError(
            f"{name} is not in {data_dir} and {urlsplit(url).netloc} cannot be reached: give the "
            "folder of its original files with --data_dir, run once with a network, or use "
            "--dataset=digits"
        )


def _fetch(
    tfds: Any, name: str, data_dir: Path, urls: dict[str, str], infos: dict[str, Any]
) -> list[Path]:
    try:
        manager = tfds.download.DownloadManager(
            download_dir=data_dir / "downloads",
            dataset_name=name,
            url_infos=infos,
            register_checksums=False,
        )
        return [Path(path) for path in manager.download(list(urls))]
    except Exception as error:  # a full disc, a wrong checksum, a lost connection
        message = f"{name} could not be downloaded to {data_dir}: {first_line(error)}"
        raise UnavailableError(message) from error


def _check(path: Path, digest: str) -> None:
    with open(path, "rb") as file:
        kind = "md5" if len(digest) == 32 else "sha256"
        if hashlib.file_digest(file, kind).hexdigest() != digest:
            raise DataError(f"{path} is damaged: delete it")


def _keep(path: Path, folder: Path, url: str) -> Path:
    """Copies a file to where it is found the next time, under the name that people know."""
    target = folder / urlsplit(url).path.rsplit("/", 1)[-1]
    with contextlib.suppress(OSError):  # where nothing may be written the cache has to do
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{uuid.uuid4().hex}")
        shutil.copyfile(path, unfinished)
        unfinished.replace(target)  # so that no other process sees half a file
        return target
    return path


def reachable(url: str, seconds: float = 3.0) -> bool:
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


# Prepared sets, and the catalogue -----------------------------------------------------------------

Splits = dict[str, Split]  # "train", and "valid" and "test" where there are such


def read_prepared(name: str, data_dir: Path) -> tuple[Splits, Path] | None:
    """The newest set prepared as array_record, the one format that needs no TensorFlow.

    name: as in the catalogue, "mnist" or "imagenet_resized/32x32". Unpacking 70,000 PNG files
    takes seconds; they come in another order than in the originals.
    """
    found = [f for f in (data_dir / name).glob("*") if re.fullmatch(r"\d+\.\d+\.\d+", f.name)]
    for folder in sorted(found, key=lambda f: [int(n) for n in f.name.split(".")], reverse=True):
        try:
            info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
            if info["fileFormat"] != "array_record" or not importlib.util.find_spec("array_record"):
                continue
            with _quiet_tfds() as tfds:
                return _read_builder(tfds, tfds.builder_from_directory(str(folder)), name), folder
        except DataError:
            raise
        except Exception as error:  # whatever tensorflow-datasets and its readers raise
            raise DataError(f"{folder} cannot be read: {first_line(error)}") from error
    return None


def catalogue(name: str, data_dir: Path) -> tuple[Splits, Path]:
    """Any image data set of tensorflow-datasets' catalogue, prepared where it is not yet."""
    if prepared := read_prepared(name, data_dir):
        return prepared
    with _quiet_tfds() as tfds:
        try:
            infos = tfds.builder_cls(name.split("/")[0]).url_infos
        except tfds.core.registered.DatasetNotFoundError:
            raise DataError(f"tensorflow-datasets knows no data set {name!r}") from None
        if not importlib.util.find_spec("tensorflow"):
            raise DataError(
                f"tfds:{name} is not in {data_dir} as array_record, and preparing it needs "
                "TensorFlow: pip install 'vae-jax[tfds]'"
            )
        try:
            with locked(data_dir / f".{name.replace('/', '-')}.lock"):
                builder = tfds.builder(name, data_dir=str(data_dir), file_format="array_record")
                if infos and not Path(builder.data_dir).is_dir():
                    _check_reachable(name, data_dir, next(iter(infos)))
                builder.download_and_prepare()
            return _read_builder(tfds, builder, name), Path(builder.data_dir)
        except DataError:
            raise
        except Exception as error:  # whatever a builder of the catalogue raises
            raise DataError(f"tfds:{name} cannot be prepared: {first_line(error)}") from error


def _read_builder(tfds: Any, builder: Any, name: str) -> Splits:
    features = builder.info.features
    images = [key for key in features if type(features[key]) is tfds.features.Image]
    image = "image" if "image" in images else next(iter(images), None)
    labelled = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)
    splits = {"train": "train", "validation": "valid", "test": "test"}
    here = {ours: s for s, ours in splits.items() if s in builder.info.splits}
    if image is None or "train" not in here:
        has = f"features {', '.join(features)}; splits {', '.join(builder.info.splits)}"
        raise DataError(f"tfds:{name} is no data set of images with a split called train: {has}")
    read = {
        ours: _read_source(builder.as_data_source(split), image, labelled, f"tfds:{name}")
        for ours, split in here.items()
    }
    if not all((split.y >= 0).all() for split in read.values()):  # -1: labels kept secret
        read = {ours: Split(split.x) for ours, split in read.items()}
    return read


def _read_source(source: Any, image: str, labelled: bool, what: str) -> Split:
    """All examples of a split; its images must have one shape."""
    first, size = np.asarray(source[0][image]), len(source)
    check_size(what, size * first.nbytes)
    x, y = np.empty((size, *first.shape), first.dtype), np.zeros(size, np.int32)
    for start in range(0, size, BLOCK):
        block = range(start, min(start + BLOCK, size))
        for i, row in zip(block, source.__getitems__(block), strict=True):
            if row[image].shape != first.shape:
                shapes = f"{list(first.shape)} and {list(row[image].shape)}"
                raise DataError(
                    f"{what} has images of different sizes, {shapes}: write them at one size to a "
                    "file of your own, --dataset=FILE.npz"
                )
            x[i], y[i] = row[image], row["label"] if labelled else 0
    if x.dtype == np.uint8 and x.max() == 1:  # as binarized_mnist and dsprites are prepared
        x *= np.uint8(255)
    return Split(as_images(x, what), y if labelled else y[:0])
