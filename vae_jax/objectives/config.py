"""The objective that settings name, and the KL weights of each step."""

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from vae_jax import settings
from vae_jax.models.vae import VAE
from vae_jax.objectives.entries import OBJECTIVES
from vae_jax.objectives.kl_schedules import KL_SCHEDULES
from vae_jax.objectives.terms import Facts, KLWeights, Objective, without_parameters
from vae_jax.settings import UserError, choice, chosen, setting, validate, with_entries
from vae_jax.types import Batch, Params, Shape


@dataclasses.dataclass(frozen=True)
@with_entries
class ObjectiveConfig:
    """What is minimised."""

    objective: str = choice("elbo", OBJECTIVES, "the objective")
    beta: float = setting(1.0, "weight of the rate; 1 gives the ELBO", at_least=0)
    kl_schedule: str = choice(
        "constant", KL_SCHEDULES, "how beta is reached; cyclical: several rises from 0"
    )

    if TYPE_CHECKING:  # some of what the entries bring
        num_samples: int = 1
        capacity: float = 0.0
        capacity_steps: int = 0
        free_bits: float = 0.0
        info_lambda: float = 1000.0

    def __post_init__(self) -> None:
        validate(self)
        chosen(self, "objective")  # the entries check what goes together
        chosen(self, "kl_schedule")
        if self.objective == "info" and self.info_lambda < self.beta:
            raise UserError(f"info_lambda must be ≥ beta, {self.beta:g}; got {self.info_lambda:g}")


def kl_weights(config: ObjectiveConfig, beta: Any = None) -> Callable[[Any], KLWeights]:
    """step -> the KL weights at that step. beta: in place of the configuration's; may be traced."""
    rise = chosen(config, "kl_schedule")
    rise = settings.build(rise, config.beta if beta is None else beta)
    capacity: Callable[[Any], Any] = optax.constant_schedule(config.capacity)
    if config.capacity_steps:
        capacity = optax.linear_schedule(0.0, config.capacity, config.capacity_steps)
    return lambda step: KLWeights(rise(step), capacity(step), config.free_bits)


def warmup_ends(config: ObjectiveConfig) -> int:
    """The step from which on the KL weights stay as they are."""
    return max(getattr(chosen(config, "kl_schedule"), "ends", 0), config.capacity_steps)


def init_params(vae: VAE, objective: Objective, key: Any) -> Params:
    """The model's parameters and, as "objective", the objective's where it has some."""
    params, own = vae.init(key), objective.init(jax.random.fold_in(key, 1))
    if not jax.tree.leaves(own):
        return params
    if not isinstance(params, dict):
        kind = type(params).__name__
        raise UserError(f"beside an objective's, a model's parameters must be a dict; got {kind}")
    return params | {"objective": own}


def build(
    config: ObjectiveConfig, vae: VAE, x_shape: Shape, num_examples: int, c_shape: Shape = (0,)
) -> Objective:
    """The objective that a configuration names, tried on shapes alone: whatever does not go with
    this VAE is a UserError now. num_examples: the size of the training set.
    """
    key, step = jax.random.key(0), jnp.zeros((), jnp.int32)
    x, c = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x_shape, c_shape))
    draw = jax.eval_shape(vae.draw, jax.eval_shape(vae.init, key), key, x, c)
    latents = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(draw.z))
    objective = settings.build(chosen(config, "objective"), Facts(num_examples, latents))
    objective = without_parameters(objective)
    batch = Batch(*(jax.ShapeDtypeStruct((2, *a.shape), a.dtype) for a in (x, c)))
    params = jax.eval_shape(lambda key: init_params(vae, objective, key), key)
    weights = kl_weights(config)
    jax.eval_shape(
        lambda params, batch: objective(vae, params, key, batch, weights(step)), params, batch
    )
    return objective
