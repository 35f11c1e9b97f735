"""Objectives: from a VAE and a batch to a loss in nats per image.

    objective(vae, params, key, batch, weights) -> (loss, metrics)

`loss` is what is minimised; `metrics` always holds the true `elbo`, `rate` and `distortion` of the
batch (pixels and latents summed, images averaged), whatever was optimised. `weights` are the KL
weights at this step. Any function of this form trains: the registry only gives names to some.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.model import VAE, rate_distortion
from vae_jax.settings import setting, validate
from vae_jax.types import Batch, Key, Params, Scalar


class Weights(NamedTuple):
    """How the rate is weighted at one step; beta as in β-VAE (Higgins et al. 2017)."""

    beta: Scalar | float = 1.0


Metrics = dict[str, Scalar]


def elbo(
    vae: VAE, params: Params, key: Key, batch: Batch, weights: Weights
) -> tuple[Scalar, Metrics]:
    """distortion + β·rate, the batch's mean (Kingma & Welling 2014, eq. 10; β-VAE for β ≠ 1).

    With β = 1 the loss is −ELBO; otherwise it is no bound on log p(x).
    """
    keys = jax.random.split(key, len(batch.x))
    terms = jax.vmap(rate_distortion, in_axes=(None, None, 0, 0, 0))
    rate, distortion = jax.tree.map(jnp.mean, terms(vae, params, keys, *batch))
    metrics = {"elbo": -(rate + distortion), "rate": rate, "distortion": distortion}
    return distortion + weights.beta * rate, metrics


OBJECTIVES = {
    "elbo": elbo,
}


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised."""

    objective: str = setting("elbo", "the objective", choices=OBJECTIVES)
    beta: float = setting(1.0, "weight of the rate; 1 gives the ELBO", at_least=0)

    def __post_init__(self) -> None:
        validate(self)
