"""Names for what flows through the library.

Shapes in signatures are `jaxtyping` annotations; the tests check them at run time with beartype.
"""

from typing import Any, NamedTuple

from jaxtyping import Array, Float, Key as _Key

Key = _Key[Array, ""]  # one typed key, from `jax.random.key`
Params = Any  # a pytree of arrays, as a net's `init` returns it
Scalar = Float[Array, ""]


class Batch(NamedTuple):
    """What one training step sees: pixels in [0, 1] and what is known about each image.

    x: [batch, *shape]. condition: [batch, *condition_shape]; where nothing is known the condition
    has shape (0,), never None, so that networks concatenate it without asking.
    """

    x: Float[Array, "batch *shape"]
    condition: Float[Array, "batch *given"]
