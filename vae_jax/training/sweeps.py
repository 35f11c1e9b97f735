"""Many trainings as one program: `vmap` over seed, KL weight, learning rate and latent dimension.

A member is one training. It has its own order of the images and its own noise, from its own seed,
and is in all but rounding what `training.fit` makes of the same settings. Members of different
latent dimension are padded to the largest (see `masking`). One whose loss is not finite stops
there, and the others do not notice. On several devices each has its share of the members.

Where `vmap` is slower, the members train one after the other in one program, which takes their
seed, KL weight and learning rate as arguments and is compiled once for a latent dimension.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vae_jax.data import streaming
from vae_jax.data.batches import epoch_order
from vae_jax.memory import memory
from vae_jax.models.vae import VAE
from vae_jax.parallel import devices
from vae_jax.parallel.devices import MEMBER
from vae_jax.training.fit import Prepare, Progress, Steps, all_finite, make_step, make_steps
from vae_jax.training.fit import fit as fit_one
from vae_jax.training.masking import masked, pad, unpad
from vae_jax.training.state import (
    TrainConfig,
    TrainState,
    initial_state,
    keys_from_seed,
    length,
    make_optimiser,
)
from vae_jax.types import Array

MEMORY = 0.8  # of what there is, for the members
# Whether a member's batches can be shared out too; older JAX has no constraints inside shard_map.
NESTED = jax.__version_info__ >= (0, 10)


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
    objective: Callable[..., Any]
    weights: Callable[[Any], Callable[[Array], Any]]
    config: TrainConfig
    prepare: Prepare

    def of(self, member: Member) -> TrainConfig:
        return dataclasses.replace(
            self.config, learning_rate=member.learning_rate, seed=member.seed
        )

    def start(self, member: Member, num_images: int) -> TrainState:
        vae = self.vae(member.latent_dim)
        return initial_state(vae, self.objective, self.of(member), num_images)


class Values(NamedTuple):
    """A member's own numbers as arrays; of several members [members, ...]."""

    key: Any  # of its steps
    beta: Any
    learning_rate: Any
    on: Any  # which of the program's latents are its own, [latents]


def values(member: Member, latent_dim: int) -> Values:
    key = keys_from_seed(member.seed).steps
    beta, learning_rate = (jnp.asarray(v, jnp.float32) for v in member[1:3])
    return Values(key, beta, learning_rate, jnp.arange(latent_dim) < member.latent_dim)


def _steps(program: Program, latent_dim: int, total: int, mask: bool) -> Callable[..., Any]:
    """(values, state, data, order, first, count) -> (state, metrics) of one member."""
    config, vae = program.config, program.vae(latent_dim)

    def steps(own: Values, state: TrainState, *inputs: Any) -> Any:
        step = make_step(
            masked(vae, own.on) if mask else vae,
            program.objective,
            make_optimiser(config, total, own.learning_rate),
            program.weights(own.beta),
            config.ema,
        )
        return make_steps(step, program.prepare)(state, own.key, *inputs)

    return steps


# One after the other


def fit_in_turn(
    program: Program,
    data: Any,
    members: Sequence[Member],
    states: Sequence[TrainState | None],
    chunk: int = 1000,
    limit: float | None = None,
    stopped: Collection[int] = (),
) -> Iterator[dict[int, Progress]]:
    """As `fit`, one member at a time, to its end; limit as in `training.fit`."""
    total = length(program.config, len(jax.tree.leaves(data)[0]))[1]

    @cache
    def compiled(latent_dim: int) -> Callable[..., Any]:
        return jax.jit(_steps(program, latent_dim, total, mask=False), donate_argnums=1)

    for i, (member, state) in enumerate(zip(members, states, strict=True)):
        if i in stopped:
            continue
        run, own = compiled(member.latent_dim), values(member, member.latent_dim)
        for progress in fit_one(
            program.vae(member.latent_dim), program.objective, data, program.of(member),
            state=state, chunk=chunk, limit=limit,
            run=lambda state, key, *inputs: run(own, state, *inputs),
        ):  # fmt: skip
            yield {i: progress}
            if i in stopped:
                break


# All at once


class Stack:
    """The states of some members as one, [members, ...]: padded to the largest latent dimension,
    and to a multiple of the mesh's length along `member`, each place of which holds its part.
    """

    def __init__(self, program: Program, members: Sequence[Member], num_images: int, mesh: Mesh):
        self.program, self.num_images, self.mesh = program, num_images, mesh
        self.latent_dim = max(member.latent_dim for member in members)
        self.members = [*members, *[members[-1]] * (-len(members) % mesh.shape[MEMBER])]
        dims = {member.latent_dim: member for member in members}
        self.shapes = {
            k: jax.eval_shape(partial(program.start, m, num_images)) for k, m in dims.items()
        }
        self._spread = jax.jit(
            lambda trees: jax.tree.map(lambda *a: jnp.stack(a), *trees),
            out_shardings=NamedSharding(mesh, PartitionSpec(MEMBER)),
        )
        whole = NamedSharding(mesh, PartitionSpec())
        self.fetch = jax.jit(lambda tree: tree, out_shardings=whole)
        self._slice = jax.jit(
            lambda state, i: jax.tree.map(lambda a: a[i], state), out_shardings=whole
        )
        self.sound = jax.jit(jax.vmap(all_finite))
        self.own = self._put([values(m, self.latent_dim) for m in members])
        self.order_keys = self._put([keys_from_seed(m.seed).order for m in members])
        self._orders = jax.jit(jax.vmap(epoch_order, (0, None, None, None)), static_argnums=(2, 3))

    def _put(self, trees: Sequence[Any]) -> Any:
        return self._spread([*trees, *[trees[-1]] * (len(self.members) - len(trees))])

    def _sizes(self, member: Member) -> tuple[int, int]:
        return member.latent_dim, self.latent_dim

    def start(self, states: Sequence[TrainState | None]) -> TrainState:
        """From the members' own states; from their beginning where there is none."""
        padded = []
        for member, state in zip(self.members, states, strict=False):
            state = self.program.start(member, self.num_images) if state is None else state
            padded.append(pad(state, self.shapes[self.latent_dim], self._sizes(member)))
        return self._put(padded)

    def state(self, stacked: TrainState, i: int) -> TrainState:
        """The i-th member's own, copied."""
        member = self.members[i]
        return unpad(self._slice(stacked, i), self.shapes[member.latent_dim], self._sizes(member))

    def order(self, epoch: int) -> Any:
        """Every member's own, [members, steps, batch]."""
        return self._orders(self.order_keys, epoch, self.num_images, self.program.config.batch_size)

    def make_run(self, total: int) -> Steps:
        """`training.make_run` for all at once: a loop on each device, and none waits for another.

        (state, data, order, first, count) -> (state, metrics), of data apart all [members, ...].
        """
        steps = _steps(self.program, self.latent_dim, total, mask=len(self.shapes) > 1)
        each, shared = PartitionSpec(MEMBER), PartitionSpec()
        spread = jax.shard_map(
            jax.vmap(steps, in_axes=(0, 0, None, 0, 0, 0)), mesh=self.mesh,
            in_specs=(each, each, shared, each, each, each), out_specs=each,
            axis_names={MEMBER}, check_vma=False,
        )  # fmt: skip
        compiled = jax.jit(spread, donate_argnums=1)

        def run(*inputs: Any) -> Any:
            with devices.over(self.mesh):
                return compiled(self.own, *inputs)

        return run


def fit(
    program: Program,
    data: Any,
    members: Sequence[Member],
    states: Sequence[TrainState | None],
    chunk: int = 1000,
    stopped: Collection[int] = (),
) -> Iterator[dict[int, Progress]]:
    """Trains all members as one program; yields after each chunk of steps, as `training.fit` does.

    data: as in `training.fit`; it is kept on every device. states: where each goes on, None from
    the start. What is yielded has the Progress of each member that took steps, by its place in
    `members`: one that is ahead waits for the others, one whose loss is not finite comes no more,
    nor does one that the caller has put among the `stopped`.
    """
    num_images = len(jax.tree.leaves(data)[0])
    per_epoch, total = length(program.config, num_images)
    mesh = devices.mesh(len(members) if NESTED else jax.device_count())
    stack = Stack(program, members, num_images, mesh)
    state, run, order = stack.start(states), stack.make_run(total), lru_cache(1)(stack.order)
    data = devices.put(data, mesh)
    at, going = np.asarray(stack.fetch(state.step)), np.arange(len(stack.members)) < len(members)
    for piece in streaming.pieces(int(at.min()), total, per_epoch, chunk, sys.maxsize):
        epoch_start = per_epoch * piece.epoch
        going[list(stopped)] = False
        begin = np.maximum(at, epoch_start + piece.first)
        end = np.where(going, epoch_start + piece.first + piece.count, 0)
        count = np.maximum(end - begin, 0)
        if not count.any():
            continue
        state, metrics = run(state, data, order(piece.epoch), begin - epoch_start, count)
        before, (at, metrics) = at, jax.device_get(stack.fetch((state.step, metrics)))
        sound = np.asarray(stack.fetch(stack.sound(state.params)))
        yield {
            i: Progress(stack.state(state, i), int(at[i]), per_epoch, total, int(at[i] - before[i]),
                        {name: float(each[i]) for name, each in metrics.items()}, bool(sound[i]))
            for i in np.flatnonzero(count).tolist()
        }  # fmt: skip
        going &= np.isfinite(metrics["loss"]) & sound


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


def how_many(program: Program, latent_dim: int, data: Any, devices: int) -> int:
    """Members of so many latents that train at once on so many devices; at least one on each."""
    room = MEMORY * memory() - sum(a.nbytes for a in jax.tree.leaves(data))
    return devices * max(1, int(room // member_bytes(program, latent_dim, data)))
