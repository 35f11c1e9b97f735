"""Maps of each number by itself, each with its own parameters: what couplings and autoregressive
flows apply. `numbers` [d, m] are what a network says, and numbers of 0 are the identity, but of
`Gate`.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from vae_jax.distributions.base import distribution, static
from vae_jax.distributions.bijectors.base import Bijector
from vae_jax.types import Array, Scalar

LIMIT = 3.0  # of |log scale|


@distribution
class Affine(Bijector):
    """y = x·exp(s) + t (Dinh et al. 2017), with s = LIMIT·tanh(raw/LIMIT)."""

    numbers: Float[Array, "d 2"]
    size: ClassVar[int] = 2  # of the numbers of each x

    @property
    def _log_scale(self) -> Array:
        return LIMIT * jnp.tanh(self.numbers[:, 1] / LIMIT)

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        s = self._log_scale
        return x * jnp.exp(s) + self.numbers[:, 0], jnp.sum(s)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Scalar]:
        s = self._log_scale
        return (y - self.numbers[:, 0]) * jnp.exp(-s), -jnp.sum(s)


@distribution
class Gate(Bijector):
    """y = σ·x + (1 − σ)·m with σ = sigmoid(s + OPEN), as in Kingma et al. (2016): where the numbers
    are 0, it shrinks all x a little.
    """

    numbers: Float[Array, "d 2"]
    size: ClassVar[int] = 2
    OPEN: ClassVar[float] = 2.0

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        m, s = self.numbers.T
        gate = jax.nn.sigmoid(s + self.OPEN)
        return gate * x + (1 - gate) * m, jnp.sum(jax.nn.log_sigmoid(s + self.OPEN))

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Scalar]:
        m, s = self.numbers.T
        log_gate = jax.nn.log_sigmoid(s + self.OPEN)
        gate = jax.nn.sigmoid(s + self.OPEN)
        return (y - (1 - gate) * m) * jnp.exp(-log_gate), -jnp.sum(log_gate)


@distribution
class Spline(Bijector):
    """A monotonic spline of rational quadratics on [−bound, bound], the identity outside (Durkan et
    al. 2019).

    numbers: for k bins, k raw widths, k raw heights, and k − 1 raw slopes at the inner knots.
    """

    numbers: Float[Array, "d m"]
    bound: float = static(5.0)
    LEAST: ClassVar[float] = 1e-3  # width and height of a bin, over the whole, and slope

    def _knots(self) -> tuple[Array, Array, Array]:
        """Places, heights and slopes of the knots, each [d, k + 1]."""
        k = (self.numbers.shape[1] + 1) // 3
        widths, heights, raw = jnp.split(self.numbers, [k, 2 * k], axis=1)
        start = math.log(math.expm1(1 - self.LEAST))  # the raw slope that is 1
        slopes = self.LEAST + jax.nn.softplus(raw + start)
        slopes = jnp.pad(slopes, [(0, 0), (1, 1)], constant_values=1.0)
        return self._places(widths), self._places(heights), slopes

    def _places(self, raw: Array) -> Array:
        k = raw.shape[1]
        shares = self.LEAST + (1 - self.LEAST * k) * jax.nn.softmax(raw, axis=1)
        inner = jnp.cumsum(shares, axis=1)[:, :-1]
        return self.bound * (2 * jnp.pad(inner, [(0, 0), (1, 1)], constant_values=(0, 1)) - 1)

    def _bin(self, at: Array, by: int) -> tuple[Array, ...]:
        """Of the bin that holds each of `at`, which are x (by = 0) or y (1): left end, width, lower
        end, height, both slopes.
        """
        x, y, slopes = knots = self._knots()
        chosen = jnp.sum(at[:, None] >= knots[by][:, 1:-1], axis=1)[:, None]

        def pick(values: Array, shift: int = 0) -> Array:
            return jnp.take_along_axis(values, chosen + shift, axis=1)[:, 0]

        left, low = pick(x), pick(y)
        return left, pick(x, 1) - left, low, pick(y, 1) - low, pick(slopes), pick(slopes, 1)

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        inside = jnp.abs(x) < self.bound
        at = jnp.where(inside, x, 0.0)  # no overflow behind where
        left, width, low, height, d0, d1 = self._bin(at, by=0)
        slope, t = height / width, (at - left) / width
        u = t * (1 - t)
        below = slope + (d0 + d1 - 2 * slope) * u
        y = low + height * (slope * t**2 + d0 * u) / below
        log_det = _log_slope(slope, d0, d1, t, below)
        return jnp.where(inside, y, x), jnp.sum(jnp.where(inside, log_det, 0.0))

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Scalar]:
        inside = jnp.abs(y) < self.bound
        at = jnp.where(inside, y, 0.0)
        left, width, low, height, d0, d1 = self._bin(at, by=1)
        slope, rise = height / width, at - low
        bend = rise * (d0 + d1 - 2 * slope)
        a, b, c = height * (slope - d0) + bend, height * d0 - bend, -slope * rise
        t = 2 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0.0)))
        below = slope + (d0 + d1 - 2 * slope) * t * (1 - t)
        log_det = _log_slope(slope, d0, d1, t, below)
        x = left + width * t
        return jnp.where(inside, x, y), -jnp.sum(jnp.where(inside, log_det, 0.0))


def _log_slope(slope: Array, d0: Array, d1: Array, t: Array, below: Array) -> Array:
    """log dy/dx within a bin."""
    above = d1 * t**2 + 2 * slope * t * (1 - t) + d0 * (1 - t) ** 2
    return 2 * jnp.log(slope) + jnp.log(above) - 2 * jnp.log(below)


def numbers_of(bins: int) -> int:
    """How many numbers a spline takes for each x."""
    return 3 * bins - 1
