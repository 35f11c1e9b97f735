"""Networks as pairs of pure functions; the only room that imports Flax."""

from vae_jax.networks.adapters import from_equinox, from_linen, from_nnx
from vae_jax.networks.architectures import (
    ACTIVATIONS,
    DTYPES,
    INITIALISERS,
    NETWORKS,
    Architecture,
    Arithmetic,
    branches,
    convolutional,
    initialiser,
    mlp,
    parse_widths,
    seen_and_drawn,
)
from vae_jax.networks.layers import Style

__all__ = [
    "ACTIVATIONS",
    "DTYPES",
    "INITIALISERS",
    "NETWORKS",
    "Architecture",
    "Arithmetic",
    "Style",
    "branches",
    "convolutional",
    "from_equinox",
    "from_linen",
    "from_nnx",
    "initialiser",
    "mlp",
    "parse_widths",
    "seen_and_drawn",
]
