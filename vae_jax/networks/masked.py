"""The networks inside flows: they make numbers for each dimension, of those that it may see.

MADE (Germain et al. 2015): a hidden unit sees the dimensions up to its degree, and what is said of
dimension i sees the hidden units of lower degree than i. The last layer starts at 0, so that a flow
starts as the identity, or as near to it as its elements come.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vae_jax.networks.adapters import from_linen
from vae_jax.networks.layers import PLAIN, Style
from vae_jax.types import Array, Net, Shape


class _Masked(nn.Module):
    """A dense layer, some of whose connections are cut."""

    width: int
    mask: Sequence[Sequence[bool]]  # [inputs, width]; empty: none is cut
    style: Style
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        nothing = self.last or not x.size  # initialisers divide by the number of inputs
        initial = nn.initializers.zeros if nothing else self.style.initialiser
        kernel = self.param("kernel", initial, (x.shape[-1], self.width), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        return x @ (kernel * np.asarray(self.mask, np.float32) if self.mask else kernel) + bias


class Conditioner(nn.Module):
    """x [d] and context -> numbers [outputs, m]; `autoregressive`: outputs = d and those of i see
    x_1 … x_{i−1} and the context alone.
    """

    widths: Sequence[int]
    output_shape: Shape
    autoregressive: bool
    style: Style = PLAIN

    @nn.compact
    def __call__(self, x: Array, context: Array) -> Array:
        given, h = jnp.ravel(context), x
        degrees = np.arange(1, len(x) + 1)
        for i, width in enumerate(self.widths):
            own = np.rint(np.linspace(0, max(len(x) - 1, 0), width))  # 0: the context alone
            mask = self._mask(degrees[:, None] <= own)
            h = _Masked(width, mask, self.style)(h)
            if not i and given.size:
                h += nn.Dense(width, use_bias=False, kernel_init=self.style.initialiser)(given)
            h, degrees = self.style.activation(h), own
        outputs, m = self.output_shape
        mask = self._mask(degrees[:, None] < np.repeat(np.arange(1, outputs + 1), m))
        numbers = _Masked(math.prod(self.output_shape), mask, self.style, last=True)(h)
        return numbers.reshape(self.output_shape)

    def _mask(self, mask: np.ndarray) -> tuple[tuple[bool, ...], ...]:
        return tuple(map(tuple, mask.tolist())) if self.autoregressive else ()


def conditioner(
    widths: Sequence[int], inputs: int, output_shape: Shape, context: Shape, autoregressive: bool
) -> Net:
    """apply(params, x [inputs], context) -> numbers, of `output_shape`; see `Conditioner`."""
    style = PLAIN._replace(activation=nn.elu)
    module = Conditioner(tuple(widths), output_shape, autoregressive, style)
    return from_linen(module, [(inputs,), context])
