"""Pictures for a paper: arrays in, a matplotlib figure out. Never sees a model."""

from vae_jax.plots.images import (
    columns,
    curves,
    group_rates,
    reconstructions,
    rows,
    samples,
    sheets,
)
from vae_jax.plots.latent_plane import (
    KINDS,
    decoded,
    encodings,
    latents,
    manifold,
    manifold_grid,
    manifold_latents,
)
from vae_jax.plots.one_posterior import posterior
from vae_jax.plots.page import (
    DPI,
    PALETTE,
    animate,
    coloured,
    frame,
    panels,
    save,
    show,
    tile,
)

__all__ = [
    "DPI",
    "KINDS",
    "PALETTE",
    "animate",
    "coloured",
    "columns",
    "curves",
    "decoded",
    "encodings",
    "frame",
    "group_rates",
    "latents",
    "manifold",
    "manifold_grid",
    "manifold_latents",
    "panels",
    "posterior",
    "reconstructions",
    "rows",
    "samples",
    "save",
    "sheets",
    "show",
    "tile",
]
