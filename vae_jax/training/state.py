"""The state of a training, where it starts, and the optimiser that changes it."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from vae_jax.models.vae import VAE
from vae_jax.objectives import init_params, without_parameters
from vae_jax.settings import UserError, build, choice, chosen, setting, validate, with_entries
from vae_jax.training.optimisers import OPTIMISERS
from vae_jax.training.schedules import LEARNING_RATES
from vae_jax.types import Key, Params


@dataclasses.dataclass(frozen=True)
@with_entries
class TrainConfig:
    """How the objective is minimised."""

    batch_size: int = setting(128, "images per step", at_least=1)
    epochs: int = setting(30, "passes over the training images", at_least=1)
    steps: int = setting(0, "training steps; 0 leaves it to epochs", unit="steps", at_least=0)
    optimiser: str = choice(
        "adam",
        OPTIMISERS,
        "as in optax; adam_hat: as in Caffe and TensorFlow 1; adam_norm_grad: the same, of each "
        "array's gradient over its norm",
    )
    learning_rate: float = setting(1e-3, "peak learning rate", above=0, at_most=1e3)
    l2: float = setting(
        0.0, "this times the weights, not the biases, is added to the gradient", at_least=0
    )
    schedule: str = setting(
        "constant",
        "learning rate after the warm-up; iwae: Burda et al.'s eight stages",
        choices=LEARNING_RATES,
    )
    warmup: int = setting(0, "linear rise of the learning rate from 0", unit="steps", at_least=0)
    ema: float = setting(
        0.0,
        "decay of the weights' moving average, then used to evaluate; 0 is off",
        at_least=0,
        below=1,
    )
    clip: float = setting(0.0, "largest global norm of the gradient; 0 is off", at_least=0)
    skip: float = setting(
        0.0, "a step whose gradient has a larger global norm is left out; 0 is off", at_least=0
    )
    early_stopping: int = setting(
        0, "end after so many evaluations in a row without a better validation loss, counted from "
        "the end of the KL warm-up on; 0 is off", unit="evaluations", at_least=0,
    )  # fmt: skip
    seed: int = setting(
        0, "seed of initial weights, order of images and noise", at_least=0, below=2**32
    )

    start_from: str = setting(
        "", "a run directory or pack whose weights training starts from, in the parts that have "
        "the same shapes; empty: from the seed",
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)
        chosen(self, "optimiser")


class TrainState(NamedTuple):
    """Everything that a step changes, as arrays. params: the model's, and the objective's where it
    has some (see `Objective`). `ema` is () when no average is kept.
    """

    params: Params
    opt_state: Any
    step: Int[Array, ""]
    ema: Params

    @property
    def averaged(self) -> Params:
        """The weights to evaluate: their moving average where one is kept."""
        return self.params if self.ema == () else self.ema


class Keys(NamedTuple):
    """The streams of randomness of one training, from one seed."""

    init: Key
    order: Key
    steps: Key


def keys_from_seed(seed: int) -> Keys:
    return Keys(*jax.random.split(jax.random.key(seed), 3))


def make_optimiser(
    config: TrainConfig, total_steps: int, learning_rate: Any = None
) -> optax.GradientTransformation:
    """learning_rate: in place of the configuration's; may be traced."""
    peak = config.learning_rate if learning_rate is None else learning_rate
    rate = LEARNING_RATES[config.schedule](peak, config.warmup, total_steps)
    optimiser = build(chosen(config, "optimiser"), rate)
    clip = optax.clip_by_global_norm(config.clip)
    l2 = optax.add_decayed_weights(config.l2, is_weight)
    before = [clip] * bool(config.clip) + [l2] * bool(config.l2)
    optimiser = optax.chain(*before, optimiser) if before else optimiser
    return skipping(optimiser, config.skip) if config.skip else optimiser


def skipping(optimiser: optax.GradientTransformation, norm: float) -> optax.GradientTransformation:
    """The same, without the steps whose gradient has a larger global norm (Child 2021): weights
    and averages stay as they were.
    """
    large: Any = functools.partial(optax.skip_large_updates, max_squared_norm=norm**2)
    several = optax.MultiSteps(optimiser, 1, should_skip_update_fn=large)
    return several.gradient_transformation()


def is_weight(params: Params) -> Any:
    """Which arrays multiply something that flows through a network: kernels, not biases."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1] == jax.tree_util.DictKey("kernel"), params
    )


def init_state(
    vae: VAE,
    objective: Any,
    optimiser: optax.GradientTransformation,
    key: Key,
    ema: float = 0.0,
) -> TrainState:
    # One program; op by op, Linen would also run the network.
    params = jax.jit(lambda key: init_params(vae, without_parameters(objective), key))(key)
    step = jnp.zeros((), jnp.int32)
    # A copy: the compiled run is given the state's memory and may not be given one array twice.
    average = jax.tree.map(jnp.copy, params) if ema else ()
    return TrainState(params, optimiser.init(params), step, average)


def initial_state(
    vae: VAE,
    objective: Any,
    config: TrainConfig,
    num_images: int,
    optimiser: optax.GradientTransformation | None = None,
) -> TrainState:
    """Where the training of a configuration starts; with an optimiser of one's own, or its."""
    optimiser = optimiser or make_optimiser(config, length(config, num_images)[1])
    return init_state(vae, objective, optimiser, keys_from_seed(config.seed).init, config.ema)


def length(config: TrainConfig, num_images: int) -> tuple[int, int]:
    """Steps in an epoch, and in all.

    Raises UserError where not even one batch can be filled, and where int32 cannot count the steps.
    """
    if config.batch_size > num_images:
        raise UserError(
            f"batch_size must be at most the number of training images, {num_images}; "
            f"got {config.batch_size}"
        )
    per_epoch = num_images // config.batch_size
    total = config.steps or config.epochs * per_epoch
    if total >= 2**31:
        raise UserError(f"epochs must make fewer than 2³¹ steps, {per_epoch:,} each; got {total:,}")
    return per_epoch, total
