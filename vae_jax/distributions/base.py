"""What a distribution is: a frozen dataclass, registered as a pytree, of one example's parameters.

`log_prob` sums over the event and returns a scalar in nats. Batches are made with `jax.vmap`, one
key per example:

    jax.vmap(lambda mean, key: Normal(mean, log_scale).sample(key))(means, keys)

Every distribution has `sample(key)`, `log_prob(x)`, `sample_and_log_prob(key)` and, where they
exist in closed form, `mean` and `mode`. `jit`, `vmap` and `tree.map` see their parameters.
"""

import dataclasses
from typing import Any, Protocol, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, register_pytree_with_keys

from vae_jax.settings import UserError
from vae_jax.types import Array, Key, Scalar

LOG_2PI = float(np.log(2 * np.pi))


class Distribution(Protocol):
    """What every distribution can do; see the module's docstring. A new one need not inherit."""

    def sample(self, key: Key) -> Array: ...

    def log_prob(self, x: Array) -> Scalar: ...

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Scalar]:
        x = self.sample(key)
        return x, self.log_prob(x)


T = TypeVar("T")


def static(default: Any = dataclasses.MISSING) -> Any:
    """A field that is no leaf but part of the structure: a function or a number, hashable."""
    return dataclasses.field(default=default, metadata={"static": True})


@dataclass_transform(frozen_default=True)
def distribution(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass whose fields, but the `static`, are the leaves of a pytree.

    Unflattening goes past `__init__`: JAX puts placeholders that are not arrays into pytrees.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
    names = tuple(field.name for field in fields if not field.metadata.get("static"))
    fixed = tuple(field.name for field in fields if field.metadata.get("static"))

    def flatten(self: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        leaves = tuple((GetAttrKey(name), getattr(self, name)) for name in names)
        return leaves, tuple(getattr(self, name) for name in fixed)

    def unflatten(static: tuple[Any, ...], leaves: Any) -> Any:
        self = object.__new__(cls)
        for name, value in zip((*names, *fixed), (*leaves, *static), strict=True):
            object.__setattr__(self, name, value)
        return self

    register_pytree_with_keys(cls, flatten, unflatten)
    return cls


MEAN_SAMPLES = 100  # of a mean that is estimated


def mean(p: Any, key: Key) -> Any:
    """E[x]: the distribution's own, or where it has none, the mean of MEAN_SAMPLES samples."""
    if has_mean(p):
        return p.mean
    samples = jax.vmap(p.sample)(jax.random.split(key, MEAN_SAMPLES))
    return jax.tree.map(lambda a: jnp.mean(a, axis=0), samples)


def cooled(p: Any, key: Key, temperature: Any) -> Any:
    """m + T·(z − m) for z ~ p with mean m, so that T scales a Gaussian's standard deviation: T = 1
    is z itself and T = 0 the mean. A distribution of several values that says so itself cools each
    given those before it, which are cooled.
    """
    if hasattr(p, "cooled"):
        return p.cooled(key, temperature)
    m = mean(p, jax.random.key(0))
    if isinstance(temperature, float) and temperature == 0:
        return m
    return jax.tree.map(lambda m, z: m + temperature * (z - m), m, p.sample(key))


def redrawn(p: Any, key: Key, z: Any, kept: Any) -> Any:
    """z with its first `kept` values as they are and the others drawn anew, given those before;
    UserError where a distribution is not of several values, each given those before.
    """
    if not hasattr(p, "redrawn"):
        raise UserError(f"{type(p).__name__} is not of several values, each given those before")
    return p.redrawn(key, z, kept)


def has_mean(p: Any) -> bool:
    """Whether a distribution's mean is known in closed form."""
    return hasattr(p, "mean")


def event(x: Array, shape: tuple[int, ...]) -> Array:
    """x itself; a batch handed to an un-vmapped `log_prob` would silently be summed, so: no."""
    if jnp.shape(x) != shape:
        grey = shape[-1:] == (1,) and jnp.shape(x)[1 - len(shape) :] == shape[:-1]
        hint = "give it its channel axis, x[..., None]" if grey else "use jax.vmap for batches"
        raise ValueError(f"log_prob takes one example of shape {shape}, got {jnp.shape(x)}; {hint}")
    return x
