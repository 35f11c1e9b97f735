"""The training loop around `training.fit`: evaluation, checkpoints, progress, and how it stops."""

import os
import shlex
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments.cli.config import Config
from experiments.runner import telemetry, tensorboard
from experiments.runner.job import Job
from vae_jax import evaluation, runs, training
from vae_jax.objectives.config import kl_weights
from vae_jax.parallel import processes
from vae_jax.runs import checkpoints


class Stop:
    """Ctrl-C and SIGTERM: the first lets the running steps end and saves; the second does not."""

    def __init__(self, program: str = "experiments.run", resume: str = "--resume") -> None:
        self.signal = 0
        self.gentle = False
        more = [resume] if resume and resume not in sys.argv else []
        self.resume = shlex.join(["python", "-m", program, *sys.argv[1:], *more])

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


def train(job: Job, directory: Path, stop: Stop) -> int:
    """Trains to the end, or until stopped; returns the exit code."""
    config, rows = job.config, job.rows
    num_images = len(rows.x)
    state, log = begin(job, directory)
    fit = partial(
        training.fit,
        job.vae,
        job.objective,
        rows,
        prepare=job.prepare,
        weights=log.weights,
        limit=config.run.device_limit * 2**30 or None,
    )
    if config.run.profile:
        folder = directory / "profile"
        traced = telemetry.trace(fit, config.training, state, folder, config.run.profile)
        print(f"profile    {traced:,} steps in {folder}", flush=True)
    writes = processes.first()
    steps = fit(config=config.training, state=state)
    stop.gentle = True
    clock = time.perf_counter()
    with progress_bar(config, num_images, log.meta["step"]) as bar:
        for progress in steps:
            if not progress.finite:
                print(_diverged(progress, directory), file=sys.stderr)
                return 1
            log.add(progress, time.perf_counter() - clock)
            if writes:
                keep(progress, directory, config.run.keep_checkpoints)
            clock = time.perf_counter()
            if writes:
                checkpoints.save_checkpoint(directory, progress.state, log.meta)
            show(bar, progress, config)
            if processes.largest(stop.signal):  # one that is told to stop stops all
                break
    return stop.code()


def begin(job: Job, directory: Path) -> tuple[training.TrainState | None, "Log"]:
    """Where a training goes on: its newest checkpoint, None where there is none, and its log."""
    start = partial(
        training.initial_state, job.vae, job.objective, job.config.training, len(job.rows.x)
    )
    state, meta = restored(directory, jax.eval_shape(start))
    log = Log(job, directory, meta)
    if state is not None and log.meta["best"] and processes.first():
        checkpoints.keep_best(directory, state.averaged, log.meta["step"], log.meta["best"])
    return state, log


def restored(directory: Path, like: Any) -> tuple[Any, Any]:
    """The newest state, as process 0 reads it, and its meta; None where there is none."""
    found: list[Any] = []

    def read() -> Any:
        found.extend(checkpoints.restore_checkpoint(directory, like) or (None, None))
        return found[1]

    meta = processes.from_first(read)
    if meta is None:
        return None, None
    return processes.arrays_from_first(found[0] if found else None, like), meta


def keep(progress: training.Progress, directory: Path, epochs: int) -> None:
    """Keeps the weights as they are, where every so many epochs were asked for."""
    if epochs and progress.step % (epochs * progress.steps_per_epoch) == 0:
        meta = {"step": progress.step, "epoch": progress.epoch}
        checkpoints.save_kept(directory, progress.state.averaged, meta)


def _diverged(progress: training.Progress, directory: Path) -> str:
    saved = checkpoints.checkpoints(directory)
    last = f"the last good checkpoint is {saved[0]}" if saved else "nothing was saved before it"
    return (
        f"error: the loss is {progress.metrics['loss']} at step {progress.step:,} (epoch "
        f"{progress.epoch:.2f}); {last}; try a lower --learning_rate, --warmup=1000 or --clip=1"
    )


def progress_bar(config: Config, num_images: int, step: int) -> tqdm:
    """One bar, on a terminal only."""
    steps_per_epoch, total = training.length(config.training, num_images)
    layout = "{desc} |{bar:20}| {rate_fmt}, {remaining} left"
    return tqdm(
        initial=step * config.training.batch_size,
        total=total * config.training.batch_size,
        unit=" images",
        unit_scale=True,
        disable=None if processes.first() else True,
        bar_format=layout,
        desc=f"epoch 0/{total / steps_per_epoch:g}",
    )


def show(bar: tqdm, progress: training.Progress, config: Config) -> None:
    total = progress.total_steps / progress.steps_per_epoch
    numbers = {name: progress.metrics[name] for name in ("loss", "rate", "distortion")}
    shown = ", ".join(f"{name} {number:.2f}" for name, number in numbers.items())
    bar.set_description_str(f"epoch {progress.epoch:.4g}/{total:g}: {shown}", False)
    bar.update(progress.chunk * config.training.batch_size)


class Log:
    """Evaluates when due; writes metrics.jsonl and best.npz.

    `meta` is all of it that a resumed run needs: sums of the training metrics since the last
    evaluation, the best validation loss so far, and the seconds spent.
    """

    def __init__(self, job: Job, directory: Path, meta: Any) -> None:
        self.config, self.vae, self.objective = job.config, job.vae, job.objective
        self.directory = directory
        self.writes = processes.first()
        self.valid = job.held_out(job.dataset.valid)
        self.weights = kl_weights(job.config.objective)
        if meta is None and self.writes and runs.read_metrics(directory):
            print(f"note       no checkpoint in {directory}: training from the start")
        self.meta = meta or {"step": 0, "sums": {}, "best": None, "seconds": 0.0}
        self.board = None
        if self.writes:
            history = runs.rewind_metrics(directory, self.meta["step"])
            self.board = (
                tensorboard.Board(directory, history) if self.config.run.tensorboard else None
            )

    def add(self, progress: training.Progress, seconds: float) -> None:
        """One chunk of steps, and the seconds that it took."""
        self.meta["seconds"] += seconds
        self.meta["step"] = progress.step
        sums = self.meta["sums"]
        for name, value in {"steps": 1, **progress.metrics}.items():
            sums[name] = sums.get(name, 0.0) + value * progress.chunk
        due = progress.step % (self.config.run.eval_every * progress.steps_per_epoch) == 0
        if due or progress.step == progress.total_steps:
            self.evaluate(progress)

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
            params = progress.state.averaged
            valid = evaluation.objective_value(
                self.vae, self.objective, params, self.valid, key, weights
            )
            row |= {f"valid_{name}": value for name, value in valid.items()}
            self._keep_best(params, progress.step, valid["loss"])
        row |= telemetry.costs()
        if self.writes:
            runs.append_metrics(self.directory, row)
        if self.board:
            self.board.add(row)

    def _keep_best(self, params: Any, step: int, loss: float) -> None:
        if self.meta["best"] is None or loss < self.meta["best"]["loss"]:
            self.meta["best"] = {"step": step, "loss": loss}
            if self.writes:
                checkpoints.save_best(self.directory, params, self.meta["best"])
