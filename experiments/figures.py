"""The figures of a run, drawn from its model and its data.

Which of them a run has, and what draws each: FIGURES, at the foot.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.config import numbers
from vae_jax import draws, evaluation, plane_plots, plots
from vae_jax.data import Dataset
from vae_jax.runs import Run
from vae_jax.types import Batch, noun

GRID = 20  # tiles along one side of the manifold
SIDE = 10  # of the sheet of samples
NUM_RECONSTRUCTIONS = 32
NUM_ENCODINGS, NUM_DRAWS, NUM_MEANS = 5, 50, 2000
PLACE = (1.0, 2.0)  # z of the one that is decoded alone, as in oduerr/dl_tutorial
SWEEP = np.linspace(-2, 2, 20)  # z of the decoder in the plane


class Scene(NamedTuple):
    """A finished run and all that its figures need."""

    run: Run
    dataset: Dataset
    history: list[dict[str, Any]]
    test: Batch

    @property
    def settings(self) -> dict[str, Any]:
        return self.run.config["settings"]

    @property
    def latent_dim(self) -> int:
        return self.settings["model"]["latent_dim"]

    @property
    def grid(self) -> Any:
        return self.settings["run"]["manifold_grid"]

    @property
    def key(self) -> Any:
        return jax.random.key(self.settings["data"]["data_seed"])


def draw(run: Run, dataset: Dataset, history: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Draws every figure that a run of its kind has; returns their paths."""
    folder.mkdir(exist_ok=True)
    settings = run.config["settings"]["run"]
    key = jax.random.key(run.config["settings"]["data"]["data_seed"])
    scene = Scene(run, dataset, history, run.split(dataset.test.x, dataset.test.y, key))
    paths = []
    for name, (wanted, figure) in FIGURES.items():
        if wanted(scene):
            paths.append(folder / f"{name}.{settings['figure_format']}")
            plots.save(figure(scene), paths[-1])
    return paths


# Which runs ---------------------------------------------------------------------------------------


def images(s: Scene) -> bool:
    return len(s.run.x_shape) == 3


def plane(s: Scene) -> bool:
    return s.run.x_shape == (2,)


def has_latents(s: Scene) -> bool:
    return s.latent_dim > 0


def latent_plane(s: Scene) -> bool:
    """Images from two latents and nothing else."""
    return images(s) and s.latent_dim == 2 and s.run.condition.c_shape == (0,)


def gaussian_line(s: Scene) -> bool:
    """Points in the plane from one latent, each with a mean and two standard deviations."""
    model = s.settings["model"]
    gaussian = model["likelihood"] == "gaussian" and model["likelihood_scale"] != "optimal"
    return plane(s) and s.latent_dim == 1 and gaussian


def more(s: Scene) -> bool:
    return s.settings["run"]["figures"] == "all"


def decodes(s: Scene) -> bool:
    return bool(s.settings["run"]["decode_at"]) or (latent_plane(s) and more(s))


# What draws them ----------------------------------------------------------------------------------


def manifold(s: Scene) -> Figure:
    z = plots.manifold_latents(GRID, s.grid)
    return plots.manifold(np.asarray(s.run.decode(z)), s.grid)


def samples(s: Scene) -> Figure:
    c = given(s.run, s.test)
    return plots.samples(pictures(s.run, s.run.sample(s.key, len(c), c), c))


def reconstructions(s: Scene) -> Figure:
    x, c = (a[:NUM_RECONSTRUCTIONS] for a in s.test)
    originals, decoded = evaluation.unit_interval(x), s.run.reconstruct(x, c)
    return plots.reconstructions(pictures(s.run, originals, c), pictures(s.run, decoded, c))


def latents(s: Scene) -> Figure:
    return posterior_means(s, s.test, s.dataset.test.y)


def training_latents(s: Scene) -> Figure:
    """Of the training set, binarised once where it is anew at each use."""
    x, y, _ = s.dataset.train
    seed = s.settings["data"]["data_seed"]
    x = draws.draw_once(x, seed, "train") if s.dataset.binarisation == "dynamic" else x
    return posterior_means(s, s.run.split(x, y, s.key), y)


def posterior_means(s: Scene, batch: Batch, labels: np.ndarray) -> Figure:
    means = evaluation.posterior_means(s.run.vae, s.run.params, batch)
    units = most_active(means)
    names = tuple(f"z{_subscript(unit + 1)}" for unit in units)
    return plots.latents(means[:, units], labels, kind=s.grid, names=names)


def encodings(s: Scene) -> Figure:
    x = s.test.x[:NUM_ENCODINGS]
    q = s.run.encode(x)
    keys = jax.random.split(s.key, (len(x), NUM_DRAWS))
    z = jax.vmap(lambda q, keys: jax.vmap(q.sample)(keys))(q, keys)
    cloud = np.asarray(s.run.encode(s.test.x[:NUM_MEANS]).mean)
    back = np.asarray(s.run.reconstruct(x))
    return plots.encodings(evaluation.unit_interval(x), np.asarray(z), back, cloud, s.grid)


def decoded(s: Scene) -> Figure:
    z = numbers(s.settings["run"]["decode_at"]) or PLACE
    c = s.test.condition[:1]
    return plots.decoded(pictures(s.run, s.run.decode(z, c), c)[0], z)


def curves(s: Scene) -> Figure:
    return plots.curves(columns(s.history), noun(s.run.x_shape))


def data(s: Scene) -> Figure:
    return plane_plots.points(s.test.x)


def reconstructed(s: Scene) -> Figure:
    return plane_plots.reconstructed(s.test.x, np.asarray(s.run.reconstruct(s.test.x)))


def decoder(s: Scene) -> Figure:
    p = jax.vmap(lambda z: s.run.vae.likelihood(s.run.params, z, np.zeros(0)))(SWEEP[:, None])
    return plane_plots.decoder(s.test.x, SWEEP, np.asarray(p.mean), np.exp(p.log_scale))


# name -> (which runs have it, what draws it)
FIGURES: dict[str, tuple[Callable[[Scene], bool], Callable[[Scene], Figure]]] = {
    "manifold": (latent_plane, manifold),
    "samples": (images, samples),
    "reconstructions": (images, reconstructions),
    "latents": (has_latents, latents),
    "training_latents": (lambda s: has_latents(s) and more(s), training_latents),
    "encodings": (lambda s: latent_plane(s) and more(s), encodings),
    "decoded": (decodes, decoded),
    "data": (plane, data),
    "reconstructed": (plane, reconstructed),
    "decoder": (gaussian_line, decoder),
    "curves": (lambda s: True, curves),
}


# Parts --------------------------------------------------------------------------------------------


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
