"""Every command that a page or a docstring prints is run, shortened where it is long."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [*PAGES, ROOT / "launch.sh", *sorted((ROOT / "experiments").rglob("*.py"))]
COMMAND = re.compile(r"(?:python -m (experiments\.[\w.]+)|\./launch\.sh\b)([^`#\n]*)")

DIGITS = "--dataset=digits --widths=8 --nll_samples=2"
ONCE = f"{DIGITS} --epochs=1"
SWEEP = f"{ONCE} --seeds=1"
TIMED = (
    "--widths=8 --batch_size=10 --rounds=1 --steps_timed=2 --conv_steps=0 "
    "--timed_nll_samples=2 --members=2 --starts=1"
)
# Program -> what shortens each of its commands; the last value of a flag holds.
SHORTER = {
    "experiments.benchmark": TIMED,
    "experiments.benchmark.sweeps": TIMED,
    "experiments.run": ONCE,
    "experiments.evaluate": "--nll_samples=2",
    "experiments.pack": "",
    "experiments.plot": "",
}
# Programs whose commands other tests run in process, or that need MNIST: named, not run here.
NOT_RUN_HERE = {
    "experiments.inpainting", "experiments.linear_vae", "experiments.objectives",
    "experiments.latent_dim", "experiments.kl_weight", "experiments.theory",
    "experiments.prepare_data", "./launch.sh",
}  # fmt: skip
RUN = re.compile(r"RUN_DIR|RUN_OR_PACK|runs/mnist-z2-1a2b3c4d")


def printed() -> list[tuple[str, str]]:
    """(program, flags) of every command, once; a backslash carries a line on into the next."""
    found = {}
    for path in SOURCES:
        text = re.sub(r"\\\n\s*", " ", path.read_text())
        for module, rest in COMMAND.findall(text):
            found[module.rstrip(".") or "./launch.sh", rest.strip()] = None
    return list(found)


def of(*programs: str) -> list[tuple[str, str]]:
    """Their commands that can be run: not those with a … or a host in them, nor a bare name."""
    return [(p, rest) for p, rest in printed() if p in programs and rest and "…" not in rest]


def start(program: str, flags: list[str], folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", program, *flags]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"


def test_no_program_is_forgotten():
    assert {program for program, _ in printed()} == {*SHORTER, *NOT_RUN_HERE}


@pytest.mark.parametrize(("program", "rest"), of("experiments.benchmark.sweeps"))
def test_the_sweeps_benchmark_runs(program, rest, tmp_path):
    start(program, [*shlex.split(rest), *shlex.split(TIMED)], tmp_path)


@pytest.mark.parametrize(("program", "rest"), of("experiments.benchmark"))
def test_the_benchmark_runs(program, rest, tmp_path):
    start(program, [*shlex.split(rest), *shlex.split(TIMED)], tmp_path)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("printed")
    start("experiments.run", [*shlex.split(ONCE), "--latent_dim=2", "--run_dir=run"], folder)
    return folder / "run"


@pytest.mark.parametrize(
    ("program", "rest"), of("experiments.evaluate", "experiments.pack", "experiments.plot")
)
def test_what_reads_a_run_runs(program, rest, run_dir, tmp_path):
    flags = shlex.split(RUN.sub(str(run_dir), rest))
    start(program, [*flags, *shlex.split(SHORTER[program])], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("program", "rest"), of("experiments.run"))
def test_every_run_trains(program, rest, tmp_path):
    start(program, [*shlex.split(rest), *shlex.split(ONCE), "--run_dir=run"], tmp_path)
