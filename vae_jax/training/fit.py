"""Training: the state, one step, and a compiled run of steps. Knows no data set and no objective.

Step t draws everything from `fold_in(key, t)`, and epoch e its order of the images from
`fold_in(order_key, e)`: where a run was stopped and resumed leaves no trace in its numbers.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from vae_jax.data import streaming
from vae_jax.data.batches import as_given, epoch_order, num_rows
from vae_jax.data.split import as_values
from vae_jax.models.vae import VAE
from vae_jax.objectives import KLWeights
from vae_jax.parallel import devices
from vae_jax.training.state import (
    TrainConfig,
    TrainState,
    initial_state,
    keys_from_seed,
    length,
    make_optimiser,
)
from vae_jax.types import Batch, Key, Params

Prepare = Callable[[Key, Any], Batch]  # a key and a batch's rows of the data -> a batch in [0, 1]
Step = Callable[[TrainState, Key, Batch], tuple[TrainState, dict[str, Array]]]


def make_step(
    vae: VAE,
    objective: Callable[..., Any],
    optimiser: optax.GradientTransformation,
    weights: Callable[[Array], Any],
    ema: float = 0.0,
) -> Step:
    """One update: (state, key, batch) -> (state, metrics); `loss` joins the objective's metrics."""

    def step(state: TrainState, key: Key, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        def loss_of(params: Params) -> Any:
            return objective(vae, params, key, batch, weights(state.step))

        (loss, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimiser.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = optax.incremental_update(params, state.ema, 1 - ema) if ema else ()
        return TrainState(params, opt_state, state.step + 1, average), {"loss": loss, **metrics}

    return step


Steps = Callable[..., tuple[TrainState, dict[str, Array]]]


def make_run(step: Step, prepare: Prepare) -> Steps:
    """`make_steps`, compiled; the state's memory is used again."""
    return jax.jit(make_steps(step, prepare), donate_argnums=0)


def make_steps(step: Step, prepare: Prepare) -> Steps:
    """Many steps as one function: (state, key, data, order, first, count) -> (state, metrics).

    Takes `count` steps on rows order[first], order[first + 1], … of `data`: a pytree of arrays
    [n, ...] and int [steps, batch], both on the device; or of arrays [n, batch, ...] and int
    [steps], batches that are put together already. `metrics` are means over these steps.
    Stops at once after a step whose loss is not finite; `state.step` tells which it was. `first`
    and `count` are arrays: any number of steps runs without compiling anew.
    """

    def one(state: TrainState, key: Key, data: Any, indices: Array) -> Any:
        data_key, noise_key = jax.random.split(jax.random.fold_in(key, state.step))
        rows = devices.shared(jax.tree.map(lambda a: a[indices], data))
        return devices.whole(step(state, noise_key, prepare(data_key, rows)))

    def run(
        state: TrainState,
        key: Key,
        data: Any,
        order: Int[Array, "steps *batch"],
        first: Int[Array, ""],
        count: Int[Array, ""],
    ) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        def body(carry: Any) -> Any:
            i, state, mean = carry
            state, metrics = one(state, key, data, order[first + i])
            mean = jax.tree.map(lambda m, new: m + (new - m) / (i + 1), mean, metrics)
            return i + 1, state, mean

        def going(carry: Any) -> Array:
            i, _, mean = carry
            return (i < count) & jnp.isfinite(mean["loss"])

        shapes = jax.eval_shape(one, state, key, data, order[0])[1]
        nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        return jax.lax.while_loop(going, body, (jnp.zeros((), jnp.int32), state, nothing))[1:]

    return run


class Progress(NamedTuple):
    """What `fit` tells after each chunk of steps; `metrics` are means over the chunk."""

    state: TrainState
    step: int
    steps_per_epoch: int
    total_steps: int
    chunk: int
    metrics: dict[str, float]
    sound: bool = True  # whether all weights are finite numbers

    @property
    def epoch(self) -> float:
        return self.step / self.steps_per_epoch

    @property
    def finite(self) -> bool:
        return self.sound and bool(np.isfinite(self.metrics["loss"]))


@jax.jit
def all_finite(tree: Any) -> Array:
    """Whether every number in a pytree of arrays is one."""
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves)) if leaves else jnp.asarray(True)


def fit(
    vae: VAE,
    objective: Callable[..., Any],
    data: Any,
    config: TrainConfig,
    *,
    optimiser: optax.GradientTransformation | None = None,
    prepare: Prepare | None = None,
    weights: Callable[[Array], Any] = lambda step: KLWeights(),
    state: TrainState | None = None,
    chunk: int = 1000,
    limit: float | None = None,
    run: Steps | None = None,
) -> Iterator[Progress]:
    """Trains, from `state` or from the start, and yields after each compiled chunk of steps.

    objective: an `Objective`, or any function (vae, params, key, batch, weights) -> (loss,
    metrics); weights: what it is told at each step. optimiser: optax's of one's own, in place of
    what `config` says of optimiser, learning rate and l2. data: images [n, ...], whole numbers 0 to
    255 or floats in [0, 1], or points, floats [n, dims]; or with `prepare`, which makes batches of
    its rows, any pytree of arrays [n, ...]. Up to `limit` bytes, by default half of the device's
    memory, it is kept there; above that it streams from the host, and trains to the same weights
    (see `streaming`). run: `make_run`'s, where it was compiled before. On several devices: inside
    `devices.everywhere`. Arrays that were handed in or yielded stay as they are.

    A chunk ends with the epoch, with the training, and at every `chunk`-th step of an epoch.
    """
    if prepare is None and run is None:
        data = as_values(data, "data")
    num_images = num_rows(data)
    per_epoch, total = length(config, num_images)
    keys = keys_from_seed(config.seed)
    optimiser = optimiser or make_optimiser(config, total)
    if state is None:
        state = initial_state(vae, objective, config, num_images, optimiser)
    state = devices.put(state)
    if run is None:
        step = make_step(vae, objective, optimiser, weights, config.ema)
        run = make_run(step, prepare or as_given)
    permuted = jax.jit(epoch_order, static_argnums=(2, 3))

    def order(epoch: int) -> Array:
        return permuted(keys.order, epoch, num_images, config.batch_size)

    at = start = int(state.step)
    cut = functools.partial(streaming.pieces, at, total, per_epoch, chunk)
    steps = streaming.steps_per_block(data, config.batch_size, limit, min(chunk, per_epoch))
    for piece, inputs in streaming.feed(data, order, cut, steps):
        # The run is given its state's memory: what others have seen, it gets a copy of.
        mine = jax.tree.map(jnp.copy, state) if at == start else state
        state, new = run(mine, keys.steps, *inputs)
        before, at = at, int(state.step)
        old = metrics if before > start else dict.fromkeys(new, 0.0)  # of this chunk so far
        share = (at - before) / (at - start)
        metrics = {name: old[name] + (float(new[name]) - old[name]) * share for name in new}
        finite = np.isfinite(metrics["loss"])
        if piece.ends or not finite:
            sound = bool(all_finite(state.params))  # also after an update that no loss has seen
            yield Progress(state, at, per_epoch, total, at - start, metrics, sound)
            start, finite = at, finite and sound
        if not finite:
            return
