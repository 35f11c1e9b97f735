"""metrics.jsonl: one line for each evaluation of a training."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.files import naming, replacing, strict


def append_metrics(directory: Path, row: dict[str, Any]) -> None:
    path = directory / "metrics.jsonl"
    with naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(strict(row), allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_metrics(directory: Path, up_to_step: float = np.inf) -> list[dict[str, Any]]:
    """The rows up to a step, in order; a torn last line is dropped."""
    rows = []
    path = directory / "metrics.jsonl"
    for line in (
        path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ()
    ):
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    known = [r for r in rows if isinstance(r, dict) and type(r.get("step")) in (int, float)]
    return [row for row in known if row["step"] <= up_to_step]


def rewind_metrics(directory: Path, step: int) -> list[dict[str, Any]]:
    """Drops what was written after the checkpoint a run resumes from; returns what is left."""
    rows = read_metrics(directory, step)
    with replacing(directory / "metrics.jsonl") as temporary:
        lines = (json.dumps(strict(row), allow_nan=False) + "\n" for row in rows)
        temporary.write_text("".join(lines), encoding="utf-8")
    return rows
