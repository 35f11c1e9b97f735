"""Networks as pairs of pure functions. The only file that knows Flax.

A `Net` maps one example to one array (or, in `posteriors`, `priors` and `likelihoods`, to one
distribution). An `Architecture` is the pair a VAE needs: an encoder's net for given shapes, and a
decoder's. Several inputs of one net are flattened and concatenated; an input of shape (0,), "no
condition", then changes nothing.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.types import Key, Params

Shape = tuple[int, ...]


class Net(NamedTuple):
    """init(key) -> params; apply(params, *inputs) -> array or distribution, for one example."""

    init: Callable[[Key], Params]
    apply: Callable[..., Any]


class Architecture(NamedTuple):
    """(input shapes, output shape) -> Net, for either side of the model."""

    encoder: Callable[[Sequence[Shape], Shape], Net]
    decoder: Callable[[Sequence[Shape], Shape], Net]


def from_linen(module: nn.Module, input_shapes: Sequence[Shape]) -> Net:
    """Any Linen module of one example as a Net."""

    def init(key: Key) -> Params:
        return module.init(key, *(jnp.zeros(shape) for shape in input_shapes)).get("params", {})

    def apply(params: Params, *inputs: Array) -> Array:
        return module.apply({"params": params}, *inputs)  # pyright: ignore[reportReturnType]

    return Net(init, apply)


class Dense(nn.Module):
    """x W + b; with no inputs at all, b alone (initialisers cannot divide by a fan-in of 0)."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " features"]:
        if x.shape[-1] == 0:
            return self.param("bias", nn.initializers.zeros, (self.features,))
        return nn.Dense(self.features, name="linear")(x)


class MLP(nn.Module):
    """Dense layers with an activation between them, none after the last."""

    widths: Sequence[int]
    output_shape: Shape
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        hidden = jnp.concatenate([jnp.ravel(x) for x in inputs])
        for width in self.widths:
            hidden = self.activation(Dense(width)(hidden))
        return Dense(math.prod(self.output_shape))(hidden).reshape(self.output_shape)


def mlp(widths: Sequence[int], activation: Callable[[Array], Array] = nn.relu) -> Architecture:
    """Fully connected: the encoder's hidden widths, the decoder's in reverse order."""

    def side(widths: Sequence[int]) -> Callable[[Sequence[Shape], Shape], Net]:
        return lambda shapes, output: from_linen(MLP(tuple(widths), output, activation), shapes)

    return Architecture(encoder=side(widths), decoder=side(widths[::-1]))


def parse_widths(text: str) -> tuple[int, ...]:
    """500-250' -> (500, 250); '' -> (), a linear map. Raises ValueError."""
    try:
        widths = tuple(int(part) for part in text.split("-")) if text else ()
    except ValueError:
        widths = (0,)
    if any(width < 1 for width in widths):
        raise ValueError("layer widths joined by '-', such as 500 or 500-250")
    return widths


ACTIVATIONS = {
    "relu": nn.relu,
    "tanh": jnp.tanh,
    "softplus": nn.softplus,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "identity": lambda x: x,
}

# name -> function of the settings
NETWORKS = {
    "mlp": lambda settings: mlp(parse_widths(settings.widths), ACTIVATIONS[settings.activation]),
}
