"""What a run ends in, for comparison: two runs are the same when all of it is."""

import json
from pathlib import Path

import numpy as np

from vae_jax.runs import checkpoints

# What no two runs share.
CLOCK = {"seconds", "train_seconds", "images_per_second", "compile_seconds"}
CLOCK |= {"peak_host_bytes", "peak_device_bytes"}
DRAWN = {"figures"}  # their names, which tests that draw none do not have


def rows(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def timeless(values):
    """Without what is measured of the machine."""
    return {name: value for name, value in values.items() if name not in CLOCK}


def result(directory: Path) -> tuple:
    """All that a run ends in: the bits of its state and best weights, its metrics and summary."""
    newest = checkpoints.checkpoints(directory)[0]
    arrays = []
    for path in (newest, directory / "checkpoints" / "best.npz"):
        with np.load(path) as archive:
            arrays += [(n, archive[n].tobytes()) for n in sorted(archive.files) if n != ".meta"]
    summary = json.loads((directory / "summary.json").read_text())
    summary = {name: value for name, value in timeless(summary).items() if name not in DRAWN}
    return newest.name, arrays, [timeless(row) for row in rows(directory)], summary


def agree(a: Path, b: Path) -> bool:
    """The same last state and best weights, to rounding."""
    names = [path.name for path in checkpoints.checkpoints(a)[:1]] + ["best.npz"]
    for name in names:
        with np.load(a / "checkpoints" / name) as x, np.load(b / "checkpoints" / name) as y:
            assert x.files == y.files
            for leaf in set(x.files) - {".meta"}:
                np.testing.assert_allclose(x[leaf], y[leaf], rtol=1e-4, atol=1e-5)
    return True


def close(a: Path, b: Path) -> bool:
    """Whether two files of results are the same to rounding, what is measured of machines apart."""
    one, other = (dict(leaves(json.loads(path.read_text()))) for path in (a, b))
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, float) and name.rpartition("/")[2] not in CLOCK:
            np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    return True


def leaves(tree, name: str = ""):
    """(path, value) of every value in a JSON value."""
    if isinstance(tree, dict | list):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in pairs:
            yield from leaves(value, f"{name}/{key}")
    else:
        yield name, tree
