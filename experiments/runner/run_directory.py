"""Where a run writes, what it writes down about itself, and whether it may go on there."""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.cli.config import Config, fields
from vae_jax import data, files
from vae_jax.evaluation.per_example import PRECISION
from vae_jax.parallel import processes
from vae_jax.settings import UserError

FREE = {
    "run_dir",
    "resume",
    "data_dir",
    "device_limit",
    "profile",
    "tensorboard",
    "keep_checkpoints",
    "coordinator",
    "num_processes",
    "process_id",
    "patience",
}  # settings that may differ when a run is resumed
LOG = "log.txt"  # where a launcher keeps a run's output
APART = {"run", "processes"}  # topics that decide no number
GROWING = {"epochs", "steps"}  # and those that may only grow


def default(config: Config, dataset: data.Dataset) -> Path:
    """runs/<data set>-z<latent_dim>-<hash>; see `named`."""
    return named(f"{dataset.name}-z{config.model.latent_dim}", config, dataset)


def named(name: str, config: Config, dataset: data.Dataset) -> Path:
    """runs/<name>-<hash>; the hash leaves out how long to train and what is measured, so that a
    longer run finds the shorter one to resume.
    """
    sections = {name: s for name, s in config.settings.items() if name not in APART}
    deciding = {
        topic: {k: v for k, v in section.items() if k not in FREE | GROWING}
        for topic, section in sections.items()
    }
    deciding["data"]["dataset"] = dataset.name
    return Path("runs") / directory_name(name, deciding)


def recorded(config: dict[str, Any], data_dir: str, where: str) -> data.Dataset:
    """The images that a run was made with, and no others.

    config: what config.json holds. data_dir: where they are now; "" where the training found them.
    Raises UserError where they cannot be had.
    """
    settings = dict(config["settings"]["data"])
    settings["data_dir"] = data_dir or settings["data_dir"]
    if settings["dataset"] == "auto":
        settings["dataset"] = config["dataset"]["name"]
    dataset = data.load(data.DataConfig(**settings))
    now = {"settings": {}, "dataset": describe_data(dataset)}
    faults = differences({"settings": {}, "dataset": config["dataset"]}, now)
    if faults:
        raise UserError(f"{where}: {'; '.join(faults)}")
    return dataset


def describe_data(dataset: data.Dataset) -> dict[str, Any]:
    """Which images, down to the last bit."""
    splits = {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}
    digest = hashlib.sha256()
    for split in splits.values():
        digest.update(np.ascontiguousarray(split.x).data)
    return {
        "name": dataset.name,
        "source": dataset.source,
        "fallback": dataset.fallback,
        "x_shape": dataset.x_shape,
        "num_classes": dataset.num_classes,
        "images": {name: len(split.x) for name, split in splits.items()},
        "sha256": digest.hexdigest(),
    }


def describe(config: Config, dataset: data.Dataset) -> dict[str, Any]:
    """What config.json holds."""
    return {
        "settings": config.settings,
        "dataset": describe_data(dataset),
        "environment": environment(),
    }


def deciding(description: dict[str, Any]) -> Any:
    """What all processes of a run must agree in."""
    settings = description["settings"]
    wanted = {
        topic: {name: value for name, value in section.items() if name not in FREE - {"resume"}}
        for topic, section in settings.items()
    }
    return wanted, description["dataset"]["sha256"], description["environment"]["packages"]


def check(directory: Path, description: dict[str, Any], resume: bool) -> str:
    """ "new", "started" or "finished"; UserError where the directory holds something else."""
    path = directory / "config.json"
    if not path.exists():
        strangers = [p.name for p in directory.iterdir() if not _left_behind(p.name)]
        if strangers:
            raise UserError(f"run_dir {directory} is not empty ({strangers[0]}); give another")
        return "new"
    if not resume:
        raise UserError(
            f"run_dir {directory} already holds a run: go on with --resume, "
            "or give another --run_dir"
        )
    before = files.read_json(path)
    differing = differences(before, description)
    if differing:
        raise UserError(f"cannot resume {directory}: {'; '.join(differing)}")
    return "finished" if finished(directory, description["settings"]) else "started"


@contextlib.contextmanager
def claimed(directory: Path, description: dict[str, Any], resume: bool) -> Iterator[str]:
    """Holds the directory, for process 0; what `check` found there, or its error, for all."""
    with contextlib.ExitStack() as held:

        def claim() -> str:
            held.enter_context(locked(directory))
            return check(directory, description, resume)

        yield processes.from_first(claim)


def _left_behind(name: str) -> bool:
    """What a run killed before it wrote config.json, or its launcher, may leave."""
    return name in (".lock", LOG) or (name.startswith(".config.json.") and name.endswith(".tmp"))


def begin(directory: Path, description: dict[str, Any]) -> None:
    """From here on the directory is this run's, and unfinished."""
    (directory / "summary.json").unlink(missing_ok=True)  # of the shorter run that this one extends
    for stale in directory.glob("**/.*.tmp"):  # of writes that a kill cut short
        stale.unlink(missing_ok=True)
    files.write_json(directory / "config.json", description)


def finished(directory: Path, settings: dict[str, dict[str, Any]]) -> bool:
    """Whether the directory holds the summary of a run with these settings, FREE ones apart."""
    if not (directory / "summary.json").exists():
        return False
    try:
        before = files.read_json(directory / "config.json")["settings"]
    except (UserError, KeyError, TypeError):
        return False
    return all(
        value == _recorded(before, topic, name)
        for topic, section in settings.items()
        for name, value in section.items()
        if name not in FREE
    )


def _recorded(settings: dict[str, Any], topic: str, name: str) -> Any:
    """A setting of a run. One that the run's version did not have: what it now is by default."""
    known = fields()[name][1].default if name in fields() else "not set"
    return settings.get(topic, {}).get(name, known)


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What forbids to go on with a run under other settings, in words."""
    found = []
    for topic, section in now["settings"].items():
        for name, value in section.items():
            was = _recorded(before["settings"], topic, name)
            if name in FREE or value == was:
                continue
            if name in GROWING and not isinstance(was, str) and value > was:
                if now["settings"]["training"]["schedule"] == "constant":
                    continue
                found.append(f"{name} may not grow when the learning rate's schedule depends on it")
            else:
                rule = " (may only grow)" if name in GROWING else ""
                found.append(f"{name} was {was!r}, now {value!r}{rule}")
    if before["dataset"]["sha256"] != now["dataset"]["sha256"]:
        found.append("the images are not the ones it was trained on")
    return found


# The directory


def directory_name(name: str, settings: Any) -> str:
    """A name and a hash of the settings that decide the numbers."""
    text = json.dumps(settings, sort_keys=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the directory against a second run; makes it where it is not there.

    Raises UserError where it cannot be written or is in use.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = open(directory / ".lock", "w")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"run_dir {directory} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"run_dir {directory} is in use by another run") from None
        yield


def environment() -> dict[str, Any]:
    """Versions, code and device: what a number depends on besides the settings."""
    packages = ("vae-jax", "jax", "jaxlib", "flax", "optax", "numpy")
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "git_commit": _git_commit(),
        "device": f"{len(jax.devices())} × {device.device_kind} ({device.platform})",
        "matmul_precision": {
            "training": jax.config.jax_default_matmul_precision or "default",  # pyright: ignore[reportAttributeAccessIssue]
            "evaluation": PRECISION,
        },
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str:
    """The commit of the source tree this package is in, "-dirty" if changed; "" outside git."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # an installed package inside somebody else's repository
        return ""
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
