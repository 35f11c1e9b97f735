"""GECO (Rezende & Viola 2018): the least rate at which the distortion is no more than a target.

    min over the model, max over λ > 0:   β·rate + λ·(distortion − target)

The multiplier λ is the objective's own parameter: its logarithm rises while the constraint is
broken and falls while it is kept (the paper multiplies λ by exp of the constraint, averaged over
time; here the training's optimiser steps on log λ).
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from vae_jax.models.vae import VAE
from vae_jax.objectives.terms import (
    Facts,
    KLWeights,
    Metrics,
    Objective,
    draw,
    summary,
    with_gradient_of,
)
from vae_jax.settings import UserError, setting, validate
from vae_jax.types import Batch, Key, Params, Scalar


def geco(
    vae: VAE, params: Params, key: Key, batch: Batch, weights: KLWeights, *, target: float
) -> tuple[Scalar, Metrics]:
    """β·rate + λ·(distortion − target), in nats, minimised over the model and maximised over λ.

    Its value, which validation compares, is β·rate + max(distortion − target, 0): λ is another at
    each step, and one yardstick is wanted for all.
    """
    draws = draw(vae, params, key, batch)
    log_multiplier = params["objective"]["log_multiplier"]
    metrics = summary(draws.rate, -draws.log_likelihood, multiplier=jnp.exp(log_multiplier))
    rate, excess = weights.beta * metrics["rate"], metrics["distortion"] - target
    of_model = rate + jnp.exp(jax.lax.stop_gradient(log_multiplier)) * excess
    of_multiplier = -log_multiplier * jax.lax.stop_gradient(excess)
    return with_gradient_of(rate + jnp.maximum(excess, 0), of_model + of_multiplier), metrics


@dataclasses.dataclass(frozen=True)
class Geco:
    """GECO (Rezende & Viola 2018)."""

    target_distortion: float = setting(
        0.0, "geco: the distortion −log p(x|z) that is good enough, which must be given",
        unit="nats",
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)
        if not self.target_distortion:
            raise UserError("geco needs --target_distortion, such as the distortion of the ELBO")

    def build(self, facts: Facts) -> Objective:
        def init(key: Key) -> Params:
            return {"log_multiplier": jnp.zeros((), jnp.float32)}

        return Objective(init, partial(geco, target=self.target_distortion))
