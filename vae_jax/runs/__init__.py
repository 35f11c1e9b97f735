"""A run on disk: what a training leaves behind, and how it is read again."""

from vae_jax.runs.load import load
from vae_jax.runs.metrics import append_metrics, read_metrics, rewind_metrics
from vae_jax.runs.run import Run

__all__ = ["Run", "append_metrics", "load", "read_metrics", "rewind_metrics"]
