"""Data sets: a name -> uint8 images on the host, in three splits.

Images stay uint8 [n, height, width, channels] until a batch is needed (see `batches`). A stored
value v is the grey level v/255, taken as the mean of a Bernoulli pixel:

    dynamic    x ~ Bernoulli(v/255), drawn anew at each use; held-out images are drawn once
    static     x ~ Bernoulli(v/255), drawn once for every image
    threshold  x = 1 where v ≥ 128
    none       x = v/255

What is drawn once depends on `data_seed` alone, never on the training seed, and is stored as 0 and
255: `batches.binarise` leaves those values as they are, whatever the name, so every split may go
through it. Drawing from the grey levels: Salakhutdinov & Murray (ICML 2008); anew at each use:
Burda, Grosse & Salakhutdinov (ICLR 2016). "static" is not Larochelle's file of fixed draws (AISTATS
2011), which is the data set `binarized_mnist`: likelihoods on the two are close, but belong in
different tables.

Points are float32 [n, dims] instead, real numbers that stay as they are: "none", asked for or not.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.data import sources
from vae_jax.data.batches import BINARISATIONS, THRESHOLD
from vae_jax.data.download import UnavailableError
from vae_jax.data.fixed_draws import draw_once, hold_out
from vae_jax.data.sources import NAMES, Table
from vae_jax.data.split import DataError, Split
from vae_jax.settings import UserError, setting, validate


class Dataset(NamedTuple):
    """Three splits on the host (`valid` may hold no images), and where they came from.

    binarisation: what `batches.binarise` has to do with the training images; "none" where they are
    binary as they are. fallback: why this is not the data set one would expect; "" where it is.
    factors: (name, number of values) of each column of the splits' `factors`; () where unknown.
    """

    name: str
    source: str
    train: Split
    valid: Split
    test: Split
    binarisation: str = "none"
    fallback: str = ""
    factors: tuple[tuple[str, int], ...] = ()
    own_names: tuple[str, ...] = ()  # of the classes, where they are not called 0, 1, …

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of one image, or (dims,) of a point."""
        return self.train.x.shape[1:]

    @property
    def num_classes(self) -> int:
        """How many classes the labels name; 0 where there are no labels."""
        most = int(max(max(split.y, default=-1) for split in self[2:5])) + 1
        return max(most, len(self.own_names))

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels are called, in the order of their indices in the splits."""
        return self.own_names or tuple(map(str, range(self.num_classes)))

    @property
    def x_mean(self) -> np.ndarray:
        """The mean training image, float32 [height, width, channels] in [0, 1], or point."""
        mean = np.mean(self.train.x, axis=0)
        return (mean / 255 if self.train.x.dtype == np.uint8 else mean).astype(np.float32)


# Splits and fixed draws ---------------------------------------------------------------------------


def _fixed(split: Split, binarisation: str, data_seed: int, stream: str) -> Split:
    """The split with all of its binarisation that is not left to the training step."""
    if binarisation == "static" or (binarisation == "dynamic" and stream != "train"):
        return split._replace(x=draw_once(split.x, data_seed, stream))
    if binarisation == "threshold":
        return split._replace(x=np.where(split.x >= THRESHOLD, np.uint8(255), np.uint8(0)))
    return split


def _blockwise(test: Callable[[np.ndarray], Any], x: np.ndarray) -> bool:
    """Whether every block of images passes; the first that does not ends it."""
    return all(test(x[start : start + 1024]) for start in range(0, len(x), 1024))


def _finish(table: Table, config: "DataConfig") -> Dataset:
    """Holds out what the files do not, then draws what is drawn once."""
    table = _with_test(table, config.data_seed)
    train, valid = _with_valid(table, config.validation_size, config.data_seed)
    splits = {"train": train, "valid": valid, "test": table.test}
    _check(splits, table.source)
    source, binarisation = table.source, _binarisation(train, table.name, config.binarisation)
    if len(train.y) and (train.y == train.y[0]).all():
        source += "; all labels are the same"
    for which, split in splits.items():
        splits[which] = _fixed(split, binarisation, config.data_seed, which)
    if binarisation == "dynamic" and _blockwise(lambda x: ((x == 0) | (x == 255)).all(), train.x):
        binarisation = "none"
    return Dataset(
        table.name, source, **splits, binarisation=binarisation, factors=table.factors,
        own_names=table.classes,
    )  # fmt: skip


def _binarisation(split: Split, name: str, wanted: str) -> str:
    """What can be done of what is wanted; UserError where that is not what was meant."""
    if split.x.dtype == np.uint8:
        return wanted
    if wanted not in ("dynamic", "none"):  # the first is the default
        raise UserError(f"binarisation must be none: {name} has no grey levels; got {wanted!r}")
    return "none"


def _check(splits: dict[str, Split], source: str) -> None:
    """Raises DataError on images of different shapes and on images that are all the same."""
    train = splits["train"].x
    for which, (x, *_) in splits.items():
        if x.shape[1:] != train.shape[1:]:
            shapes = f"{list(train.shape[1:])} and {list(x.shape[1:])}"
            raise DataError(
                f"{source}: training and {which} images have different shapes, {shapes}"
            )
    if _blockwise(lambda x: (x == train[:1]).all(), train):
        same = f"{len(train):,} training image(s), all of them the same"
        raise DataError(f"{source}: there is nothing to learn from {same}")


def _with_test(table: Table, data_seed: int) -> Table:
    """The table with a test split, a tenth of the training images where the files have none."""
    if table.test is not None:
        return table
    if len(table.train.x) < 3:  # of which two train: of one there is nothing to learn
        raise DataError(f"{table.source} must hold at least 3 images where there is no test split")
    size = len(table.train.x) // 10 or 1
    train, test = hold_out(table.train, size, data_seed, "test images")
    held = f"no test split, so {size:,} images drawn with data_seed {data_seed} are held out"
    return table._replace(source=f"{table.source}; {held}", train=train, test=test)


def _with_valid(table: Table, validation_size: int, data_seed: int) -> tuple[Split, Split]:
    """Training and validation images: the files' own, or drawn from the training images."""
    if table.valid is not None:
        nothing = Split(table.valid.x[:0])
        if validation_size:
            return table.train, table.valid
        return Split(*map(np.concatenate, zip(table.train, table.valid, strict=True))), nothing
    size = min(validation_size, len(table.train.x) // 10)
    return hold_out(table.train, size, data_seed, "validation images")


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

    Images are whole numbers 0 to 255, floats in [0, 1], rounded to the nearest of the 256 levels,
    or bool. Labels are whole numbers or texts [n], and the classes are those that occur. Without
    `x_test` a tenth of the images, drawn with `data_seed`, is held out as the test set. The other
    settings are those of `DataConfig`. Raises DataError on images and labels that are none of
    these.
    """
    config = DataConfig(
        data_seed=data_seed, validation_size=validation_size, binarisation=binarisation
    )
    given = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return _finish(sources.arrays(name, "arrays", given), config)


# The settings -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, and what becomes of them."""

    dataset: str = setting(
        "auto",
        f"{', '.join(NAMES)}; auto: mnist, or digits where MNIST cannot be had, and says "
        "so; FILE.npz: your own x_train, and y_train, x_test, y_test if you have them; tfds:NAME: "
        "any image data set of tensorflow-datasets; package.module:function: what a function of "
        "yours gives, a dict of such arrays",
        parse=sources.known,
    )
    data_dir: str = setting(
        "",
        "folder of the original files or of what tensorflow-datasets has prepared; "
        "empty: $TFDS_DATA_DIR or ~/tensorflow_datasets",
    )
    data_seed: int = setting(
        0, "seed of the images held out and of the fixed draws", at_least=0, below=2**63
    )
    validation_size: int = setting(
        5000,
        "held out of the training set, at most a tenth of it; a data set's own validation split is "
        "used whole instead; 0 trains on everything, the latter too",
        unit="images",
        at_least=0,
    )
    binarisation: str = setting(
        "dynamic",
        "dynamic: drawn anew at each use; static: drawn once; threshold: at 128; none: grey levels",
        choices=BINARISATIONS,
    )

    def __post_init__(self) -> None:
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
        dataset = "mnist" if config.dataset == "auto" else config.dataset
        return _finish(sources.read(dataset, data_dir, config.data_seed), config)
    except UnavailableError as error:
        if config.dataset != "auto":
            raise
        table = sources.digits(data_dir)._replace(source="scikit-learn, in place of MNIST")
        return _finish(table, config)._replace(
            fallback=f"going on with digits in place of MNIST: {error}"
        )


def noun(x_shape: tuple[int, ...]) -> str:
    """What one example of this shape is called: [height, width, channels], or a point in space."""
    return "image" if len(x_shape) == 3 else "point"
