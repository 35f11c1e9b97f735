"""A configuration made into what is trained: data, condition, model, objective."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.cli.config import Config, numbers
from vae_jax import data, evaluation, memory, models, objectives, runs, training
from vae_jax.data import conditions
from vae_jax.data.batches import Rows, held_out, preparer, rows, unit_interval
from vae_jax.data.conditions import Condition
from vae_jax.data.split import Split
from vae_jax.models import domains
from vae_jax.models.vae import VAE
from vae_jax.objectives import Objective
from vae_jax.settings import UserError
from vae_jax.types import Batch


class Job(NamedTuple):
    """One training, ready to run; nothing has been computed or written yet."""

    config: Config
    dataset: data.Dataset
    condition: Condition
    vae: VAE
    objective: Objective
    fresh: tuple[str, ...] = ()  # the parts that do not start from start_from's weights

    @property
    def length(self) -> tuple[int, int]:
        """Steps in an epoch, and in all."""
        return training.length(self.config.training, len(self.dataset.train.x))

    @property
    def rows(self) -> Rows:
        return rows(self.dataset.train)

    @property
    def prepare(self) -> training.Prepare:
        return preparer(self.dataset.binarisation, self.condition)

    @property
    def weights(self) -> Callable[[Any], objectives.KLWeights]:
        """The KL weights of each step."""
        return objectives.kl_weights(self.config.objective)

    @property
    def limit(self) -> float | None:
        """Bytes of images that are kept on the device."""
        return self.config.run.device_limit * 2**30 or None

    def held_out(self, split: Split) -> Batch:
        """A split to evaluate on; what is given of each image depends on data_seed alone."""
        return held_out(self.condition, jax.random.key(self.config.data.data_seed), split)

    @property
    def notes(self) -> list[str]:
        """What one should know of this combination of data and model."""
        family, binarisation = self.config.model.likelihood, self.dataset.binarisation
        misfit = domains.misfit(family, self.dataset.train.x, binarisation)
        start = self.config.training.start_from
        from_seed = f"from the seed: {', '.join(self.fresh)}; the rest from {start}"
        return [n for n in (self.dataset.fallback, misfit, from_seed * bool(self.fresh)) if n]


def _check_place(config: Config, dataset: data.Dataset) -> None:
    """UserError where there is nothing to decode at the place that is to be drawn."""
    place, latent_dim = config.run.decode_at, config.model.latent_dim
    if place and not config.model.is_sized:
        raise UserError(f"decode_at is a z of latent_dim numbers; model {config.model.model} has "
                        "several layers of them")  # fmt: skip
    if place and (len(numbers(place)) != latent_dim or len(dataset.x_shape) != 3):
        rule = f"latent_dim = {latent_dim} numbers, and data of images"
        raise UserError(f"decode_at must have {rule}; got {place!r} for {dataset.name}")


def _check_size(vae: VAE) -> None:
    """UserError where the weights, and the two averages that Adam keeps of them, do not fit.

    Into the host's memory: wherever it trains, that is where a checkpoint gathers them.
    """
    count = sum(models.count_parameters(vae).values())
    if 3 * 4 * count > memory.memory_limit():
        raise UserError(
            f"latent_dim and widths make {count:,} parameters, more than can be trained in the "
            "memory that is free: give smaller ones"
        )


def _check_classes(config: Config, dataset: data.Dataset) -> None:
    """UserError where labels are no classes: another for nearly every image."""
    n, k = len(dataset.train.x), dataset.num_classes
    if config.model.condition == "label" and k > max(n // 2, 2):
        raise UserError(f"condition label needs labels that are classes; got {k:,} of {n:,} images")


def targets(dataset: data.Dataset, condition: Condition, count: int) -> np.ndarray:
    """Some of the training data's targets, spread evenly over them: float [count, *x]."""
    n = len(dataset.train.x)
    if count > n:
        raise UserError(f"only {n:,} training examples are there to start from; got {count:,}")
    some = data.select(dataset.train, np.arange(count) * n // count)
    return np.asarray(unit_interval(held_out(condition, jax.random.key(0), some).x))


def started(vae: VAE, config: Config) -> tuple[VAE, tuple[str, ...]]:
    """The VAE that starts with the weights of `start_from`, and which of its parts do not, as they
    are not there in the same shapes.
    """
    path = config.training.start_from
    trained = runs.load(path, trust=runs.modules_named(config.settings)).params
    like = _parts(jax.eval_shape(vae.init, jax.random.key(0)))
    shapes = functools.partial(jax.tree.map, jnp.shape)
    fits = {name: part for name, part in _parts(trained).items()
            if name in like and shapes(part) == shapes(like[name])}  # fmt: skip
    if not jax.tree.leaves(fits):
        raise UserError(f"start_from must be a run with parts of this model's shapes; got {path!r}")

    def init(key: Any) -> Any:
        params = vae.init(key)
        for (part, *within), kept in fits.items():
            params[part] = {**params[part], within[0]: kept} if within else kept
        return params

    return vae._replace(init=init), tuple(".".join(name) for name in like if name not in fits)


def _parts(params: Any) -> dict[tuple[str, ...], Any]:
    """The parts of a model by name; of a hierarchy's, what is of its upper and lower layer."""
    found = {}
    for name, part in params.items():
        layered = isinstance(part, dict) and part.keys() and part.keys() <= {"upper", "lower"}
        found |= {(name, layer): p for layer, p in part.items()} if layered else {(name,): part}
    return found


def assemble(config: Config, dataset: data.Dataset | None = None) -> Job:
    """The job of a configuration; raises UserError where its parts do not go together.

    dataset: what config.data names, where it was read already.
    """
    dataset = data.load(config.data) if dataset is None else dataset
    domains.check(config.model.likelihood, dataset.train.x)
    _check_classes(config, dataset)
    condition = conditions.make(config.model.condition, dataset.x_shape, dataset.num_classes)
    x_mean, _ = condition.split(jax.random.key(0), dataset.x_mean, np.zeros((), np.int32))
    examples = functools.partial(targets, dataset, condition)
    vae = models.build(config.model, condition.x_shape, condition.c_shape, x_mean, examples)
    _check_size(vae)
    vae, fresh = started(vae, config) if config.training.start_from else (vae, ())
    objective = objectives.build(
        config.objective, vae, condition.x_shape, len(dataset.train.x), condition.c_shape
    )
    evaluation.try_on_shapes(vae, condition.x_shape, condition.c_shape)
    _check_place(config, dataset)
    if config.training.early_stopping and not len(dataset.valid.x):
        raise UserError("early_stopping needs validation images: validation_size must be ≥ 1")
    training.length(config.training, len(dataset.train.x))  # a batch that cannot be filled
    return Job(config, dataset, condition, vae, objective, fresh)
