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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.checkpoints import BROKEN, checkpoints, load_arrays
from vae_jax.evaluation import PRECISION, unit_interval
from vae_jax.files import naming, read_json, replacing
from vae_jax.model import VAE, ModelConfig, build
from vae_jax.settings import UserError
from vae_jax.types import Key, Params

# The directory


def directory_name(dataset: str, latent_dim: int, settings: Any) -> str:
    """Data set, latent dimension and a hash of the settings that decide the numbers."""
    text = json.dumps(settings, sort_keys=True)
    return f"{dataset}-z{latent_dim}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


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


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model, wherever it was trained: config, functions, weights.

    config: what config.json holds. x_shape: [height, width, channels]. Batches in, batches out.
    """

    config: dict[str, Any]
    vae: VAE
    params: Params
    x_shape: tuple[int, ...]
    meta: dict[str, Any]

    def encode(self, x: Any) -> Any:
        """q(z|x) for images [n, *x_shape], uint8 or floats in [0, 1]; `.mean` is [n, latents]."""
        x = unit_interval(jnp.asarray(x).reshape(-1, *self.x_shape))
        return _batched(self.vae.posterior, self.params, x)

    def decode(self, z: Any) -> Any:
        """E[x|z], images [n, *x_shape] in [0, 1], for latents [n, latent_dim]."""
        return _batched(self.vae.likelihood, self.params, jnp.atleast_2d(jnp.asarray(z))).mean

    def sample(self, key: Key, n: int) -> Any:
        """E[x|z] for n latents z drawn from the prior, [n, *x_shape] in [0, 1]."""
        prior = self.vae.prior(self.params, jnp.zeros(0))
        return self.decode(jax.vmap(prior.sample)(jax.random.split(key, n)))

    def reconstruct(self, x: Any) -> Any:
        """E[x|z] at the posterior means z of images x."""
        return self.decode(self.encode(x).mean)


@functools.partial(jax.jit, static_argnums=0)
def _batched(f: Callable[..., Any], params: Params, inputs: Any) -> Any:
    with jax.default_matmul_precision(PRECISION):
        return jax.vmap(lambda one: f(params, one, jnp.zeros(0)))(inputs)


def load(run_dir: str | os.PathLike[str], checkpoint: str = "best") -> Run:
    """A run from its directory, on whatever device there is.

    checkpoint: "best" by validation (the last, where nothing was validated) or "last". Raises
    UserError with one line where something is missing or does not fit.
    """
    directory = Path(run_dir)
    config = read_json(directory / "config.json")
    try:
        model = ModelConfig(**config["settings"]["model"])
        x_shape = tuple(config["dataset"]["x_shape"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{directory / 'config.json'} does not describe a run: {error!r}") from None
    vae = build(model, x_shape, x_mean=np.zeros(x_shape))  # any: the trained weights are read
    params, meta = _load_params(directory, checkpoint, jax.eval_shape(vae.init, jax.random.key(0)))
    return Run(config, vae, jax.tree.map(jnp.asarray, params), x_shape, meta)


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
