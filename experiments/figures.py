"""The figures of a run, drawn from its model and its data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vae_jax import evaluation, plots
from vae_jax.data import Dataset
from vae_jax.runs import Run
from vae_jax.types import unconditional

GRID = 20  # tiles along one side of the manifold
NUM_SAMPLES = 100
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
    test = dataset.test.x[:NUM_RECONSTRUCTIONS]
    if latent_dim == 2:
        z = plots.manifold_latents(GRID, grid)
        yield "manifold", plots.manifold(np.asarray(run.decode(z)), grid)
    yield "samples", plots.samples(np.asarray(run.sample(key, NUM_SAMPLES)))
    images = np.asarray(evaluation.unit_interval(test))
    yield "reconstructions", plots.reconstructions(images, np.asarray(run.reconstruct(test)))
    if latent_dim > 0:
        means = evaluation.posterior_means(run.vae, run.params, unconditional(dataset.test.x))
        units = most_active(means)
        names = tuple(f"z{_subscript(unit + 1)}" for unit in units)
        yield "latents", plots.latents(means[:, units], dataset.test.y, kind=grid, names=names)
    yield "curves", plots.curves(columns(history))


def most_active(means: np.ndarray) -> list[int]:
    """The two latents (or the one) whose posterior means vary most, in their own order."""
    return sorted(np.argsort(np.var(means, axis=0))[::-1][:2].tolist())


def columns(history: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Rows of metrics.jsonl as one array for each name."""
    return {name: np.asarray([row[name] for row in history]) for name in history[0]}


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
