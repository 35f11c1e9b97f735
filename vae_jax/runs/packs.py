"""Packs: a run as one file, to carry elsewhere or to send.

    config.json      every setting, the data set, versions, device
    checkpoint.json  which weights these are
    weights/….npy    the evaluated weights, one plain array for each leaf, named by its path
    summary.json     the numbers of the finished run, where it is finished
    metrics.jsonl    one line for each evaluation
    figures/….png    the figures, as they were drawn

A pack is a zip archive whose members are stored, not compressed: nothing in it can grow larger than
the file itself. It holds no code, and none is run by reading it. It may come from anyone: names,
sizes, shapes and types are compared with what is expected before any data are read, checksums
after; nothing is ever extracted to disk; whatever is wrong is a UserError of one line.
"""

import contextlib
import json
import math
import os
import re
import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vae_jax.files import replacing
from vae_jax.runs.checkpoints import BROKEN, named_leaves, read_array
from vae_jax.settings import UserError
from vae_jax.types import Params

# Members by name: what it may look like -> the most bytes that it may have
_TEXTS = {"config.json": 2**20, "checkpoint.json": 2**20, "summary.json": 2**20}
_MEMBERS = {re.escape(name): size for name, size in (_TEXTS | {"metrics.jsonl": 2**23}).items()}
_FIGURE = r"figures/[\w-]+\.png"
_MEMBERS |= {_FIGURE: 2**26, r"weights(/[\w-]+)+\.npy": math.inf}
_NEEDED = ("config.json", "checkpoint.json", "metrics.jsonl")
_PNG = b"\x89PNG\r\n\x1a\n"
_PIXELS, _CLASSES, _LETTERS = 2**24, 2**20, 1000  # the most there can be, in an image, a setting
_LAYERS = 100  # each takes a while to build, before any weights are compared
_LARGE = 1e100  # no number of a run comes near it
# Names that an object must have, each with a value of the same kind
_CONFIG = {
    "settings": {"model": {}, "data": {}},
    "dataset": {"name": "", "source": "", "sha256": ""},
}
_CHECKPOINT = {"chosen": "", "step": 0, "file": ""}
_DATE = (1980, 1, 1, 0, 0, 0)  # the same run gives the same bytes


class Pack(NamedTuple):
    """What a pack says beside its weights and figures.

    config, checkpoint, summary ({} of an unfinished run): objects. history: rows of metrics.jsonl.
    """

    config: dict[str, Any]
    checkpoint: dict[str, Any]
    summary: dict[str, Any]
    history: list[dict[str, Any]]


def write(path: Path, pack: Pack, params: Params, figures: dict[str, bytes]) -> None:
    """Writes a pack, whole or not at all. figures: name -> the bytes of a PNG file."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:

        def add(name: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name, _DATE), data)

        for name in _TEXTS:
            value = getattr(pack, name.removesuffix(".json"))
            if value:
                add(name, json.dumps(value, indent=2, ensure_ascii=False).encode())
        add("metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in pack.history).encode())
        for name, leaf in named_leaves(params).items():
            with archive.open(zipfile.ZipInfo(f"weights/{name}.npy", _DATE), "w") as file:
                np.lib.format.write_array(file, np.asarray(leaf), allow_pickle=False)
        for name, data in figures.items():
            add(f"figures/{name}.png", data)


def read(path: Path) -> Pack:
    """All but weights and figures; its form is checked, of the config what the library reads."""
    with _opened(path) as archive:
        config = _plain(json.loads(archive.read("config.json"), **_FINITE))
        checkpoint = json.loads(archive.read("checkpoint.json"), **_FINITE)
        finished = "summary.json" in archive.namelist()
        summary = json.loads(archive.read("summary.json")) if finished else {}
        history = [json.loads(line) for line in archive.read("metrics.jsonl").splitlines()]
    _expect(_is_like(config, _CONFIG) and _is_like(checkpoint, _CHECKPOINT), path)
    _expect(isinstance(summary, dict), path)
    _expect(all(isinstance(section, dict) for section in config["settings"].values()), path)
    _expect(str(config["settings"]["model"].get("widths")).count("-") < _LAYERS, path)
    _expect(all(_is_row(row) for row in history), path)
    _check_data(config["dataset"], path)
    return Pack(config, checkpoint, summary, history)


def read_weights(path: Path, like: Params) -> Params:
    """The weights, a pytree as `like` (arrays or their shapes): these and no others."""
    wanted = named_leaves(like)
    with _opened(path) as archive:
        found = {name for name in archive.namelist() if name.startswith("weights/")}
        odd = found ^ {f"weights/{name}.npy" for name in wanted}
        if odd:
            raise UserError(
                f"{path} does not fit its own config: {min(odd)} is in only one of the two"
            )
        leaves = [read_array(archive, path, f"weights/{n}", leaf) for n, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def is_figure(name: str) -> bool:
    """Whether a file of this name may be among the figures."""
    return bool(re.fullmatch(_FIGURE, f"figures/{name}"))


def read_figures(path: Path) -> dict[str, bytes]:
    """Name -> the bytes of a PNG file."""
    with _opened(path) as archive:
        names = [name for name in archive.namelist() if name.startswith("figures/")]
        figures = {Path(name).stem: archive.read(name) for name in names}
    _expect(all(data.startswith(_PNG) for data in figures.values()), path)
    return figures


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, its members checked; what goes wrong with it is one line."""
    try:
        with zipfile.ZipFile(path) as archive:
            faults = _faults(archive.infolist(), os.path.getsize(path))
            for fault in faults:
                raise UserError(f"{path} is not a pack to be trusted: {fault}")
            yield archive
    except UserError:
        raise
    except (*BROKEN, struct.error, OverflowError, MemoryError) as error:
        reason = str(error).splitlines() or [repr(error)]
        raise UserError(f"{path} cannot be read as a pack: {reason[0][:200]}") from error


def _faults(members: list[zipfile.ZipInfo], file_size: int) -> Iterator[str]:
    names = [member.orig_filename for member in members]
    yield from (f"no {name}" for name in _NEEDED if name not in names)
    yield from (f"{name[:200]!r} is in it twice" for name, n in Counter(names).items() if n > 1)
    for name, member in zip(names, members, strict=True):
        ceiling = next((n for form, n in _MEMBERS.items() if re.fullmatch(form, name)), None)
        if ceiling is None or member.filename != name:  # a field of the archive may rename it
            yield f"a member called {name[:200]!r}"
        elif stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            yield f"{name} is no plain file"
        elif member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            yield f"{name} is compressed or encrypted"
        elif member.compress_size != member.file_size or member.file_size > ceiling:
            yield f"{name} claims {member.file_size:,} bytes"
    if sum(member.file_size for member in members) > file_size:
        yield "its members claim more bytes than it has"


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number must be finite; got {text}")
    return value


_FINITE: dict[str, Any] = {"parse_constant": _finite, "parse_float": _finite}


def _plain(value: Any) -> Any:
    """The value, unless it holds a text longer than any setting, or an integer too large."""
    if isinstance(value, str) and len(value) > _LETTERS:
        raise ValueError(f"a text of {len(value):,} letters in config.json")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("an integer of more than 63 bits in config.json")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        _plain(each)
    return value


def _is_like(value: Any, form: Any) -> bool:
    if isinstance(form, dict) and isinstance(value, dict):
        return all(name in value and _is_like(value[name], each) for name, each in form.items())
    return type(value) is type(form)


def _is_row(row: Any) -> bool:
    """Numbers that can be drawn: NaN and infinity are left out there, 1e308 would not be."""
    numbers = isinstance(row, dict) and {type(v) for v in row.values()} <= {int, float, type(None)}
    if not numbers or not {"step", "epoch"} <= {name for name, v in row.items() if v is not None}:
        return False
    usual = all(abs(v or 0) < _LARGE or v in (math.inf, -math.inf) or v != v for v in row.values())
    return usual and 0 <= row["step"] < _LARGE and 0 <= row["epoch"] < _LARGE


def _check_data(dataset: dict[str, Any], path: Path) -> None:
    """Shapes are what memory is asked for before any weights are compared with them."""
    shape: Any = dataset.get("x_shape")
    classes: Any = dataset.get("num_classes", 0)
    whole = isinstance(shape, list) and len(shape) in (1, 3) and all(type(n) is int for n in shape)
    _expect(whole and min(shape) >= 1 and math.prod(shape) <= _PIXELS, path)
    _expect(type(classes) is int and 0 <= classes <= _CLASSES, path)


def _expect(right: Any, path: Path) -> None:
    if not right:
        raise UserError(f"{path} does not describe a run")
