"""Several processes, on one host or many, that train one model together.

`start` joins them, by JAX's own `jax.distributed`: the tasks of a Slurm step and the hosts of a TPU
pod find each other, others are told where process 0 listens. All compute the same, each on its own
devices' share (see `devices`); process 0 alone reads and writes the run directory, and tells the
others what they need of it. One that is missing or silent ends the others: none waits for ever.
"""

import contextlib
import ctypes
import dataclasses
import hashlib
import importlib.util
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vae_jax.settings import UserError, setting, validate

DAY = 24 * 3600  # seconds; process 0 may draw for long, and that it lives is seen
LOST = "another process of this run ended or fell silent; start all of them again with --resume"
_SIGNS = ("Gloo", "NCCL", "oordination service", "eartbeat", "onnection closed")  # of a lost one


@dataclasses.dataclass(frozen=True)
class ProcessConfig:
    """Where the processes of one run find each other."""

    coordinator: str = setting(
        "", "HOST:PORT that process 0 is to listen on, for processes started by hand; empty: the "
        "tasks of a Slurm step and the hosts of a TPU pod find each other, others are alone",
    )  # fmt: skip
    num_processes: int = setting(1, "how many there are", unit="processes", at_least=1)
    process_id: int = setting(0, "which of them this one is, from 0", at_least=0)
    patience: int = setting(
        100, "wait for one that is missing or silent", unit="seconds", at_least=5
    )

    def __post_init__(self) -> None:
        validate(self)


def _check(config: ProcessConfig) -> None:
    """Raises UserError where the settings do not go together."""
    if not config.coordinator and (config.num_processes > 1 or config.process_id):
        raise UserError("num_processes and process_id need --coordinator=HOST:PORT")
    if config.coordinator and not config.coordinator.rpartition(":")[2].isdigit():
        raise UserError(f"coordinator must be HOST:PORT; got {config.coordinator!r}")
    if config.process_id >= config.num_processes:
        raise UserError(
            f"process_id must be below num_processes, {config.num_processes}; "
            f"got {config.process_id}"
        )


def start(config: ProcessConfig) -> None:
    """Joins the other processes, where there are any; before JAX first looks for its devices."""
    _check(config)
    given: dict[str, Any] = {}
    if config.coordinator:
        given["coordinator_address"] = config.coordinator
        given |= {"num_processes": config.num_processes, "process_id": config.process_id}
    elif not _managed():
        return
    _end_in_one_line()
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=config.patience,
            heartbeat_timeout_seconds=config.patience,
            shutdown_timeout_seconds=DAY,
        )
    except ValueError:  # libtpu is installed, but this is no pod
        if given:
            raise
        return
    from_first(lambda: None)  # now that all are here: a first meeting waits for 30 s only on CPUs


def _managed() -> bool:
    """Whether a cluster may have started several processes; the batch step of Slurm is one."""
    counts = (os.environ.get(name) for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    return (
        any(int(count or 1) > 1 for count in counts)
        or importlib.util.find_spec("libtpu") is not None
    )


def _end_in_one_line() -> None:
    """JAX calls abort() where it misses another process: here a line, and exit code 1."""
    aborted = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: _end(1, LOST))
    libc = ctypes.CDLL(None)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGABRT, aborted)
    _kept.append(aborted)  # C holds only its address


_kept: list[Any] = []


def _end(code: int, line: str = "") -> None:
    """At once, without waiting for the others, who see it."""
    sys.stdout.flush()
    if line:
        os.write(2, f"error: {line}\n".encode())
    os._exit(code)


def first() -> bool:
    """Whether this is process 0, which alone writes."""
    return alone() or jax.process_index() == 0


def alone() -> bool:
    """Whether there are no other processes; does not look for devices."""
    return not jax.distributed.is_initialized()


def run(main: Callable[[], int]) -> int:
    """main(), whose failure in one process is soon that of all; its exit code."""
    if alone():
        return main()
    try:
        code = main()
    except UserError as error:
        code = _say(2, f"error: {error}")
    except Exception as error:
        lost = any(sign in str(error) for sign in _SIGNS)
        code = _say(1, f"error: {LOST}" if lost else traceback.format_exc())
    if code in (1, 2):
        time.sleep(1)  # where all failed alike, each says so
        _end(code)
    return code  # all have it, and leave together


def _say(code: int, text: str) -> int:
    print(text, file=sys.stderr, flush=True)
    return code


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, only process 0 says what it does; errors are everyone's."""
    with contextlib.ExitStack() as silence:
        if not first():
            nowhere = silence.enter_context(open(os.devnull, "w"))
            silence.enter_context(contextlib.redirect_stdout(nowhere))
        yield


# What one process tells the others


def from_first(f: Callable[[], Any]) -> Any:
    """What f() gives in process 0, a JSON value, in all of them; its UserError too."""
    if alone():
        return f()
    text = _answer(f) if first() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(-(-size // 4096) * 4096, np.int32)  # few lengths, few programs
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    heard = np.asarray(multihost_utils.broadcast_one_to_all(padded))[:size]
    told = json.loads(bytes(heard.astype(np.uint8)))
    if "error" in told:
        raise UserError(told["error"])
    return told["value"]


def _answer(f: Callable[[], Any]) -> bytes:
    try:
        return json.dumps({"value": f()}).encode()
    except UserError as error:
        return json.dumps({"error": str(error)}).encode()


def arrays_from_first(tree: Any, like: Any) -> Any:
    """A pytree of arrays that process 0 has; `like` has its shapes and types."""
    if alone():
        return tree
    here = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), like)
    here = jax.tree.map(np.asarray, tree) if first() else here
    return multihost_utils.broadcast_one_to_all(here)


def largest(number: int) -> int:
    """The largest of all processes' numbers."""
    if alone():
        return number
    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def check_same(value: Any, what: str) -> None:
    """Raises UserError in every process where one has another JSON value."""
    if not alone():
        digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
        all_of_them = multihost_utils.process_allgather(np.frombuffer(digest, np.int32))
        others = np.flatnonzero(np.any(all_of_them != all_of_them[0], axis=-1))
        if len(others):
            raise UserError(f"process {others[0]} has {what} than process 0")
