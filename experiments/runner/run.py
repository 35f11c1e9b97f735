"""One job, whole: trained, evaluated, drawn, in its run directory."""

import dataclasses
import math
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments.figures import catalogue
from experiments.runner import run_directory, telemetry, tensorboard
from experiments.runner.job import Job
from experiments.runner.loop import Stop, Task, interpreter, train
from experiments.runner.report import header, table
from experiments.runner.run_directory import RunDirectory
from vae_jax import evaluation, runs, training
from vae_jax.data import noun
from vae_jax.models import domains
from vae_jax.parallel import devices, processes


def perform(job: Job) -> int:
    """Trains, evaluates and draws one job in its run directory; returns the exit code."""
    if job.config.run.tensorboard:
        tensorboard.check()
    for note in job.notes:
        print(f"note       {note}")
    directory = RunDirectory.of(job.config, job.dataset)
    decide = run_directory.deciding(directory.description)
    processes.check_same(decide, "other flags or other images")
    claim = directory.claimed(job.config.run.resume)
    with processes.quiet(), claim as before, Stop() as stop:
        if before == "finished":
            print(f"{directory.path} holds this run, finished: see {directory.path}/summary.json")
            return 0
        print(header(job, directory.path), flush=True)
        if processes.first():
            directory.begin()
        task = Task(job, directory)
        with devices.everywhere():
            if job.config.run.profile:
                profile(task)
            code = train([task], partial(fit, job), stop)
        return code or finish(task)


def fit(job: Job, states: list[Any], stopped: set[int], **options: Any) -> Iterator[Any]:
    """The library's loop over one training, as `loop.train` takes it."""
    if 0 in stopped:
        return
    options = {"config": job.config.training, **options}
    for progress in training.fit(
        job.vae, job.objective, job.rows, options.pop("config"), prepare=job.prepare,
        weights=job.weights, limit=job.limit, state=states[0], **options,
    ):  # fmt: skip
        yield {0: progress}
        if 0 in stopped:
            return


def profile(task: Task) -> None:
    """Traces some steps, apart from the training."""
    job, folder = task.job, task.directory.path / "profile"

    def steps(config: Any, state: Any, chunk: int) -> Iterator[training.Progress]:
        return (p[0] for p in fit(job, [state], set(), config=config, chunk=chunk))

    traced = telemetry.trace(steps, job.config.training, None, folder, job.config.run.profile)
    print(f"profile    {traced:,} steps in {folder}", flush=True)


def finish(task: Task) -> int:
    """Evaluates and draws; says what came out, where everything is and what to do with it."""
    summary, paths = evaluate(task)
    if summary is None:
        return 1
    print(table(summary, noun(task.job.dataset.x_shape)))
    where = task.directory.path
    if paths:
        print(f"figures    {', '.join(path.name for path in paths)} in {where / 'figures'}")
    python = shlex.join(interpreter())
    print(f"next       {python} -m experiments.plot {shlex.quote(str(where))}, "
          f"experiments.evaluate, experiments.pack; vae_jax.load({str(where)!r})")  # fmt: skip
    return 0


def evaluate(task: Task) -> tuple[dict[str, Any] | None, list[Path]]:
    """The summary on the test set, None where a number of it is none, and the figures' paths.

    The summary is written first: no figure that fails takes it along.
    """
    job, directory = task.job, task.directory
    run = directory.load(job.vae, job.condition)
    with devices.everywhere():
        shared = dataclasses.replace(run, params=devices.put(run.params))
        summary = summarise(job, shared, run.history, directory.ended)
    wrong = [name for name, value in summary.items() if not all_finite(value)]
    if wrong:
        name = f"{task.name}: " if task.name else ""
        print(f"error: {name}{wrong[0]} of the weights of step {run.meta['step']:,} is "
              f"{summary[wrong[0]]}; try a lower --learning_rate", file=sys.stderr)  # fmt: skip
        return None, []
    if not processes.first():
        return summary, []
    directory.write_summary(summary)
    paths = catalogue.draw(run, job.dataset, directory.path / "figures")
    if job.config.run.tensorboard:
        tensorboard.finish(directory.path, run.history, summary, paths)
    summary["figures"] = [path.name for path in paths]
    directory.write_summary(summary)  # only now is all of it there
    return summary, paths


def all_finite(value: Any) -> bool:
    """Whether every number in a JSON value is one."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        return all(map(all_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def summarise(job: Job, run: runs.Run, history: list[dict[str, Any]], ended: Any) -> dict[str, Any]:
    """What summary.json holds: test numbers in nats per image (see `evaluation.summary`)."""
    config = job.config
    test, key = job.held_out(job.dataset.test), jax.random.key(config.data.data_seed)
    quiet = None if processes.first() else True
    with tqdm(total=len(test.x), desc="test NLL", unit=" images", disable=quiet) as bar:
        measured = evaluation.summary(
            run.vae, run.params, test, key, num_samples=config.run.nll_samples,
            at_once=config.run.z_at_once,
            probability=domains.is_probability(config.model.likelihood, job.dataset.test.x),
            report=bar.update,
        )  # fmt: skip
    last = history[-1]
    images = last["step"] * config.training.batch_size
    return {
        "split": "test",
        "checkpoint": run.meta,
        **measured.numbers,
        "ended": ended,
        "train_seconds": last["seconds"],
        "images_per_second": images / last["seconds"],
    }
