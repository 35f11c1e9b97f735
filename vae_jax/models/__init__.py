"""A VAE: the contract, its parts, and the registry that names become a model by."""

from vae_jax.models.build import MODELS, ModelConfig, build
from vae_jax.models.vae import (
    VAE,
    Draw,
    assemble,
    compose,
    count_parameters,
    latent_dim,
    latents,
    log_weight,
    rate_distortion,
)

__all__ = [
    "MODELS",
    "VAE",
    "Draw",
    "ModelConfig",
    "assemble",
    "build",
    "compose",
    "count_parameters",
    "latent_dim",
    "latents",
    "log_weight",
    "rate_distortion",
]
