"""From a VAE and a batch to a loss in nats per image."""

from vae_jax.objectives.config import OBJECTIVES, ObjectiveConfig, build, kl_weights
from vae_jax.objectives.terms import Draws, Metrics, Objective, Weights, draw, summary

__all__ = [
    "OBJECTIVES",
    "Draws",
    "Metrics",
    "Objective",
    "ObjectiveConfig",
    "Weights",
    "build",
    "draw",
    "kl_weights",
    "summary",
]
