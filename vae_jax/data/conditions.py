"""What is given of an image, and what is left to be modelled: p(x|c) instead of p(x).

A condition splits one image into a target x and a given part c, and merges them again for
pictures. "none" gives nothing: c has shape (0,). Given pixels are drawn as Bernoulli(grey) anew at
each use, as in Doersch's conditional VAE (2016, §3), whatever the binarisation of the target.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from vae_jax.settings import UserError
from vae_jax.types import Array, Key

Shape = tuple[int, ...]


class Condition(NamedTuple):
    """Functions of one example.

    split(key, image, label) -> (x of x_shape, c of c_shape), for an image [h, w, channels] in
    [0, 1]; merge(x, c) -> image; given(c) -> bool [h, w], which of its pixels c tells.
    """

    image_shape: Shape
    x_shape: Shape
    c_shape: Shape
    split: Callable[[Key, Array, Array], tuple[Array, Array]]
    merge: Callable[[Array, Array], Array]
    given: Callable[[Array], Array]


def none(image_shape: Shape, num_classes: int = 0) -> Condition:
    """Nothing is given: the whole image is modelled."""
    return Condition(
        image_shape,
        image_shape,
        (0,),
        lambda key, image, label: (image, jnp.zeros(0, jnp.float32)),
        lambda x, c: x,
        lambda c: jnp.zeros(image_shape[:2], bool),
    )


def label(image_shape: Shape, num_classes: int) -> Condition:
    """The class, one-hot (Kingma et al. 2014's M2; Sohn et al. 2015)."""
    if num_classes < 2:
        raise UserError("condition label needs data with labels of at least two classes")
    return none(image_shape, num_classes)._replace(
        c_shape=(num_classes,),
        split=lambda key, image, label: (
            image,
            jax.nn.one_hot(label, num_classes, dtype=jnp.float32),
        ),
    )


def pixels(given: Bool[np.ndarray, "h w"], image_shape: Shape) -> Condition:
    """The given pixels, drawn as Bernoulli(grey); the target is all others, [pixels, channels]."""
    channels = image_shape[2]
    inside, outside = np.flatnonzero(given), np.flatnonzero(~given)
    if not len(inside) or not len(outside):
        raise UserError(f"images of {image_shape} are too small to give a part of their pixels")

    def split(key: Key, image: Array, label: Array) -> tuple[Array, Array]:
        flat = image.reshape(-1, channels)
        seen = jax.random.bernoulli(key, flat[inside]).astype(image.dtype)
        return flat[outside], seen

    def merge(x: Array, c: Array) -> Array:
        flat = jnp.zeros((given.size, channels), x.dtype)
        return flat.at[outside].set(x).at[inside].set(c).reshape(image_shape)

    x_shape, c_shape = (len(outside), channels), (len(inside), channels)
    return Condition(image_shape, x_shape, c_shape, split, merge, lambda c: jnp.asarray(given))


def random_mask(image_shape: Shape, num_classes: int) -> Condition:
    """Half of the pixels, others in each image: c is [h, w, channels + 1], the image where it is
    given (0 elsewhere) and the mask; the target is the whole image.
    """
    height, width, channels = image_shape

    def split(key: Key, image: Array, label: Array) -> tuple[Array, Array]:
        mask_key, pixel_key = jax.random.split(key)
        mask = jax.random.bernoulli(mask_key, 0.5, (height, width, 1)).astype(image.dtype)
        seen = jax.random.bernoulli(pixel_key, image).astype(image.dtype)
        return image, jnp.concatenate([mask * seen, mask], axis=-1)

    return none(image_shape)._replace(
        c_shape=(height, width, channels + 1),
        split=split,
        merge=lambda x, c: jnp.where(c[..., -1:] > 0, c[..., :-1], x),
        given=lambda c: c[..., -1] > 0,
    )


def _block(rows: slice, columns: slice, shape: Shape) -> Bool[np.ndarray, "h w"]:
    given = np.zeros(shape[:2], bool)
    given[rows, columns] = True
    return given


def _region(choose: Callable[[int, int], tuple[slice, slice]]) -> Callable[[Shape, int], Any]:
    return lambda shape, num_classes: pixels(_block(*choose(*shape[:2]), shape), shape)


WHOLE = slice(None)

# name -> function of the image's shape and the number of classes
CONDITIONS = {
    "none": none,
    "label": label,
    # Index 13 of 28: Doersch's middle column.
    "column": _region(lambda h, w: (WHOLE, slice((w - 1) // 2, (w - 1) // 2 + 1))),
    "left_half": _region(lambda h, w: (WHOLE, slice(w // 2))),
    "top_half": _region(lambda h, w: (slice(h // 2), WHOLE)),
    "quadrant": _region(lambda h, w: (slice(h // 2, None), slice(w // 2))),
    "random_mask": random_mask,
}


def make(name: str, image_shape: Shape, num_classes: int = 0) -> Condition:
    """The condition by name, for images of this shape with labels 0 to num_classes − 1 (or none).

    Raises UserError where the data cannot carry it.
    """
    if name not in ("none", "label") and len(image_shape) != 3:
        raise UserError(
            f"condition {name} gives some of an image's pixels; got data of shape {image_shape}"
        )
    return CONDITIONS[name](image_shape, num_classes)
