"""Objectives: from a VAE and a batch to a loss in nats per image.

    objective(vae, params, key, batch, weights) -> (loss, metrics)

`loss` is what is minimised; `metrics` always holds the true `elbo`, `rate` and `distortion` of the
batch (pixels and latents summed, images averaged), whatever was optimised. `weights` are the KL
weights at this step. Any function of this form trains: the registry only gives names to some.

Bounds on log p(x) are in `bounds`; here are the objectives that see the batch as a whole, and the
names and settings of all.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vae_jax.models.vae import VAE
from vae_jax.objectives.bounds import elbo, importance_weighted, score_function
from vae_jax.objectives.kl_schedules import KL_SCHEDULES
from vae_jax.objectives.regularised import beta_tc, dip, info
from vae_jax.objectives.terms import Objective, Weights
from vae_jax.settings import UserError, setting, validate
from vae_jax.types import Batch, Shape

# Names and settings

# name -> function of the settings s and of the number n of training examples
OBJECTIVES = {
    "elbo": lambda s, n: partial(
        elbo,
        num_samples=s.num_samples,
        closed_form=s.kl_estimate == "closed_form",
        groups=s.free_bits_groups if s.free_bits else 1,
    ),
    "iwae": lambda s, n: partial(importance_weighted, num_samples=s.num_samples),
    "miwae": lambda s, n: partial(
        importance_weighted, num_samples=s.num_samples, num_groups=s.num_groups
    ),
    "ciwae": lambda s, n: partial(importance_weighted, num_samples=s.num_samples, mix=s.mix),
    "dreg": lambda s, n: partial(importance_weighted, num_samples=s.num_samples, doubly=True),
    "stl": lambda s, n: partial(importance_weighted, num_samples=1, doubly=True),
    "score_function": lambda s, n: partial(score_function, num_samples=s.num_samples),
    "beta_tc": lambda s, n: partial(
        beta_tc, num_examples=n, stratified=s.tc_estimator == "stratified"
    ),
    "dip_i": lambda s, n: partial(dip, off_diagonal=s.dip_lambda, diagonal=10 * s.dip_lambda),
    "dip_ii": lambda s, n: partial(
        dip, off_diagonal=s.dip_lambda, diagonal=s.dip_lambda, within=True
    ),
    "info": lambda s, n: partial(info, strength=s.info_lambda),
}

# the settings that only some objectives read, and which do
_READERS = {
    "num_samples": ("elbo", "iwae", "miwae", "ciwae", "dreg", "score_function"),
    "kl_estimate": ("elbo",),
    "capacity": ("elbo",),
    "free_bits": ("elbo",),
    "num_groups": ("miwae",),
    "mix": ("ciwae",),
    "tc_estimator": ("beta_tc",),
    "dip_lambda": ("dip_i", "dip_ii"),
    "info_lambda": ("info",),
}


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised."""

    objective: str = setting("elbo", "the objective", choices=OBJECTIVES)
    beta: float = setting(1.0, "weight of the rate; 1 gives the ELBO", at_least=0)
    kl_schedule: str = setting(
        "constant", "how beta is reached; cyclical: from 0, again and again", choices=KL_SCHEDULES
    )
    kl_warmup: int = setting(
        0, "steps from 0 to beta, in each cycle; as many at beta follow", unit="steps", at_least=0
    )
    kl_cycles: int = setting(4, "cycles of the cyclical schedule; then beta stays", at_least=1)
    capacity: float = setting(
        0.0, "the rate aimed at, beta·|rate − capacity|; 0 is off", unit="nats", at_least=0
    )
    capacity_steps: int = setting(0, "linear rise of the capacity from 0", unit="steps", at_least=0)
    free_bits: float = setting(
        0.0, "rate that each group of latents has for nothing; 0 is off", unit="nats", at_least=0
    )
    free_bits_groups: int = setting(
        0, "groups of neighbouring latents for free_bits; 0: each latent is one", at_least=0
    )
    num_samples: int = setting(1, "samples of z for each image", unit="samples", at_least=1)
    num_groups: int = setting(1, "groups of samples, of miwae", at_least=1)
    mix: float = setting(0.05, "weight of the ELBO in ciwae", at_least=0, at_most=1)
    kl_estimate: str = setting(
        "closed_form",
        "the rate of elbo: closed_form where there is one, or sampled",
        choices=("closed_form", "sampled"),
    )
    tc_estimator: str = setting(
        "weighted",
        "how beta_tc sees q(z) in a batch: minibatch-weighted or -stratified",
        choices=("weighted", "stratified"),
    )
    dip_lambda: float = setting(
        10.0, "weight of covariances; that of the variances is 10 times it (dip_i) or the same",
        at_least=0,
    )  # fmt: skip
    info_lambda: float = setting(1000.0, "λ of info: beta + the weight of the MMD²", at_least=0)

    def __post_init__(self) -> None:
        validate(self)
        for fault in _faults(self):
            raise UserError(fault)


def _faults(s: ObjectiveConfig) -> Iterator[str]:
    """What does not go together, one line each."""
    name = s.objective
    if name == "stl" and s.num_samples > 1:
        yield (
            f"stl takes num_samples 1, because its gradient is biased for several; got "
            f"{s.num_samples}: dreg is unbiased"
        )
    for option, readers in _READERS.items():
        default = type(s).__dataclass_fields__[option].default
        if name not in readers and getattr(s, option) != default:
            yield f"{option} does nothing for objective {name}, only for {', '.join(readers)}"
    if s.num_samples % s.num_groups:
        yield f"num_groups must divide num_samples, {s.num_samples}; got {s.num_groups}"
    if name == "score_function" and s.num_samples < 2:
        yield (
            "score_function needs num_samples ≥ 2, because its baseline is the other samples' "
            f"mean; got {s.num_samples}"
        )
    if name == "info" and s.info_lambda < s.beta:
        yield f"info_lambda must be ≥ beta, {s.beta:g}; got {s.info_lambda:g}"
    if (s.kl_schedule == "constant") != (s.kl_warmup == 0):
        yield (
            f"kl_schedule {s.kl_schedule} goes with kl_warmup "
            f"{'0' if s.kl_schedule == 'constant' else '≥ 1'}; got {s.kl_warmup}"
        )
    if s.capacity_steps and not s.capacity:
        yield f"capacity_steps needs capacity > 0; got {s.capacity:g}"
    if s.free_bits_groups and not s.free_bits:
        yield f"free_bits_groups needs free_bits > 0; got {s.free_bits:g}"
    if s.free_bits and s.free_bits_groups != 1 and s.kl_estimate == "sampled":
        yield "kl_estimate sampled knows no rates of single latents: free_bits needs closed_form"
    if s.capacity and s.free_bits:
        yield "capacity and free_bits both bound the rate: give one of them"


def kl_weights(config: ObjectiveConfig, beta: Any = None) -> Callable[[Any], Weights]:
    """step -> the KL weights at that step. beta: in place of the configuration's; may be traced."""
    final = config.beta if beta is None else beta
    rise = KL_SCHEDULES[config.kl_schedule](final, config.kl_warmup, config.kl_cycles)
    capacity: Callable[[Any], Any] = optax.constant_schedule(config.capacity)
    if config.capacity_steps:
        capacity = optax.linear_schedule(0.0, config.capacity, config.capacity_steps)
    return lambda step: Weights(rise(step), capacity(step), config.free_bits)


def build(
    config: ObjectiveConfig, vae: VAE, x_shape: Shape, num_examples: int, c_shape: Shape = (0,)
) -> Objective:
    """The objective that a configuration names, tried on shapes alone: whatever does not go with
    this VAE is a UserError now. num_examples: the size of the training set.
    """
    objective = OBJECTIVES[config.objective](config, num_examples)
    key, step = jax.random.key(0), jnp.zeros((), jnp.int32)
    batch = Batch(jax.ShapeDtypeStruct((2, *x_shape), jnp.float32),
                  jax.ShapeDtypeStruct((2, *c_shape), jnp.float32))  # fmt: skip
    params = jax.eval_shape(vae.init, key)
    weights = kl_weights(config)
    jax.eval_shape(
        lambda params, batch: objective(vae, params, key, batch, weights(step)), params, batch
    )
    return objective
