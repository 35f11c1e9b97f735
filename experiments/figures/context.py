"""A run as its figures see it: what of it is drawn, and its data, read when first needed."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from vae_jax import evaluation, models, plots
from vae_jax.data.dataset import Dataset
from vae_jax.data.split import Split, select
from vae_jax.runs.run import Run
from vae_jax.settings import UserError
from vae_jax.types import Batch

SIDE = 10  # of the sheet of samples


@dataclasses.dataclass(frozen=True)
class Scene:
    """A run, and what of it is drawn.

    data: reads its data set. axes: which latents, counted from 0; () are the most active. digits:
    only test images of these labels; () is all. images: which of them; () are the first. at: a z.
    """

    run: Run
    data: Callable[[], Dataset]
    kind: Any = "quantile"
    n: int = 20
    high: float = 3.0
    axes: tuple[int, ...] = ()
    digits: tuple[str, ...] = ()
    images: tuple[int, ...] = ()
    seed: int = 0
    temperatures: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    at: tuple[float, ...] = ()

    @functools.cached_property
    def dataset(self) -> Dataset:
        return self.data()

    @functools.cached_property
    def split(self) -> Split:
        """The test set, or the digits of it that are asked for."""
        test = self.dataset.test
        if not self.digits:
            return test
        names = self.named(test.y)
        if not {*self.digits} <= {*map(str, names)}:
            known, got = ", ".join(map(str, np.unique(names))), ", ".join(self.digits)
            raise UserError(f"digits must be labels of the test set: {known}; got {got}")
        return select(test, np.flatnonzero(np.isin(names.astype(str), self.digits)))

    def named(self, y: np.ndarray) -> np.ndarray:
        """What the labels are called: numbers where all of them are."""
        names = np.asarray(self.run.classes)
        whole = all(name.removeprefix("-").isdecimal() for name in self.run.classes)
        return (names.astype(np.int64) if whole else names)[y] if len(y) else y

    @property
    def labels(self) -> np.ndarray:
        """Of the test set, by name."""
        return self.named(self.split.y)

    @functools.cached_property
    def test(self) -> Batch:
        key = jax.random.key(self.settings["data"]["data_seed"])
        return self.run.split(self.split.x, self.labels, key)

    @functools.cached_property
    def means(self) -> np.ndarray:
        """Posterior means of the test set."""
        return evaluation.posterior_means(self.run.vae, self.run.params, self.test)

    @property
    def settings(self) -> dict[str, Any]:
        return self.run.config["settings"]

    @property
    def latent_dim(self) -> int:
        """How many latents there are, where z is one vector; else 0."""
        return self.run.latent_dim or 0

    @functools.cached_property
    def layers(self) -> int:
        """How many arrays one z is made of; 0 where there are no latents."""
        shapes = self.run.condition.x_shape, self.run.condition.c_shape
        return sum(
            1 for leaf in jax.tree.leaves(models.latents(self.run.vae, *shapes)) if leaf.size
        )

    @property
    def key(self) -> Any:
        return jax.random.key(self.seed)

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

    def given_samples(self) -> np.ndarray:
        """What the 100 samples are given: ten of each label; ten of each of ten images' parts; one
        of each of a hundred, where there are no latents to differ in.
        """
        shape = self.run.condition.c_shape
        if self.settings["model"]["condition"] == "label":
            return np.repeat(np.eye(min(SIDE, *shape), *shape, dtype=np.float32), SIDE, axis=0)
        if self.free:
            return np.zeros((SIDE**2, 0))
        if not self.layers:
            return np.resize(self.some(SIDE**2).condition, (SIDE**2, *shape))
        return np.repeat(self.some(SIDE).condition[:SIDE], SIDE, axis=0)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Whole images of latents [n, latent_dim], the same given to each."""
        c = self.given(len(z))
        return pictures(self.run, self.run.decode(z, c), c)


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


def names(units: Iterable[Any]) -> tuple[str, ...]:
    """z₁, z₂, … of latents counted from 0."""
    digits = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    return tuple(f"z{str(unit + 1).translate(digits)}" for unit in units)
