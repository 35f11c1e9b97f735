"""How much memory there is: of the host, and of its devices."""

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

GIB = 2**30


# Sizes --------------------------------------------------------------------------------------------


def memory_limit() -> int:
    """Bytes that one data set may take: half of what is free, since splitting it copies it."""
    free = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(1024 * int(line.split()[1]))
        free.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))  # or "max": ValueError
    except (OSError, ValueError):
        pass
    return min(free or [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]) // 2


def default_limit() -> float:
    """Half of the device's memory, in bytes; on a CPU there is nothing to gain by streaming."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", math.inf) / 2


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


# Examples at once ---------------------------------------------------------------------------------

SHARE, COPIES = 0.25, 4  # of free memory; arrays as large as the largest that live at a time


def fitting(most: int, f: Callable[..., Any], static: tuple[Any, ...], *example: Any) -> int:
    """How many examples, `most` at most and one at least, f may be mapped over at a time.

    f(*static, *example) is of one of them; it is traced, not run. What it makes is taken for the
    example's own. Several processes, which have to agree and may not have the same memory: `most`.
    """
    if jax.process_count() > 1:
        return most
    leaves, structure = jax.tree.flatten(example)
    shapes = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves)
    each = COPIES * _largest_of(f, static, structure, shapes)
    return max(1, min(most, int(SHARE * memory() / max(each, 1))))


@functools.lru_cache(maxsize=256)
def _largest_of(
    f: Callable[..., Any], static: tuple[Any, ...], structure: Any, shapes: tuple[Any, ...]
) -> int:
    example = jax.tree.unflatten(structure, shapes)
    return largest(jax.make_jaxpr(functools.partial(f, *static))(*example).jaxpr)


def largest(jaxpr: Any) -> int:
    """Bytes of what the step of a program that makes most of them makes, steps within it too."""
    sizes = [0]
    for equation in jaxpr.eqns:
        made = [v.aval for v in equation.outvars if hasattr(v.aval, "size")]
        sizes.append(sum(aval.size * getattr(aval.dtype, "itemsize", 4) for aval in made))
        sizes += [largest(inner) for inner in programs_in(equation.params.values())]
    return max(sizes)


def programs_in(values: Iterable[Any]) -> Iterator[Any]:
    """The jaxprs among the parameters of a step of one."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from programs_in(value)
        elif hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr"):
            yield value.jaxpr
