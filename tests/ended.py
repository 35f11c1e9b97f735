"""What a run ends in, for comparison: two runs are the same when all of it is."""

import json
from pathlib import Path

import numpy as np

from vae_jax import checkpoints

# What no two runs share.
CLOCK = {"seconds", "train_seconds", "images_per_second", "compile_seconds"}
CLOCK |= {"peak_host_bytes", "peak_device_bytes"}


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
    return newest.name, arrays, [timeless(row) for row in rows(directory)], timeless(summary)
