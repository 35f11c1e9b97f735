"""Convolutions of one image as functions: strided, and transposed.

On accelerators they are XLA's convolutions. On CPUs they are matrix products of patches ("im2col";
Chellapilla, Puri & Simard 2006), because XLA's CPU convolutions are some ten times slower inside a
loop than outside, and training steps and importance samples run in loops; and because `vmap` over
kernels makes grouped convolutions of them, where matrix products stay matrix products. The two
agree to rounding; `docs/performance.md` has the measurements.
"""

import itertools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from vae_jax.types import Array

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _accelerated() -> bool:
    return jax.default_backend() != "cpu"


def convolve(
    x: Float[Array, "h w c"],
    kernel: Float[Array, "k k c f"],
    stride: int = 1,
    native: bool | None = None,
) -> Float[Array, "h2 w2 f"]:
    """Cross-correlation, padded with zeros to ⌈h/stride⌉ × ⌈w/stride⌉ ("SAME").

    native: XLA's own convolution; None leaves it to the device.
    """
    if _accelerated() if native is None else native:
        strides = (stride, stride)
        x, kernel = jnp.asarray(x)[None], jnp.asarray(kernel)
        return jax.lax.conv_general_dilated(x, kernel, strides, "SAME", None, None, _LAYOUT)[0]
    patches = _patches(x, len(kernel), stride)
    y = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return y.reshape(*patches.shape[:2], -1)


def _patches(x: Float[Array, "h w c"], size: int, stride: int) -> Float[Array, "h2 w2 kkc"]:
    """The inputs under the kernel at each of its places."""
    places = [math.ceil(length / stride) for length in x.shape[:2]]
    spans = [stride * (n - 1) + 1 for n in places]
    missing = [
        max(span + size - 1 - length, 0) for span, length in zip(spans, x.shape, strict=False)
    ]
    x = jnp.pad(x, [*((n // 2, n - n // 2) for n in missing), (0, 0)])
    shifts = itertools.product(range(size), repeat=2)
    parts = [x[i : i + spans[0] : stride, j : j + spans[1] : stride] for i, j in shifts]
    return jnp.concatenate(parts, axis=-1)


def convolve_transposed(
    x: Float[Array, "h w c"], kernel: Float[Array, "k k c f"], native: bool | None = None
) -> Float[Array, "h2 w2 f"]:
    """Transposed convolution of stride 2, to twice the size; the kernel's size k is even.

    Pixel (y, x) adds its vector times kernel[i, j] to output (2y + i − k/2 + 1, 2x + j − k/2 + 1).
    """
    if _accelerated() if native is None else native:
        x, flipped = jnp.asarray(x)[None], jnp.asarray(kernel)[::-1, ::-1]
        return jax.lax.conv_transpose(x, flipped, (2, 2), "SAME", None, _LAYOUT)[0]
    (h, w, c), size, f = x.shape, len(kernel), kernel.shape[-1]
    half = size // 2
    y = x.reshape(-1, c) @ jnp.moveaxis(kernel, 2, 0).reshape(c, -1)
    # Kernel index i = 2 a + b: the block of 2 × 2 outputs a places on, and the place b in it.
    y = y.reshape(h, w, half, 2, half, 2, f)
    blocks = sum(
        jnp.pad(y[:, :, a, :, b], [(a, half - 1 - a), (b, half - 1 - b), *[(0, 0)] * 3])
        for a, b in itertools.product(range(half), repeat=2)
    )
    everything = jnp.swapaxes(blocks, 1, 2).reshape(2 * (h + half - 1), 2 * (w + half - 1), f)
    return everything[half - 1 : half - 1 + 2 * h, half - 1 : half - 1 + 2 * w]
