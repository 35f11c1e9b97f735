"""Variational auto-encoders in JAX: pure functions, exact tests, honest numbers."""

from vae_jax.models import VAE, ModelConfig, assemble, build, log_weight, rate_distortion
from vae_jax.runs import Run, load

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
