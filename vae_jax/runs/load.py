"""Reading a run, from its directory or from a pack of it, on whatever device there is."""

import functools
import os
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import settings
from vae_jax.data import conditions
from vae_jax.data.conditions import Condition
from vae_jax.files import read_json
from vae_jax.models import VAE, ModelConfig, build
from vae_jax.runs import packs
from vae_jax.runs.checkpoints import BROKEN, checkpoints, load_arrays
from vae_jax.runs.described import checked, first, read_config
from vae_jax.runs.metrics import read_metrics
from vae_jax.runs.run import Run
from vae_jax.settings import UserError
from vae_jax.types import Params


def load(
    path: str | os.PathLike[str], checkpoint: str = "best", trust: Collection[str] = ()
) -> Run:
    """A run from its directory or from a pack of it (see `packs`).

    checkpoint: "best" by validation (the last, where nothing was validated) or "last"; of a pack,
    which holds one, "best". trust: the modules that a run of parts from outside may import, or
    packages of them. Raises UserError with one line where something is missing or does not fit.
    """
    path = Path(path)
    if path.is_file():
        return _load_pack(path, checkpoint, trust)
    config = read_config(path, trust)
    vae, condition, like = model_of(config, path / "config.json")
    params, meta = _load_params(path, checkpoint, like)
    summary = path / "summary.json"
    return Run(
        config, vae, jax.tree.map(jnp.asarray, params), condition, meta,
        read_json(summary) if summary.exists() else {}, read_metrics(path),
    )  # fmt: skip


def _load_pack(path: Path, checkpoint: str, trust: Collection[str]) -> Run:
    if checkpoint != "best":
        raise UserError(f"a pack holds one checkpoint, called best; got {checkpoint!r}")
    pack = packs.read(path)
    config = checked(pack.config, path, trust)
    vae, condition, like = model_of(config, path)
    params = jax.tree.map(jnp.asarray, packs.read_weights(path, like))
    return Run(config, vae, params, condition, pack.checkpoint, pack.summary, pack.history)


def model_of(config: dict[str, Any], where: Path) -> tuple[VAE, Condition, Params]:
    """The functions that a config names, and the shapes of their weights."""
    try:
        model = settings.make(ModelConfig, config["settings"]["model"])
        dataset = config["dataset"]
        condition = conditions.make(
            model.condition, tuple(dataset["x_shape"]), dataset.get("num_classes", 0)
        )
        vae = _built(model, condition.x_shape, condition.c_shape)
        return vae, condition, jax.eval_shape(vae.init, jax.random.key(0))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{where} does not describe a run: {first(error)}") from error


@functools.lru_cache
def _built(model: ModelConfig, x_shape: tuple[int, ...], c_shape: tuple[int, ...]) -> VAE:
    """The same functions for every run of a model, so that what is compiled serves them all."""
    # Of the data anything will do: the trained weights are read.
    mean, examples = np.zeros(x_shape, np.float32), lambda k: np.zeros((k, *x_shape), np.float32)
    return build(model, x_shape, c_shape, mean, examples)


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
            chosen = "best by validation" if path == best else "last"
            found = {"chosen": chosen, "step": int(meta["step"]), "file": path.name}
        except UserError:
            raise
        except (*BROKEN, TypeError) as error:
            warnings.warn(f"checkpoint {path} is broken ({error})", stacklevel=3)
        else:
            return tree[name], found
    raise UserError(f"{directory} has no checkpoint that can be read")
