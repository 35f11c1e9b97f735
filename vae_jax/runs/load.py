"""The run directory: what a training leaves behind, and how it is read again.

config.json      every setting, the data set, versions, device
metrics.jsonl    one line for each evaluation
checkpoints/     see `checkpoints`
summary.json     the numbers of the finished run
figures/
"""

import dataclasses
import functools
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.data import DataConfig, conditions
from vae_jax.data.conditions import Condition
from vae_jax.files import read_json
from vae_jax.models.build import ModelConfig, build
from vae_jax.models.vae import VAE
from vae_jax.objectives.config import ObjectiveConfig
from vae_jax.runs import packs
from vae_jax.runs.checkpoints import BROKEN, checkpoints, load_arrays
from vae_jax.runs.metrics import read_metrics
from vae_jax.runs.run import Run
from vae_jax.settings import UserError
from vae_jax.training.state import TrainConfig
from vae_jax.types import Params

# Topic of the settings -> what checks them
_CONFIGS: dict[str, Any] = {
    "data": DataConfig,
    "model": ModelConfig,
    "objective": ObjectiveConfig,
    "training": TrainConfig,
}


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
        for topic, kind in _CONFIGS.items():
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
