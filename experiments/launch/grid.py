"""From a command line to runs: the product of comma lists, each point checked before any starts.

    --latent_dim=2,5 --beta=1,4 --seed=0        four points

A comma separates two values; one that belongs to a value, of a path, is written with a backslash.
A file of points has the flags of one on each line, for instance --flagfile=FILE.
"""

import dataclasses
import functools
import itertools
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.cli.config import Config, RunConfig, parse
from experiments.runner import run_directory, tensorboard
from experiments.runner.job import assemble
from vae_jax import data
from vae_jax.settings import UserError


class Point(NamedTuple):
    """One run of a launch. label: the flags that tell it from the others; flags: all of them."""

    label: str
    flags: list[str]
    directory: Path
    finished: bool


def product(flags: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(label, flags) of every combination; the last flag's values follow each other fastest."""
    lists = [_values(flag) for flag in _joined(flags)]
    varying = [i for i, values in enumerate(lists) if len(values) > 1]
    points = itertools.product(*lists)
    return [(shlex.join(point[i] for i in varying), list(point)) for point in points]


def _joined(flags: Iterable[str]) -> list[str]:
    """--name value as --name=value; a word that no flag precedes is left for the parser to name."""
    joined: list[str] = []
    for word in flags:
        before = joined[-1] if joined else ""
        if before.startswith("-") and "=" not in before and not word.startswith("-"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _values(flag: str) -> list[str]:
    """--name=a,b as --name=a and --name=b; a comma after a backslash is part of the value."""
    name, equals, text = flag.partition("=")
    values = re.split(r"(?<!\\),", text)
    return [f"{name}{equals}{value}".replace("\\,", ",") for value in values]


def read(path: Path) -> list[tuple[str, list[str]]]:
    """(label, flags) of each line; empty lines and those that start with # say nothing."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        points = [(s, shlex.split(s)) for s in lines if s and not s.startswith("#")]
    except (OSError, ValueError) as error:
        raise UserError(f"points {path} cannot be read: {error}") from None
    if not points:
        raise UserError(f"points {path} holds none")
    return points


def plan(flags: Sequence[str], path: str = "") -> list[Point]:
    """Every point of a launch. Raises UserError with one line where one of them cannot run.

    Data sets are fetched here, once, and "auto" becomes the one that was found.
    """
    lines = read(Path(path)) if path else [("", [])]
    points = []
    for (line, own), (label, common) in itertools.product(lines, product(flags)):
        name = " ".join(filter(None, [label, line]))
        try:
            points.append(_point(name, [*common, *own]))
        except UserError as error:
            at = f"point {len(points) + 1} ({name}): " if name else ""
            raise UserError(f"{at}{error}") from None
    _check_distinct(points)
    return points


def _point(label: str, flags: list[str]) -> Point:
    config: Config = parse(flags)
    if config.run.tensorboard:
        tensorboard.check()
    dataset = _dataset(dataclasses.replace(config.data, binarisation="none"))
    same = dataclasses.replace(config.training, seed=0)  # nothing of it depends on the seed
    _check(dataclasses.replace(config, training=same, run=RunConfig()))
    directory = Path(config.run.run_dir or run_directory.default(config, dataset))
    if config.data.dataset == "auto":
        flags = [*flags, f"--dataset={dataset.name}"]
    flags = [*flags, f"--run_dir={directory}", "--resume"]
    return Point(label, flags, directory, is_finished(directory, flags))


def is_finished(directory: Path, flags: Sequence[str]) -> bool:
    """Whether the run with these flags is there whole."""
    described = {"settings": parse(flags).settings}
    return run_directory.RunDirectory(directory, described).finished()


def now(points: Sequence[Point]) -> list[Point]:
    """The same points, finished or not as of now."""
    return [p._replace(finished=is_finished(p.directory, p.flags)) for p in points]


@functools.lru_cache(maxsize=1)
def _dataset(config: data.DataConfig) -> data.Dataset:
    """Found or fetched; neighbouring points mostly ask for the same one."""
    return data.load(config)


@functools.lru_cache
def _check(config: Config) -> None:
    """Whether these settings go together, on shapes alone."""
    assemble(config, _dataset(dataclasses.replace(config.data, binarisation="none")))


def _check_distinct(points: list[Point]) -> None:
    """Two points in one directory would be one run, or two that fight over it."""
    seen: dict[Path, Point] = {}
    for point in points:
        other = seen.setdefault(point.directory.absolute(), point)
        if other is not point:
            raise UserError(f"two points share the directory {point.directory}{_why(other, point)}")


def _why(one: Point, two: Point) -> str:
    """What two points that share a directory have in common, and the way out."""
    names = f"{one.label or 'the first'} and {two.label or 'the same again'}"
    if parse(one.flags) == parse(two.flags):
        return f": {names} are the same run; a value, or a line of --points, is there twice"
    if parse(two.flags[:-2]).run.run_dir:  # before `_point` added it
        return f", which --run_dir gives to all: {names}; leave --run_dir out, each has its own"
    return (
        f", whose name leaves out how long a run trains and what is measured: {names}; give them "
        "a --run_dir each, with --points"
    )
