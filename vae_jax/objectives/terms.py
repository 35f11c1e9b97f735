"""What objectives are made of: KL weights, samples of z and what they cost, metrics."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from vae_jax.models.vae import VAE, Draw
from vae_jax.types import Array, Batch, Key, Keys, Params, Scalar


class KLWeights(NamedTuple):
    """How the rate is weighted at one step.

    beta: as in β-VAE (Higgins et al. 2017). capacity: the rate aimed at, in nats; free_bits: the
    rate in nats below which a group of units is not penalised; 0 is off for both.
    """

    beta: Scalar | float = 1.0
    capacity: Scalar | float = 0.0
    free_bits: Scalar | float = 0.0


Metrics = dict[str, Scalar]


class Objective(NamedTuple):
    """What is minimised, and its own parameters where it has some.

    init(key) -> params, {} for most; they are trained with the model's, as params["objective"], and
    an objective of two players stops the gradient of what is not its own. loss(vae, params, key,
    batch, weights) -> (loss, metrics); the objective can be called like its loss.
    """

    init: Callable[[Key], Params]
    loss: Callable[..., tuple[Scalar, Metrics]]

    def __call__(self, *arguments: Any) -> tuple[Scalar, Metrics]:
        return self.loss(*arguments)


class Facts(NamedTuple):
    """What an objective may need to know to be built: the size of the training set, and how many
    numbers one z has.
    """

    num_examples: int
    latents: int


def without_parameters(loss: Callable[..., tuple[Scalar, Metrics]]) -> Objective:
    """An objective without parameters of its own; one that is an objective already, as it is."""
    return loss if isinstance(loss, Objective) else Objective(lambda key: {}, loss)


def draw(vae: VAE, params: Params, key: Key, batch: Batch, num_samples: int = 1) -> Draw:
    """`num_samples` independent z for each image, one key each: leaves [batch, samples, ...]."""

    def example(keys: Keys, x: Any, c: Any) -> Draw:
        return jax.vmap(lambda key: vae.draw(params, key, x, c))(keys)

    return jax.vmap(example)(sample_keys(key, batch, num_samples), *batch)


def sample_keys(key: Key, batch: Batch, num_samples: int) -> Keys:
    return jax.random.split(key, (len(batch.x), num_samples))


def summary(rate: Array, distortion: Array, **others: Array) -> Metrics:
    """Means over the batch and the samples; the ELBO is the true one."""
    rate, distortion = jnp.mean(rate), jnp.mean(distortion)
    return {"elbo": -(rate + distortion), "rate": rate, "distortion": distortion, **others}


def with_gradient_of(value: Array, surrogate: Array) -> Array:
    """`value`, with the gradient of `surrogate`."""
    return jax.lax.stop_gradient(value) + surrogate - jax.lax.stop_gradient(surrogate)


def flat(z: Any) -> Float[Array, "batch latents"]:
    """A batch of latents, whatever their shapes, as one vector each."""
    return jax.vmap(lambda z: ravel_pytree(z)[0])(z)
