"""A configuration made into what is trained: data, condition, model, objective."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.cli.config import Config, numbers
from vae_jax import data, evaluation, memory, models, objectives, training
from vae_jax.data import conditions
from vae_jax.data.batches import Rows, held_out, preparer, rows
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
        return [note for note in (self.dataset.fallback, misfit) if note]


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


def assemble(config: Config, dataset: data.Dataset | None = None) -> Job:
    """The job of a configuration; raises UserError where its parts do not go together.

    dataset: what config.data names, where it was read already.
    """
    dataset = data.load(config.data) if dataset is None else dataset
    domains.check(config.model.likelihood, dataset.train.x)
    condition = conditions.make(config.model.condition, dataset.x_shape, dataset.num_classes)
    x_mean, _ = condition.split(jax.random.key(0), dataset.x_mean, np.zeros((), np.int32))
    vae = models.build(config.model, condition.x_shape, condition.c_shape, x_mean)
    _check_size(vae)
    objective = objectives.build(
        config.objective, vae, condition.x_shape, len(dataset.train.x), condition.c_shape
    )
    evaluation.try_on_shapes(vae, condition.x_shape, condition.c_shape)
    _check_place(config, dataset)
    if config.training.early_stopping and not len(dataset.valid.x):
        raise UserError("early_stopping needs validation images: validation_size must be ≥ 1")
    training.length(config.training, len(dataset.train.x))  # a batch that cannot be filled
    return Job(config, dataset, condition, vae, objective)
