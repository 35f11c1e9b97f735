"""A VAE: the contract, its parts, and the registry that names become a model by."""

from vae_jax.models.build import ModelConfig, build
from vae_jax.models.vae import VAE, assemble, count_parameters, log_weight, rate_distortion

__all__ = [
    "VAE",
    "ModelConfig",
    "assemble",
    "build",
    "count_parameters",
    "log_weight",
    "rate_distortion",
]
