"""Variational auto-encoders in JAX: pure functions, exact tests, honest numbers."""

from vae_jax.model import ModelConfig, assemble, build, log_weight, rate_distortion
from vae_jax.runs import Run, load
from vae_jax.types import VAE

__all__ = [
    "VAE",
    "ModelConfig",
    "Run",
    "assemble",
    "build",
    "load",
    "log_weight",
    "rate_distortion",
]
