"""Variational auto-encoders in JAX: pure functions, exact tests, honest numbers."""

from vae_jax.model import VAE, ModelConfig, assemble, build
from vae_jax.runs import Run, load

__all__ = ["VAE", "ModelConfig", "Run", "assemble", "build", "load"]
