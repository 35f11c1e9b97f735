"""The networks of cdoersch/vae_tutorial (Doersch 2016, Tutorial on Variational Autoencoders).

    VAE        x 1000-500-250 -> mu, logsd; z 250-500-1000 -> logits of x
    CVAE       condition 1000-500-250-250, its second layer added to the encoder's second, its last
               to the decoder's first, each before the ReLU; the prior is N(0, I), whatever c
    regressor  the CVAE without z: neither encoder nor z-branch is built

Which one it is follows from the shapes: no condition is the VAE, no latents the regressor. As in
the original nets, `mu` reads the encoder's last layer after its ReLU and `logsd` before it; biases
start at 0 and weights as Caffe's Gaussian filler: N(0, 0.1²), in hidden and output layers each
kept with probability 15 / outputs ("sparse: 15").
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from vae_jax.distributions.continuous import Normal
from vae_jax.distributions.pixels import Bernoulli
from vae_jax.models.posteriors import empty
from vae_jax.models.priors import standard
from vae_jax.models.scales import Bounded, unbounded
from vae_jax.models.standard import OneLayer
from vae_jax.models.vae import VAE, compose
from vae_jax.networks import mlp
from vae_jax.settings import build, chosen
from vae_jax.types import Array, Key, Net, Params, Shapes

STD, SPARSE = 0.1, 15
WIDTHS = (1000, 500, 250)  # of a prior's own net


def dense_init(key: Key, inputs: int, outputs: int, sparse: bool = True) -> Params:
    """Weights of one layer, as Caffe's Gaussian filler draws them."""
    value_key, kept_key = jax.random.split(key)
    kernel = STD * jax.random.normal(value_key, (inputs, outputs), jnp.float32)
    if sparse:
        kernel *= jax.random.bernoulli(kept_key, min(1.0, SPARSE / outputs), kernel.shape)
    return {"kernel": kernel, "bias": jnp.zeros(outputs, jnp.float32)}


def dense(params: Params, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
    return x @ params["kernel"] + params["bias"]


def layers(x_dim: int, c_dim: int, latent_dim: int) -> dict[str, dict[str, tuple[int, int, bool]]]:
    """Part -> layer -> (inputs, outputs, sparse): everything that has parameters."""
    encoder = {
        "1": (x_dim, 1000, True),
        "2": (1000, 500, True),
        "3": (500, 250, True),
        "mu": (250, latent_dim, False),
        "logsd": (250, latent_dim, False),
    }
    condition = {
        "1": (c_dim, 1000, True),
        "2": (1000, 500, True),
        "3": (500, 250, True),
        "4": (250, 250, False),
    }
    decoder = {
        "1": (latent_dim, 250, True),
        "2": (250, 500, True),
        "3": (500, 1000, True),
        "4": (1000, x_dim, True),
    }
    if not latent_dim:
        del decoder["1"]
    return {
        "posterior": encoder if latent_dim else {},
        "likelihood": decoder,
        "condition": condition if c_dim else {},
    }


def context(p: Params, c: Array) -> tuple[Any, Any]:
    """What the condition adds to the encoder's second layer and to the decoder's first."""
    if not p:
        return 0.0, 0.0
    second = dense(p["2"], jax.nn.relu(dense(p["1"], jnp.ravel(c))))
    third = dense(p["3"], jax.nn.relu(second))
    return second, dense(p["4"], jax.nn.relu(third))


def doersch(
    x_shape: tuple[int, ...],
    c_shape: tuple[int, ...],
    latent_dim: int,
    prior: Net | None = None,
    bound: Callable[[Array], Array] = unbounded,
) -> VAE:
    """The VAE, CVAE or regressor for images of x_shape, given c_shape. 784, 0, 30: 2,844,844
    parameters; 756, 28, 30: 3,506,316; 756, 28, 0: 2,100,756. prior: N(0, I) where none is given.
    bound: of logsd; unbounded as published.
    """
    prior = standard((latent_dim,)) if prior is None else prior
    plan = layers(math.prod(x_shape), math.prod(c_shape), latent_dim)

    def init(key: Key) -> Params:
        keys = iter(jax.random.split(key, 1 + sum(map(len, plan.values()))))
        params = {
            part: {name: dense_init(next(keys), *sizes) for name, sizes in named.items()}
            for part, named in plan.items()
        }
        return params | {"prior": prior.init(next(keys))}

    def encode(params: Params, x: Array, c: Array) -> Normal:
        if not latent_dim:
            return empty().apply({}, x, c)
        mean, log_scale = encoder(params, x, c)
        return Normal(mean, bound(log_scale))

    def decode(params: Params, z: Array, c: Array) -> Bernoulli:
        return Bernoulli(decoder(params, z, c).reshape(x_shape))

    def latents(params: Params, c: Array) -> Any:
        return prior.apply(params["prior"], lambda x: encode(params, x, c), c)

    return compose(init, encode, decode, latents)


def encoder(params: Params, x: Array, c: Array) -> tuple[Array, Array]:
    """mu and logsd: the one reads the last layer after its ReLU, the other before it."""
    p = params["posterior"]
    hidden = jax.nn.relu(dense(p["1"], jnp.ravel(x)))
    hidden = jax.nn.relu(dense(p["2"], hidden) + context(params["condition"], c)[0])
    hidden = dense(p["3"], hidden)
    return dense(p["mu"], jax.nn.relu(hidden)), dense(p["logsd"], hidden)


def decoder(params: Params, z: Array, c: Array) -> Float[Array, " pixels"]:
    """Logits of all pixels."""
    p = params["likelihood"]
    first = dense(p["1"], z) if "1" in p else 0.0
    hidden = jax.nn.relu(first + context(params["condition"], c)[1])
    hidden = jax.nn.relu(dense(p["3"], jax.nn.relu(dense(p["2"], hidden))))
    return dense(p["4"], hidden)


@dataclasses.dataclass(frozen=True)
class Doersch(Bounded, OneLayer):
    """As published, but for the bound, and for the prior where it is another."""

    def build(self, shapes: Shapes) -> VAE:
        shapes = shapes._replace(z=(self.latent_dim,))
        prior = build(chosen(self, "prior"), shapes, mlp(WIDTHS))
        return doersch(shapes.x, shapes.c, self.latent_dim, prior, self.bound)
