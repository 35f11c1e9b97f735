"""What objectives are made of: KL weights, samples of z and what they cost, metrics."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from vae_jax.distributions.divergence import kl
from vae_jax.models.vae import VAE
from vae_jax.types import Array, Batch, Key, Keys, Params, Scalar


class Weights(NamedTuple):
    """How the rate is weighted at one step.

    beta: as in β-VAE (Higgins et al. 2017). capacity: the rate aimed at, in nats; free_bits: the
    rate in nats that a group of units has for nothing; 0 is off for both.
    """

    beta: Scalar | float = 1.0
    capacity: Scalar | float = 0.0
    free_bits: Scalar | float = 0.0


Metrics = dict[str, Scalar]
Objective = Callable[..., tuple[Scalar, Metrics]]


class Draws(NamedTuple):
    """Samples z for each image, and what they cost; each number [batch, samples] in nats."""

    z: Any
    log_likelihood: Float[Array, "batch samples"]
    log_prior: Float[Array, "batch samples"]
    log_posterior: Float[Array, "batch samples"]
    rate: Float[Array, "batch samples"]  # KL(q‖p), in closed form where there is one

    @property
    def sampled_rate(self) -> Float[Array, "..."]:
        return self.log_posterior - self.log_prior


def draw(vae: VAE, params: Params, key: Key, batch: Batch, num_samples: int = 1) -> Draws:
    """`num_samples` independent z for each image, one key each."""

    def example(keys: Keys, x: Any, c: Any) -> Draws:
        q, p = vae.posterior(params, x, c), vae.prior(params, c)

        def one(key: Key) -> Draws:
            z, log_q = q.sample_and_log_prob(key)
            log_likelihood = vae.likelihood(params, z, c).log_prob(x)
            return Draws(z, log_likelihood, p.log_prob(z), log_q, kl(q, p, key))

        return jax.vmap(one)(keys)

    return jax.vmap(example)(_keys(key, batch, num_samples), *batch)


def _keys(key: Key, batch: Batch, num_samples: int) -> Keys:
    return jax.random.split(key, (len(batch.x), num_samples))


def summary(rate: Array, distortion: Array, **others: Array) -> Metrics:
    """Means over the batch and the samples; the ELBO is the true one."""
    rate, distortion = jnp.mean(rate), jnp.mean(distortion)
    return {"elbo": -(rate + distortion), "rate": rate, "distortion": distortion, **others}
