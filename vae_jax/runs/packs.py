"""Packs: a run as one file, to carry elsewhere or to send.

A safetensors file: the evaluated weights, one array for each leaf, named by its path; and, as JSON
in its metadata,

    config       every setting, the data set, versions, device
    checkpoint   which weights these are
    summary      the numbers of the finished run, where it is finished
    history      the lines of metrics.jsonl

Every framework reads it. It holds no code, and none is run by reading it. It may come from anyone:
sizes, names, shapes and types are compared with what is expected before any data are read; whatever
is wrong is a UserError of one line.
"""

import json
import math
import os
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.files import replacing
from vae_jax.runs.checkpoints import named_leaves
from vae_jax.runs.described import first, loads
from vae_jax.settings import UserError
from vae_jax.types import Params

_HEADER = 2**24  # the most bytes that names, shapes and metadata may take
_LARGE = 1e100  # no number of a run comes near it
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int32": "I32", "uint32": "U32"}
_METADATA = ("config", "checkpoint", "summary", "history")
_CHECKPOINT = {"chosen": str, "step": int, "file": str}


class Pack(NamedTuple):
    """What a pack says beside its weights.

    config, checkpoint, summary ({} of an unfinished run): objects. history: rows of metrics.jsonl.
    """

    config: dict[str, Any]
    checkpoint: dict[str, Any]
    summary: dict[str, Any]
    history: list[dict[str, Any]]


def write(path: Path, pack: Pack, params: Params) -> None:
    """Writes a pack, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = {
        name: np.ascontiguousarray(np.asarray(leaf)) for name, leaf in named_leaves(params).items()
    }
    metadata = {n: json.dumps(getattr(pack, n), allow_nan=False) for n in _METADATA}
    with replacing(path) as temporary:
        try:
            save_file(arrays, temporary, metadata)
        except SafetensorError as error:
            raise UserError(f"{path} cannot be written: {first(error)}") from None


def read(path: Path) -> Pack:
    """All but the weights; its form is checked, not what its config says."""
    metadata = _header(path).get("__metadata__")
    if not isinstance(metadata, dict) or {*metadata} != {*_METADATA}:
        raise UserError(f"{path} is no pack of a run: it has none of {', '.join(_METADATA)}")
    try:
        pack = Pack(**{name: loads(text) for name, text in metadata.items()})
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as a pack: {first(error)}") from None
    told = isinstance(pack.checkpoint, dict) and all(
        type(pack.checkpoint.get(name)) is kind for name, kind in _CHECKPOINT.items()
    )
    rows = isinstance(pack.history, list) and all(map(_is_row, pack.history))
    if not (told and rows and isinstance(pack.summary, dict)):
        raise UserError(f"{path} does not describe a run")
    return pack


def read_weights(path: Path, like: Params) -> Params:
    """The weights, a pytree as `like` (arrays or their shapes): these and no others, all finite."""
    import jax
    from safetensors import SafetensorError, safe_open

    wanted = named_leaves(like)
    _check_arrays(path, wanted)
    try:
        with safe_open(path, "numpy") as file:
            leaves = [file.get_tensor(name) for name in wanted]
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a pack: {first(error)}") from None
    for name, leaf in zip(wanted, leaves, strict=True):
        if not np.isfinite(leaf.astype(np.float32)).all():
            raise UserError(f"{path}: {name} holds numbers that are not finite")
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _header(path: Path) -> dict[str, Any]:
    """Names, shapes, types, places and metadata, as the file states them."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
            size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if zipfile.is_zipfile(path):
                raise UserError(
                    f"{path} is a pack of version 0.1, which cannot be read: train anew"
                )
            if not 2 <= size <= min(_HEADER, os.path.getsize(path) - 8):
                raise ValueError("it is no safetensors file")
            header = loads(file.read(size).decode())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read as a pack: {first(error)}") from None
    if not isinstance(header, dict):
        raise UserError(f"{path} cannot be read as a pack: it is no safetensors file")
    return header


def _check_arrays(path: Path, wanted: dict[str, Any]) -> None:
    """UserError where the arrays are not those wanted, or do not lie one after the other."""
    header = _header(path)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    odd = entries.keys() ^ wanted.keys()
    if odd:
        raise UserError(f"{path} does not fit this model: {ascii(min(odd))[:200]}")
    at = 0
    for name, entry in entries.items():
        leaf = wanted[name]
        shape, kind = list(leaf.shape), _TYPES.get(str(leaf.dtype))
        found = entry if isinstance(entry, dict) else {}
        if (found.get("shape"), found.get("dtype")) != (shape, kind):
            stated = ascii(found)[:100]
            raise UserError(
                f"{path} does not fit this model: {name} is {stated}, expected {kind}{shape}"
            )
        at += math.prod(shape) * np.dtype(leaf.dtype).itemsize
    if os.path.getsize(path) - 8 - _length(path) != at:
        raise UserError(f"{path} is not whole: it states {at:,} bytes of arrays")


def _length(path: Path) -> int:
    with open(path, "rb") as file:
        return struct.unpack("<Q", file.read(8))[0]


def _is_row(row: Any) -> bool:
    """Numbers that can be drawn; null where one was no number."""
    numbers = isinstance(row, dict) and {type(v) for v in row.values()} <= {int, float, type(None)}
    if not numbers or not {"step", "epoch"} <= {name for name, v in row.items() if v is not None}:
        return False
    usual = all(abs(v or 0) < _LARGE for v in row.values())
    return usual and row["step"] >= 0 and row["epoch"] >= 0
