"""A trained model, wherever it was trained: batches in, batches out."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import distributions, models
from vae_jax.data.batches import held_out, unit_interval
from vae_jax.data.conditions import Condition
from vae_jax.data.dataset import Dataset
from vae_jax.data.identity import recorded
from vae_jax.data.split import (
    Split,
    as_array,
    as_examples,
    as_labels,
    as_pixels,
    as_points,
    class_names,
    is_floating,
    of_shape,
)
from vae_jax.evaluation.per_example import PRECISION
from vae_jax.memory import fitting
from vae_jax.models.vae import VAE
from vae_jax.settings import UserError
from vae_jax.types import Batch, Key, Params, unconditional


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model, wherever it was trained: config, functions, weights.

    config, summary, history: what config.json, summary.json ({} of an unfinished run) and
    metrics.jsonl hold. x_shape: of an image, [height, width, channels]. Everything comes in batches
    [n, …], one image alone as x[None]; what does not fit is a UserError of one line. For a model
    p(x|c) every method takes c, [n, *condition.c_shape] or one for all; `split` makes the targets x
    and the c of images, `merge` images of them.
    """

    config: dict[str, Any]
    vae: VAE
    params: Params
    condition: Condition
    meta: dict[str, Any]
    summary: dict[str, Any]
    history: list[dict[str, Any]]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a run directory of it: see `runs.save`."""
        from vae_jax.runs.save import save  # which knows this class

        save(self, path)

    def data(self, data_dir: str = "") -> Dataset:
        """The images that it was made with, and no others; data_dir: where they are now, a folder
        or the file itself, "" where the training found them.
        """
        described = self.config["dataset"]
        return recorded(self.config["settings"]["data"], described, data_dir, described["name"])

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.condition.image_shape

    @property
    def latent_dim(self) -> int | None:
        """How many latents there are, where z is one vector; else None."""
        shapes = self.condition.x_shape, self.condition.c_shape
        return models.latent_dim(models.latents(self.vae, *shapes))

    def split(self, images: Any, labels: Any = None, key: Key | None = None) -> Batch:
        """Targets and what is given of images [n, *x_shape], labels [n] where it needs them.

        Grey pixels that are given are drawn with `key`.
        """
        x = as_examples(images, self.x_shape, "images")
        if self.condition.c_shape == (0,):
            return unconditional(x)
        y = np.zeros(0, np.int32)
        if self.config["settings"]["model"]["condition"] == "label":
            if labels is None:
                raise UserError(f"labels must be {len(x)}, each one of {self._known()}; got none")
            y = self._codes(labels, len(x))
        return held_out(self.condition, jax.random.key(0) if key is None else key, Split(x, y))

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels of the data that it was made with are called."""
        dataset = self.config["dataset"]
        names = dataset.get("classes") or map(str, range(dataset.get("num_classes", 0)))
        return tuple(names)

    def _known(self) -> str:
        shown = ", ".join(self.classes[:20])
        return shown + ", …" * (len(self.classes) > 20)

    def _codes(self, labels: Any, n: int) -> np.ndarray:
        """The indices of n labels, by their names; UserError where one is unknown."""
        index = {name: i for i, name in enumerate(self.classes)}
        named = class_names(as_labels(labels, n, "labels")).tolist()
        unknown = [name for name in named if name not in index]
        if unknown:
            raise UserError(f"labels must be some of {self._known()}; got {unknown[0]!r}")
        return np.array([index[name] for name in named], np.int32)

    def given_label(self, label: Any, n: int = 1) -> Any:
        """c of one label, n times, or of n labels, for a model of p(x|label)."""
        if self.config["settings"]["model"]["condition"] != "label":
            raise UserError("label is for a run with --condition=label; this one has none")
        codes = self._codes(np.broadcast_to(np.asarray(label), (n,)), n)
        return jnp.asarray(np.eye(len(self.classes), dtype=np.float32)[codes])

    def merge(self, x: Any, c: Any = None) -> Any:
        """Images [n, *x_shape] of targets and what is given."""
        x = of_shape(x, self.condition.x_shape, "x")  # what a decoder says may leave [0, 1]
        x = jnp.asarray(x if is_floating(x) else unit_interval(as_pixels(x, "x")))
        return jax.vmap(self.condition.merge)(x, self._given(c, len(x)))

    def _given(self, c: Any, n: int) -> Any:
        """c for n examples; UserError where the model needs one and none fits."""
        shape = self.condition.c_shape
        if c is None and shape == (0,):
            return jnp.zeros((n, 0), jnp.float32)
        c = as_array(np.nan if c is None else c, "c")
        if c.shape not in (shape, (n, *shape)):
            raise UserError(
                f"the run models p(x|c), c its {self.config['settings']['model']['condition']}: "
                f"give c of shape {shape} or {(n, *shape)}, as `split` makes it"
            )
        return jnp.broadcast_to(_finite(c, "c"), (n, *shape))

    def _latents(self, z: Any) -> Any:
        """z as this model has it, each array [n, …] of its own shape; or UserError."""
        wanted = models.latents(self.vae, self.condition.x_shape, self.condition.c_shape)
        if isinstance(wanted, jax.ShapeDtypeStruct):
            z = as_array(z, "z")
            z = z[None] if z.shape == wanted.shape else z
        elif jax.tree.structure(z) != jax.tree.structure(wanted):
            shapes = [list(leaf.shape) for leaf in jax.tree.leaves(wanted)]
            raise UserError(f"z must be a tuple of arrays [n, …], from the top down: {shapes}")
        z = jax.tree.map(
            lambda like, a: _finite(of_shape(as_array(a, "z"), like.shape, "z"), "z"), wanted, z
        )
        if len({len(a) for a in jax.tree.leaves(z)}) != 1:
            raise UserError("z must be arrays [n, …] of one n")
        return z

    def encode(self, x: Any, c: Any = None) -> Any:
        """q(z|x,c) for targets [n, …], uint8 or floats in [0, 1]; `.mean` is [n, latents]."""
        x = self._targets(x)
        return _batched(_itself, self.vae.posterior, self.params, x, self._given(c, len(x)))

    def _targets(self, x: Any) -> Any:
        return unit_interval(jnp.asarray(as_examples(x, self.condition.x_shape, "x")))

    def decode(self, z: Any, c: Any = None) -> Any:
        """E[x|z,c], targets [n, …] in [0, 1], for latents [n, latent_dim], or one [latent_dim]; a
        tuple of arrays [n, …] where a model has several layers of them.
        """
        z = self._latents(z)
        n = len(jax.tree.leaves(z)[0])
        return _batched(_mean, self.vae.likelihood, self.params, z, self._given(c, n))

    def sample(
        self, key: Key, n: int, c: Any = None, temperature: float = 1.0, label: Any = None
    ) -> Any:
        """E[x|z,c] for n latents z drawn from the prior p(z|c), [n, …] in [0, 1].

        temperature T: z = m + T·(z′ − m) for z′ ~ p(z|c) with mean m, so that T scales the standard
        deviation of a Gaussian prior (Kingma & Dhariwal 2018, §6), in a hierarchy that of each
        layer given those above. 0 is the prior's mean, 1 the prior itself; the same key gives the
        same z′ at every T. label: in place of c, of a model of p(x|label), one or n by name.
        """
        if n < 1:
            raise UserError(f"n must be at least 1; got {n}")
        c = self._given(c if label is None else self.given_label(label, n), n)
        keys = jax.random.split(key, n)
        scale = None if temperature == 1 else temperature
        z = _latents(self.vae.prior, self.params, keys, c, scale)
        return self.decode(z, c)

    def latents(self, x: Any, c: Any = None) -> Any:
        """The posterior means z of targets x, as `decode` takes them; see `reconstruct`."""
        x = self._targets(x)
        return _batched(_centre, self.vae.posterior, self.params, x, self._given(c, len(x)))

    def reconstruct(self, x: Any, c: Any = None) -> Any:
        """E[x|z,c] at the posterior means z of targets x: in a hierarchy, each layer's given those
        that come before it; where these are not known in closed form, at means of samples.
        """
        z = self.latents(x, c)
        given = self._given(c, len(x))
        return _batched(_mean, self.vae.likelihood, self.params, z, given)


def _finite(a: Any, what: str) -> Any:
    """Numbers as float32 on the device; UserError where they are none."""
    if not (is_floating(a) or a.dtype.kind in "biu"):
        raise UserError(f"{what} must be numbers; got dtype {a.dtype}")
    floats = as_points(a if is_floating(a) else a.astype(np.float32), what)
    return jnp.asarray(floats, jnp.float32)


def _itself(p: Any) -> Any:
    return p


def _centre(p: Any) -> Any:
    return distributions.cooled(p, jax.random.key(0), 0.0)


def _mean(p: Any) -> Any:
    return distributions.mean(p, jax.random.key(0))


BLOCK = 1000  # examples at once: what they take in between is then bounded, however many come


def _batched(
    of: Callable[[Any], Any], f: Callable[..., Any], params: Params, inputs: Any, c: Any
) -> Any:
    """of(f(params, input, c)) of each example, BLOCK of them at a time, or as many as fit."""
    n = len(c)
    first = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), (inputs, c))
    block = fitting(BLOCK, _one, (of, f), params, *first)
    if n <= block:
        return _at_once(of, f, params, inputs, c)
    parts = []
    for start in range(0, n, block):
        some = jax.tree.map(lambda a: a[start : start + block], (inputs, c))
        parts.append(_at_once(of, f, params, *some))
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


def _one(of: Callable[[Any], Any], f: Callable[..., Any], params: Params, x: Any, c: Any) -> Any:
    return of(f(params, x, c))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _at_once(
    of: Callable[[Any], Any], f: Callable[..., Any], params: Params, inputs: Any, c: Any
) -> Any:
    """of(f(params, input, c)) of each example."""
    with jax.default_matmul_precision(PRECISION):
        return jax.vmap(functools.partial(_one, of, f, params))(inputs, c)


@functools.partial(jax.jit, static_argnums=0)
def _latents(prior: Callable[..., Any], params: Params, keys: Any, c: Any, temperature: Any) -> Any:
    def draw(key: Key, c: Any) -> Any:
        p = prior(params, c)
        return p.sample(key) if temperature is None else distributions.cooled(p, key, temperature)

    with jax.default_matmul_precision(PRECISION):
        return jax.vmap(draw)(keys, c)
