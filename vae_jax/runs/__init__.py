"""A run on disk: what a training leaves behind, and how it is read again."""

from vae_jax.runs.described import FORMAT, modules_named, read_config
from vae_jax.runs.load import load
from vae_jax.runs.metrics import append_metrics, read_metrics, rewind_metrics
from vae_jax.runs.run import Run
from vae_jax.runs.save import made, save

__all__ = [
    "FORMAT",
    "Run",
    "append_metrics",
    "load",
    "made",
    "modules_named",
    "read_config",
    "read_metrics",
    "rewind_metrics",
    "save",
]
