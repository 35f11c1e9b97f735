"""Checkpoints: pytrees of arrays on disk.

    checkpoints/step-0000001234.npz    the whole state; the newest two are kept
    checkpoints/best.npz               the weights that evaluated best
    checkpoints/weights-0000001234.npz the weights alone, where they are kept on the way

A checkpoint is an .npz of plain arrays, one for each leaf, named by its path, and a small JSON
text. It appears whole or not at all; its checksums show a broken one. Reading one runs no code,
and reads only arrays whose names, shapes and types are expected.
"""

import json
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.files import npy_header, replacing
from vae_jax.settings import UserError
from vae_jax.types import Params

KEEP = 2  # the last state, and the one before in case the last is broken
# What reading a damaged file raises; RuntimeError: it now claims encryption, or a later version.
BROKEN = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their paths: "posterior/params/Dense_0/kernel"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def save_arrays(path: Path, tree: Any, meta: dict[str, Any]) -> None:
    """A pytree of arrays, and a small JSON value beside it, in one .npz file."""
    arrays = {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **{".meta": np.asarray(json.dumps(meta)), **arrays})


def load_arrays(path: Path, like: Any, partial: bool = False) -> tuple[Any, dict[str, Any]]:
    """What `save_arrays` wrote, as the pytree `like` (arrays or their shapes).

    partial: the file may hold more arrays than `like`. Raises UserError where it holds others,
    one of BROKEN where it cannot be read. Names, shapes and types are compared before any data
    are read.
    """
    wanted = named_leaves(like)
    with zipfile.ZipFile(path) as archive:
        found = {name.removesuffix(".npy") for name in archive.namelist()} - {".meta"}
        odd = wanted.keys() - found if partial else wanted.keys() ^ found
        if odd:
            raise UserError(f"{path} does not fit this model: {min(odd)} is in only one of the two")
        leaves = [read_array(archive, path, name, leaf) for name, leaf in wanted.items()]
        meta = json.loads(str(read_array(archive, path, ".meta", None)))
    return jax.tree.unflatten(jax.tree.structure(like), leaves), meta


def read_array(archive: zipfile.ZipFile, path: Path, name: str, like: Any) -> np.ndarray:
    """The member NAME.npy, of the shape and type of `like`; where that is None, a text.

    Raises UserError, before any data are read, where it is another; one of BROKEN where it cannot
    be read. Never reads more than `like` has bytes. path: of the archive, for the messages.
    """
    with archive.open(f"{name}.npy") as file:
        try:
            shape, fortran, dtype = npy_header(file)
        except ValueError as error:
            raise ValueError(f"{name} has {error}") from None
        wanted = ((), dtype) if like is None else (like.shape, like.dtype)
        if (shape, dtype) != wanted or (
            like is None and (dtype.kind != "U" or dtype.itemsize > 2**20)
        ):
            raise UserError(
                f"{path} does not fit this model: {name} is {f'{dtype}{list(shape)}':.200}, "
                f"expected {wanted[1]}{list(wanted[0])}"
            )
        size = dtype.itemsize * int(np.prod(shape))
        data = file.read(size + 1)  # to the end, which is where the archive compares checksums
        if len(data) != size:
            raise ValueError(f"{name} has {len(data)} bytes, expected {size}")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").copy()


def checkpoints(directory: Path) -> list[Path]:
    """Checkpoints of the whole state, newest first."""
    return sorted((directory / "checkpoints").glob("step-*.npz"), reverse=True)


def save_checkpoint(directory: Path, state: Any, meta: dict[str, Any]) -> Path:
    """Saves the whole state under its step and drops what is older than the last KEEP."""
    path = directory / "checkpoints" / f"step-{int(state.step):010d}.npz"
    save_arrays(path, state, meta)
    for stale in [*checkpoints(directory)[KEEP:], *path.parent.glob(".*.tmp")]:
        stale.unlink(missing_ok=True)
    return path


def restore_checkpoint(directory: Path, like: Any) -> tuple[Any, dict[str, Any]] | None:
    """The newest state that can be read, with its meta; warns of broken files passed over.

    None where there is no checkpoint at all; UserError where all are broken or one does not fit.
    """
    paths, misfit = checkpoints(directory), None
    for path in paths:
        try:
            state, meta = load_arrays(path, like)
        except UserError as error:
            misfit = misfit or error
        except BROKEN as error:
            warnings.warn(
                f"checkpoint {path} is broken ({error}); trying the one before", stacklevel=2
            )
        else:
            if misfit:  # the one before does fit: a damaged name or header
                warnings.warn(f"{misfit}; going on from {path}", stacklevel=2)
            return jax.tree.map(jnp.asarray, state), meta
    if misfit:
        raise misfit
    if paths:
        raise UserError(
            f"no checkpoint in {directory} can be read; remove the directory to start anew"
        )
    return None


def newest_meta(directory: Path) -> dict[str, Any]:
    """The meta of the newest checkpoint that can be read; {} where there is none."""
    for path in checkpoints(directory):
        try:
            with zipfile.ZipFile(path) as archive:
                return json.loads(str(read_array(archive, path, ".meta", None)))
        except (UserError, *BROKEN):
            continue
    return {}


def save_best(directory: Path, params: Params, meta: dict[str, Any]) -> None:
    save_arrays(directory / "checkpoints" / "best.npz", {"params": params}, meta)


def save_kept(directory: Path, params: Params, meta: dict[str, Any]) -> None:
    path = directory / "checkpoints" / f"weights-{meta['step']:010d}.npz"
    save_arrays(path, {"params": params}, meta)


def read_kept(directory: Path, like: Params) -> list[tuple[Params, dict[str, Any]]]:
    """The weights kept on the way, the first first, each with its meta. UserError in one line."""
    found = []
    for path in sorted((directory / "checkpoints").glob("weights-*.npz")):
        try:
            tree, meta = load_arrays(path, {"params": like})
        except UserError:
            raise
        except BROKEN as error:
            raise UserError(f"checkpoint {path} is broken ({error})") from None
        found.append((tree["params"], meta))
    return found


def keep_best(directory: Path, params: Params, step: int, meta: dict[str, Any]) -> None:
    """Sees to it that best.npz is there and whole, for a run that resumes from `step`.

    meta: of the best so far. Where it is lost, `params` take its place if they are the best;
    otherwise UserError: nothing else has those weights.
    """
    path = directory / "checkpoints" / "best.npz"
    try:
        load_arrays(path, {"params": params})
    except (UserError, *BROKEN):
        if meta["step"] != step:
            raise UserError(
                f"{path} is missing or broken: the weights of step {meta['step']}, the best by "
                f"validation; remove {directory} and train anew, to the same bits"
            ) from None
        warnings.warn(f"{path} was missing or broken; written again", stacklevel=2)
        save_best(directory, params, meta)
