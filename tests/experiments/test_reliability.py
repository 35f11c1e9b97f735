"""Nothing is lost: kills at any moment, broken files, full and read-only disks, two at once.

    pytest -m slow tests/experiments/test_reliability.py  # with the fifty kills, ten minutes

docs/reliability.md is the table of it.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from ended import result

from experiments import cli
from experiments import run as job
from experiments.cli.config import parse
from experiments.figures import catalogue
from experiments.runner import run as performing
from vae_jax.runs import checkpoints
from vae_jax.settings import UserError

ROOT = Path(__file__).parents[2]
FLAGS = ["--dataset=digits", "--widths=16", "--epochs=2", "--nll_samples=2", "--batch_size=64"]


def run(directory: Path, *flags: str) -> int:
    return job.main(parse([*FLAGS, f"--run_dir={directory}", *flags]))


def say(monkeypatch, capsys, directory: Path, *flags: str) -> tuple[int, list[str]]:
    """As from the command line: the exit code, and the lines of stderr."""
    monkeypatch.setattr(sys, "argv", ["run", *FLAGS, f"--run_dir={directory}", *flags])
    monkeypatch.setattr(warnings, "formatwarning", None)  # which main replaces
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended, warnings.catch_warnings(record=True) as caught:
        cli.main("experiments.run", job.main)
    shown = [warnings.formatwarning(w.message, w.category, "", 0) for w in caught]
    return int(ended.value.code or 0), "".join([*shown, capsys.readouterr().err]).splitlines()


@pytest.fixture
def undrawn(monkeypatch):
    """Without figures, which are most of the time of a run this small."""
    monkeypatch.setattr(catalogue, "draw", lambda *_: [])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run that nothing disturbed."""
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run(directory) == 0
    return directory


class Killed(BaseException):
    """As abrupt as an exception can be."""


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """The same run, cut after its last checkpoint; the best weights are the newest."""
    directory = tmp_path_factory.mktemp("cut") / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(performing, "finish", killed)
        run(directory)
    return directory


def killed(*_, **__):
    raise Killed


def copied(unfinished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(unfinished, tmp_path / "r"))


# Files


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


HARM = {"truncated": truncate, "bit flipped": flip, "missing": Path.unlink}


@pytest.mark.parametrize("how", HARM)
@pytest.mark.usefixtures("undrawn")
def test_a_harmed_checkpoint_is_replaced_by_the_one_before(
    tmp_path, unfinished, finished, monkeypatch, capsys, how
):
    directory = copied(unfinished, tmp_path)
    HARM[how](checkpoints.checkpoints(directory)[0])
    code, lines = say(monkeypatch, capsys, directory, "--resume")
    assert code == 0 and len(lines) == (how != "missing")
    assert all("step-0000000042.npz is broken" in line for line in lines)
    assert result(directory) == result(finished)


@pytest.mark.parametrize("how", HARM)
@pytest.mark.usefixtures("undrawn")
def test_harmed_best_weights_are_written_again(
    tmp_path, unfinished, finished, monkeypatch, capsys, how
):
    directory = copied(unfinished, tmp_path)
    HARM[how](directory / "checkpoints" / "best.npz")
    code, (line,) = say(monkeypatch, capsys, directory, "--resume")
    assert code == 0 and line.endswith("best.npz was missing or broken; written again")
    assert result(directory) == result(finished)


def test_best_weights_that_nothing_else_has_are_an_error(tmp_path, unfinished, monkeypatch, capsys):
    directory = copied(unfinished, tmp_path)
    path = checkpoints.checkpoints(directory)[0]
    like = job_state(path)
    state, meta = checkpoints.load_arrays(path, like)
    meta["best"]["step"] = 21
    checkpoints.save_arrays(path, state, meta)
    (directory / "checkpoints" / "best.npz").unlink()
    code, (line,) = say(monkeypatch, capsys, directory, "--resume")
    assert code == 2 and "best.npz is missing or broken: the weights of step 21" in line


def job_state(path: Path) -> dict:
    """The arrays of a checkpoint, as a flat tree."""
    import numpy as np

    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files if name != ".meta"}


@pytest.mark.usefixtures("undrawn")
def test_all_checkpoints_gone_or_broken(tmp_path, unfinished, finished, capsys):
    directory = copied(unfinished, tmp_path)
    for path in checkpoints.checkpoints(directory):
        flip(path)
    with pytest.warns(UserWarning), pytest.raises(UserError, match="remove the directory"):
        run(directory, "--resume")
    shutil.rmtree(directory / "checkpoints")
    assert run(directory, "--resume") == 0
    assert "no checkpoint in" in capsys.readouterr().out
    assert result(directory) == result(finished)


# Kills at moments that last too short to be hit by chance


SLOW = pytest.mark.slow
MOMENTS = (
    "config.json",
    "step-0000000021.npz",
    "samples.png",
    pytest.param("best.npz", marks=SLOW),
    pytest.param("summary.json", marks=SLOW),
)


@pytest.mark.parametrize("name", MOMENTS)
def test_killed_while_writing(tmp_path, finished, monkeypatch, request, name):
    """The next start finds half a file under a name that nothing reads, and removes it."""
    if name != "samples.png":
        request.getfixturevalue("undrawn")
    replace, unlink = os.replace, Path.unlink

    def dying(source, target):
        if Path(target).name == name:
            os.truncate(source, 10)
            monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # the dead tidy nothing up
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", dying)
        run(tmp_path / "r")
    monkeypatch.setattr(Path, "unlink", unlink)
    assert [path for path in (tmp_path / "r").rglob(".*.tmp") if name in path.name]
    assert run(tmp_path / "r", "--resume") == 0
    assert result(tmp_path / "r") == result(finished)
    assert not list((tmp_path / "r").rglob("*.tmp"))


@pytest.mark.usefixtures("undrawn")
def test_killed_while_growing_it_is_not_taken_for_finished(tmp_path, finished, monkeypatch):
    assert run(tmp_path / "r", "--epochs=1") == 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints, "save_checkpoint", killed)
        run(tmp_path / "r", "--resume")
    assert run(tmp_path / "r", "--resume") == 0
    assert result(tmp_path / "r") == result(finished)


# Disks


@pytest.fixture
def disk(tmp_path):
    """mount(options): a file system of its own, in memory; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        how = "remount," if os.path.ismount(folder) else ""
        words = ["mount", "-t", "tmpfs", "-o", how + options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(words, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no mount here: a small disk cannot be made")
        if done.returncode:
            pytest.skip(f"a small disk cannot be made: {done.stderr.strip()}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    "kilobytes", [16, pytest.param(32, marks=SLOW), 80, pytest.param(108, marks=SLOW)]
)
def test_a_full_disk(tmp_path, disk, finished, monkeypatch, capsys, kilobytes):
    """Full in metrics.jsonl, in the first and a later checkpoint, in a figure: one line, and with
    more room the same command goes on to the same bits.
    """
    directory = disk(f"size={kilobytes}k") / "r"
    code, (line,) = say(monkeypatch, capsys, directory)
    assert code == 1, line
    assert "No space left on device" in line and str(directory) in line
    assert not list(directory.rglob("*.tmp"))
    disk("size=8m")
    assert run(directory, "--resume") == 0
    assert result(directory) == result(finished)


@pytest.mark.usefixtures("undrawn")
def test_a_read_only_disk(tmp_path, disk, unfinished, finished, monkeypatch, capsys):
    directory = Path(shutil.copytree(unfinished, disk("size=8m") / "r"))
    disk("ro")
    code, (line,) = say(monkeypatch, capsys, directory, "--resume")
    assert (
        code == 2 and line == f"error: run_dir {directory} cannot be written: Read-only file system"
    )
    code, (line,) = say(monkeypatch, capsys, directory.with_name("new"))
    assert code == 2 and "new cannot be written: Read-only file system" in line
    disk("rw")
    assert run(directory, "--resume") == 0
    assert result(directory) == result(finished)


# Fifty real kills

LONG = [*FLAGS, "--epochs=60", "--eval_every=5"]
LAST = "step-0000001260.npz"
ROUND = ["start-up", "compiling", "training", "saving", "start-up", "compiling", "training",
         "saving", "evaluating", "drawing"]  # fmt: skip


def process(directory: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.run", *LONG, f"--run_dir={directory}", "--resume"]
    with open(directory.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def reached(moment: str, directory: Path, before: tuple) -> bool:
    """Whether a process that started with the directory as `before` has come to this moment."""
    begun, saved = before
    if moment == "start-up":
        return True
    if state(directory)[0] == begun:  # config.json is written at every start
        return False
    names = [path.name for path in (directory / "checkpoints").glob("step-*.npz")]
    return {
        "compiling": True,
        "training": sorted(names) != saved,
        "saving": any((directory / "checkpoints").glob(".*.tmp")),
        "evaluating": LAST in names,
        "drawing": any((directory / "figures").glob(".*.tmp")),
    }[moment]


def state(directory: Path) -> tuple:
    path = directory / "config.json"
    names = [path.name for path in (directory / "checkpoints").glob("step-*.npz")]
    return path.stat().st_mtime_ns if path.exists() else 0, sorted(names)


LONGEST = {"start-up": 3.0, "compiling": 1.0, "training": 0.5, "evaluating": 1.0}  # seconds after


@pytest.mark.slow
def test_fifty_kills_and_the_same_bits(tmp_path):
    """Five runs, each killed ten times: somewhere in each of its phases, and inside the writing
    of a checkpoint and of a figure. KILL_SEED=… chooses other moments.
    """
    draw = random.Random(int(os.environ.get("KILL_SEED", "0")))
    assert process(tmp_path / "undisturbed").wait() == 0
    killed, halves = [], 0
    for i in range(5):
        directory = tmp_path / str(i)
        for moment in ROUND:
            before = state(directory)
            running = process(directory)
            while not reached(moment, directory, before) and running.poll() is None:
                pass  # without a pause: a file is being written for a millisecond only
            time.sleep(draw.uniform(0, LONGEST.get(moment, 0.0)))
            running.kill()
            if running.wait() == -signal.SIGKILL:
                killed.append(moment)
                halves += bool(list(directory.rglob(".*.tmp")))
        assert process(directory).wait() == 0, directory.with_suffix(".log").read_text()
        assert result(directory) == result(tmp_path / "undisturbed"), i
        assert not list(directory.rglob(".*.tmp"))
    counts = {moment: killed.count(moment) for moment in dict.fromkeys(ROUND)}
    print(f"{len(killed)} kills: {counts}; {halves} left half a file")
    assert len(killed) >= 48 and set(killed) == set(ROUND)
