"""File formats: bytes that somebody else chose -> arrays that are what they should be, or one line.

Nothing that is in a file is executed, and nothing is unpacked before its stated size is known to
fit into memory.
"""

import gzip
import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data.split import DataError, first_line
from vae_jax.files import npy_header
from vae_jax.memory import GIB, memory_limit


def check_size(what: str, size: int, packed: int | None = None) -> None:
    """Raises DataError where `size` bytes do not fit, or are packed as images never are."""
    limit = memory_limit()
    if size > limit:
        held = f"{size / GIB:,.1f} GiB of arrays; half of the free memory is {limit / GIB:,.1f} GiB"
        raise DataError(f"{what} is too large: {held}")
    if packed and size > GIB and size > 500 * packed:  # deflate ends near 1,030; dSprites is at 115
        ratio = f"{size / GIB:,.1f} GiB packed {size // packed:,} to 1"
        raise DataError(f"{what} is refused: {ratio}, as images never are")


# IDX, .amat, Omniglot ---------------------------------------------------------------------------


def _contents(path: Path) -> bytes:
    """The bytes of a file, unzipped where they are zipped."""
    limit, size, parts = memory_limit(), 0, []
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with (gzip.open if zipped else open)(path, "rb") as file:
            for part in iter(lambda: file.read(2**24), b""):
                parts.append(part)
                size += len(part)
                if size > limit:
                    check_size(str(path), size)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from error
    return b"".join(parts)


def read_idx(path: Path, rank: int) -> np.ndarray:
    """One file in LeCun's IDX format: magic number, sizes, uint8 values."""
    raw, start = _contents(path), 4 + 4 * rank
    if raw[:4] != bytes([0, 0, 8, rank]) or len(raw) < start:
        raise DataError(f"{path} is not an IDX file of uint8 values with {rank} dimension(s)")
    shape = np.frombuffer(raw, ">u4", rank, offset=4).tolist()
    if math.prod(shape) != len(raw) - start or 0 in shape:
        raise DataError(f"{path} states shape {shape} and holds {len(raw) - start} values")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_amat(path: Path, columns: int) -> np.ndarray:
    """A text of rows of single digits 0 and 1, a space between them: uint8 [n, columns]."""
    raw = np.frombuffer(_contents(path), np.uint8)
    rows = raw[: raw.size // (2 * columns) * 2 * columns].reshape(-1, 2 * columns)
    digits, between = rows[:, ::2] - np.uint8(ord("0")), rows[:, 1::2]
    right = raw.size and rows.size == raw.size and digits.max() <= 1
    if not (right and (between[:, :-1] == ord(" ")).all() and (between[:, -1] == ord("\n")).all()):
        raise DataError(f"{path} must be lines of {columns} zeros and ones, one space between them")
    return digits


def read_characters(path: Path) -> np.ndarray:
    """Omniglot's zip of ALPHABET/character##/####_##.png, black on white, 105 × 105: uint8
    [characters, drawings, 28, 28], ink bright, each pixel an average (Pillow's box filter).
    """
    from PIL import Image

    characters: dict[str, list[np.ndarray]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(n for n in archive.namelist() if re.search(r"/\d+_\d+\.png$", n)):
                with Image.open(io.BytesIO(archive.read(name))) as image:
                    white = np.asarray(image.convert("1"))
                ink = Image.fromarray(np.where(white, np.uint8(0), np.uint8(255)))
                small = np.asarray(ink.resize((28, 28), Image.Resampling.BOX))
                characters.setdefault(name.rsplit("/", 1)[0], []).append(small)
        return np.stack([np.stack(drawings) for drawings in characters.values()])
    except Exception as error:  # whatever zipfile, zlib and Pillow raise on such bytes
        raise DataError(f"{path} cannot be read: {first_line(error)}") from error


# npz ----------------------------------------------------------------------------------------------


def read_npz(path: Path, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    """The named arrays of an npz archive; others are not looked at."""
    if not path.is_file():
        fault = "is a folder, not an npz archive" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {fault}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if missing := [key for key in required if key not in members]:
                raise DataError(f"{path} has no {missing[0]}; it has {_names(members)}")
            chosen = {key: members[key] for key in (*required, *optional) if key in members}
            sizes = [(info.file_size, info.compress_size) for info in chosen.values()]
            check_size(str(path), *map(sum, zip(*sizes, strict=True)))
            return {key: _read_member(archive, chosen[key], f"{path}: {key}") for key in chosen}
    except DataError:
        raise
    except Exception as error:  # whatever zipfile, zlib and NumPy raise on such bytes
        raise DataError(f"{path} cannot be read as an npz archive: {first_line(error)}") from error


def npz_keys(path: Path) -> list[str]:
    """The names of the arrays in an npz archive; none where it is no such thing."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return []


def _names(names: Iterable[str]) -> str:
    """A few of them, on one line whatever they are."""
    names = [name if name.isprintable() else ascii(name) for name in names]
    return ", ".join(name[:40] for name in names[:8]) + ", …" * (len(names) > 8) or "nothing"


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str) -> np.ndarray:
    """One array; its header is checked first, since NumPy allocates whatever that states."""
    with archive.open(info) as file:
        shape, _, dtype = npy_header(file)
        size = info.file_size - file.tell()
    if dtype.hasobject:
        raise DataError(f"{what} holds Python objects, which are never loaded; save plain numbers")
    if math.prod(shape) * dtype.itemsize != size:
        raise DataError(f"{what} states shape {list(shape)} of {dtype} and holds {size:,} bytes")
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
