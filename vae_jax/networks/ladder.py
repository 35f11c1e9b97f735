"""What a ladder is made of: residual blocks, and the ways between an image and a coarser grid.

A state is [channels], or [height, width, channels] where latents have places. Between resolutions
nothing but matrix products of patches: an image's f × f pixels are one place's numbers.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from vae_jax.networks.adapters import from_linen
from vae_jax.networks.layers import (
    Convolution,
    Dense,
    Initialiser,
    Style,
    arranged,
    biased,
    cast,
    joined,
    widened,
)
from vae_jax.types import Array, Net, Shape


def scaled(scale: float) -> Initialiser:
    """Kernels of standard deviation scale/√inputs; 0 is zeros."""
    if not scale:
        return nn.initializers.zeros_init()
    return nn.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal")


class Block(nn.Module):
    """1 × 1 → k × k → k × k → 1 × 1 with a GELU before each, `middle` channels between (Child 2021,
    figure of the block); of a vector, or where k is 1, two layers. No normalisation.

    last: the scale of the last layer's kernel.
    """

    features: int
    middle: int
    kernel: int
    last: float = 1.0
    dtype: Any = None

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        style = Style(dtype=self.dtype)
        h = cast(jnp.concatenate(inputs, axis=-1), self.dtype)
        h = Dense(self.middle, style)(jax.nn.gelu(h))
        if self.kernel > 1:
            for _ in range(2):
                h = Convolution(self.middle, self.kernel, style=style)(jax.nn.gelu(h))
        last = Style(initialiser=scaled(self.last), dtype=self.dtype)
        return widened(Dense(self.features, last)(jax.nn.gelu(h)))


class Linear(nn.Module):
    """Of each place by itself."""

    features: int
    scale: float = 1.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "*places inputs"]) -> Float[Array, "*places features"]:
        style = Style(initialiser=scaled(self.scale), dtype=self.dtype)
        return widened(Dense(self.features, style)(cast(x, self.dtype)))


class Coarser(nn.Module):
    """f × f places become one: a linear map of their numbers, and of whatever else is given."""

    features: int
    factor: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"], *others: Array) -> Float[Array, "h2 w2 features"]:
        y = Linear(self.features, 1.0, self.dtype)(patches(x, self.factor))
        for other in (a for a in others if a.size):
            y += jnp.broadcast_to(Vector(self.features, self.dtype)(other), y.shape)
        return y


class Vector(nn.Module):
    """Anything as one vector, linear; an input of no numbers adds nothing."""

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, *inputs: Array) -> Float[Array, " features"]:
        return widened(Dense(self.features, Style(dtype=self.dtype))(joined(inputs, self.dtype)))


class Pixels(nn.Module):
    """From a state to the numbers of a likelihood, of a shape that holds the image's: each place
    gives those of its f × f pixels; a vector all. `start`: where the bias begins.
    """

    output_shape: Shape
    image_shape: Shape
    start: Array | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, state: Array) -> Array:
        size = math.prod(self.output_shape)
        state = cast(jax.nn.gelu(state), self.dtype)
        if state.ndim == 1:
            y = Dense(size, Style(dtype=self.dtype), self.start)(state)
            return widened(y.reshape(self.output_shape))
        factor = self.image_shape[0] // state.shape[0]
        channels = size // math.prod(self.image_shape[:2])
        y = Linear(factor**2 * channels, 1.0, self.dtype)(state)
        y = arranged(unpatched(y, factor), self.output_shape, self.image_shape)
        return biased(self, y, self.start)


def patches(x: Float[Array, "h w c"], factor: int) -> Float[Array, "h2 w2 ffc"]:
    """The numbers of f × f places in one."""
    h, w, c = x.shape
    x = x.reshape(h // factor, factor, w // factor, factor, c)
    return jnp.swapaxes(x, 1, 2).reshape(h // factor, w // factor, factor**2 * c)


def unpatched(x: Float[Array, "h w ffc"], factor: int) -> Float[Array, "h2 w2 c"]:
    """The inverse of `patches`."""
    h, w, _ = x.shape
    x = x.reshape(h, w, factor, factor, -1)
    return jnp.swapaxes(x, 1, 2).reshape(h * factor, w * factor, -1)


def repeated(x: Float[Array, "h w c"], factor: int) -> Float[Array, "h2 w2 c"]:
    """Each place f × f times."""
    h, w, c = x.shape
    spread = jnp.broadcast_to(x[:, None, :, None], (h, factor, w, factor, c))
    return spread.reshape(h * factor, w * factor, c)


def stacked(module: nn.Module, count: int, *shapes: Shape) -> Net:
    """`count` modules as one Net: its parameters are stacked, its `apply` takes those of one."""
    one = from_linen(module, shapes)
    return Net(lambda key: jax.vmap(one.init)(jax.random.split(key, count)), one.apply)
