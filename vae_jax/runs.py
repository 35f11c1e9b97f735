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

from vae_jax import conditions
from vae_jax.batches import held_out
from vae_jax.checkpoints import BROKEN, checkpoints, load_arrays
from vae_jax.conditions import Condition
from vae_jax.evaluation import PRECISION, unit_interval
from vae_jax.files import naming, read_json, replacing
from vae_jax.formats import Split
from vae_jax.model import VAE, ModelConfig, build
from vae_jax.settings import UserError
from vae_jax.types import Batch, Key, Params, unconditional

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


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model, wherever it was trained: config, functions, weights.

    config: what config.json holds. x_shape: of an image, [height, width, channels]. Batches in,
    batches out. For a model p(x|c) every method takes c, [n, *condition.c_shape] or one for all;
    `split` makes the targets x and the c of images, `merge` images of them.
    """

    config: dict[str, Any]
    vae: VAE
    params: Params
    condition: Condition
    meta: dict[str, Any]

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.condition.image_shape

    def split(self, images: Any, labels: Any = None, key: Key | None = None) -> Batch:
        """Targets and what is given of images [n, *x_shape], labels [n] where it needs them.

        Grey pixels that are given are drawn with `key`.
        """
        if self.condition.c_shape == (0,):
            return unconditional(images)
        x = np.asarray(images).reshape(-1, *self.x_shape)
        y = np.zeros(0, np.int32) if labels is None else np.asarray(labels, np.int32)
        return held_out(self.condition, jax.random.key(0) if key is None else key, Split(x, y))

    def merge(self, x: Any, c: Any = None) -> Any:
        """Images [n, *x_shape] of targets and what is given."""
        x = jnp.asarray(x)
        return jax.vmap(self.condition.merge)(x, self._given(c, len(x)))

    def _given(self, c: Any, n: int) -> Any:
        """c for n examples; UserError where the model needs one and none fits."""
        shape = self.condition.c_shape
        if c is None and shape == (0,):
            return jnp.zeros((n, 0))
        c = jnp.asarray(jnp.nan if c is None else c)
        if c.shape not in (shape, (n, *shape)):
            raise UserError(
                f"the run models p(x|c), c its {self.config['settings']['model']['condition']}: "
                f"give c of shape {shape} or {(n, *shape)}, as `split` makes it"
            )
        return jnp.broadcast_to(c, (n, *shape))

    def encode(self, x: Any, c: Any = None) -> Any:
        """q(z|x,c) for targets [n, …], uint8 or floats in [0, 1]; `.mean` is [n, latents]."""
        x = unit_interval(jnp.asarray(x).reshape(-1, *self.condition.x_shape))
        return _batched(self.vae.posterior, self.params, x, self._given(c, len(x)))

    def decode(self, z: Any, c: Any = None) -> Any:
        """E[x|z,c], targets [n, …] in [0, 1], for latents [n, latent_dim]."""
        z = jnp.atleast_2d(jnp.asarray(z))
        return _batched(self.vae.likelihood, self.params, z, self._given(c, len(z))).mean

    def sample(self, key: Key, n: int, c: Any = None) -> Any:
        """E[x|z,c] for n latents z drawn from the prior p(z|c), [n, …] in [0, 1]."""
        c = self._given(c, n)
        z = _latents(self.vae.prior, self.params, jax.random.split(key, n), c)
        return self.decode(z, c)

    def reconstruct(self, x: Any, c: Any = None) -> Any:
        """E[x|z,c] at the posterior means z of targets x."""
        return self.decode(self.encode(x, c).mean, c)


@functools.partial(jax.jit, static_argnums=0)
def _batched(f: Callable[..., Any], params: Params, inputs: Any, c: Any) -> Any:
    with jax.default_matmul_precision(PRECISION):
        return jax.vmap(functools.partial(f, params))(inputs, c)


@functools.partial(jax.jit, static_argnums=0)
def _latents(prior: Callable[..., Any], params: Params, keys: Any, c: Any) -> Any:
    with jax.default_matmul_precision(PRECISION):
        return jax.vmap(lambda key, c: prior(params, c).sample(key))(keys, c)


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
        condition = conditions.make(
            model.condition, x_shape, config["dataset"].get("num_classes", 0)
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{directory / 'config.json'} does not describe a run: {error!r}") from None
    vae = _built(model, condition.x_shape, condition.c_shape)
    params, meta = _load_params(directory, checkpoint, jax.eval_shape(vae.init, jax.random.key(0)))
    return Run(config, vae, jax.tree.map(jnp.asarray, params), condition, meta)


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
