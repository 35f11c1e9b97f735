"""Networks of other libraries as a `Net`: Flax Linen, Flax NNX, Equinox.

Each is a module of one example. What it learns must be all that it keeps: whatever else a module
carries from call to call (statistics of a batch, counts of random numbers) is no pure function of
its parameters and its inputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.settings import UserError
from vae_jax.types import Array, Key, Net, Params, Shape

_STATE = "use layers without such state: LayerNorm or GroupNorm in place of BatchNorm, no dropout"


def from_linen(module: Any, input_shapes: Sequence[Shape]) -> Net:
    """Any Linen module of one example as a Net."""

    def init(key: Key) -> Params:
        inputs = (jnp.zeros(shape, jnp.float32) for shape in input_shapes)
        variables = module.init(key, *inputs)
        others = variables.keys() - {"params"}
        if others:
            raise UserError(f"{type(module).__name__} keeps {min(others)} beside params: {_STATE}")
        return variables.get("params", {})

    def apply(params: Params, *inputs: Array) -> Array:
        return module.apply({"params": params}, *inputs)

    return Net(init, apply)


def from_nnx(make: Callable[[Any], Any]) -> Net:
    """A Flax NNX module as a Net; make: nnx.Rngs -> module, such as `lambda rngs: MLP(8, rngs)`."""
    from flax import nnx

    like = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    graph, shapes, others = nnx.split(like, nnx.Param, ...)
    if jax.tree.leaves(others):
        raise UserError(f"{type(like).__name__} keeps more than its parameters: {_STATE}")

    def init(key: Key) -> Params:
        return nnx.to_pure_dict(nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)[1])

    def apply(params: Params, *inputs: Array) -> Array:
        state = jax.tree.map(lambda a: a, shapes)  # a copy: what follows changes it
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state, others)(*inputs)

    return Net(init, apply)


def from_equinox(make: Callable[[Key], Any]) -> Net:
    """An Equinox module as a Net; make: key -> module, as `lambda key: eqx.nn.MLP(…, key=key)`.

    Equinox itself is not required by this library.
    """
    import equinox as eqx

    like = eqx.filter_eval_shape(make, jax.random.key(0))
    if any(isinstance(leaf, eqx.nn.StateIndex) for leaf in _nodes(like, eqx.nn.StateIndex)):
        raise UserError(f"the module keeps state beside its parameters: {_STATE}")
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    learned = [jnp.issubdtype(getattr(leaf, "dtype", int), jnp.inexact) for _, leaf in paths]

    def init(key: Key) -> Params:
        leaves = jax.tree.leaves(make(key))
        return {n: leaf for n, leaf, on in zip(names, leaves, learned, strict=True) if on}

    def apply(params: Params, *inputs: Array) -> Array:
        filled = [params.get(name, leaf) for name, (_, leaf) in zip(names, paths, strict=True)]
        return jax.tree.unflatten(structure, filled)(*inputs)

    return Net(init, apply)


def _nodes(tree: Any, kind: type) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
