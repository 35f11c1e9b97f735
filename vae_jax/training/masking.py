"""A model of k latents inside one of K ≥ k: the K − k others are switched off.

Models of different latent dimension have arrays of different shapes, and one program trains
arrays of one shape. So a member of k latents is initialised as itself and padded with zeros, and
its model reads

    q(z_j|x) = p(z_j) = N(0, 1),  p(x|z) = p(x|z_1, …, z_k, 0, …, 0)        for j > k :

the KL of a unit that is off is exactly 0, as are its gradients, and its arrays stay 0 under every
optimiser. The noise is the smaller model's, since normal(key, (K,))[:k] is normal(key, (k,)).
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey
from jaxtyping import Array, Bool

from vae_jax.distributions.continuous import Normal
from vae_jax.models.build import ModelConfig
from vae_jax.models.vae import VAE, compose
from vae_jax.objectives.config import ObjectiveConfig
from vae_jax.types import Params

# Those in which a unit with q = p adds nothing, to rounding. In the others it does: to the
# penalties of DIP and to distances of samples, of InfoVAE.
OBJECTIVES = ("elbo", "iwae", "miwae", "ciwae", "dreg", "stl", "score_function")


def maskable(model: ModelConfig, objective: ObjectiveConfig) -> bool:
    """Whether models that differ in latent_dim alone can train in one program."""
    nets = (model.model, model.network, model.posterior, model.prior)
    dense = nets == ("standard", "mlp", "diagonal", "standard")
    return dense and objective.objective in OBJECTIVES and not objective.free_bits


def masked(vae: VAE, on: Bool[Array, " latents"]) -> VAE:
    """The model of those latents that are `on`, in the arrays of one that has them all."""

    def posterior(params: Params, x: Array, c: Array) -> Normal:
        q = vae.posterior(params, x, c)
        return Normal(jnp.where(on, q.mean, 0), jnp.where(on, q.log_scale, 0))

    def likelihood(params: Params, z: Array, c: Array) -> Any:
        return vae.likelihood(params, jnp.where(on, z, 0), c)

    return compose(vae.init, posterior, likelihood, vae.prior)


def pad(tree: Any, like: Any, latent_dims: tuple[int, int]) -> Any:
    """The arrays of a model of k latents, or of its training, in one of K; zeros elsewhere.

    like: the larger one's arrays or their shapes. latent_dims: k, K.
    """

    def one(path: Any, small: Array, large: Any) -> Array:
        if small.shape == large.shape:
            return small
        return jnp.zeros(large.shape, large.dtype).at[_kept(path, small, latent_dims)].set(small)

    return jax.tree_util.tree_map_with_path(one, tree, like)


def unpad(tree: Any, like: Any, latent_dims: tuple[int, int]) -> Any:
    """What `pad` was given. like: the smaller one's arrays or their shapes."""

    def one(path: Any, large: Array, small: Any) -> Array:
        return large if small.shape == large.shape else large[_kept(path, small, latent_dims)]

    return jax.tree_util.tree_map_with_path(one, tree, like)


def _kept(path: Any, small: Any, latent_dims: tuple[int, int]) -> Any:
    """Where in the larger array the smaller one is.

    The encoder ends in k means and then k log scales; the decoder begins with k latents and then
    the condition.
    """
    k, large = latent_dims
    if DictKey("posterior") in path:
        return ..., np.r_[:k, large : large + k]
    assert DictKey("likelihood") in path, path
    return np.r_[:k, large : large + small.shape[0] - k], ...


def together(
    latent_dims: Iterable[int], work: Callable[[int], float], most: float = 2.0
) -> list[list[int]]:
    """Latent dimensions that train as one, largest first: `work` of the largest is at most `most`
    times that of any other in its group, so that padding costs no more than that.
    """
    groups: list[list[int]] = []
    for latent_dim in sorted(set(latent_dims), reverse=True):
        if groups and latent_dim and work(groups[-1][0]) <= most * work(latent_dim):
            groups[-1].append(latent_dim)
        else:
            groups.append([latent_dim])
    return groups
