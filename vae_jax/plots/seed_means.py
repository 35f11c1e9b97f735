"""Means over the seeds of a sweep, with their standard errors.

Members of one setting differ in their seed alone. Of n seeds the standard error of the mean is
s/√n, with s² the sum of squares over n − 1; one seed has none (NaN). What diverged, and what was
not measured (None or NaN), is left out.

A row is a dict, one for each member: "latent_dim", "beta", "learning_rate", "seed", "status"
("finished" or "diverged") and what was measured of it, such as "rate" and "distortion".
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Row = Mapping[str, Any]


class Setting(NamedTuple):
    """What the members of a sweep differ in, besides the seed."""

    latent_dim: int
    beta: float
    learning_rate: float


class Mean(NamedTuple):
    """Over the seeds of one setting."""

    value: float
    error: float  # NaN of one seed
    each: np.ndarray  # [seeds]

    @property
    def text(self) -> str:
        """The value ± its standard error, where several seeds tell one."""
        error = "" if math.isnan(self.error) else f" ± {self.error:.2f}"
        return f"{self.value:.2f}{error}"


_NAMES = {"latent_dim": "{:g} latents", "beta": "β = {:g}", "learning_rate": "lr = {:g}"}


def by_setting(rows: Sequence[Row]) -> dict[Setting, list[Row]]:
    """The finished members of each setting, in rising order."""
    groups: dict[Setting, list[Row]] = {}
    for row in rows:
        if row["status"] == "finished":
            groups.setdefault(Setting(*(row[name] for name in Setting._fields)), []).append(row)
    return dict(sorted(groups.items()))


def over_seeds(rows: Sequence[Row], quantity: str) -> dict[Setting, Mean]:
    """Mean and standard error of one quantity, for each setting that has any."""
    means = {
        setting: mean_of([row[quantity] for row in members])
        for setting, members in by_setting(rows).items()
    }
    return {setting: mean for setting, mean in means.items() if mean is not None}


def mean_of(values: Sequence[float | None]) -> Mean | None:
    """Of the finite ones; None where there are none."""
    finite = np.array(values, float)  # None becomes NaN
    finite = finite[np.isfinite(finite)]
    n = len(finite)
    if not n:
        return None
    error = np.std(finite, ddof=1) / math.sqrt(n) if n > 1 else math.nan
    return Mean(float(np.mean(finite)), float(error), finite)


def varying(settings: Iterable[Setting]) -> list[str]:
    """Which fields have more than one value among the settings."""
    values = zip(Setting._fields, zip(*settings, strict=True), strict=False)
    return [name for name, column in values if len(set(column)) > 1]


def grouped(settings: Iterable[Setting], names: Sequence[str]) -> dict[str, list[Setting]]:
    """The settings that agree in the named fields, under the label of those."""
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        groups.setdefault(label(setting, names), []).append(setting)
    return groups


def label(setting: Setting, names: Sequence[str]) -> str:
    """Some fields of a setting in words: "10 latents, β = 4"."""
    return ", ".join(_NAMES[name].format(getattr(setting, name)) for name in names)


def remark(rows: Sequence[Row]) -> str:
    """What was left out: "1 of 12 diverged", or "" where nothing was."""
    lost = sum(row["status"] != "finished" for row in rows)
    return f"{lost} of {len(rows)} diverged" if lost else ""
