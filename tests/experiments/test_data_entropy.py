"""The entropy of a world is known where its data set shows all of it, and nowhere else."""

import numpy as np
import pytest
from scipy import stats

from experiments.cli.config import parse
from experiments.runner.job import assemble
from experiments.sweep import data_entropy
from vae_jax.data.dataset import from_arrays

COUNTS = (1, 2, 3, 4)  # how often each image is there
BINARY = np.repeat(np.eye(4, 9, dtype=bool).reshape(4, 3, 3), COUNTS, axis=0)
GREY = np.where(BINARY, np.uint8(255), np.uint8(40))


def of(x, *flags, name="sprites", binarisation="none"):
    dataset = from_arrays(x, name=name, validation_size=1, binarisation=binarisation)
    config = parse(["--dataset=sprites", "--widths=4", "--batch_size=4", *flags])
    return data_entropy.of(assemble(config, dataset))


@pytest.mark.parametrize("binarisation", ["none", "dynamic", "static", "threshold"])
def test_it_counts_every_image_of_all_splits(binarisation):
    np.testing.assert_allclose(of(BINARY, binarisation=binarisation), stats.entropy(COUNTS))


def test_grey_levels_are_an_alphabet_of_256_or_are_drawn():
    expected = stats.entropy(COUNTS)
    np.testing.assert_allclose(of(GREY, "--likelihood=categorical"), expected)
    np.testing.assert_allclose(of(GREY, binarisation="threshold"), expected)
    assert of(GREY) is None  # a cross-entropy
    assert of(GREY, binarisation="dynamic") is None


def test_elsewhere_it_is_not_known():
    assert of(BINARY, name="mnist") is None
    assert of(BINARY, "--likelihood=gaussian") is None
    assert of(BINARY, "--model=cvae", "--condition=column") is None
