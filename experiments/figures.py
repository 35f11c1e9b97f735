"""The figures of a run, drawn from its model and its data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vae_jax import evaluation, plots
from vae_jax.data import Dataset
from vae_jax.runs import Run
from vae_jax.types import Batch

GRID = 20  # tiles along one side of the manifold
SIDE = 10  # of the sheet of samples
NUM_RECONSTRUCTIONS = 32


def draw(run: Run, dataset: Dataset, history: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Draws every figure that the run's latent dimension allows; returns their paths."""
    folder.mkdir(exist_ok=True)
    settings = run.config["settings"]["run"]
    paths = []
    for name, figure in figures(run, dataset, history, settings["manifold_grid"]):
        paths.append(folder / f"{name}.{settings['figure_format']}")
        plots.save(figure, paths[-1])
    return paths


def figures(
    run: Run, dataset: Dataset, history: list[dict[str, Any]], grid: Any
) -> Iterator[tuple[str, Any]]:
    """Pairs of a name and a matplotlib figure."""
    latent_dim = run.config["settings"]["model"]["latent_dim"]
    key = jax.random.key(run.config["settings"]["data"]["data_seed"])
    test = run.split(dataset.test.x, dataset.test.y, key)
    if latent_dim == 2 and run.condition.c_shape == (0,):
        z = plots.manifold_latents(GRID, grid)
        yield "manifold", plots.manifold(np.asarray(run.decode(z)), grid)
    c = given(run, test)
    yield "samples", plots.samples(pictures(run, run.sample(key, len(c), c), c))
    x, c = (a[:NUM_RECONSTRUCTIONS] for a in test)
    originals, decoded = evaluation.unit_interval(x), run.reconstruct(x, c)
    pair = pictures(run, originals, c), pictures(run, decoded, c)
    yield "reconstructions", plots.reconstructions(*pair)
    if latent_dim > 0:
        means = evaluation.posterior_means(run.vae, run.params, test)
        units = most_active(means)
        names = tuple(f"z{_subscript(unit + 1)}" for unit in units)
        yield "latents", plots.latents(means[:, units], dataset.test.y, kind=grid, names=names)
    yield "curves", plots.curves(columns(history))


def given(run: Run, test: Batch) -> np.ndarray:
    """What the 100 samples are given: ten of each label; ten of each of ten images' parts; one of
    each of a hundred, where there are no latents to differ in.
    """
    model = run.config["settings"]["model"]
    if model["condition"] == "label":
        (classes,) = run.condition.c_shape
        return np.repeat(np.eye(classes, dtype=np.float32)[:SIDE], SIDE, axis=0)
    if model["condition"] == "none" or not model["latent_dim"]:
        return np.resize(test.condition, (SIDE**2, *run.condition.c_shape))
    return np.repeat(test.condition[:SIDE], SIDE, axis=0)


def pictures(run: Run, x: Any, c: Any) -> np.ndarray:
    """Whole images of targets and what is given, the given pixels coloured."""
    images = np.asarray(run.merge(x, c))
    told = np.asarray(jax.vmap(run.condition.given)(np.asarray(c)))
    return plots.coloured(images, told) if told.any() else images


def most_active(means: np.ndarray) -> list[int]:
    """The two latents (or the one) whose posterior means vary most, in their own order."""
    return sorted(np.argsort(np.var(means, axis=0))[::-1][:2].tolist())


def columns(history: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Rows of metrics.jsonl as one array for each name."""
    return {name: np.asarray([row[name] for row in history]) for name in history[0]}


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
