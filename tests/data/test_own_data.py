"""--dataset=package.module:function."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from vae_jax import data
from vae_jax.data import sources
from vae_jax.data.split import DataError
from vae_jax.settings import UserError, is_outside

X = np.arange(40 * 6 * 6).reshape(40, 6, 6).astype(np.uint8)


def _read(monkeypatch, function):
    module = types.ModuleType("own_data")
    module.load = function  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "own_data", module)
    return sources.read("own_data:load", Path())


def test_a_function_gives_what_an_npz_file_would(monkeypatch, tmp_path):
    names = np.array(["cat", "dog"] * 20)
    arrays = {"x_train": X, "y_train": names, "x_test": X[:4] + 1, "y_test": names[:4]}
    np.savez(tmp_path / "own.npz", **arrays)
    mine = _read(monkeypatch, lambda: arrays)
    file = sources.read(str(tmp_path / "own.npz"), tmp_path)
    assert mine.name == "own_data_load" and mine.source == "own_data:load"
    assert mine.classes == file.classes == ("cat", "dog")
    for a, b in zip((*mine.train[:2], *mine.test[:2]), (*file.train[:2], *file.test[:2]),
                    strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)


def test_an_array_alone_is_the_training_images(monkeypatch):
    table = _read(monkeypatch, lambda: X)
    assert table.train.x.shape == (40, 6, 6, 1) and table.test is None


@pytest.mark.parametrize(
    "function, line",
    [
        (lambda: [1, 2], "must give a dict of x_train"),
        (lambda: {"x": X}, "got ['x']"),
        (lambda: {"x_train": X, "labels": X}, "got ['x_train', 'labels']"),
        (lambda: {}["missing"], "cannot be read: KeyError: 'missing'"),
        (lambda: {"x_train": X.astype(complex)}, "own_data:load: "),
    ],
)
def test_what_is_wrong_is_one_line(monkeypatch, function, line):
    with pytest.raises(DataError) as error:
        _read(monkeypatch, function)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_a_module_or_function_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match="no_such_module:load cannot be imported"):
        data.load(data.DataConfig(dataset="no_such_module:load"))
    with pytest.raises(UserError, match="has no nothing_such"):
        data.load(data.DataConfig(dataset="numpy:nothing_such"))


def test_a_set_of_the_catalogue_is_not_somebody_elses_code():
    assert is_outside("own_data:load") and is_outside("a.b:c")
    assert not is_outside("tfds:mnist") and not is_outside("tfds:mnist/3.0.1")
