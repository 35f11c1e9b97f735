"""The same points as one job array under Slurm.

Each task is one run: `exec` makes it the batch shell's own process, so that the SIGTERM which
Slurm sends two minutes before the time limit reaches it, and it saves. A task that is preempted,
or whose node fails, is queued again and resumes. What the time limit cut, the same command
submits again.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.launch.grid import Point
from experiments.runner.run_directory import LOG
from vae_jax.settings import UserError

WARNING = 120  # seconds before the time limit


def script(points: Sequence[Point], options: str = "", at_once: int = 0) -> str:
    """The job script of the unfinished points; it needs no other file."""
    array = _ranges([i for i, point in enumerate(points, 1) if not point.finished])
    limit = f"%{at_once}" if at_once else ""
    cases = [
        f"  {i}) set -- {shlex.join(point.flags)}\n"
        f"     run_dir={shlex.quote(str(point.directory))} ;;"
        for i, point in enumerate(points, 1)
        if not point.finished
    ]
    return "\n".join([
        "#!/bin/bash",
        "#SBATCH --job-name=vae",
        f"#SBATCH --array={array}{limit}",
        f"#SBATCH --signal=B:TERM@{WARNING}",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --output=runs/slurm-%A_%a.out",  # what Slurm has to say; the run has its own log
        *(f"#SBATCH {option}" for option in shlex.split(options)),
        "set -eu",
        f"cd {shlex.quote(str(Path.cwd()))}",
        f"export PYTHONPATH={shlex.quote(os.environ.get('PYTHONPATH', ''))} PYTHONUNBUFFERED=1",
        "case $SLURM_ARRAY_TASK_ID in",
        *cases,
        '  *) echo "no point $SLURM_ARRAY_TASK_ID" >&2; exit 2 ;;',
        "esac",
        'mkdir -p "$run_dir"',
        f'exec {shlex.quote(sys.executable)} -m experiments.run "$@" >>"$run_dir/{LOG}" 2>&1',
        "",
    ])  # fmt: skip


def _ranges(numbers: Sequence[int]) -> str:
    """1-3,7 of 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def show(points: Sequence[Point], options: str, at_once: int) -> None:
    """Prints the job script."""
    if all(point.finished for point in points):
        print(f"all {len(points)} finished before")
    else:
        print(script(points, options, at_once), end="")


def launch(points: Sequence[Point], options: str, at_once: int) -> int:
    """Submits the array; returns the exit code."""
    unfinished = sum(not point.finished for point in points)
    if not unfinished:
        print(f"all {len(points)} finished before")
        return 0
    text = script(points, options, at_once)
    try:
        Path("runs").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder runs cannot be made here: {error.strerror}") from None
    try:
        done = subprocess.run(["sbatch"], input=text, text=True, capture_output=True)
    except FileNotFoundError:
        raise UserError("sbatch is not installed here; without --slurm it runs locally") from None
    if done.returncode:
        raise UserError(f"sbatch: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    print(f"{done.stdout.strip()}: {unfinished} of {len(points)} runs that are not finished")
    return 0
