"""What the tests of data share: real data sets where there are some, loading, one-line errors."""

import os
from pathlib import Path

import pytest

from vae_jax import data
from vae_jax.data import DataConfig, DataError


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


def one_line(error) -> str:
    text = str(error.value)
    assert isinstance(error.value, DataError) and text and "\n" not in text
    return text
