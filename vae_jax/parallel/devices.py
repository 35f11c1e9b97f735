"""Many devices as one: a mesh over all of them, and what lies where.

    with devices.everywhere():
        for progress in training.fit(…):

Inside, JAX's mesh is set: batches are shared out along its axis `data`, and everything else, the
weights and the data set too, is whole on every device. Members of a sweep that train at once are
shared out along `member` (see `training.sweeps`). What is computed is the same, so that numbers
agree to rounding whatever the number of devices; how devices exchange sums is left to XLA's
partitioner. With one device nothing is set and nothing changes.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA, MEMBER = "data", "member"
T = TypeVar("T")

# The mesh that is set, for which JAX 0.7 has no question.
_set: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


def mesh(members: int = 1) -> Mesh:
    """All devices of all processes: as many along `member` as so many members need, and along
    `data` those that this leaves for each of them.
    """
    count, types = jax.device_count(), (AxisType.Auto, AxisType.Auto)
    needed = min(members, count)
    along = next(m for m in range(needed, count + 1) if count % m == 0)
    return jax.make_mesh((along, count // along), (MEMBER, DATA), axis_types=types)


@contextlib.contextmanager
def over(mesh: Mesh) -> Iterator[None]:
    """Inside, the devices of the mesh compute together."""
    if mesh.size == 1:
        yield
        return
    token = _set.set(mesh)
    try:
        with jax.set_mesh(mesh):
            yield
    finally:
        _set.reset(token)


def everywhere() -> contextlib.AbstractContextManager[None]:
    """Inside, all devices of all processes compute together."""
    return over(mesh())


def described() -> str:
    """How many of which, and of how many processes where these are several."""
    processes = jax.process_count()
    of = f" in {processes} processes" if processes > 1 else ""
    return f"{jax.device_count()} × {jax.devices()[0].device_kind}{of}"


def shares() -> int:
    """How many devices share out a batch where this is called; 1 outside of `everywhere`."""
    return jax.sharding.get_abstract_mesh().shape.get(DATA, 1)


# Inside a compiled function


def shared(tree: T) -> T:
    """Constrains arrays [batch, ...] to be shared out along `data`.

    A batch that does not divide is filled up by the compiler; the last devices have less to do.
    """
    return _constrained(tree, PartitionSpec(DATA))


def whole(tree: T) -> T:
    """Constrains arrays to be whole on every device."""
    return _constrained(tree, PartitionSpec())


def _constrained(tree: T, spec: PartitionSpec) -> T:
    if shares() == 1:
        return tree
    return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, spec), tree)


# From the host


def put(tree: T, mesh: Mesh | None = None) -> T:
    """Arrays, whole on every device of the mesh, by default of the one that is set."""
    mesh = mesh or _set.get()
    place = placer(mesh=mesh)
    several = jax.process_count() > 1

    def one(a: Any) -> Any:
        if mesh is None:
            return jnp.asarray(a)
        if isinstance(a, jax.Array) and not (several and a.is_fully_addressable):
            return jax.device_put(a, NamedSharding(mesh, PartitionSpec()))
        here = np.asarray(a)  # device_put would have the processes compare what they have
        return place(here.shape, lambda part: here[part])

    return jax.tree.map(one, tree)


Place = Callable[[tuple[int, ...], Callable[[Any], np.ndarray]], jax.Array]


def placer(cut: int | None = None, mesh: Mesh | None = None) -> Place:
    """(shape, read) -> an array of that shape whose part a[part] is read(part).

    It is shared out along axis number `cut`, or whole on every device without it or where it does
    not divide; a process reads only what its own devices hold. May be called in another thread.
    """
    mesh = mesh or _set.get()  # here: a thread does not inherit it

    def place(shape: tuple[int, ...], read: Callable[[Any], np.ndarray]) -> jax.Array:
        if mesh is None:
            return jnp.asarray(read(()))
        spec = PartitionSpec()
        if cut is not None and shape[cut] % mesh.shape[DATA] == 0:
            spec = PartitionSpec(*[None] * cut, DATA)
        return jax.make_array_from_callback(shape, NamedSharding(mesh, spec), read)

    return place
