"""Names for what flows through the library.

Shapes in signatures are `jaxtyping` annotations; the tests check them at run time with beartype.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from jaxtyping import Key as _Key

Array = jax.Array | np.ndarray  # NumPy's will do
Key = _Key[jax.Array, ""]  # one typed key, from `jax.random.key`
Keys = _Key[jax.Array, "..."]  # an array of them
Params = Any  # a pytree of arrays, as a net's `init` returns it
Scalar = Float[Array, ""]


class Batch(NamedTuple):
    """Images and what is known about each of them.

    x: [batch, *shape], uint8 or in [0, 1]; in [0, 1] where an objective sees it. condition:
    [batch, *condition_shape]; where nothing is known it has shape (0,), never None, so that
    networks concatenate it without asking.
    """

    x: Any
    condition: Any


def unconditional(x: Any) -> Batch:
    """Images about which nothing is known."""
    return Batch(x, np.zeros((len(x), 0), np.float32))


Shape = tuple[int, ...]


class Shapes(NamedTuple):
    """What a part may need to know to be built: the shapes of one example's x, c and z, and of the
    training data, where they are known, the mean, float [*x] in [0, 1] (real numbers for points),
    and examples(k), k of its targets, float [k, *x].
    """

    x: Shape
    c: Shape = (0,)
    z: Shape = (0,)
    x_mean: Any = None
    examples: Callable[[int], Array] | None = None


class Net(NamedTuple):
    """init(key) -> params; apply(params, *inputs) -> array or distribution, for one example."""

    init: Callable[[Key], Params]
    apply: Callable[..., Any]


Rate = Scalar | float  # may be traced
