"""From a VAE and a batch to a loss in nats per image.

    objective(vae, params, key, batch, weights) -> (loss, metrics)

`loss` is what is minimised; `metrics` always holds the true `elbo`, `rate` and `distortion` of the
batch (pixels and latents summed, images averaged), whatever was optimised. `weights` are the KL
weights at this step.
"""

from vae_jax.objectives.config import (
    ObjectiveConfig,
    build,
    init_params,
    kl_weights,
    warmup_ends,
)
from vae_jax.objectives.entries import OBJECTIVES
from vae_jax.objectives.terms import (
    Facts,
    KLWeights,
    Metrics,
    Objective,
    draw,
    summary,
    without_parameters,
)

__all__ = [
    "OBJECTIVES",
    "Facts",
    "KLWeights",
    "Metrics",
    "Objective",
    "ObjectiveConfig",
    "build",
    "draw",
    "init_params",
    "kl_weights",
    "summary",
    "warmup_ends",
    "without_parameters",
]
