"""Many trainings as one program: `vmap` over seed, KL weight, learning rate and latent dimension.

A member is one training. It has its own order of the images and its own noise, from its own seed,
and is in all but rounding what `training.fit` makes of the same settings. Members of different
latent dimension are padded to the largest (see `masking`). One whose loss is not finite stops
there, and the others do not notice. On several devices each has its share of the members.

Where `vmap` is slower, the members train one after the other in one program, which takes their
seed, KL weight and learning rate as arguments and is compiled once for a latent dimension.
"""

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vae_jax import streaming, training
from vae_jax.batches import epoch_order
from vae_jax.masking import masked, pad, unpad
from vae_jax.model import VAE
from vae_jax.training import Objective, Prepare, Progress, Steps, TrainConfig, TrainState
from vae_jax.types import Array

AXIS = "member"
MEMORY = 0.8  # of what there is, for the members


class Member(NamedTuple):
    """What one training has of its own; everything else the members of a program share."""

    latent_dim: int
    beta: float
    learning_rate: float
    seed: int


class Program(NamedTuple):
    """What the members share.

    vae: latent dimension -> model, the same one whenever asked. weights: β -> step -> the KL
    weights at that step. config: its learning rate and seed are not used.
    """

    vae: Callable[[int], VAE]
    objective: Objective
    weights: Callable[[Any], Callable[[Array], Any]]
    config: TrainConfig
    prepare: Prepare

    def of(self, member: Member) -> TrainConfig:
        own = {"learning_rate": member.learning_rate, "seed": member.seed}
        return self.config.__class__(**{**vars(self.config), **own})

    def start(self, member: Member, num_images: int) -> TrainState:
        return training.initial_state(self.vae(member.latent_dim), self.of(member), num_images)


class Values(NamedTuple):
    """A member's own numbers as arrays; of several members [members, ...]."""

    key: Any  # of its steps
    beta: Any
    learning_rate: Any
    on: Any  # which of the program's latents are its own, [latents]


def values(member: Member, latent_dim: int) -> Values:
    key = training.keys_from_seed(member.seed).steps
    beta, learning_rate = (jnp.asarray(v, jnp.float32) for v in member[1:3])
    return Values(key, beta, learning_rate, jnp.arange(latent_dim) < member.latent_dim)


def _steps(program: Program, latent_dim: int, total: int, mask: bool) -> Callable[..., Any]:
    """(values, state, data, order, first, count) -> (state, metrics) of one member."""
    config, vae = program.config, program.vae(latent_dim)

    def steps(own: Values, state: TrainState, *inputs: Any) -> Any:
        step = training.make_step(
            masked(vae, own.on) if mask else vae,
            program.objective,
            training.make_optimiser(config, total, own.learning_rate),
            program.weights(own.beta),
            config.ema,
        )
        return training.make_steps(step, program.prepare)(state, own.key, *inputs)

    return steps


# One after the other


def fit_in_turn(
    program: Program,
    data: Any,
    members: Sequence[Member],
    states: Sequence[TrainState | None],
    chunk: int = 1000,
    limit: float | None = None,
) -> Iterator[dict[int, Progress]]:
    """As `fit`, one member at a time, to its end; arguments as in `training.fit`."""
    total = training.length(program.config, len(jax.tree.leaves(data)[0]))[1]
    compiled: dict[int, Any] = {}
    for i, (member, state) in enumerate(zip(members, states, strict=True)):
        k = member.latent_dim
        if k not in compiled:
            compiled[k] = jax.jit(_steps(program, k, total, mask=False), donate_argnums=1)
        own = values(member, k)

        def run(state: TrainState, key: Any, *inputs: Any) -> Any:
            return compiled[k](own, state, *inputs)

        for progress in training.fit(
            program.vae(k), program.objective, data, program.of(member),
            state=state, chunk=chunk, limit=limit, run=run,
        ):  # fmt: skip
            yield {i: progress}


# All at once


def member_mesh() -> Mesh:
    """The devices that the members are shared out to."""
    return Mesh(np.array(jax.devices()), (AXIS,))


def _make_run(program: Program, latent_dim: int, total: int, mask: bool, mesh: Mesh) -> Steps:
    """`_steps` of all members at once: a loop on each device, none of which waits for another."""
    steps = jax.vmap(_steps(program, latent_dim, total, mask), in_axes=(0, 0, None, 0, 0, 0))
    own, shared = PartitionSpec(AXIS), PartitionSpec()
    specs = (own, own, shared, own, own, own)
    spread = jax.shard_map(steps, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False)
    return jax.jit(spread, donate_argnums=1)


class Stack:
    """The states of some members as one [members, ...], padded to the largest latent dimension and
    to a multiple of the devices.
    """

    def __init__(self, program: Program, members: Sequence[Member], num_images: int, mesh: Mesh):
        self.latent_dim = max(member.latent_dim for member in members)
        self.members = [*members, *[members[-1]] * (-len(members) % mesh.size)]
        self.shapes = {
            m.latent_dim: jax.eval_shape(lambda m=m: program.start(m, num_images)) for m in members
        }
        self.mesh = mesh
        self.slice = jax.jit(lambda state, i: jax.tree.map(lambda a: a[i], state))

    def _sizes(self, member: Member) -> tuple[int, int]:
        return member.latent_dim, self.latent_dim

    def put(self, trees: Sequence[Any]) -> Any:
        """One for each member -> stacked, each device with its members' part."""
        filled = [*trees, *[trees[-1]] * (len(self.members) - len(trees))]
        where = NamedSharding(self.mesh, PartitionSpec(AXIS))
        return jax.device_put(jax.tree.map(lambda *a: jnp.stack(a), *filled), where)

    def states(self, states: Sequence[TrainState]) -> TrainState:
        large = self.shapes[self.latent_dim]
        each = zip(self.members, states, strict=False)
        return self.put([pad(state, large, self._sizes(m)) for m, state in each])

    def state(self, stacked: TrainState, i: int) -> TrainState:
        """The i-th member's own, copied."""
        member = self.members[i]
        return unpad(self.slice(stacked, i), self.shapes[member.latent_dim], self._sizes(member))


def fit(
    program: Program,
    data: Any,
    members: Sequence[Member],
    states: Sequence[TrainState | None],
    chunk: int = 1000,
    mesh: Mesh | None = None,
) -> Iterator[dict[int, Progress]]:
    """Trains all members as one program; yields after each chunk of steps, as `training.fit` does.

    data: as in `training.fit`; it is kept on every device. states: where each goes on, None from
    the start. What is yielded has the Progress of each member that took steps, by its place in
    `members`: one that is ahead waits for the others, one whose loss is not finite comes no more.
    """
    num_images = len(jax.tree.leaves(data)[0])
    per_epoch, total = training.length(program.config, num_images)
    mesh = member_mesh() if mesh is None else mesh
    stack = Stack(program, members, num_images, mesh)
    own = stack.put([values(m, stack.latent_dim) for m in members])
    order_keys = stack.put([training.keys_from_seed(m.seed).order for m in members])
    pairs = zip(members, states, strict=True)
    state = stack.states([program.start(m, num_images) if s is None else s for m, s in pairs])
    mask = len(stack.shapes) > 1
    run = _make_run(program, stack.latent_dim, total, mask, mesh)
    data = jax.device_put(data, NamedSharding(mesh, PartitionSpec()))
    orders = jax.jit(jax.vmap(epoch_order, (0, None, None, None)), static_argnums=(2, 3))

    at = np.asarray(state.step)
    going = np.arange(len(at)) < len(members)
    epoch, order = None, None
    for piece in streaming.pieces(int(at.min()), total, per_epoch, chunk, sys.maxsize):
        if piece.epoch != epoch:
            epoch, order = piece.epoch, orders(order_keys, piece.epoch, num_images,
                                               program.config.batch_size)  # fmt: skip
        start = per_epoch * piece.epoch
        begin = np.maximum(at, start + piece.first)
        count = np.where(going, np.maximum(start + piece.first + piece.count - begin, 0), 0)
        if not count.any():
            continue
        state, metrics = run(own, state, data, order, begin - start, count)
        before, at, metrics = at, np.asarray(state.step), jax.device_get(metrics)
        yield {
            i: Progress(
                stack.state(state, i), int(at[i]), per_epoch, total, int(at[i] - before[i]),
                {name: float(values[i]) for name, values in metrics.items()},
            )
            for i in np.flatnonzero(count).tolist()
        }  # fmt: skip
        going &= np.isfinite(metrics["loss"])


# What fits


def member_bytes(program: Program, latent_dim: int, data: Any) -> int:
    """What one member needs: its state, a gradient and an update, and what the gradient is made
    of, as the backward pass asks for it.
    """
    num_images = len(jax.tree.leaves(data)[0])
    vae, key, config = program.vae(latent_dim), jax.random.key(0), program.config
    state = jax.eval_shape(lambda: program.start(Member(latent_dim, 1.0, 1.0, 0), num_images))

    def backward(params: Any, rows: Any) -> Any:
        batch, weights = program.prepare(key, rows), program.weights(1.0)(jnp.zeros((), jnp.int32))
        return jax.vjp(lambda p: program.objective(vae, p, key, batch, weights)[0], params)[1]

    rows = jax.tree.map(lambda a: jax.ShapeDtypeStruct((config.batch_size, *a.shape[1:]), a.dtype),
                        data)  # fmt: skip
    kept = jax.eval_shape(backward, state.params, rows)
    return _bytes(state) + 2 * _bytes(state.params) + 2 * _bytes(kept)


def _bytes(tree: Any) -> int:
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def memory() -> float:
    """Bytes that are free on each device; on a CPU, in the machine."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return free / jax.local_device_count()


def how_many(program: Program, latent_dim: int, data: Any, devices: int) -> int:
    """Members of so many latents that train at once on so many devices; at least one on each."""
    room = MEMORY * memory() - sum(a.nbytes for a in jax.tree.leaves(data))
    return devices * max(1, int(room // member_bytes(program, latent_dim, data)))
