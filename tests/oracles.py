"""What is exact: two small worlds whose log p(x) is known, and how to compare means.

`linear`: linear-Gaussian, log p(x) in closed form, the encoder off the true posterior.
`bernoulli`: a random network with Bernoulli pixels and two latents, log p(x) by quadrature.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.theory.worlds import random_linear_gaussian
from vae_jax.distributions.continuous import MultivariateNormal, Normal
from vae_jax.models.build import ModelConfig, build
from vae_jax.models.priors import standard
from vae_jax.models.vae import VAE, assemble
from vae_jax.types import Batch, Net, unconditional

QUICK = {"xla_backend_optimization_level": 0}  # compiling is what takes the time in these tests


class World(NamedTuple):
    vae: VAE
    params: Any
    batch: Batch
    log_p: np.ndarray  # exact log p(x) of each image, nats


def _encode(params: Any, x: Any, c: Any) -> Any:
    """A Gaussian whose mean is linear in x and whose covariance is always the same."""
    mean = params["matrix"] @ x + params["offset"]
    if "scale_tril" in params:
        return MultivariateNormal(mean, params["scale_tril"])
    return Normal(mean, params["log_scale"])


def linear(off: float = 0.1, full: bool = False, seed: int = 0, batch: int = 3) -> World:
    """log p(x) and p(z|x) are known; the encoder has the true posterior (or the mean-field one)
    plus `off` times noise.
    """
    truth, encoder, x, log_p = _linear(jax.random.key(seed), off, full, batch)
    decoder = Net(lambda key: truth, lambda world, z, c: world.likelihood(z))
    vae = assemble(Net(lambda key: encoder, _encode), decoder, standard(2))
    params = {"posterior": encoder, "likelihood": truth, "prior": {}}
    return World(vae, params, unconditional(x), np.asarray(log_p))


@functools.partial(jax.jit, static_argnums=(2, 3), compiler_options=QUICK)
def _linear(key: Any, off: Any, full: bool, batch: int) -> Any:
    truth = random_linear_gaussian(key, x_dim=4, z_dim=2)
    zero = jnp.zeros(4)
    matrix = jax.jacobian(lambda x: truth.posterior(x).mean)(zero)
    encoder = {"matrix": matrix, "offset": truth.posterior(zero).mean}
    if full:
        encoder["scale_tril"] = truth.posterior(zero).scale_tril
    else:
        encoder["log_scale"] = truth.mean_field(zero).log_scale
    noise, draw = jax.random.split(jax.random.fold_in(key, 1))
    flat, unravel = ravel_pytree(encoder)
    encoder = unravel(flat + off * jax.random.normal(noise, flat.shape))
    if full:
        encoder["scale_tril"] = jnp.tril(encoder["scale_tril"])
    x = jax.vmap(truth.marginal.sample)(jax.random.split(draw, batch))
    return truth, encoder, x, jax.vmap(truth.marginal.log_prob)(x)


def bernoulli(seed: int = 0, batch: int = 3, posterior: str = "diagonal") -> World:
    config = ModelConfig(latent_dim=2, widths="6", activation="tanh", posterior=posterior)
    vae = build(config, (3, 3, 1))
    key = jax.random.key(seed)
    init = jax.jit(vae.init, compiler_options=QUICK)
    params = jax.tree.map(lambda a: 1.5 * a, init(key))
    x = jax.random.bernoulli(key, 0.5, (batch, 3, 3, 1)).astype(jnp.float32)
    return World(vae, params, unconditional(x), quadrature(vae, params, x))


def quadrature(vae: VAE, params: Any, x: Any) -> np.ndarray:
    """log ∫ p(x|z) N(z; 0, I) dz over two latents, by a grid on [−8, 8]², spacing 0.08."""
    line = jnp.linspace(-8, 8, 201)
    grid = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 2)
    log_prior = jax.vmap(vae.prior(params, jnp.zeros(0)).log_prob)(grid)

    def log_p(x: Any) -> Any:
        log_x = jax.vmap(lambda z: vae.likelihood(params, z, jnp.zeros(0)).log_prob(x))(grid)
        return jax.nn.logsumexp(log_x + log_prior) + 2 * jnp.log(line[1] - line[0])

    return np.asarray(jax.jit(jax.vmap(log_p), compiler_options=QUICK)(x))


WORLDS = {"linear": functools.cache(linear), "bernoulli": functools.cache(bernoulli)}


def standard_error(samples: Any) -> np.ndarray:
    return np.std(samples, axis=0, ddof=1) / np.sqrt(len(samples))


def z_scores(samples: Any, expected: Any = 0.0) -> np.ndarray:
    """(mean − expected) in standard errors, of independent samples [n, ...]; 0/0 is 0."""
    samples = np.asarray(samples, np.float64)
    difference = samples.mean(axis=0) - np.asarray(expected)
    error = standard_error(samples)
    rounding = 1e-6 * np.abs(samples).max(axis=0)
    return difference / np.maximum(error, rounding + 1e-12)
