"""What a command makes of the environment that it is started in, before anything else.

Its results do not depend on it: flags of JAX that change numbers are set as the library wants them,
closed or broken outputs are none, and what cannot be done is one line.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax

from vae_jax.settings import UserError

# Variables that JAX reads -> what decides numbers and types, as in JAX's own defaults
_JAX = {
    "JAX_ENABLE_X64": ("jax_enable_x64", False),
    "JAX_NUMPY_DTYPE_PROMOTION": ("jax_numpy_dtype_promotion", "standard"),
    "JAX_NUMPY_RANK_PROMOTION": ("jax_numpy_rank_promotion", "allow"),
    "JAX_DEFAULT_PRNG_IMPL": ("jax_default_prng_impl", "threefry2x32"),
    "JAX_THREEFRY_PARTITIONABLE": ("jax_threefry_partitionable", True),
    "JAX_DEFAULT_DTYPE_BITS": ("jax_default_dtype_bits", "64"),
}


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Around a command: its outputs can be written, and Ctrl-C ends it at once, code 130, until the
    training lets its running steps end first.
    """
    _open_closed()
    sys.stdout, sys.stderr = _Output(sys.stdout), _Output(sys.stderr)
    for variable, (name, value) in _JAX.items():
        if variable in os.environ and hasattr(jax.config, name):
            jax.config.update(name, value)
    if "matplotlib" in sys.modules:  # not as somebody's matplotlibrc has it
        sys.modules["matplotlib"].rcdefaults()
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
        sys.stdout, sys.stderr = sys.stdout.stream, sys.stderr.stream


def _leave(number: int, _: object) -> None:
    """Without an exception, which callbacks of other libraries would swallow."""
    os._exit(128 + number)


def _open_closed() -> None:
    """The next files that are opened would take the places of closed outputs, and be written to."""
    while True:
        new = os.open(os.devnull, os.O_RDWR)
        if new > 2:
            os.close(new)
            break
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        with contextlib.suppress(AttributeError, ValueError):  # what a test puts in its place
            getattr(sys, name).reconfigure(errors="replace")


class _Output:
    """A text stream; once nobody reads it any more, what is written to it goes nowhere.

    A training does not end because its log is read by `head`.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self._unread():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._unread():
            self.stream.flush()

    @contextlib.contextmanager
    def _unread(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
        except OSError as error:
            error.filename = error.filename or getattr(self.stream, "name", "output").strip("<>")
            raise


def check_devices() -> None:
    """UserError where the platform that is asked for is not there."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts where it found none at all
        asked = os.environ.get("JAX_PLATFORMS") or jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
        if not asked:
            raise
        reason = next(iter(str(error).splitlines()), "none was found")[:200]
        raise UserError(
            f"JAX_PLATFORMS={asked} asks for devices that are not here ({reason}): unset it, or "
            "JAX_PLATFORMS=cpu"
        ) from None
