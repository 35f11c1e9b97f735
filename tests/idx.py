"""Writes small data sets in the format of MNIST's original files."""

import gzip
from pathlib import Path

import numpy as np

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def idx_bytes(values: np.ndarray) -> bytes:
    """The IDX file of a uint8 array: magic number, sizes (big-endian), values."""
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return head + values.tobytes()


def write_idx_set(
    folder: Path, num_train: int, num_test: int, seed: int, *, size: int = 28, zipped: bool = True
) -> dict[str, np.ndarray]:
    """Four files of random images [n, size, size] and labels; returns what they hold, by name."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for split, num in (("train", num_train), ("t10k", num_test)):
        written[f"{split}-{IMAGES}"] = rng.integers(0, 256, (num, size, size), dtype=np.uint8)
        written[f"{split}-{LABELS}"] = rng.integers(0, 10, num, dtype=np.uint8)
    for name, values in written.items():
        raw = idx_bytes(values)
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(raw, 1) if zipped else raw)
    return written
