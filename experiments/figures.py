"""The figures of a run: what it draws itself, and what `experiments.plot` draws on request."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from vae_jax import evaluation, latent_space, plots
from vae_jax.data import Dataset
from vae_jax.formats import select
from vae_jax.runs import Run
from vae_jax.settings import UserError
from vae_jax.types import Batch

NUM_RECONSTRUCTIONS = 32
STEPS = 11  # of an interpolation or a traversal
DRAWS = 10  # in a row


@dataclasses.dataclass(frozen=True)
class View:
    """A run, and what of it is drawn.

    dataset: reads its data, when a figure first needs them. axes: which latents, counted from 0; ()
    are the most active. digits: only test images of these labels; () is all. images: which of them;
    () are the first.
    """

    run: Run
    dataset: Callable[[], Dataset]
    kind: Any = "quantile"
    n: int = 20
    high: float = 3.0
    axes: tuple[int, ...] = ()
    digits: tuple[int, ...] = ()
    images: tuple[int, ...] = ()
    seed: int = 0
    temperatures: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)

    @functools.cached_property
    def split(self) -> Any:
        test = self.dataset().test
        if self.digits and not np.isin(self.digits, test.y).all():
            raise UserError(f"digits must be labels of the test set; got {self.digits}")
        return select(test, np.flatnonzero(np.isin(test.y, self.digits))) if self.digits else test

    @functools.cached_property
    def test(self) -> Batch:
        key = jax.random.key(self.run.config["settings"]["data"]["data_seed"])
        return self.run.split(self.split.x, self.split.y, key)

    @functools.cached_property
    def means(self) -> np.ndarray:
        return evaluation.posterior_means(self.run.vae, self.run.params, self.test)

    @property
    def key(self) -> Any:
        return jax.random.key(self.seed)

    @property
    def latent_dim(self) -> int:
        return self.run.config["settings"]["model"]["latent_dim"]

    @property
    def free(self) -> bool:
        """Whether nothing is given."""
        return self.run.condition.c_shape == (0,)

    def units(self, count: int) -> list[int]:
        """The latents to draw: those asked for, or the `count` whose means vary most."""
        if self.axes:
            return [*self.axes[:count]]
        if self.latent_dim <= count:
            return [*range(self.latent_dim)]
        return sorted(np.argsort(np.var(self.means, axis=0))[::-1][:count].tolist())

    def some(self, count: int) -> Batch:
        """The chosen test images, or the first so many."""
        index = np.array(self.images or range(min(count, len(self.test.x))))
        if index.max() >= len(self.test.x):
            raise UserError(f"images must be below {len(self.test.x)}; got {index.max()}")
        return Batch(self.test.x[index], self.test.condition[index])

    def given(self, count: int) -> np.ndarray:
        """What is given of one test image, `count` times."""
        c = np.zeros((1, 0)) if self.free else self.some(1).condition[:1]
        return np.repeat(c, count, axis=0)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Whole images of latents [n, latent_dim], the same given to each."""
        c = self.given(len(z))
        return pictures(self.run, self.run.decode(z, c), c)


def manifold(view: View, note: str = "") -> Figure:
    plane = plots.manifold_latents(view.n, view.kind, view.high)
    units = view.units(2)
    z = np.zeros((len(plane), view.latent_dim))
    z[:, units] = plane
    images, how = view.decode(z), {"high": view.high, "names": names(units)}
    return plots.manifold(images, view.kind, note=note, **how)


def samples(view: View) -> Figure:
    c = given(view)
    return plots.samples(pictures(view.run, view.run.sample(view.key, len(c), c), c))


def reconstructions(view: View) -> Figure:
    x, c = view.some(NUM_RECONSTRUCTIONS)
    originals, decoded = evaluation.unit_interval(x), view.run.reconstruct(x, c)
    return plots.reconstructions(pictures(view.run, originals, c), pictures(view.run, decoded, c))


def latents(view: View) -> Figure:
    units = view.units(2)
    how: dict[str, Any] = {"kind": view.kind, "high": view.high, "names": names(units)}
    return plots.latents(view.means[:, units], view.split.y, **how)


def curves(view: View) -> Figure:
    return plots.curves(columns(view.run.history))


def interpolation(view: View) -> Figure:
    """Between the posterior means of two images, straight and along the sphere."""
    x, c = view.some(2)
    if len(x) != 2:
        raise UserError(f"interpolation is between two images; got {len(x)}")
    ends = np.asarray(view.run.encode(x, c).mean)
    ways: dict[str, Any] = {"linear": latent_space.linear, "spherical": latent_space.spherical}
    ticks = [f"{t:g}" for t in np.linspace(0, 1, STEPS)]
    rows = {name: view.decode(way(*ends, STEPS)) for name, way in ways.items()}
    return plots.rows(rows, ticks, "share of the way from the first image to the second")


def traversals(view: View) -> Figure:
    """Each active unit (or each of `axes`), the others where an image is, or at 0."""
    active = view.axes or np.flatnonzero(evaluation.active_units(view.means)).tolist()
    units = active or view.units(2)  # where none is active, those that come nearest to it
    z = np.zeros(view.latent_dim)
    if view.images:
        z = np.asarray(view.run.encode(*view.some(1)).mean)[0]
    values = np.linspace(-view.high, view.high, STEPS)
    ticks = [f"{value:g}".replace("-", "−") for value in values]
    paths = [view.decode(latent_space.traversal(z, unit, values)) for unit in units]
    return plots.rows(dict(zip(names(units), paths, strict=True)), ticks, "z of that unit")


def temperatures(view: View) -> Figure:
    """The same draws from the prior, nearer to its mean and further away."""
    c = view.given(DRAWS)
    drawn = {
        f"T = {t:g}": pictures(view.run, view.run.sample(view.key, DRAWS, c, t), c)
        for t in view.temperatures
    }
    return plots.rows(drawn)


def posterior(view: View) -> Figure:
    """q(z|x) of a chosen image, or of the one whose neighbours' labels disagree most."""
    if not view.images and not len(view.split.y):
        raise UserError("posterior looks for an ambiguous image by its labels; give --images=N")
    doubt = latent_space.disagreement(view.means, view.split.y) if not view.images else ()
    at = view.images[0] if view.images else int(np.argmax(doubt))
    x, c = dataclasses.replace(view, images=(at,)).some(1)
    q, units = view.run.encode(x, c), view.units(2)
    keys = jax.random.split(view.key, DRAWS)
    z = jax.vmap(lambda key: jax.tree.map(lambda leaf: leaf[0], q).sample(key))(keys)
    c = np.repeat(c, DRAWS, axis=0)
    shown = {
        f"test image {at}": pictures(view.run, evaluation.unit_interval(x), c[:1]),
        "decoded draws from its q(z|x)": pictures(view.run, view.run.decode(z, c), c),
    }
    covariance = np.asarray(jax.vmap(lambda q: q.covariance)(q)[0])[np.ix_(units, units)]
    mean = np.asarray(q.mean)[0, units]
    how: dict[str, Any] = {"kind": view.kind, "high": view.high, "names": names(units)}
    return plots.posterior(view.means[:, units], view.split.y, mean, covariance, shown, **how)


# name -> (function of a view, how many latents it needs)
FIGURES: dict[str, tuple[Callable[[View], Figure], int]] = {
    "manifold": (manifold, 2),
    "samples": (samples, 0),
    "reconstructions": (reconstructions, 0),
    "latents": (latents, 1),
    "curves": (curves, 0),
    "interpolation": (interpolation, 1),
    "traversals": (traversals, 1),
    "temperatures": (temperatures, 1),
    "posterior": (posterior, 2),
}
DRAWN = ("manifold", "samples", "reconstructions", "latents", "curves")  # by a run itself


def draw(run: Run, dataset: Dataset, folder: Path) -> list[Path]:
    """Draws every figure of a run that its latents allow; returns their paths."""
    folder.mkdir(exist_ok=True)
    settings = run.config["settings"]
    seed = settings["data"]["data_seed"]
    view = View(run, lambda: dataset, settings["run"]["manifold_grid"], seed=seed)
    paths = []
    for name in DRAWN:
        function, needed = FIGURES[name]
        whole = name != "manifold" or (view.latent_dim == 2 and view.free)  # not one plane of many
        if view.latent_dim >= needed and whole:
            paths.append(folder / f"{name}.{settings['run']['figure_format']}")
            plots.save(function(view), paths[-1])
    return paths


def given(view: View) -> np.ndarray:
    """What the 100 samples are given: ten of each label; ten of each of ten images' parts; one of
    each of a hundred, where there are no latents to differ in.
    """
    side, shape = DRAWS, view.run.condition.c_shape
    if view.run.config["settings"]["model"]["condition"] == "label":
        return np.repeat(np.eye(min(side, *shape), *shape, dtype=np.float32), side, axis=0)
    if view.free:
        return np.zeros((side**2, 0))
    if not view.latent_dim:
        return np.resize(view.some(side**2).condition, (side**2, *shape))
    return np.repeat(view.some(side).condition[:side], side, axis=0)


def pictures(run: Run, x: Any, c: Any) -> np.ndarray:
    """Whole images of targets and what is given, the given pixels coloured."""
    images = np.asarray(run.merge(x, c))
    told = np.asarray(jax.vmap(run.condition.given)(np.asarray(c)))
    return plots.coloured(images, told) if told.any() else images


def columns(history: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Rows of metrics.jsonl as one array for each name."""
    if not history:
        raise UserError("curves need metrics; the run has none")
    return {name: np.asarray([row.get(name, np.nan) for row in history]) for name in history[0]}


def names(units: list[int] | tuple[int, ...]) -> tuple[str, ...]:
    """z₁, z₂, … of latents counted from 0."""
    digits = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    return tuple(f"z{str(unit + 1).translate(digits)}" for unit in units)
