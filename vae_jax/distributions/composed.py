"""Distributions made of others."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from vae_jax.distributions.base import (
    LOG_2PI,
    Distribution,
    cooled,
    distribution,
    event,
    static,
)
from vae_jax.distributions.continuous import Normal
from vae_jax.types import Array, Key, Scalar


@distribution
class Mixture(Distribution):
    """Σ_k w_k p_k(x): one of k distributions at a time for the whole of x.

    components: k distributions of one family in one pytree, its leaves [k, ...], as `jax.vmap`
    makes them. log_weights: [k], up to a constant.
    """

    components: Any
    log_weights: Float[Array, " k"]

    @property
    def mean(self) -> Array:
        """Σ_k w_k E_k[x]; of one mixture (wrap in `jax.vmap` for a batch of mixtures)."""
        means = jax.vmap(lambda component: component.mean)(self.components)
        return jnp.tensordot(jax.nn.softmax(self.log_weights), means, axes=1)

    def sample(self, key: Key) -> Array:
        of_index, of_x = jax.random.split(key)
        index = jax.random.categorical(of_index, self.log_weights)
        return jax.tree.map(lambda leaf: leaf[index], self.components).sample(of_x)

    def log_prob(self, x: Array) -> Scalar:
        """log Σ_k w_k p_k(x): each p_k is a joint density, summed over x before the logsumexp."""
        if isinstance(self.components, Normal):
            log_p = _of_gaussians(self.components, x)
        else:
            log_p = jax.vmap(lambda component: component.log_prob(x))(self.components)
        return jax.nn.logsumexp(jax.nn.log_softmax(self.log_weights) + log_p)


def _of_gaussians(components: Normal, x: Array) -> Float[Array, " k"]:
    """log p_k(x) of k Gaussians, dimension by dimension: along k, XLA's CPU loops vectorise (six
    times as fast for 500 components of 40 dimensions), and unlike a product of matrices the sum of
    squares loses no digits where scales are small.
    """
    k, x = len(components.mean), jnp.ravel(event(x, components.mean.shape[1:]))
    log_scale = components.log_scale.reshape(k, -1)
    scale = jnp.exp(-log_scale).T
    means = components.mean.reshape(k, -1).T * scale

    def add(squares: Array, dimension: Any) -> tuple[Array, None]:
        x, scale, mean = dimension
        return squares + (x * scale - mean) ** 2, None

    squares, _ = jax.lax.scan(add, jnp.zeros(k, x.dtype), (x, scale, means))
    return -0.5 * (squares + x.size * LOG_2PI) - jnp.sum(log_scale, axis=1)


@distribution
class Chain(Distribution):
    """p(a) p(b|a), of two values: (a, b), or (b, a) where it runs `upwards`.

    then: (params, a) -> p(b|a), the same function whenever such a distribution is made; its
    parameters and `first` are the leaves.
    """

    first: Any
    params: Any
    then: Callable[[Any, Any], Any] = static()
    upwards: bool = static(False)

    def sample(self, key: Key) -> tuple[Any, Any]:
        return self.sample_and_log_prob(key)[0]

    def cooled(self, key: Key, temperature: Any) -> tuple[Any, Any]:
        of_a, of_b = jax.random.split(key)
        a = cooled(self.first, of_a, temperature)
        b = cooled(self.then(self.params, a), of_b, temperature)
        return (b, a) if self.upwards else (a, b)

    def redrawn(self, key: Key, z: tuple[Any, Any], kept: Any) -> tuple[Any, Any]:
        of_a, of_b = jax.random.split(key)
        old_a, old_b = z[::-1] if self.upwards else z
        a = jax.tree.map(lambda o, n: jnp.where(kept > 0, o, n), old_a, self.first.sample(of_a))
        new_b = self.then(self.params, a).sample(of_b)
        b = jax.tree.map(lambda o, n: jnp.where(kept > 1, o, n), old_b, new_b)
        return (b, a) if self.upwards else (a, b)

    def log_prob(self, x: tuple[Any, Any]) -> Scalar:
        a, b = x[::-1] if self.upwards else x
        return self.first.log_prob(a) + self.then(self.params, a).log_prob(b)

    def sample_and_log_prob(self, key: Key) -> tuple[Any, Scalar]:
        of_a, of_b = jax.random.split(key)
        a, log_a = self.first.sample_and_log_prob(of_a)
        b, log_b = self.then(self.params, a).sample_and_log_prob(of_b)
        return ((b, a) if self.upwards else (a, b)), log_a + log_b
