"""Which data these are: their contents, wherever they lie."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data.dataset import DataConfig, Dataset, load
from vae_jax.settings import UserError


def describe(dataset: Dataset) -> dict[str, Any]:
    """Which images, labels and factors, down to the last bit, as a run's config.json has it."""
    splits = {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}
    return {
        "name": dataset.name,
        "source": dataset.source,
        "fallback": dataset.fallback,
        "x_shape": list(dataset.x_shape),
        "num_classes": dataset.num_classes,
        "classes": list(dataset.own_names),
        "images": {name: len(split.x) for name, split in splits.items()},
        "sha256": _digest(split.x for split in splits.values()),
        "labels_sha256": _digest(a for split in splits.values() for a in split[1:]),
    }


def _digest(arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is another in a data set than a run's config.json describes, in words."""
    found = []
    if before["sha256"] != now["sha256"]:
        found.append("the images are not the ones it was trained on")
    names = before.get("classes", []), now["classes"]
    if before["labels_sha256"] != now["labels_sha256"] or names[0] != names[1]:
        found.append("the labels are not the ones it was trained on")
    return found


def recorded(
    settings: dict[str, Any], described: dict[str, Any], data_dir: str, where: str
) -> Dataset:
    """The images that a run was made with, and no others.

    settings, described: what config.json holds of topic data, and of the data set. data_dir: where
    they are now, a folder or the file itself; "" where the training found them. where: the run, for
    the message. Raises UserError where they cannot be had.
    """
    own = dict(settings)
    if own["dataset"] == "auto":
        own["dataset"] = described["name"]
    if own["dataset"].endswith(".npz"):
        own["dataset"], own["data_dir"] = _file(own["dataset"], data_dir), ""
    else:
        own["data_dir"] = data_dir or own["data_dir"]
    dataset = load(DataConfig(**own))
    faults = differences(described, describe(dataset))
    if faults:
        raise UserError(f"{where}: {'; '.join(faults)}")
    return dataset


def _file(path: str, moved_to: str) -> str:
    """Where a user's own file is now."""
    if not moved_to:
        if not Path(path).expanduser().is_file():
            raise UserError(f"{path} does not exist: give --data_dir, the file or its folder")
        return path
    place = Path(moved_to).expanduser()
    return str(place / Path(path).name) if place.is_dir() else str(place)
