"""A run for TensorBoard: scalars as they come, test numbers and figures at the end.

    tensorboard --logdir runs

Needs tensorboardX (the extra `tensorboard`), not TensorFlow. metrics.jsonl is what counts: at each
start the board is made from it anew, so that a killed and resumed run shows no trace of that.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.settings import UserError

FOLDER = "tensorboard"


def check() -> None:
    """Raises UserError where tensorboardX is not installed."""
    if not importlib.util.find_spec("tensorboardX"):
        raise UserError("tensorboard needs tensorboardX: pip install 'vae-jax[tensorboard]'")


class Board:
    """The scalars of a training: call it with each row of metrics.jsonl."""

    def __init__(self, directory: Path, history: Sequence[Mapping[str, Any]]) -> None:
        for old in (directory / FOLDER).glob("events.*"):
            old.unlink()
        self.writer = _writer(directory)  # in a thread, and to disk every few seconds
        for row in history:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            split, _, metric = name.partition("_")
            tag = f"{metric}/{split}" if split in ("train", "valid") else f"run/{name}"
            if name != "step" and value is not None:
                self.writer.add_scalar(tag, value, row["step"])


def finish(
    directory: Path,
    history: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    figures: Sequence[Path],
) -> None:
    """The whole board: the training, the test set's numbers, and the figures that are PNG files."""
    from matplotlib.image import imread

    writer, step = Board(directory, history).writer, summary["checkpoint"]["step"]
    for name, value in summary.items():
        if isinstance(value, (int, float)):
            writer.add_scalar(f"{name}/test", value, step)
    for path in figures:
        if path.suffix == ".png":
            pixels = np.asarray(imread(path))[..., :3]
            writer.add_image(path.stem, np.uint8(255 * pixels), step, dataformats="HWC")
    writer.close()


def _writer(directory: Path) -> Any:
    from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

    return SummaryWriter(str(directory / FOLDER), flush_secs=10)
