"""A name to arrays, and arrays to batches."""

from vae_jax.data.batches import unit_interval
from vae_jax.data.dataset import DataConfig, Dataset, from_arrays, load, noun
from vae_jax.data.identity import describe, differences, recorded
from vae_jax.data.split import DataError, Split, select

__all__ = [
    "DataConfig",
    "DataError",
    "Dataset",
    "Split",
    "describe",
    "differences",
    "from_arrays",
    "load",
    "noun",
    "recorded",
    "select",
    "unit_interval",
]
