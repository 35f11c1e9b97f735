"""Networks as pairs of pure functions; the Linen modules behind them are in `layers`.

A `Net` maps one example to one array (or, in `posteriors`, `priors` and `likelihoods`, to one
distribution). An `Architecture` is the pair a VAE needs: an encoder's net for given shapes, and a
decoder's. A net may have any number of inputs of any shape; one of shape (0,), "no condition",
changes nothing.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.networks.adapters import from_linen
from vae_jax.networks.layers import (
    MLP,
    PLAIN,
    Branches,
    DrawnImage,
    ImageDecoder,
    ImageEncoder,
    Initialiser,
    SeenImage,
    Style,
    gated,
)
from vae_jax.networks.layers import find as find_shape
from vae_jax.settings import UserError, setting, validate
from vae_jax.types import Array, Net, Shape


class Architecture(NamedTuple):
    """The nets of either side of a model.

    encoder(input shapes, output shape) -> Net. decoder(input shapes, output shape, image shape,
    start=None) -> Net: the image's shape is what convolutions find their pixels by in the output's
    (h, w, c), (2, h, w, c), (h, w, c, k); `start`, of the output's shape, is where the output's
    bias begins.
    """

    encoder: Callable[[Sequence[Shape], Shape], Net]
    decoder: Callable[..., Net]


def mlp(
    widths: Sequence[int], style: Style = PLAIN, decoder_widths: Sequence[int] | None = None
) -> Architecture:
    """Fully connected: the encoder's hidden widths, the decoder's own or the same in reverse."""
    back = widths[::-1] if decoder_widths is None else decoder_widths

    def encoder(shapes: Sequence[Shape], output: Shape) -> Net:
        return from_linen(MLP(tuple(widths), output, style), shapes)

    def decoder(
        shapes: Sequence[Shape], output: Shape, image: Shape = (), start: Array | None = None
    ) -> Net:
        return from_linen(MLP(tuple(back), output, style, start), shapes)

    return Architecture(encoder, decoder)


def branches(widths: Sequence[int], style: Style = PLAIN) -> Architecture:
    """Fully connected, each input with a layer of its own: of the first width, the others after
    they are joined; the same either way.
    """
    first, *others = widths

    def encoder(shapes: Sequence[Shape], output: Shape) -> Net:
        return decoder(shapes, output)

    def decoder(
        shapes: Sequence[Shape], output: Shape, image: Shape = (), start: Array | None = None
    ) -> Net:
        return from_linen(Branches(first, tuple(others), output, style, start), shapes)

    return Architecture(encoder, decoder)


def seen_and_drawn(
    layers: Sequence[tuple[int, int, int]],
    widths: Sequence[int],
    branch: int,
    channels: Sequence[int],
    style: Style = PLAIN,
) -> Architecture:
    """The convolutions of Tomczak & Welling (2018): `SeenImage` of the first input and the others,
    `DrawnImage` of all.
    """  # fmt: skip

    def encoder(shapes: Sequence[Shape], output: Shape) -> Net:
        return from_linen(SeenImage(tuple(layers), tuple(widths), output, style), shapes)

    def decoder(
        shapes: Sequence[Shape], output: Shape, image: Shape = (), start: Array | None = None
    ) -> Net:
        return from_linen(DrawnImage(branch, tuple(channels), output, image, style, start), shapes)

    return Architecture(encoder, decoder)


def convolutional(
    widths: Sequence[int], style: Style = PLAIN, *, blocks: int = 0, hidden: int = 256
) -> Architecture:
    """Strided convolutions, a dense layer of `hidden` units, and their mirror image.

    widths: channels at each resolution, the finest first; every stage halves height and width.
    blocks: residual blocks at each resolution; 0 is the plain network. A condition of the image's
    height and width enters the encoder as channels; any other, and all conditions in the decoder,
    at the dense layer. Encoders of no image, and decoders to no image or from nothing at all
    (latent_dim 0), are dense with `hidden` units.
    """
    if not widths:
        raise UserError("widths must name at least one stage of convolutions, such as 32-64")
    dense = mlp((hidden,), style)

    def encoder(shapes: Sequence[Shape], output: Shape) -> Net:
        if not any(len(shape) == 3 for shape in shapes):
            return dense.encoder(shapes, output)
        return from_linen(ImageEncoder(tuple(widths), hidden, blocks, output, style), shapes)

    def decoder(
        shapes: Sequence[Shape], output: Shape, image: Shape = (), start: Array | None = None
    ) -> Net:
        nothing_to_see = sum(math.prod(shape) for shape in shapes) == 0  # behind it, a dead ReLU
        if image and len(image) != 3:
            raise UserError(f"convolutions need images [height, width, channels]; got {image}")
        if nothing_to_see or not image or find_shape(image, output) is None:
            return dense.decoder(shapes, output, image, start)
        module = ImageDecoder(tuple(widths[::-1]), hidden, blocks, output, image, style, start)
        return from_linen(module, shapes)

    return Architecture(encoder, decoder)


def parse_widths(text: str) -> tuple[int, ...]:
    """'500-250' -> (500, 250); '' -> (), a linear map. Raises ValueError."""
    try:
        widths = tuple(int(part) for part in text.split("-")) if text else ()
    except ValueError:
        widths = (0,)
    if any(width < 1 for width in widths):
        raise ValueError("auto, or layer widths joined by '-', such as 500 or 500-250")
    return widths


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "identity": lambda x: x,
    "gated": gated,
}

_initialisers = jax.nn.initializers

# of kernels
INITIALISERS: dict[str, Initialiser] = {
    "lecun": _initialisers.lecun_normal(),  # LeCun et al. 1998; Flax's own
    "he": _initialisers.he_normal(),  # He et al. 2015
    "glorot": _initialisers.glorot_uniform(),  # Glorot & Bengio 2010
    "orthogonal": _initialisers.orthogonal(),  # Saxe et al. 2014
    "normal": _initialisers.normal(0.02),
    "truncated_normal": _initialisers.truncated_normal(0.02),  # Radford et al. 2016
}

# Those whose scale is no function of the layer's size: standard deviation -> initialiser
SCALED = {"normal": _initialisers.normal, "truncated_normal": _initialisers.truncated_normal}


def initialiser(name: str, scale: float = 0.0) -> Initialiser:
    """Of kernels, by name; `scale` is a standard deviation of its own for those in SCALED."""
    return SCALED[name](scale) if scale else INITIALISERS[name]


DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """In what numbers networks compute."""

    compute_dtype: str = setting(
        "float32", "arithmetic of the networks; weights and losses are float32", choices=DTYPES
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def dtype(self) -> Any:
        return DTYPES[self.compute_dtype]


@dataclasses.dataclass(frozen=True)
class _Layers(Arithmetic):
    """What the layers of every network have in common."""

    widths: str = setting(
        "auto",
        "mlp: hidden widths of the encoder joined by '-', '' is linear; conv, resnet: channels at "
        "each resolution, the finest first; the decoder's in reverse; auto: 500, or 32-64",
        parse=lambda text: text == "auto" or parse_widths(text),
    )
    activation: str = setting(
        "relu", "activation between layers; gated: (Wx + b)⊙σ(Vx + c)", choices=ACTIVATIONS
    )
    initialiser: str = setting("lecun", "initial kernels", choices=INITIALISERS)
    initial_scale: float = setting(
        0.0, f"standard deviation of {' and '.join(SCALED)} kernels; 0: 0.02", at_least=0
    )
    initial_bias: float = setting(0.0, "where all biases start, but for output_bias")
    auto: ClassVar[str] = "500"  # widths

    def __post_init__(self) -> None:
        validate(self)
        if self.initial_scale and self.initialiser not in SCALED:
            known = " or ".join(SCALED)
            raise UserError(f"initial_scale goes with initialiser {known}; got {self.initialiser}")

    @property
    def hidden(self) -> tuple[int, ...]:
        return parse_widths(self.auto if self.widths == "auto" else self.widths)

    @property
    def style(self) -> Style:
        return Style(
            ACTIVATIONS[self.activation],
            initialiser(self.initialiser, self.initial_scale),
            self.dtype,
            self.initial_bias,
        )


@dataclasses.dataclass(frozen=True)
class Dense(_Layers):
    """Fully connected."""

    decoder_widths: str = setting(
        "mirrored",
        "mlp: hidden widths of the decoder; mirrored: the encoder's in reverse",
        parse=lambda text: text == "mirrored" or parse_widths(text),
    )

    def build(self) -> Architecture:
        own = None if self.decoder_widths == "mirrored" else parse_widths(self.decoder_widths)
        return mlp(self.hidden, self.style, own)


class Convolutional(_Layers):
    """Strided convolutions."""

    auto = "32-64"

    def build(self) -> Architecture:
        return convolutional(self.hidden, self.style)


class Residual(Convolutional):
    """Strided convolutions, and a residual block at each resolution."""

    def build(self) -> Architecture:
        return convolutional(self.hidden, self.style, blocks=1)


# name -> () -> Architecture
NETWORKS = {
    "mlp": Dense,
    "conv": Convolutional,
    "resnet": Residual,
}
