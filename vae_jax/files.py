"""Files that appear whole or not at all."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.settings import UserError


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError that names no file, as of a full disk, names this one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path`, on disk, once the block has succeeded."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        with contextlib.suppress(OSError):  # on a disk that can no longer be written
            temporary.unlink(missing_ok=True)


def strict(value: Any) -> Any:
    """The value as JSON can hold it: null where a number is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: strict(each) for name, each in value.items()}
    return [strict(each) for each in value] if isinstance(value, (list, tuple)) else value


def npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and dtype that an .npy file states, which is left at its
    first number. Raises ValueError where that is not the head of an array.
    """
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        return readers[np.lib.format.read_magic(file)](file)
    except Exception as error:  # NumPy lets through whatever its parsing of a text may raise
        raise ValueError(f"no header of an array: {error!r:.100}") from None


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(strict(value), indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; expected a run directory made by a training"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable as JSON: {error}") from None
