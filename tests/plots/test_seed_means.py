"""Means over seeds: the very numbers, and what is left out of them."""

import numpy as np
import pytest

from vae_jax.plots import seed_means
from vae_jax.plots.seed_means import Setting


def row(latent_dim, beta, seed, rate, status="finished"):
    setting = {"latent_dim": latent_dim, "beta": beta, "learning_rate": 1e-3, "seed": seed}
    return {**setting, "status": status, "rate": rate}


ROWS = [
    row(10, 1.0, 0, 4.0),
    row(2, 1.0, 0, 1.0),
    row(2, 1.0, 1, 2.0),
    row(2, 1.0, 2, 6.0),
    row(2, 0.5, 0, None),
    row(10, 1.0, 1, float("nan"), "diverged"),
]
TWO, TEN = Setting(2, 1.0, 1e-3), Setting(10, 1.0, 1e-3)


def test_mean_and_standard_error():
    means = seed_means.over_seeds(ROWS, "rate")
    assert list(means) == [TWO, TEN]  # in rising order, and without what was not measured
    assert means[TWO].value == 3.0
    assert means[TWO].error == pytest.approx(np.sqrt(7 / 3))  # s² = (4 + 1 + 9)/2 = 7
    assert means[TEN].value == 4.0 and np.isnan(means[TEN].error)


def test_what_varies_and_its_name():
    settings = seed_means.by_setting(ROWS)
    assert seed_means.varying(settings) == ["latent_dim", "beta"]
    assert seed_means.varying([TWO]) == seed_means.varying([]) == []
    assert seed_means.label(TEN, ["latent_dim", "beta"]) == "10 latents, β = 1"
    assert seed_means.label(TEN, ["learning_rate"]) == "lr = 0.001"
    groups = seed_means.grouped(settings, ["beta"])
    assert groups == {"β = 0.5": [Setting(2, 0.5, 1e-3)], "β = 1": [TWO, TEN]}


def test_what_diverged_is_mentioned():
    assert seed_means.remark(ROWS) == "1 of 6 diverged"
    assert seed_means.remark(ROWS[:5]) == ""
