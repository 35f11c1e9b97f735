"""Runs on this machine: so many at a time, each with its own GPU or its own share of the cores.

A run is a process of its own session: what the terminal sends reaches it through the launcher
alone, once. Its output is appended to log.txt in its directory.
"""

import collections
import dataclasses
import importlib.util
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import IO

from experiments.launch.grid import Point
from experiments.runner.run_directory import LOG
from vae_jax.settings import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FOR_RUNS = {signal.SIGHUP: signal.SIGTERM}  # which runs do not listen for
PAUSE = 0.1  # seconds between two looks at the runs
MEMORY = 0.9  # of a GPU's, for all the runs that share it


@dataclasses.dataclass(frozen=True)
class Slot:
    """A place for one run: what it adds to the environment, and to the front of the command."""

    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*names, *self.prefix])


def slots(devices: str, per_device: int, jobs: int) -> list[Slot]:
    """The places there are. Raises UserError where the options contradict each other."""
    gpus = visible_gpus() if devices == "auto" else [] if devices == "cpu" else devices.split(",")
    if not gpus:
        if per_device > 1:
            raise UserError("per_device needs a GPU and none is visible; on a CPU give --jobs")
        return _shares(sorted(os.sched_getaffinity(0)), jobs)
    if jobs:
        raise UserError("jobs is for CPUs; on GPUs give --devices and --per_device")
    environment = {}
    if per_device > 1:
        environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{MEMORY / per_device:.3f}"
    return [
        Slot({"CUDA_VISIBLE_DEVICES": gpu, **environment})
        for _ in range(per_device)
        for gpu in gpus
    ]


def visible_gpus() -> list[str]:
    """Names of the GPUs, as CUDA_VISIBLE_DEVICES has them; none where JAX could not use them."""
    plugins = [f"jax_cuda{version}_plugin" for version in (12, 13)]
    if os.environ.get("JAX_PLATFORMS") == "cpu" or not any(map(importlib.util.find_spec, plugins)):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    found = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(i) for i in range(len(found))]


def _shares(cores: list[int], jobs: int) -> list[Slot]:
    """The cores in equal shares; a run's thread pools are as large as its share (taskset)."""
    jobs = jobs or max(1, len(cores) // 4)
    if jobs == 1 or not shutil.which("taskset"):
        return [Slot()] * jobs
    cuts = [i * len(cores) // jobs for i in range(jobs + 1)]
    shares = [cores[a:b] or [cores[a]] for a, b in itertools.pairwise(cuts)]
    return [Slot({}, ("taskset", "-c", ",".join(map(str, share)))) for share in shares]


def command(point: Point) -> list[str]:
    return [sys.executable, "-m", "experiments.run", *point.flags]


@dataclasses.dataclass
class _Running:
    point: Point
    slot: Slot
    process: subprocess.Popen
    log: IO[bytes]


class Pool:
    """Runs the unfinished points, as many at a time as there are slots."""

    def __init__(self, points: Sequence[Point], slots: Sequence[Slot]) -> None:
        self.total = len(points)
        self.waiting = collections.deque(point for point in points if not point.finished)
        self.done = self.before = self.total - len(self.waiting)
        self.free, self.running = collections.deque(slots), []
        self.failed: list[tuple[Point, str]] = []
        self.stopped = 0  # by a signal that this process passed on
        self.signal, self.signals = 0, []  # the first; those not yet passed on
        self.start = time.monotonic()

    def run(self) -> int:
        """To the end, or until a signal; returns the exit code."""
        if self.done:
            print(f"{self.done} of {self.total} finished before", flush=True)
        note = lambda number, _: self.signals.append(number)  # noqa: E731
        before = {number: signal.signal(number, note) for number in SIGNALS}
        try:
            while self.running or (self.waiting and not self.signal):
                while self.free and self.waiting and not self.signal:
                    self._start(self.waiting.popleft(), self.free.popleft())
                self._show()
                time.sleep(PAUSE)
                self._pass_on()
                self._collect()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._report()

    def _start(self, point: Point, slot: Slot) -> None:
        words = [*slot.prefix, *command(point)]
        try:
            point.directory.mkdir(parents=True, exist_ok=True)
            log = open(point.directory / LOG, "ab")  # noqa: SIM115
            log.write(f"$ {shlex.join(words)}\n".encode())
            log.flush()
            environment = os.environ | {"PYTHONUNBUFFERED": "1"} | slot.environment
            process = subprocess.Popen(
                words,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            self.free.append(slot)
            self._end(point, f"not started: {error.strerror}: {error.filename}")
            return
        self.running.append(_Running(point, slot, process, log))

    def _pass_on(self) -> None:
        """The first signal has every run save and end; a second ends them at once."""
        while self.signals:
            number = self.signals.pop(0)
            self.signal = self.signal or number
            for running in self.running:
                running.process.send_signal(_FOR_RUNS.get(number, number))

    def _collect(self) -> None:
        for running in [r for r in self.running if r.process.poll() is not None]:
            self.running.remove(running)
            self.free.append(running.slot)
            running.log.close()
            code = running.process.returncode
            if self.signal and abs(code) % 128 in (signal.SIGINT, signal.SIGTERM):
                self.stopped += 1  # 128 + n where it saved, −n where it had not begun to
            else:
                self._end(running.point, "" if code == 0 else _ending(code, running.point))

    def _end(self, point: Point, fault: str) -> None:
        if fault:
            self.failed.append((point, fault))
        else:
            self.done += 1
        if not sys.stderr.isatty():
            how = "failed" if fault else "done"
            print(f"{how:<7} {self._counts()}: {point.label or point.directory}", flush=True)

    def _counts(self) -> str:
        counts = f"{self.done} done, {len(self.running)} running, {len(self.failed)} failed"
        stopped = f", {self.stopped} stopped" if self.stopped else ""
        return f"{counts}{stopped} of {self.total}"

    def _show(self) -> None:
        """The live line, on a terminal only."""
        if sys.stderr.isatty():
            line = self._line(time.monotonic() - self.start)
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\033[K{line[:width]}")
            sys.stderr.flush()

    def _line(self, seconds: float) -> str:
        """How many, since when, how long still, what failed and what runs."""
        here = self.done + len(self.failed) - self.before
        left = "? left"
        if here and not self.signal:
            left = f"about {_clock(seconds * (len(self.waiting) + len(self.running)) / here)} left"
        parts = [self._counts(), _clock(seconds), left]
        for name, points in (
            ("failed", [point for point, _ in self.failed]),
            ("running", [running.point for running in self.running]),
        ):
            if points:
                parts.append(f"{name}: {'; '.join(p.label or str(p.directory) for p in points)}")
        return ", ".join(parts)

    def _report(self) -> int:
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
        print(self._counts())
        for point, fault in self.failed:
            print(f"failed  {point.label or 'the run'}: {fault} ({point.directory / LOG})")
        if self.signal:
            print("stopped; the same command again goes on", file=sys.stderr)
            return 128 + self.signal
        return 1 if self.failed else 0


def _clock(seconds: float) -> str:
    """Hours:minutes:seconds."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _ending(code: int, point: Point) -> str:
    """How a run ended that did not succeed, with the last line that it wrote."""
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    with open(point.directory / LOG, "rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
        lines = log.read().decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip() and line[:2] != "$ "), "")
    return f"{how}: {last.strip()}" if last else how
