"""The run directory: what a training leaves behind, and how it is read again.

config.json      every setting, the data set, versions, device
metrics.jsonl    one line for each evaluation
checkpoints/     see `checkpoints`
summary.json     the numbers of the finished run
figures/
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import conditions, packs
from vae_jax.checkpoints import BROKEN, checkpoints, load_arrays
from vae_jax.conditions import Condition
from vae_jax.evaluation import PRECISION
from vae_jax.files import naming, read_json, replacing
from vae_jax.model import VAE, ModelConfig, build
from vae_jax.objectives import ObjectiveConfig
from vae_jax.settings import UserError
from vae_jax.trained import Run
from vae_jax.training import TrainConfig
from vae_jax.types import Params


def _configs() -> dict[str, Any]:
    """Topic of the settings -> what checks them."""
    from vae_jax.data import DataConfig  # not above: `python -m vae_jax.data` would import it twice

    return {
        "data": DataConfig,
        "model": ModelConfig,
        "objective": ObjectiveConfig,
        "training": TrainConfig,
    }


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
    root = Path(__file__).parent.parent
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


# Metrics


def append_metrics(directory: Path, row: dict[str, Any]) -> None:
    path = directory / "metrics.jsonl"
    with naming(path), open(path, "a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_metrics(directory: Path, up_to_step: float = np.inf) -> list[dict[str, Any]]:
    """The rows up to a step, in order; a torn last line is dropped."""
    rows = []
    path = directory / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if row["step"] <= up_to_step]


def rewind_metrics(directory: Path, step: int) -> list[dict[str, Any]]:
    """Drops what was written after the checkpoint a run resumes from; returns what is left."""
    rows = read_metrics(directory, step)
    with replacing(directory / "metrics.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


# Reading a run


def load(path: str | os.PathLike[str], checkpoint: str = "best") -> Run:
    """A run from its directory or from a pack of it (see `packs`), on whatever device there is.

    checkpoint: "best" by validation (the last, where nothing was validated) or "last"; of a pack,
    which holds one, "best". Raises UserError with one line where something is missing or does not
    fit.
    """
    path = Path(path)
    if path.is_file():
        return _load_pack(path, checkpoint)
    config = read_json(path / "config.json")
    vae, condition, like = _model(config, path / "config.json")
    params, meta = _load_params(path, checkpoint, like)
    summary = path / "summary.json"
    return Run(
        config, vae, jax.tree.map(jnp.asarray, params), condition, meta,
        read_json(summary) if summary.exists() else {}, read_metrics(path),
    )  # fmt: skip


def _load_pack(path: Path, checkpoint: str) -> Run:
    if checkpoint != "best":
        raise UserError(f"a pack holds one checkpoint, called best; got {checkpoint!r}")
    pack = packs.read(path)
    settings = pack.config["settings"]
    try:
        for topic, kind in _configs().items():
            given = settings.get(topic, {})
            # The data set may be a file that is not here.
            checked = kind(**given | ({"dataset": "auto"} if topic == "data" else {}))
            settings[topic] = dataclasses.asdict(checked) | given  # what it leaves out, by default
    except (TypeError, UserError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} does not describe a run: {reason}") from None
    vae, condition, like = _model(pack.config, path)
    params = packs.read_weights(path, like)
    params = jax.tree.map(jnp.asarray, params)
    return Run(pack.config, vae, params, condition, pack.checkpoint, pack.summary, pack.history)


def _model(config: Any, where: Path) -> tuple[VAE, Condition, Params]:
    """The functions that a config names, and the shapes of their weights."""
    try:
        model = ModelConfig(**config["settings"]["model"])
        x_shape = tuple(config["dataset"]["x_shape"])
        condition = conditions.make(
            model.condition, x_shape, config["dataset"].get("num_classes", 0)
        )
        vae = _built(model, condition.x_shape, condition.c_shape)
        return vae, condition, jax.eval_shape(vae.init, jax.random.key(0))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{where} does not describe a run: {error!r}") from error


@functools.lru_cache
def _built(model: ModelConfig, x_shape: tuple[int, ...], c_shape: tuple[int, ...]) -> VAE:
    """The same functions for every run of a model, so that what is compiled serves them all."""
    anything = np.zeros(x_shape)  # the trained weights are read
    return build(model, x_shape, c_shape, anything)


def _load_params(directory: Path, checkpoint: str, like: Params) -> tuple[Params, dict[str, Any]]:
    if checkpoint not in ("best", "last"):
        raise UserError(f"checkpoint must be best or last; got {checkpoint!r}")
    best = directory / "checkpoints" / "best.npz"
    paths = [best] if checkpoint == "best" and best.exists() else checkpoints(directory)
    for path in paths:
        try:
            with zipfile.ZipFile(path) as archive:
                averaged = any(name.startswith("ema/") for name in archive.namelist())
            name = "ema" if averaged else "params"
            tree, meta = load_arrays(path, {name: like}, partial=True)
        except UserError:
            raise
        except BROKEN as error:
            warnings.warn(f"checkpoint {path} is broken ({error})", stacklevel=3)
        else:
            chosen = "best by validation" if path == best else "last"
            return tree[name], {"chosen": chosen, "step": meta["step"], "file": path.name}
    raise UserError(f"{directory} has no checkpoint that can be read")
