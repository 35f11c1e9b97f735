"""Flows whose parameters a network makes of other dimensions.

- A coupling, y₁ = x₁ and y₂ = f(x₂; net(x₁)) (Dinh et al. 2017).
- An autoregressive flow, y_i = f(x_i; net_i(x_1 … x_{i−1})) (Kingma et al. 2016); the one of
  Papamakarios et al. (2017) is its `Inverse`.

f is elementwise, and made of the network's numbers by `element`. The network reads what is given,
`context`, too.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.distributions.base import distribution, static
from vae_jax.distributions.bijectors.base import Bijector
from vae_jax.types import Array, Scalar


@distribution
class Coupling(Bijector):
    """The first `kept` numbers stay. net(params, kept, context) -> numbers [d − kept, m]."""

    params: Any
    context: Array
    net: Callable[..., Array] = static()
    element: Callable[[Array], Any] = static()
    kept: int = static()

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        first, second = x[: self.kept], x[self.kept :]
        second, log_det = self._element(first).forward_and_log_det(second)
        return jnp.concatenate([first, second]), log_det

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Scalar]:
        first, second = y[: self.kept], y[self.kept :]
        second, log_det = self._element(first).inverse_and_log_det(second)
        return jnp.concatenate([first, second]), log_det

    def _element(self, first: Array) -> Any:
        return self.element(self.net(self.params, first, self.context))


@distribution
class Autoregressive(Bijector):
    """Forward in one pass; inverse in a pass for each dimension, since each needs those before it.

    net(params, x, context) -> numbers [d, m], the i-th of x_1 … x_{i−1} alone.
    """

    params: Any
    context: Array
    net: Callable[..., Array] = static()
    element: Callable[[Array], Any] = static()

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        return self._element(x).forward_and_log_det(x)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Scalar]:
        def improve(x: Array, _: Any) -> tuple[Array, None]:  # right in one more place each time
            return self._element(x).inverse_and_log_det(y)[0], None

        x, _ = jax.lax.scan(improve, jnp.zeros_like(y), None, length=len(y))
        return x, -self._element(x).forward_and_log_det(x)[1]

    def _element(self, x: Array) -> Any:
        return self.element(self.net(self.params, x, self.context))
