"""The one place where names become a model."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from vae_jax.data.conditions import CONDITIONS
from vae_jax.models.doersch import doersch
from vae_jax.models.likelihoods import AT_MEAN, FLOOR, LIKELIHOODS, parse_scale
from vae_jax.models.posteriors import POSTERIORS, empty
from vae_jax.models.priors import PRIORS
from vae_jax.models.vae import VAE, assemble
from vae_jax.networks.architectures import (
    ACTIVATIONS,
    DTYPES,
    INITIALISERS,
    NETWORKS,
    SCALED,
    parse_widths,
    widths,
)
from vae_jax.settings import UserError, setting, validate
from vae_jax.types import Shape


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that decides which functions a VAE consists of, data shapes apart."""

    latent_dim: int = setting(
        2, "dimension of the latent z; 0 leaves encoder and z out", at_least=0
    )
    condition: str = setting(
        "none",
        "what is given of each image, p(x|c): its label, or some of its pixels, drawn as "
        "Bernoulli(grey) anew at each use, and the others are the target",
        choices=CONDITIONS,
    )
    network: str = setting(
        "mlp",
        "architecture of encoder and decoder; doersch: the nets of cdoersch/vae_tutorial",
        choices=[*NETWORKS, "doersch"],
    )
    widths: str = setting(
        "auto",
        "mlp: hidden widths of the encoder joined by '-', '' is linear; conv, resnet: channels at "
        "each resolution, the finest first; the decoder's in reverse; auto: 500, or 32-64",
        parse=lambda text: text == "auto" or parse_widths(text),
    )
    decoder_widths: str = setting(
        "mirrored",
        "mlp: hidden widths of the decoder; mirrored: the encoder's in reverse",
        parse=lambda text: text == "mirrored" or parse_widths(text),
    )
    activation: str = setting(
        "relu", "activation between layers; gated: (Wx + b)⊙σ(Vx + c)", choices=ACTIVATIONS
    )
    initialiser: str = setting("lecun", "initial kernels", choices=INITIALISERS)
    initial_scale: float = setting(
        0.0, f"standard deviation of {' and '.join(SCALED)} kernels; 0: 0.02", at_least=0
    )
    initial_bias: float = setting(0.0, "where all biases start, but for output_bias")
    output_bias: str = setting(
        "zero",
        "the decoder's initial output bias; data_mean: its output is the mean training image",
        choices=("zero", "data_mean"),
    )
    compute_dtype: str = setting(
        "float32", "arithmetic of the networks; weights and losses are float32", choices=DTYPES
    )
    posterior: str = setting("diagonal", "family of q(z|x)", choices=POSTERIORS)
    prior: str = setting(
        "standard", "family of p(z|c); conditional: Gaussian, learned from c", choices=PRIORS
    )
    likelihood: str = setting("bernoulli", "family of p(x|z)", choices=LIKELIHOODS)
    likelihood_scale: str = setting(
        "learned",
        "gaussian, laplace: scale of the pixels, where white is 1: a number; learned, one for all "
        "(at its best the root mean squared error, as in σ-VAE); per_pixel, by the decoder; "
        "gaussian: optimal, for each image its own at its best, made a density (student_t)",
        parse=parse_scale,
    )
    scale_floor: float = setting(
        FLOOR,
        "smallest scale that any likelihood can learn, where white is 1; about one grey level",
        above=0,
        at_most=0.1,
    )
    mixture_components: int = setting(5, "logistic_mixture: logistics to a pixel", at_least=1)

    def __post_init__(self) -> None:
        validate(self)
        for fault in _faults(self):
            raise UserError(fault)


def _faults(s: ModelConfig) -> Iterator[str]:
    """What does not go together, one line each."""
    if s.likelihood_scale == "optimal" and s.likelihood != "gaussian":
        yield f"likelihood_scale optimal goes with likelihood gaussian; got {s.likelihood}"
    if s.output_bias == "data_mean" and s.likelihood not in AT_MEAN:
        yield (
            f"output_bias data_mean goes with likelihood {' or '.join(AT_MEAN)}; got {s.likelihood}"
        )
    if s.initial_scale and s.initialiser not in SCALED:
        yield f"initial_scale goes with initialiser {' or '.join(SCALED)}; got {s.initialiser}"
    if s.decoder_widths != "mirrored" and s.network != "mlp":
        yield f"decoder_widths goes with network mlp; got {s.network}"
    if s.prior == "conditional" and s.condition == "none":
        yield f"prior conditional needs a condition: {', '.join([*CONDITIONS][1:])}; got none"
    if s.prior == "conditional" and not s.latent_dim:
        yield "prior conditional is one of latents: latent_dim must be at least 1; got 0"
    if s.network == "doersch":
        for name in DOERSCH_FIXED:
            fixed = type(s).__dataclass_fields__[name].default
            if getattr(s, name) != fixed:
                yield f"network doersch is as published: {name} must be {fixed}"


# What network doersch leaves no choice of.
DOERSCH_FIXED = (
    "widths", "decoder_widths", "activation", "initialiser", "initial_bias", "output_bias",
    "compute_dtype", "posterior", "likelihood",
)  # fmt: skip


def build(
    config: ModelConfig, x_shape: Shape, c_shape: Shape = (0,), x_mean: Any | None = None
) -> VAE:
    """The VAE that a configuration names, for targets of x_shape and conditions of c_shape.

    x_mean: the mean target in [0, 1], which `init` needs where output_bias is data_mean.
    """
    if config.network == "doersch":
        plain = NETWORKS["mlp"](dataclasses.replace(config, network="mlp", widths=widths(config)))
        prior = PRIORS[config.prior](config, functools.partial(plain.encoder, [c_shape]))
        return doersch(x_shape, c_shape, config.latent_dim, prior)
    architecture = NETWORKS[config.network](config)
    start = output_start(config, x_mean)
    encoder = functools.partial(architecture.encoder, [x_shape, c_shape])
    shapes = [(config.latent_dim,), c_shape]
    decoder = functools.partial(architecture.decoder, shapes, image=x_shape, start=start)
    posterior = POSTERIORS[config.posterior](config, encoder) if config.latent_dim else empty()
    likelihood = LIKELIHOODS[config.likelihood](config, decoder, x_shape)
    prior = PRIORS[config.prior](config, functools.partial(architecture.encoder, [c_shape]))
    return assemble(posterior, likelihood, prior)


def output_start(config: ModelConfig, x_mean: Any | None) -> Any | None:
    """Where the decoder's output bias starts, or None for 0."""
    if config.output_bias == "zero":
        return None
    if x_mean is None:
        raise UserError("output_bias data_mean needs the mean training image: build(…, x_mean=…)")
    return AT_MEAN[config.likelihood](x_mean)
