"""VampPrior: the mixture of the posteriors of K learned images (Tomczak & Welling 2018).

    p(z) = Σ_k w_k q(z|u_k)

It is the prior with the highest ELBO, the aggregate posterior, with K images in place of all of
them. The model's own encoder reads the pseudo-inputs u_k, once a batch where nothing is given of an
image; of a conditional model, once for each c.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.distributions import Mixture
from vae_jax.models.mixtures import initial_weights, log_weights, weights_setting
from vae_jax.networks import Architecture
from vae_jax.settings import UserError, setting, validate
from vae_jax.types import Array, Key, Net, Params, Shapes

NOISE = 0.05, 0.01  # mean and standard deviation, in the code of Tomczak & Welling


@dataclasses.dataclass(frozen=True)
class Vamp:
    """The pseudo-inputs of images are kept in [0, 1] by a hard limit, as published."""

    pseudo_inputs: int = setting(
        500, "learned images whose posteriors are the prior", at_least=1, at_most=10_000
    )
    pseudo_inputs_start: str = setting(
        "data",
        "pseudo-inputs at the start: some training images, or noise, N(0.05, 0.01²) as published",
        choices=("data", "noise"),
    )
    prior_weights: str = weights_setting()

    def __post_init__(self) -> None:
        validate(self)

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        if shapes.z == (0,):
            raise UserError("prior vamp is one of latents: latent_dim must be at least 1")
        k, are_images = self.pseudo_inputs, len(shapes.x) > 1
        mean, scale = self._start(shapes), NOISE[1]

        def init(key: Key) -> Params:
            noise = jax.random.normal(key, (k, *shapes.x), jnp.float32)
            return {"pseudo_inputs": mean + scale * noise, **initial_weights(self, k)}

        def apply(params: Params, encode: Callable[[Array], object], c: Array) -> Mixture:
            u = params["pseudo_inputs"]
            images = jnp.clip(u, 0, 1) if are_images else u
            return Mixture(jax.vmap(encode)(images), log_weights(params, k))

        return Net(init, apply)

    def _start(self, shapes: Shapes) -> Any:
        """Where pseudo-inputs start, up to noise."""
        if self.pseudo_inputs_start == "noise":
            return NOISE[0]
        if shapes.examples is None:
            raise UserError("pseudo_inputs_start data needs training data, examples; or noise")
        return shapes.examples(self.pseudo_inputs)
