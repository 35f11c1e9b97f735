"""A run directory of a model that was trained from Python, for the same tools as any other.

run = runs.made(config, dataset, params)
run.save("runs/mine")
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax

from vae_jax import data, files
from vae_jax.data import DataConfig, Dataset
from vae_jax.models import ModelConfig
from vae_jax.objectives import ObjectiveConfig
from vae_jax.runs.checkpoints import save_best
from vae_jax.runs.described import FORMAT, checked
from vae_jax.runs.load import model_of
from vae_jax.runs.metrics import append_metrics
from vae_jax.runs.run import Run
from vae_jax.settings import UserError, module_of, named_outside
from vae_jax.training import TrainConfig
from vae_jax.types import Params


def made(
    model: ModelConfig,
    dataset: Dataset,
    params: Params,
    *,
    objective: ObjectiveConfig | None = None,
    training: TrainConfig | None = None,
    data_config: DataConfig | None = None,
    step: int = 0,
    history: Any = (),
) -> Run:
    """The Run of trained weights: what `load` gives of a run directory.

    model: the configuration that the model was built of; one of other functions has no name that a
    file could hold. data_config: what `dataset` was loaded with; where it was made of arrays, tools
    that need the images are told where they are, `--data_dir=FILE.npz`. step, history: how long it
    was trained, and rows of numbers with "step" and "epoch". Raises UserError where the weights are
    another model's.
    """
    sections = {
        "data": data_config or DataConfig("arrays.npz", binarisation=dataset.binarisation),
        "model": model,
        "objective": objective or ObjectiveConfig(),
        "training": training or TrainConfig(),
    }
    settings = {topic: dataclasses.asdict(section) for topic, section in sections.items()}
    config = {
        "format": FORMAT,
        "settings": settings,
        "dataset": data.describe(dataset),
        "environment": {},
    }
    where = Path("this model")
    trust = [module_of(n) for s in sections.values()
             for _, n in named_outside(type(s), dataclasses.asdict(s))]  # fmt: skip
    config = checked(config, where, trust)
    vae, condition, like = model_of(config, where)
    own = {name: params[name] for name in like} if isinstance(like, dict) else params
    shapes = [jax.tree.map(lambda a: a.shape, tree) for tree in (own, like)]
    if shapes[0] != shapes[1]:
        raise UserError("these weights are not of the model that the configuration names")
    meta = {"chosen": "as trained", "step": step, "file": ""}
    return Run(config, vae, own, condition, meta, {}, [*history])


def save(run: Run, path: str | os.PathLike[str]) -> None:
    """Writes a run directory that `load`, evaluate, plot and pack take for any other.

    Raises UserError where something is there already.
    """
    directory = Path(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        taken = next(directory.iterdir(), None)
    except OSError as error:
        raise UserError(f"{directory} cannot be written: {error.strerror}") from None
    if taken:
        raise UserError(f"{directory} is not empty ({taken.name}); give another")
    step = run.meta["step"]
    save_best(directory, run.params, {"step": step, "loss": None})
    for row in run.history or [{"step": step, "epoch": 0.0}]:
        append_metrics(directory, row)
    if run.summary:
        files.write_json(directory / "summary.json", run.summary)
    files.write_json(directory / "config.json", run.config)
