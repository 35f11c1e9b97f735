"""The loop around a training: evaluation, checkpoints, progress, and how it stops.

A single run is a group of one; the members of a sweep that train together are a group.
"""

import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from experiments.runner import telemetry, tensorboard
from experiments.runner.job import Job
from experiments.runner.run_directory import RunDirectory
from vae_jax import evaluation, training
from vae_jax.objectives import kl_weights, warmup_ends
from vae_jax.parallel import processes

ALL_STEPS = "all steps"  # why most trainings end


class Task(NamedTuple):
    """A training, where it leaves what, and its name among others; "" where it is alone."""

    job: Job
    directory: RunDirectory
    name: str = ""


def interpreter() -> list[str]:
    """The Python that runs, as one would type it from here."""
    path = Path(sys.executable)
    here = path.is_relative_to(Path.cwd())
    return [str(path.relative_to(Path.cwd()) if here else path)]


class Stop:
    """Ctrl-C and SIGTERM: the first lets the running steps end and saves; the second does not."""

    def __init__(self, program: str = "experiments.run", resume: str = "--resume") -> None:
        self.signal = 0
        self.gentle = False
        more = [resume] if resume and resume not in sys.argv else []
        self.resume = shlex.join([*interpreter(), "-m", program, *sys.argv[1:], *more])

    def __enter__(self) -> "Stop":
        self.before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        if self.signal or not self.gentle:
            print(f"\nstopped; go on with: {self.resume}", file=sys.stderr)
            os._exit(128 + number)
        self.signal = number
        print("\nstopping after these steps; once more to stop at once", file=sys.stderr)

    def code(self) -> int:
        """After the training: the exit code, 0 where it was not stopped."""
        self.gentle = False
        self.signal = processes.largest(self.signal)
        if not self.signal:
            return 0
        print(f"stopped and saved; go on with: {self.resume}", file=sys.stderr)
        return 128 + self.signal


Fit = Callable[..., Iterator[dict[int, training.Progress]]]  # (states=…, stopped=…)


def train(tasks: Sequence[Task], fit: Fit, stop: Stop, title: str = "") -> int:
    """Trains a group to its end, or until stopped; returns the exit code.

    fit: the library's loop up to where each starts. One that diverges does not end the others; of
    one alone that is exit code 1.
    """
    states, logs = begin(tasks)
    stopped = {i for i, log in enumerate(logs) if log.meta["ended"]}
    steps = fit(states=states, stopped=stopped)
    stop.gentle = True
    clock = time.perf_counter()
    with progress_bar(tasks, logs, title) as bar:
        for progresses in steps:
            seconds = (time.perf_counter() - clock) / len(progresses)  # each one's share
            for i, progress in progresses.items():
                logs[i].add(progress, seconds)
                stopped |= {i} if logs[i].meta["ended"] or logs[i].diverged else set()
            clock = time.perf_counter()
            for i, progress in progresses.items():
                logs[i].save(progress)
            show(bar, tasks[0].job, title, progresses)
            if processes.largest(stop.signal):  # one that is told to stop stops all
                break
    return stop.code() or int(logs[0].diverged and not tasks[0].name)


def begin(tasks: Sequence[Task]) -> tuple[list[training.TrainState | None], list["Log"]]:
    """Where each goes on: its newest checkpoint, None where there is none, and its log."""
    states, logs = [], []
    for task in tasks:
        job = task.job
        like = jax.eval_shape(lambda job=job: training.initial_state(
            job.vae, job.objective, job.config.training, len(job.rows.x)
        ))  # fmt: skip
        state, meta = task.directory.restore(like)
        log = Log(task, meta)
        best = log.meta["best"]
        if state is not None and best and processes.first():
            task.directory.keep_best(state.averaged, log.meta["step"], best)
        states.append(state)
        logs.append(log)
    return states, logs


class Log:
    """Evaluates when due; keeps metrics, the best weights and checkpoints.

    `meta` is all of it that a resumed run needs: sums of the training metrics since the last
    evaluation, the best validation loss so far and how many evaluations ago that was, why the
    training ended, and the seconds spent.
    """

    def __init__(self, task: Task, meta: Any) -> None:
        self.task, self.job, self.directory = task, task.job, task.directory
        self.config = task.job.config
        self.writes = processes.first()
        self.valid = self.job.held_out(self.job.dataset.valid)
        self.weights = kl_weights(self.config.objective)
        self.diverged = False
        if meta is None and self.writes and self.directory.history:
            print(f"note       no checkpoint in {self.directory.path}: training from the start")
        fresh = {"step": 0, "sums": {}, "best": None, "since_best": 0, "ended": None}
        self.meta = meta or {**fresh, "seconds": 0.0}
        ended, total = self.meta["ended"], self.job.length[1]
        if ended and ended["reason"] == ALL_STEPS and ended["step"] < total:  # it grows
            self.meta["ended"] = None
        self.board = None
        if self.writes:
            history = self.directory.rewind(self.meta["step"])
            if self.config.run.tensorboard:
                self.board = tensorboard.Board(self.directory.path, history)

    def add(self, progress: training.Progress, seconds: float) -> None:
        """One chunk of steps, and the seconds that it took."""
        self.meta["seconds"] += seconds
        if not progress.finite:
            self._diverge(progress, f"the loss is {progress.metrics['loss']}" if progress.sound
                          else "a weight is no finite number")  # fmt: skip
            return
        self.meta["step"] = progress.step
        sums = self.meta["sums"]
        for name, value in {"steps": 1, **progress.metrics}.items():
            sums[name] = sums.get(name, 0.0) + value * progress.chunk
        due = progress.step % (self.config.run.eval_every * progress.steps_per_epoch) == 0
        last = progress.step == progress.total_steps
        if due or last:
            self.evaluate(progress)
        if last and not self.meta["ended"] and not self.diverged:
            self._end(progress.step, ALL_STEPS)

    def save(self, progress: training.Progress) -> None:
        """The state after a chunk, unless it is no good."""
        if self.diverged or not self.writes:
            return
        kept = self.config.run.keep_checkpoints * progress.steps_per_epoch
        if kept and progress.step % kept == 0:
            self.directory.keep(progress.state.averaged, progress.step, progress.epoch)
        self.directory.save(progress.state, self.meta)

    def evaluate(self, progress: training.Progress) -> None:
        """A line of metrics: training means since the last one, validation as of now."""
        sums, self.meta["sums"] = self.meta["sums"], {}
        steps = sums.pop("steps")
        row = {"step": progress.step, "epoch": progress.epoch, "seconds": self.meta["seconds"]}
        row |= {f"train_{name}": total / steps for name, total in sums.items()}
        if len(self.valid.x):
            # Those of the last step: one yardstick for all epochs.
            weights = self.weights(progress.total_steps - 1)
            key = jax.random.key(self.config.data.data_seed)
            valid = evaluation.objective_value(
                self.job.vae, self.job.objective, progress.state.averaged, self.valid, key, weights
            )
            if not math.isfinite(valid["loss"]):
                self._diverge(progress, f"the validation loss is {valid['loss']}")
                return
            row |= {f"valid_{name}": value for name, value in valid.items()}
            self._keep_best(progress, valid["loss"])
        row |= telemetry.costs()
        if self.writes:
            self.directory.append(row)
        if self.board:
            self.board.add(row)

    def _keep_best(self, progress: training.Progress, loss: float) -> None:
        best, patience = self.meta["best"], self.config.training.early_stopping
        if best is None or loss < best["loss"]:
            self.meta["best"], self.meta["since_best"] = {"step": progress.step, "loss": loss}, 0
            if self.writes:
                self.directory.save_best(progress.state.averaged, self.meta["best"])
        elif progress.step > warmup_ends(self.config.objective):
            self.meta["since_best"] += 1
        if patience and self.meta["since_best"] >= patience:
            self._end(progress.step, f"no better validation loss in {patience} evaluations")

    def _end(self, step: int, reason: str) -> None:
        self.meta["ended"] = {"step": step, "reason": reason}

    def _diverge(self, progress: training.Progress, what: str) -> None:
        self.diverged = True
        name = f"{self.task.name}: " if self.task.name else ""
        print(
            f"error: {name}{what} at step {progress.step:,} (epoch {progress.epoch:.2f}); "
            f"{self.directory.last_checkpoint}; try a lower --learning_rate, --warmup=1000 or "
            "--clip=1",
            file=sys.stderr,
        )
        if self.writes and self.task.name:
            loss = str(progress.metrics["loss"])
            self.directory.mark_diverged(progress.step, loss, self.meta["seconds"])


# The bar


def progress_bar(tasks: Sequence[Task], logs: Sequence[Log], title: str) -> tqdm:
    """One bar, on a terminal only; what does not fit is cut from its end, the numbers."""
    batch = tasks[0].job.config.training.batch_size
    return tqdm(
        initial=sum(log.meta["step"] for log in logs) * batch,
        total=tasks[0].job.length[1] * batch * len(tasks),
        unit=" images",
        unit_scale=True,
        disable=None if processes.first() else True,
        dynamic_ncols=True,
        bar_format="{desc} |{bar:12}| {rate_fmt}, {remaining} left{postfix}",
        desc=f"{title}compiling",
    )


def show(bar: tqdm, job: Job, title: str, progresses: dict[int, training.Progress]) -> None:
    some = next(iter(progresses.values()))
    total = some.total_steps / some.steps_per_epoch
    finite = [p.metrics for p in progresses.values() if p.finite]
    names = ("loss", "rate", "distortion") if len(progresses) == 1 else ("loss",)
    numbers = [f"{n} {sum(m[n] for m in finite) / len(finite):.2f}" for n in names if finite]
    bar.set_description_str(f"{title}epoch {some.epoch:.4g}/{total:g}", False)
    bar.set_postfix_str(" ".join(numbers) or "diverged", False)
    bar.update(sum(p.chunk for p in progresses.values()) * job.config.training.batch_size)
