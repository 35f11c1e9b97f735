"""What a run costs, and where the time goes: compiling, memory, a profiler's trace."""

import contextlib
import dataclasses
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.monitoring
import jax.numpy as jnp

from vae_jax.parallel import processes
from vae_jax.training.fit import Progress
from vae_jax.training.state import TrainConfig, TrainState

_compiling = [0.0]  # seconds, since this process started


def _listen(event: str, duration_secs: float, **_: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":  # tracing's overlap each other
        _compiling[0] += duration_secs


jax.monitoring.register_event_duration_secs_listener(_listen)  # once; they cannot be taken back


def costs() -> dict[str, float | None]:
    """Of this process so far: seconds that XLA compiled, and the most memory held, in bytes.

    peak_device_bytes is that of the first device, None on a CPU, which has the host's.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    stats = jax.local_devices()[0].memory_stats() or {}
    return {
        "compile_seconds": _compiling[0],
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "peak_device_bytes": stats.get("peak_bytes_in_use"),
    }


def trace(
    fit: Callable[..., Iterator[Progress]],
    config: TrainConfig,
    state: TrainState | None,
    folder: Path,
    steps: int,
) -> int:
    """Traces at least so many training steps, to the end of a chunk; returns how many.

    fit: `training.fit` up to its configuration. The steps are taken from `state` with a copy of
    it and thrown away: the training that follows is the same as without. Compiling is not traced.
    """
    start = 0 if state is None else int(state.step)
    longer = dataclasses.replace(config, steps=start + 3 * steps)
    progress = fit(config=longer, state=jax.tree.map(jnp.copy, state), chunk=steps)
    next(progress)
    traced = 0
    watched = jax.profiler.trace(str(folder)) if processes.first() else contextlib.nullcontext()
    with watched:
        while traced < steps:
            traced += next(progress).chunk
    return traced
