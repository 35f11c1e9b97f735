"""Bounds on the log-scales that encoders and learned priors give.

A net may say any number, and exp of it is a scale: one step too far, and the rate is infinite.
Within its range a bound is the identity, to the last bit, and changes no training that goes well:

    clip    log σ ↦ min(max(log σ, a), b), whose gradient beyond is 0 (as in Tomczak & Welling 2018)
    soft    beyond by t, log σ ↦ b + t/(1 + t): at most 1 more, with a gradient that leads back
    none    as it is, as in most of the literature
"""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp

from vae_jax.settings import setting, validate
from vae_jax.types import Array

BOUNDS = ("soft", "clip", "none")
RANGE = "-10,10"


def bounded(kind: str, low: float = -10.0, high: float = 10.0) -> Callable[[Array], Array]:
    """The function of log σ that keeps it in the range; see the module's docstring."""

    def soft(x: Array) -> Array:
        above, below = jnp.maximum(x - high, 0), jnp.maximum(low - x, 0)
        return jnp.clip(x, low, high) + above / (1 + above) - below / (1 + below)

    return {"soft": soft, "clip": lambda x: jnp.clip(x, low, high), "none": lambda x: x}[kind]


def parse_range(text: str) -> tuple[float, float]:
    """'-6,2' -> (-6.0, 2.0). Raises ValueError."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not -40 <= low < high <= 40:  # exp of twice as much is all that float32 holds
        raise ValueError("auto, or two rising numbers from -40 to 40 joined by ',', such as -6,2")
    return low, high


unbounded = bounded("none")


@dataclasses.dataclass(frozen=True)
class Bounded:
    """The settings of a part whose net gives log-scales."""

    log_scale_bound: str = setting(
        "soft",
        "what keeps log σ of posterior and learned prior in log_scale_range, within which it "
        "changes nothing: soft, with a gradient that leads back from beyond; clip; none",
        choices=BOUNDS,
    )
    log_scale_range: str = setting(
        "auto", "smallest and largest log σ, joined by ','; auto: -10,10, hvae, conv_hvae -3,1",
        parse=lambda text: text == "auto" or parse_range(text),
    )  # fmt: skip
    auto_range: ClassVar[str] = RANGE

    def __post_init__(self) -> None:
        validate(self)

    @property
    def bound(self) -> Callable[[Array], Array]:
        own = self.log_scale_range
        return bounded(
            self.log_scale_bound, *parse_range(self.auto_range if own == "auto" else own)
        )
