"""Neural networks of one example as Linen modules. The only file that imports Flax.

Every module flattens and concatenates its inputs where dense layers begin, so that an input of
shape (0,), "no condition", changes nothing. Nothing depends on a batch: there is no batch
normalisation. Parameters are float32 whatever the arithmetic is; outputs are float32.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from vae_jax.networks.convolutions import convolve, convolve_transposed
from vae_jax.types import Array, Shape

Initialiser = Callable[..., Array]  # (key, shape, dtype) -> array


def gated(value: Array, gate: Array) -> Array:
    """value ⊙ σ(gate): as an activation, (W x + b) ⊙ σ(V x + c) (Dauphin et al. 2017, eq. 1; in
    VAEs, Tomczak & Welling 2018).
    """
    return value * nn.sigmoid(gate)


class Style(NamedTuple):
    """What the layers of a network have in common.

    dtype: of the arithmetic, or None for that of inputs and weights; weights stay as they are.
    bias: where biases start, those apart that a layer is told.
    """

    activation: Callable[..., Array] = nn.relu
    initialiser: Initialiser = nn.initializers.lecun_normal()
    dtype: Any = None
    bias: float = 0.0


PLAIN = Style()


def activated(style: Style, layer: Callable[[], nn.Module], x: Array) -> Array:
    """activation(layer(x)); where the activation is `gated`, a second such layer is the gate."""
    if style.activation is gated:
        return gated(layer()(x), layer()(x))
    return style.activation(layer()(x))


def cast(x: Array, dtype: Any) -> Array:
    return x if dtype is None else x.astype(dtype)


def widened(x: Array) -> Array:
    """At least float32: what leaves a network is exact enough to sum."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def joined(inputs: Sequence[Array], dtype: Any) -> Float[Array, " n"]:
    return cast(jnp.concatenate([jnp.ravel(x) for x in inputs]), dtype)


def find(part: Shape, whole: Shape) -> int | None:
    """Where a shape holds another as a run of axes; None where it does not."""
    starts = range(len(whole) - len(part) + 1)
    return next((i for i in starts if whole[i : i + len(part)] == part), None)


def constant(start: Array | None, otherwise: float = 0.0) -> Initialiser:
    """Biases that start at these values, or all at the other one where there are none."""
    if start is None:
        return nn.initializers.constant(otherwise)
    return lambda key, shape, dtype=jnp.float32: jnp.asarray(start, dtype).reshape(shape)


def arranged(y: Float[Array, "h w channels"], output_shape: Shape, image_shape: Shape) -> Array:
    """The output's shape, wherever in it the image's shape is."""
    at = find(image_shape, output_shape)
    at = find(image_shape[:2], output_shape) if at is None else at
    assert at is not None
    before, rest = output_shape[:at], output_shape[at + 2 :]
    y = y.reshape(*image_shape[:2], *before, *rest)
    return jnp.moveaxis(y, (0, 1), (at, at + 1))


def biased(module: nn.Module, y: Array, start: Array | None) -> Array:
    """y with a bias of its own for each number, which begins at `start`; with none, y."""
    return y if start is None else y + module.param("bias", constant(start), y.shape)


class Dense(nn.Module):
    """x W + b; with no inputs at all, b alone (initialisers cannot divide by a fan-in of 0)."""

    features: int
    style: Style = PLAIN
    start: Array | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*places inputs"]) -> Float[Array, "*places features"]:
        bias = constant(self.start, self.style.bias)
        if x.shape[-1] == 0:
            return cast(self.param("bias", bias, (self.features,)), self.style.dtype)
        return nn.Dense(
            self.features,
            dtype=self.style.dtype,
            kernel_init=self.style.initialiser,
            bias_init=bias,
            name="linear",
        )(x)


class Convolution(nn.Module):
    """One convolution; with `up`, a height and width, transposed and cropped to that size."""

    features: int
    size: int
    stride: int = 1
    up: Shape | None = None
    use_bias: bool = True
    style: Style = PLAIN

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h2 w2 f"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = cast(self.param("kernel", self.style.initialiser, shape), self.style.dtype)
        if self.up:
            y = convolve_transposed(x, kernel)[: self.up[0], : self.up[1]]
        else:
            y = convolve(x, kernel, self.stride)
        if not self.use_bias:
            return y
        bias = self.param("bias", constant(None, self.style.bias), (self.features,)).astype(y.dtype)
        return y + bias[None, None]


class Residual(nn.Module):
    """x + W₂ a(W₁ norm(x)), 3 × 3: nothing but the identity on the main path (He et al. 2016,
    "Identity mappings"), normalised by groups of channels within the example (Wu & He 2018).

    One activation a block, between its convolutions, so that it may be `gated`.
    """

    style: Style

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        channels = x.shape[-1]
        every = (-3, -2, -1)  # without this Flax takes the rows for a batch
        norm = nn.GroupNorm(math.gcd(8, channels), reduction_axes=every, dtype=self.style.dtype)
        h = activated(self.style, lambda: Convolution(channels, 3, style=self.style), norm(x))
        return x + Convolution(channels, 3, style=self.style)(h)


def _refined(style: Style, x: Array, blocks: int) -> Array:
    for _ in range(blocks):
        x = Residual(style)(x)
    return x


def _stage(style: Style, layer: Callable[[], nn.Module], x: Array, blocks: int) -> Array:
    """One change of resolution: convolution and activation, or convolution and residual blocks."""
    return _refined(style, layer()(x), blocks) if blocks else activated(style, layer, x)


class MLP(nn.Module):
    """Dense layers with an activation between them, none after the last."""

    widths: Sequence[int]
    output_shape: Shape
    style: Style = PLAIN
    start: Array | None = None

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        h = joined(inputs, self.style.dtype)
        for width in self.widths:
            h = activated(self.style, lambda: Dense(width, self.style), h)
        y = Dense(math.prod(self.output_shape), self.style, self.start)(h)
        return widened(y.reshape(self.output_shape))


class Branches(nn.Module):
    """A layer of `branch` units for each input, then dense layers over all of them: no input that
    has few numbers is lost beside one that has many (Tomczak & Welling 2018, their HVAE).
    """

    branch: int
    widths: Sequence[int]
    output_shape: Shape
    style: Style = PLAIN
    start: Array | None = None

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        seen = [joined([x], self.style.dtype) for x in inputs if x.size]
        h = [activated(self.style, lambda: Dense(self.branch, self.style), x) for x in seen]
        return MLP(self.widths, self.output_shape, self.style, self.start)(*h)


class SeenImage(nn.Module):
    """Convolutions of an image, and a layer as wide as what they leave for each other input, then
    dense layers over all of them joined (Tomczak & Welling 2018, their convHVAE).

    layers: kernel, channels and stride of each convolution.
    """

    layers: Sequence[tuple[int, int, int]]
    widths: Sequence[int]
    output_shape: Shape
    style: Style = PLAIN

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"], *others: Array) -> Array:
        style, h = self.style, cast(x, self.style.dtype)
        for kernel, channels, stride in self.layers:
            h = activated(style, lambda: Convolution(channels, kernel, stride, style=style), h)
        seen = [joined([other], style.dtype) for other in others if other.size]
        branches = [activated(style, lambda: Dense(h.size, style), other) for other in seen]
        return MLP(self.widths, self.output_shape, style)(h, *branches)


class DrawnImage(nn.Module):
    """A layer of `branch` units for each input, one over all of them that is an image, and 3 × 3
    convolutions of it (Tomczak & Welling 2018, their convHVAE).
    """

    branch: int
    channels: Sequence[int]
    output_shape: Shape
    image_shape: Shape
    style: Style = PLAIN
    start: Array | None = None

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        style = self.style
        seen = [joined([x], style.dtype) for x in inputs if x.size]
        h = [activated(style, lambda: Dense(self.branch, style), x) for x in seen]
        first = math.prod(self.image_shape)
        h = activated(style, lambda: Dense(first, style), jnp.concatenate(h))
        h = h.reshape(self.image_shape)
        for channels in self.channels:
            h = activated(style, lambda: Convolution(channels, 3, style=style), h)
        last = math.prod(self.output_shape) // math.prod(self.image_shape[:2])
        y = Convolution(last, 1, use_bias=self.start is None, style=style)(h)
        return biased(self, widened(arranged(y, self.output_shape, self.image_shape)), self.start)


class ImageEncoder(nn.Module):
    """Image -> stages that halve it (4 × 4 kernels, stride 2) -> dense layer -> output.

    Inputs [h, w, channels] of the first one's height and width are its channels; all others join
    at the dense layer.
    """

    widths: Sequence[int]
    hidden: int
    blocks: int
    output_shape: Shape
    style: Style = PLAIN

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        size = next(x.shape[:2] for x in inputs if x.ndim == 3)
        images = [x for x in inputs if x.ndim == 3 and x.shape[:2] == size]
        others = [x for x in inputs if x.ndim != 3 or x.shape[:2] != size]
        h = cast(jnp.concatenate(images, axis=-1), self.style.dtype)
        for width in self.widths:
            h = _stage(
                self.style, lambda: Convolution(width, 4, 2, style=self.style), h, self.blocks
            )
        return MLP((self.hidden,), self.output_shape, self.style)(h, *others)


class ImageDecoder(nn.Module):
    """Inputs -> two dense layers -> stages that double the image, mirroring `ImageEncoder`.

    Odd sizes are cropped after doubling. The output's shape holds the image's, [h, w, channels],
    somewhere: (h, w, c), (2, h, w, c), (h, w, c, k). Without `start` there is one output bias a
    channel, from 0; with it one a number, from `start` of the output's shape.
    """

    widths: Sequence[int]
    hidden: int
    blocks: int
    output_shape: Shape
    image_shape: Shape
    style: Style = PLAIN
    start: Array | None = None

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        style = self.style
        sizes = [self.image_shape[:2]]  # of the image, and as each stage of the encoder left it
        for _ in self.widths:
            sizes.append(tuple(-(-length // 2) for length in sizes[-1]))
        *larger, smallest = sizes
        first, *widths = self.widths
        h = activated(style, lambda: Dense(self.hidden, style), joined(inputs, style.dtype))
        h = activated(style, lambda: Dense(math.prod(smallest) * first, style), h)
        h = _refined(style, h.reshape(*smallest, first), self.blocks)
        for width, size in zip(widths, larger[:0:-1], strict=True):
            h = _stage(style, lambda: Convolution(width, 4, up=size, style=style), h, self.blocks)
        channels = math.prod(self.output_shape) // math.prod(larger[0])
        last = Convolution(channels, 4, up=larger[0], use_bias=self.start is None, style=style)
        y = widened(arranged(last(h), self.output_shape, self.image_shape))
        return biased(self, y, self.start)
