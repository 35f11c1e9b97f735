"""What a bijector is, how bijectors are put together, and the distribution that one makes.

    y = f(x):   forward_and_log_det(x) -> (y, log|det ∂y/∂x|)
                inverse_and_log_det(y) -> (x, log|det ∂x/∂y|)

for one vector [d]. A bijector is a frozen dataclass registered as a pytree, like a distribution:
its parameters, which may be an image's own, are leaves; networks are static functions.
"""

from typing import Any, Protocol

import jax.numpy as jnp

from vae_jax.distributions.base import Distribution, distribution, static
from vae_jax.settings import UserError
from vae_jax.types import Array, Key, Scalar


class Bijector(Protocol):
    """What every bijector can do; one whose inverse has no closed form raises UserError."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]: ...

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Scalar]:
        raise UserError(
            f"the density of a {type(self).__name__} flow is known of its own samples only"
        )


@distribution
class Permutation(Bijector):
    """y = x[order]."""

    order: tuple[int, ...] = static()

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        return x[jnp.asarray(self.order)], jnp.zeros((), x.dtype)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Scalar]:
        return y[jnp.argsort(jnp.asarray(self.order))], jnp.zeros((), y.dtype)


@distribution
class Inverse(Bijector):
    """The other way round."""

    of: Any

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        return self.of.inverse_and_log_det(x)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Scalar]:
        return self.of.forward_and_log_det(y)


@distribution
class Chain(Bijector):
    """One after the other; none of them is the identity."""

    steps: tuple[Any, ...]

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        log_det = jnp.zeros((), x.dtype)
        for step in self.steps:
            x, more = step.forward_and_log_det(x)
            log_det += more
        return x, log_det

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Scalar]:
        log_det = jnp.zeros((), y.dtype)
        for step in reversed(self.steps):
            y, more = step.inverse_and_log_det(y)
            log_det += more
        return y, log_det


@distribution
class Transformed(Distribution):
    """f(x) with x ~ base. A sample's density comes with the sample, without an inversion."""

    base: Any
    bijector: Any

    def sample(self, key: Key) -> Array:
        return self.bijector.forward_and_log_det(self.base.sample(key))[0]

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Scalar]:
        x, log_p = self.base.sample_and_log_prob(key)
        y, log_det = self.bijector.forward_and_log_det(x)
        return y, log_p - log_det

    def log_prob(self, x: Array) -> Scalar:
        """log base(f⁻¹(x)) + log|det ∂f⁻¹/∂x|; UserError where f has no inverse."""
        start, log_det = self.bijector.inverse_and_log_det(x)
        return self.base.log_prob(start) + log_det
