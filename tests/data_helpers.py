"""What the tests of data share: real data sets where there are some, loading, one-line errors."""

import os
from pathlib import Path

import numpy as np
import pytest

from vae_jax import data
from vae_jax.data.dataset import DataConfig
from vae_jax.data.split import DataError


def real(name: str) -> Path:
    """A folder of real data; where it is missing the test is skipped, but never by CI."""
    root = os.environ.get("VAE_JAX_TEST_DATA", "")
    if not root or not Path(root).is_dir():
        pytest.skip("VAE_JAX_TEST_DATA does not name a folder of real data")
    folder = Path(root, name)
    if not folder.is_dir():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{folder} is missing")
    return folder


def load(folder="", dataset="mnist", binarisation="none", **settings):
    return data.load(
        DataConfig(data_dir=str(folder), dataset=dataset, binarisation=binarisation, **settings)
    )


def digits_like(shape: tuple[int, int, int], n: int = 200) -> data.Dataset:
    """Random grey images of ten classes, a data set without files."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) % 10
    return data.from_arrays(x, x[:20], y, y[:20], binarisation="dynamic")


def one_line(error) -> str:
    text = str(error.value)
    assert isinstance(error.value, DataError) and text and "\n" not in text
    return text
