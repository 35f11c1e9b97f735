"""metrics.jsonl: one line for each evaluation of a training."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.files import naming, replacing

# Metrics


def append_metrics(directory: Path, row: dict[str, Any]) -> None:
    path = directory / "metrics.jsonl"
    with naming(path), open(path, "a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_metrics(directory: Path, up_to_step: float = np.inf) -> list[dict[str, Any]]:
    """The rows up to a step, in order; a torn last line is dropped."""
    rows = []
    path = directory / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if row["step"] <= up_to_step]


def rewind_metrics(directory: Path, step: int) -> list[dict[str, Any]]:
    """Drops what was written after the checkpoint a run resumes from; returns what is left."""
    rows = read_metrics(directory, step)
    with replacing(directory / "metrics.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows
