"""What the sweeps have in common: members, trained in groups, evaluated, tabulated and drawn.

Called again, a sweep goes on where it was stopped, and what is finished is not done again. So is a
member that `experiments.run --run_dir=SWEEP/MEMBER` has trained with the same settings.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import runner
from experiments.runner import loop, run_directory, telemetry, tensorboard
from experiments.runner.loop import Stop, Task
from experiments.sweep import members, results
from experiments.sweep.members import Planned, SweepConfig
from vae_jax import data, models, objectives, training
from vae_jax.data import streaming
from vae_jax.parallel import devices, processes
from vae_jax.settings import UserError
from vae_jax.training import masking, sweeps

# (network, device) -> whether members train faster all at once. Measured on two CPU cores, at once
# against in turn: mlp 500 0.87 times as fast, mlp 64 0.56, conv 0.98 (docs/performance.md). GPUs
# are not measured: there a step of one dense net leaves most of the device idle.
VECTORIZED = {
    ("mlp", "cpu"): False,
    ("doersch", "cpu"): False,
    ("conv", "cpu"): False,
    ("resnet", "cpu"): False,
    ("mlp", "gpu"): True,
    ("doersch", "gpu"): True,
    ("conv", "gpu"): False,
    ("resnet", "gpu"): False,
}


def main(program: str, config: SweepConfig) -> int:
    """Trains every member that is not finished, and says what came out; returns the exit code."""
    if config.run.tensorboard:
        tensorboard.check()
    dataset = data.load(config.data)
    name = f"{dataset.name}-{program.split('.')[-1]}"
    where = Path(config.run.run_dir or run_directory.named(name, config, dataset))
    processes.from_first(lambda: check(where))
    planned = members.plan(config, dataset, where)
    described = planned[0].directory.description | {"settings": config.settings}
    processes.check_same(run_directory.deciding(described), "other flags or other images")
    todo = [m for m in planned if m.status in ("new", "started")]
    at_once = bool(todo) and vectorized(config, todo)
    groups = grouped(config, todo, at_once)
    with processes.quiet(), contextlib.ExitStack() as locks, Stop(program, resume="") as stop:
        processes.from_first(lambda: hold(locks, where, todo))
        print(header(planned, groups, at_once, where), flush=True)
        for i, group in enumerate(groups):
            label = f"group {i + 1} of {len(groups)}, " if len(groups) > 1 else ""
            code = perform(group, at_once, stop, label, where if i == 0 else None)
            if code:
                return code
        return processes.from_first(
            lambda: results.write(program, config, described, planned, where)
        )


def hold(locks: contextlib.ExitStack, where: Path, todo: Sequence[Planned]) -> None:
    """Holds the sweep's directory and those of its members."""
    # Those that exist first: one of them in use ends it before others are made for nothing.
    own = sorted((m.directory.path for m in todo), key=lambda path: not path.exists())
    for directory in (where, *own):
        locks.enter_context(run_directory.locked(directory))


def check(where: Path) -> None:
    """Raises UserError where the directory holds something that is no sweep."""
    if (where / "config.json").exists():
        raise UserError(f"run_dir {where} holds a run of experiments.run; give another")
    if where.is_dir() and not (where / "sweep.json").exists():
        found = [path for path in where.iterdir() if not path.name.startswith(".")]
        known = (run_directory.LOG, "profile")
        strangers = [p.name for p in found if p.name not in known and not _of_a_run(p)]
        if strangers:
            raise UserError(f"run_dir {where} is not empty ({strangers[0]}); give another")


def _of_a_run(path: Path) -> bool:
    """Whether a run is there, or one that is starting."""
    return (path / "config.json").exists() or (path / ".lock").exists()


def rows_of(planned: Sequence[Planned]) -> Any:
    return planned[0].job.rows


def vectorized(config: SweepConfig, todo: Sequence[Planned]) -> bool:
    """Whether members train all at once; UserError where they should and cannot."""
    limit = config.run.device_limit * 2**30 or None
    streams = streaming.steps_per_block(rows_of(todo), config.training.batch_size, limit, 1) > 0
    if config.sweep.vectorize == "on" and streams:
        raise UserError("vectorize on keeps the images on the device, and they are larger than "
                        "device_limit: leave it at auto")  # fmt: skip
    if config.sweep.vectorize != "auto":
        return config.sweep.vectorize == "on"
    m, device = config.model, jax.default_backend()
    network = m.network if m.model == "standard" else m.model
    return len(todo) > 1 and not streams and VECTORIZED.get((network, device), False)


def program_of(planned: Sequence[Planned]) -> sweeps.Program:
    """What some members share."""
    job, vaes = planned[0].job, {m.values.latent_dim: m.job.vae for m in planned}
    return sweeps.Program(
        vaes.__getitem__,
        job.objective,
        partial(objectives.kl_weights, job.config.objective),
        job.config.training,
        job.prepare,
    )


def grouped(config: SweepConfig, todo: Sequence[Planned], at_once: bool) -> list[list[Planned]]:
    """Members that train together: of latent dimensions that do, as many as there is memory for."""
    program = program_of(todo) if todo else None
    vaes = {m.values.latent_dim: m.job.vae for m in todo}
    sets = [[k] for k in vaes]
    if at_once and masking.maskable(config.model, config.objective):
        sets = masking.together(vaes, lambda k: sum(models.count_parameters(vaes[k]).values()))
    groups = []
    for latent_dims in sets:
        group = [m for m in todo if m.values.latent_dim in latent_dims]
        most = config.sweep.max_members or len(group)
        if program and at_once:
            room = sweeps.how_many(program, latent_dims[0], rows_of(group), jax.device_count())
            most = min(most, -processes.largest(-room))  # of all processes the least
        parts = np.array_split(np.arange(len(group)), -(-len(group) // most))
        groups += [[group[i] for i in part] for part in parts]
    return groups


def header(
    planned: Sequence[Planned], groups: Sequence[Sequence[Planned]], at_once: bool, where: Path
) -> str:
    """The first lines of output: what is about to happen."""
    job = planned[0].job
    m, (_, total) = job.config.model, job.length
    left = sum(map(len, groups))
    done = f", {len(planned) - left} of them done" if left < len(planned) else ""
    how = ("; all at once" if at_once else "; one after the other") if left else ""
    sizes = [len(group) for group in groups]
    parts = f"; {len(groups)} groups, the largest of {max(sizes)}" if len(groups) > 1 else ""
    return "\n".join([
        *(f"note       {note}" for note in job.notes),
        runner.data_line(job.dataset),
        f"model      {m.nets}, {job.config.objective.objective}, "
        f"batch {job.config.training.batch_size}, {total:,} steps",
        f"members    {len(planned)}{done}: {planned[0].name} … {planned[-1].name}{how}{parts}",
        f"device     {devices.described()}",
        f"directory  {where}",
    ])  # fmt: skip


def perform(
    group: Sequence[Planned], at_once: bool, stop: Stop, label: str, profile: Path | None
) -> int:
    """Trains and evaluates some members; returns the exit code."""
    if processes.first():
        for member in group:
            member.directory.begin()
    with contextlib.nullcontext() if at_once else devices.everywhere():
        if profile and group[0].job.config.run.profile:
            trace(group, at_once, profile / "profile")
        tasks = [Task(*member[:3]) for member in group]
        code = loop.train(tasks, _fit(group, at_once), stop, label)
    for task in tasks:
        if code == 0 and not processes.from_first(lambda: task.directory.diverged is not None):
            report(task)
    return code


def report(task: Task) -> None:
    """Evaluates a member, and says what came out."""
    summary, _ = runner.evaluate(task)
    if summary is None:
        task.directory.mark_diverged(task.job.length[1], "nan", 0.0)
        return
    print(f"{task.name:<24} elbo {summary['elbo']:.2f}  nll {summary['nll']:.2f}", flush=True)


def _fit(group: Sequence[Planned], at_once: bool, **changes: Any) -> Any:
    """The library's loop over some members, up to where it starts."""
    arguments: dict[str, Any] = {"data": rows_of(group), "members": [m.values for m in group]}
    program = program_of(group)
    program = program._replace(config=changes.get("config", program.config))
    if at_once:
        return partial(sweeps.fit, program, **arguments)
    limit = group[0].job.limit
    return partial(sweeps.fit_in_turn, program, **arguments, limit=limit)


def trace(group: Sequence[Planned], at_once: bool, folder: Path) -> None:
    """Profiles the first steps of a group, apart from its training."""
    config = group[0].job.config

    def fit(config: Any, state: None, chunk: int) -> Iterator[training.Progress]:
        for progresses in _fit(group, at_once, config=config)(
            states=[None] * len(group), chunk=chunk
        ):
            yield next(iter(progresses.values()))

    traced = telemetry.trace(fit, config.training, None, folder, config.run.profile)
    print(f"profile    {traced:,} steps in {folder}", flush=True)
