"""What came out of a launch: a row for each run, and the means over seeds.

results.csv   what varies, the status, and the numbers of each run's summary.json
"""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli.config import fields, parse
from experiments.launch.grid import Point
from vae_jax import files
from vae_jax.plots.seed_means import Mean, mean_of
from vae_jax.settings import UserError

NAME = "results.csv"
TABLE = ("elbo", "rate", "distortion", "nll", "active_units")
# The table's best point is the one with the least of this, or else with the most of that.
LEAST, MOST = "nll", "elbo"

Row = dict[str, Any]


def folder(points: Sequence[Point], out: str) -> Path:
    """Where it goes: --out, or runs/launch-<hash of the flags of all runs>."""
    if out:
        return Path(out)
    flags = json.dumps([point.flags for point in points])
    return Path("runs") / f"launch-{hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def check(where: Path) -> None:
    """Raises UserError where no file can be written there; makes the folder."""
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out {where} cannot be made: {error.strerror}") from None


def varying(points: Sequence[Point]) -> list[str]:
    """The settings in which the points differ, without where they write."""
    settings = [_flat(point) for point in points]
    return [name for name in fields() if name in settings[0] and name != "run_dir"
            and len({json.dumps(s[name]) for s in settings}) > 1]  # fmt: skip


def _flat(point: Point) -> dict[str, Any]:
    sections = parse(point.flags).settings.values()
    return {name: value for section in sections for name, value in section.items()}


def rows(points: Sequence[Point], failed: Mapping[Path, str] = {}) -> list[Row]:
    """Of each point: what varies, status ("finished", "failed" or "unfinished"), its numbers.

    failed: the directories of the runs that ended badly in this launch, and how.
    """
    names, found = varying(points), []
    for point in points:
        own = {name: value for name, value in _flat(point).items() if name in names}
        summary = _summary(point) if point.finished else {}
        state = "finished" if summary else "failed" if point.directory in failed else "unfinished"
        numbers = {k: v for k, v in summary.items() if isinstance(v, int | float)}
        found.append({**own, "status": state, **numbers, "run_dir": str(point.directory)})
    return found


def _summary(point: Point) -> dict[str, Any]:
    try:
        return files.read_json(point.directory / "summary.json")
    except (OSError, ValueError, UserError):
        return {}


def write(points: Sequence[Point], where: Path, failed: Mapping[Path, str] = {}) -> None:
    """Writes results.csv and prints the table of what is finished."""
    found = rows(points, failed)
    columns = list(dict.fromkeys(name for row in found for name in row if name != "run_dir"))
    with (
        files.replacing(where / NAME) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, [*columns, "run_dir"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(table(found, varying(points)))
    print(f"written    {where / NAME}")


def table(found: Sequence[Row], names: Sequence[str]) -> str:
    """Means over seeds ± their standard error, in nats per image; * marks the best."""
    groups: dict[tuple, list[Row]] = {}
    apart = [name for name in names if name != "seed"]
    for row in found:
        if row["status"] == "finished":
            groups.setdefault(tuple(row[name] for name in apart), []).append(row)
    if not groups:
        return "nothing is finished yet"
    shown = [name for name in TABLE if any(name in row for row in found)]
    means = {key: {q: mean_of([row.get(q) for row in some]) for q in shown}
             for key, some in groups.items()}  # fmt: skip
    best = _best(means)
    lines = [["", *apart, "runs", *shown]]
    for key, some in groups.items():
        mark = "*" if len(groups) > 1 and key == best else ""
        lines.append(
            [mark, *map(_text, key), str(len(some)), *(_cell(m) for m in means[key].values())]
        )
    size = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.rjust, line, size)).rstrip() for line in lines]
    left = sum(row["status"] != "finished" for row in found)
    if len(groups) > 1 and best is not None:
        text.append(f"* the best by {_judge(means)}")
    return "\n".join(text + [f"{left} of {len(found)} runs are not finished"] * bool(left))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(mean: Mean | None) -> str:
    return "–" if mean is None else mean.text


def _judge(means: Mapping[tuple, Mapping[str, Mean | None]]) -> str:
    """The quantity that decides: nll where every point has it, or else elbo."""
    return LEAST if all(m.get(LEAST) for m in means.values()) else MOST


def _best(means: Mapping[tuple, Mapping[str, Mean | None]]) -> tuple | None:
    judge = _judge(means)
    sign = 1 if judge == LEAST else -1
    values = {key: m.get(judge) for key, m in means.items()}
    known = {key: sign * mean.value for key, mean in values.items() if mean}
    return min(known, key=known.__getitem__) if known else None
