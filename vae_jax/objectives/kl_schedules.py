"""How the KL weight β is reached: from a final β to a function of the step.

None depends on the length of the training, so that a longer run starts as the shorter one did.
"""

import dataclasses

import jax.numpy as jnp
import optax

from vae_jax.settings import UserError, setting, validate
from vae_jax.types import Rate


def kl_linear(beta: Rate, warmup: int) -> optax.Schedule:
    """From 0 at step 0 to beta at step `warmup`, then beta (Bowman et al. 2016, §3.1)."""
    return optax.linear_schedule(0.0, beta, warmup)


def kl_cosine(beta: Rate, warmup: int) -> optax.Schedule:
    """As `kl_linear`, rising by half a cosine: flat at both ends."""
    fall = optax.cosine_decay_schedule(1.0, warmup)
    return lambda step: beta * (1 - fall(step))


def kl_cyclical(beta: Rate, warmup: int, cycles: int) -> optax.Schedule:
    """`cycles` times: a linear rise from 0 over `warmup` steps, then as many at beta; then beta.

    Fu et al. (2019), with half of each cycle spent rising, R = 0.5.
    """
    rise = optax.linear_schedule(0.0, beta, warmup)

    def schedule(step):
        return jnp.where(step < cycles * 2 * warmup, rise(step % (2 * warmup)), beta)

    return schedule


# Entries: build(beta) -> schedule; `ends`, the step from which on β stays as it is


class Constant:
    """β from the first step on."""

    ends = 0

    def build(self, beta: Rate) -> optax.Schedule:
        return optax.constant_schedule(beta)


@dataclasses.dataclass(frozen=True)
class Linear:
    """A linear rise."""

    kl_warmup: int = setting(
        0, "steps from 0 to beta, in each cycle; as many at beta follow", unit="steps", at_least=0
    )

    def __post_init__(self) -> None:
        validate(self)
        if not self.kl_warmup:
            name = type(self).__name__.lower()
            raise UserError(f"kl_schedule {name} needs kl_warmup ≥ 1; got {self.kl_warmup}")

    @property
    def ends(self) -> int:
        return self.kl_warmup

    def build(self, beta: Rate) -> optax.Schedule:
        return kl_linear(beta, self.kl_warmup)


class Cosine(Linear):
    """Half a cosine."""

    def build(self, beta: Rate) -> optax.Schedule:
        return kl_cosine(beta, self.kl_warmup)


@dataclasses.dataclass(frozen=True)
class Cyclical(Linear):
    """Several rises."""

    kl_cycles: int = setting(4, "cycles of the cyclical schedule; then beta stays", at_least=1)

    @property
    def ends(self) -> int:
        return 2 * self.kl_warmup * self.kl_cycles

    def build(self, beta: Rate) -> optax.Schedule:
        return kl_cyclical(beta, self.kl_warmup, self.kl_cycles)


KL_SCHEDULES = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "cyclical": Cyclical,
}
