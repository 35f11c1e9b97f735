"""The VAE as four pure functions, and the one place where names become a model.

p(x, z | c) = p(z|c) p(x|z,c),    q(z|x,c) ≈ p(z|x,c)
"""

import dataclasses
import functools
from typing import Any

import jax

from vae_jax.distributions import kl
from vae_jax.likelihoods import AT_MEAN, FLOOR, LIKELIHOODS, parse_scale
from vae_jax.networks import ACTIVATIONS, DTYPES, INITIALISERS, NETWORKS, Net, Shape, parse_widths
from vae_jax.posteriors import POSTERIORS, empty
from vae_jax.priors import PRIORS
from vae_jax.settings import UserError, setting, validate
from vae_jax.types import VAE, Key, Params


def assemble(posterior: Net, likelihood: Net, prior: Net) -> VAE:
    """A VAE from its three parts."""
    parts = {"posterior": posterior, "likelihood": likelihood, "prior": prior}

    def init(key: Key) -> Params:
        keys = jax.random.split(key, len(parts))
        return {name: net.init(k) for (name, net), k in zip(parts.items(), keys, strict=True)}

    def encode(params: Params, x: Any, c: Any) -> Any:
        return posterior.apply(params["posterior"], x, c)

    def decode(params: Params, z: Any, c: Any) -> Any:
        return likelihood.apply(params["likelihood"], z, c)

    def latents(params: Params, c: Any) -> Any:
        return prior.apply(params["prior"], lambda x: encode(params, x, c), c)

    return VAE(init, encode, decode, latents)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that decides which functions a VAE consists of, data shapes apart."""

    latent_dim: int = setting(
        2, "dimension of the latent z; 0 leaves encoder and z out", at_least=0
    )
    network: str = setting("mlp", "architecture of encoder and decoder", choices=NETWORKS)
    widths: str = setting(
        "auto",
        "mlp: hidden widths of the encoder joined by '-', '' is linear; conv, resnet: channels at "
        "each resolution, the finest first; the decoder's in reverse; auto: 500, or 32-64",
        parse=lambda text: text == "auto" or parse_widths(text),
    )
    activation: str = setting(
        "relu", "activation between layers; gated: (Wx + b)⊙σ(Vx + c)", choices=ACTIVATIONS
    )
    initialiser: str = setting("lecun", "initial kernels; biases are 0", choices=INITIALISERS)
    output_bias: str = setting(
        "zero",
        "the decoder's initial output bias; data_mean: its output is the mean training image",
        choices=("zero", "data_mean"),
    )
    compute_dtype: str = setting(
        "float32", "arithmetic of the networks; weights and losses are float32", choices=DTYPES
    )
    posterior: str = setting("diagonal", "family of q(z|x)", choices=POSTERIORS)
    prior: str = setting("standard", "family of p(z)", choices=PRIORS)
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
        if self.likelihood_scale == "optimal" and self.likelihood != "gaussian":
            raise UserError(
                f"likelihood_scale optimal goes with likelihood gaussian; got {self.likelihood}"
            )
        if self.output_bias == "data_mean" and self.likelihood not in AT_MEAN:
            raise UserError(
                f"output_bias data_mean goes with likelihood {' or '.join(AT_MEAN)}; "
                f"got {self.likelihood}"
            )


def build(
    config: ModelConfig, x_shape: Shape, c_shape: Shape = (0,), x_mean: Any | None = None
) -> VAE:
    """The VAE that a configuration names, for images of x_shape and conditions of c_shape.

    x_mean: the mean training image in [0, 1], which `init` needs where output_bias is data_mean.
    """
    architecture = NETWORKS[config.network](config)
    start = output_start(config, x_mean)
    encoder = functools.partial(architecture.encoder, [x_shape, c_shape])
    shapes = [(config.latent_dim,), c_shape]
    decoder = functools.partial(architecture.decoder, shapes, image=x_shape, start=start)
    posterior = POSTERIORS[config.posterior](config, encoder) if config.latent_dim else empty()
    likelihood = LIKELIHOODS[config.likelihood](config, decoder, x_shape)
    return assemble(posterior, likelihood, PRIORS[config.prior](config))


def output_start(config: ModelConfig, x_mean: Any | None) -> Any | None:
    """Where the decoder's output bias starts, or None for 0."""
    if config.output_bias == "zero":
        return None
    if x_mean is None:
        raise UserError("output_bias data_mean needs the mean training image: build(…, x_mean=…)")
    return AT_MEAN[config.likelihood](x_mean)


def count_parameters(vae: VAE) -> dict[str, int]:
    """Number of scalars in each part, without computing any of them."""
    shapes = jax.eval_shape(vae.init, jax.random.key(0))
    return {name: sum(leaf.size for leaf in jax.tree.leaves(p)) for name, p in shapes.items()}


def rate_distortion(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> tuple[Any, Any]:
    """One example's rate KL(q(z|x,c)‖p(z|c)) and distortion −log p(x|z,c), z ~ q, in nats.

    Minus their sum is an unbiased estimate of the ELBO. Closed-form KL where there is one.
    """
    q = vae.posterior(params, x, c)
    distortion = -vae.likelihood(params, q.sample(key), c).log_prob(x)
    return kl(q, vae.prior(params, c), key), distortion


def log_weight(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> Any:
    """One example's log w = log p(x|z,c) + log p(z|c) − log q(z|x,c), z ~ q, in nats.

    E[w] = p(x|c) (Burda et al. 2016, eq. 8 averages w over several z).
    """
    z, log_q = vae.posterior(params, x, c).sample_and_log_prob(key)
    log_joint = vae.likelihood(params, z, c).log_prob(x) + vae.prior(params, c).log_prob(z)
    return log_joint - log_q
