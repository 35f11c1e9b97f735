"""The members of a sweep: every combination of its lists, each a configuration of its own.

    --latent_dims=2,5 --betas=0.5,1 --learning_rates=1e-3,3e-3 --seeds=3      24 members

A member is named after what varies, z5-beta0.5-lr0.003-seed2. That is its directory in the
sweep's, a run directory as `experiments.run` leaves it with the settings of that member alone.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from experiments.cli.config import Config, assemble
from experiments.cli.presets import resolve
from experiments.runner.job import Job
from experiments.runner.job import assemble as assemble_job
from experiments.runner.run_directory import RunDirectory, describe
from vae_jax import data
from vae_jax.parallel import processes
from vae_jax.settings import UserError, setting, validate
from vae_jax.training import sweeps


def numbers(text: str, kind: Callable[[str], Any]) -> list[Any]:
    """'1,2' -> [1, 2]; '' -> []. Raises ValueError with what is wanted."""
    try:
        values = [kind(word) for word in text.split(",")] if text else []
    except ValueError:
        values = [0, 0]
    if len(set(values)) < len(values):
        what = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"{what} joined by commas, none empty and none twice")
    return values


def listed(of: str, kind: Callable[[str], Any], default: str = "") -> Any:
    """A setting that lists values of another one."""
    text = f"values of {of}, joined by commas; empty: the one of --{of}"
    return setting(default, text, parse=lambda text: numbers(text, kind))


# list -> the setting whose values it lists, their type, and how a member's name shows them
LISTS = {
    "latent_dims": ("latent_dim", int, "z"),
    "betas": ("beta", float, "beta"),
    "learning_rates": ("learning_rate", float, "lr"),
}


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """Which members there are, and how they train."""

    latent_dims: str = listed("latent_dim", int)
    betas: str = listed("beta", float)
    learning_rates: str = listed("learning_rate", float)
    seeds: int = setting(1, "members of each kind: --seed and the seeds that follow it", at_least=1)
    vectorize: str = setting(
        "auto", "all at once, or one after the other in one program; auto: what was measured to be "
        "faster for the network and the device", choices=("auto", "on", "off"),
    )  # fmt: skip
    max_members: int = setting(
        0, "how many train at once; 0: as many as the memory holds", unit="members", at_least=0
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclasses.dataclass(frozen=True)
class SweepConfig(Config):
    """The settings that all members share, and the lists of those that they do not."""

    sweep: SweepSettings = SweepSettings()
    question: ClassVar[str] = "latent_dims"  # the list that the experiment is about

    @classmethod
    def of_flags(cls, preset: str, given: dict[str, Any]) -> Config:
        for name, (one, _, _) in LISTS.items():
            text = given.get(name, type(cls.sweep).__dataclass_fields__[name].default)
            if given.get(name) == "":
                raise UserError(f"{name} must name at least one value; got ''")
            if one in given and text:
                raise UserError(f"{name} takes the place of {one}: give only --{name}")
            if name == "latent_dims":
                for value in _values(name, text):
                    resolve(preset, {**given, one: value})
        return assemble(cls, resolve(preset, given))


def _values(name: str, text: str) -> list[Any]:
    try:
        return numbers(text, LISTS[name][1])
    except ValueError as error:
        raise UserError(f"{name} must be {error}; got {text!r}") from None


class Planned(NamedTuple):
    """A member, and how far it is: new, started, finished or diverged."""

    job: Job
    directory: RunDirectory
    name: str
    status: str

    @property
    def values(self) -> sweeps.Member:
        return values(self.job.config)


def values(config: Config) -> sweeps.Member:
    t = config.training
    return sweeps.Member(config.model.latent_dim, config.objective.beta, t.learning_rate, t.seed)


def expand(config: SweepConfig) -> Iterator[tuple[str, Config]]:
    """Name and configuration of every member; UserError names the one that cannot be."""
    lists, prefixes = [], {}
    if config.sweep.latent_dims and not config.model.is_sized:
        raise UserError(f"latent_dims does nothing for model {config.model.model}, whose latents "
                        "have settings of their own")  # fmt: skip
    for name, (one, _, prefix) in LISTS.items():
        section = next(s for s in config.settings.values() if one in s)
        several = _values(name, getattr(config.sweep, name)) or [section[one]]
        lists.append(several)
        prefixes[one] = prefix if len(several) > 1 or name == config.question else ""
    first, count = config.training.seed, config.sweep.seeds
    lists.append(range(first, first + count))
    prefixes["seed"] = "seed" if count > 1 else ""
    shared = {k: v for section in config.settings.values() for k, v in section.items()}
    for point in itertools.product(*lists):
        own = dict(zip(prefixes, point, strict=True))
        name = "-".join(f"{prefix}{own[k]:.10g}" for k, prefix in prefixes.items() if prefix)
        with _said_of(name):
            member = assemble(Config, shared | own)
        yield name, member


def plan(config: SweepConfig, dataset: data.Dataset, where: Path) -> list[Planned]:
    """Every member, checked. Raises UserError where one cannot run or its directory holds something
    else; writes nothing.
    """
    jobs: dict[int, Job] = {}
    described: dict[str, Any] = {}
    planned = []
    for name, own in expand(config):
        directory = where / name
        own = dataclasses.replace(own, run=dataclasses.replace(own.run, run_dir=str(directory)))
        k = own.model.latent_dim
        with _said_of(name):
            jobs[k] = (jobs.get(k) or assemble_job(own, dataset))._replace(config=own)
        shared = described or describe(own, dataset)
        described = {**shared, "settings": own.settings}
        planned.append(Planned(jobs[k], RunDirectory(directory, described), name, "new"))
    statuses = processes.from_first(lambda: [_status(member) for member in planned])
    return [m._replace(status=status) for m, status in zip(planned, statuses, strict=True)]


@contextlib.contextmanager
def _said_of(name: str) -> Iterator[None]:
    """A UserError says which member it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"member {name}: {error}") from None


def _status(member: Planned) -> str:
    directory = member.directory
    if not directory.path.exists():
        return "new"
    with _said_of(member.name):
        status = directory.status(resume=True)
    return "diverged" if status == "started" and directory.diverged else status
