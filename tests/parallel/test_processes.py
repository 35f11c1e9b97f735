"""Two processes over loopback that train one model: as one does, and bounded where one is lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ended import agree, close

from experiments.cli.config import parse
from vae_jax.parallel import processes
from vae_jax.runs import checkpoints
from vae_jax.settings import UserError

ROOT = Path(__file__).parents[2]
FLAGS = ["--dataset=digits", "--widths=8", "--epochs=2", "--nll_samples=2", "--batch_size=64"]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def begun(directory: Path, *flags: str, program: str = "run") -> subprocess.Popen:
    module = f"experiments.{program}"
    command = [sys.executable, "-m", module, *FLAGS, f"--run_dir={directory}", *flags]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def both(directory: Path, *flags: str, program: str = "run") -> list[subprocess.Popen]:
    place = [f"--coordinator=localhost:{free_port()}", "--num_processes=2", *flags]
    return [begun(directory, f"--process_id={i}", *place, program=program) for i in range(2)]


def ended(process: subprocess.Popen, seconds: float = 240) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def ends_well(running: list[subprocess.Popen]) -> bool:
    ends = [ended(process) for process in running]
    assert [code for code, _, _ in ends] == [0] * len(running), ends
    return True


def test_a_process_that_never_comes_is_an_error_within_the_wait(tmp_path):
    place = [f"--coordinator=localhost:{free_port()}", "--num_processes=2", "--patience=5"]
    start = time.monotonic()
    code, _, err = ended(begun(tmp_path / "r", "--process_id=1", *place), 90)
    assert code == 1 and err.splitlines()[-1] == f"error: {processes.LOST}"
    assert time.monotonic() - start < 80
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--num_processes=2"], "need --coordinator"),
        (["--coordinator=host"], "HOST:PORT"),
        (["--coordinator=host:1", "--process_id=2", "--num_processes=2"], "below num_processes"),
    ],
)
def test_settings_that_do_not_go_together(flags, says):
    with pytest.raises(UserError, match=says):
        processes.start(parse(flags).processes)


def test_alone_nothing_is_told_or_waited_for():
    assert processes.alone() and processes.first()
    assert processes.from_first(lambda: {"a": 1}) == {"a": 1}
    assert processes.largest(15) == 15


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(tmp_path):
    assert ended(begun(tmp_path / "one"))[0] == 0
    (code, out, _), (other, silent, _) = map(ended, both(tmp_path / "two"))
    assert (code, other) == (0, 0)
    assert "in 2 processes" in out
    assert all(line.startswith("[Gloo]") for line in silent.splitlines())  # JAX's own
    assert agree(tmp_path / "one", tmp_path / "two")
    assert close(*(tmp_path / name / "summary.json" for name in ("one", "two")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [["--condition=column", "--prior=conditional"], ["--profile=3"], ["--device_limit=1e-6"]],
)
def test_two_processes_do_what_one_does(tmp_path, flags):
    """Given a part of each image; traced; streaming."""
    assert ends_well([begun(tmp_path / "one", *flags)])
    assert ends_well(both(tmp_path / "two", *flags))
    assert agree(tmp_path / "one", tmp_path / "two")
    assert not flags[0].startswith("--profile") or list(
        (tmp_path / "two" / "profile").rglob("*.pb")
    )


@pytest.mark.slow
@pytest.mark.parametrize("vectorize", ["on", "off"])
def test_two_processes_sweep_as_one(tmp_path, vectorize):
    """One member of three diverges, and its fellows go on; called again, nothing is left to do."""
    rates = ["--learning_rates=1e-3,1e-2,1e3", "--optimiser=sgd"]
    sweep, program = [*rates, f"--vectorize={vectorize}"], "latent_dim"
    flags = ["--latent_dims=2", *sweep]
    assert ends_well([begun(tmp_path / "one", *flags, program=program)])
    assert ends_well(both(tmp_path / "two", *flags, program=program))
    for member in ("z2-lr0.001", "z2-lr0.01"):
        assert agree(tmp_path / "one" / member, tmp_path / "two" / member)
    assert (tmp_path / "two" / "z2-lr1000" / "diverged.json").exists()
    before = (tmp_path / "two" / "sweep.csv").read_bytes()
    assert ends_well(both(tmp_path / "two", *flags, program=program))
    assert (tmp_path / "two" / "sweep.csv").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_goes_on(tmp_path, victim):
    """Together where the second was lost; where the first was, on one device, which reads the same
    checkpoint.
    """
    directory, long = tmp_path / "r", ["--epochs=40"]
    running = both(directory, "--patience=20", *long)
    while not checkpoints.checkpoints(directory):
        assert running[victim].poll() is None
        time.sleep(0.05)
    running[victim].kill()
    start = time.monotonic()
    code, _, err = ended(running[1 - victim], 120)
    assert code == 1 and processes.LOST in err.splitlines()[-1]
    assert time.monotonic() - start < 100
    running[victim].communicate()
    again = both(directory, "--resume", *long) if victim else [begun(directory, "--resume", *long)]
    assert ends_well(again)
    assert ended(begun(tmp_path / "one", *long))[0] == 0
    assert agree(tmp_path / "one", directory)


@pytest.mark.slow
def test_one_told_to_stop_stops_both_saved_and_they_go_on(tmp_path):
    directory, long = tmp_path / "r", ["--epochs=40"]
    running = both(directory, *long)
    while not checkpoints.checkpoints(directory):
        assert running[1].poll() is None
        time.sleep(0.05)
    running[1].send_signal(signal.SIGTERM)
    ends = [ended(process) for process in running]
    assert [code for code, _, _ in ends] == [128 + signal.SIGTERM] * 2
    assert "stopped and saved" in ends[0][2]
    assert ends_well(both(directory, "--resume", *long))
    assert ended(begun(tmp_path / "one", *long))[0] == 0
    assert agree(tmp_path / "one", directory)


@pytest.mark.slow
def test_an_error_of_process_0_and_flags_that_differ_are_said_by_both(tmp_path):
    assert ended(begun(tmp_path / "r", "--epochs=1"))[0] == 0
    for code, _, err in map(ended, both(tmp_path / "r")):
        assert (code in (1, 2) and "already holds this run" in err) or processes.LOST in err
    place = [f"--coordinator=localhost:{free_port()}", "--num_processes=2"]
    pair = [begun(tmp_path / "s", f"--process_id={i}", f"--seed={i}", *place) for i in range(2)]
    for code, _, err in map(ended, pair):
        assert (code in (1, 2) and "other flags" in err) or processes.LOST in err
    assert not (tmp_path / "s" / "config.json").exists()
