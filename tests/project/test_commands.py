"""Every command that a page or a docstring prints is run, shortened where it is long.

The commands are collected, not listed: one that is new is run as it is printed, unless a row of
SHORTER says what shortens its kind.
"""

import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import jax
import pytest
from test_library import COMMANDS as RUN_BY_TEST_LIBRARY

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [*PAGES, ROOT / "launch.sh", *sorted((ROOT / "experiments").rglob("*.py"))]
COMMAND = re.compile(r"(?:python -m (experiments(?:\.\w+)+)|(\./launch\.sh)\b)([^`#\n|]*)")

# What stands for something in a printed command -> what the tests put there. RUN: the module's run.
FILLED = (
    (r"RUN_DIR|RUN_OR_PACK|runs/mnist-z2-1a2b3c4d", "RUN"),
    (r"--figures=…", "--figures=samples"),
    (r"--data_dir=DATA", "--data_dir="),
    (r"HOST0:PORT(.*) --process_id=i", r"127.0.0.1:PORT\1 --process_id=0 --num_processes=1"),
    (r"^mnist ", "digits "),
    (r"\[options\] ", ""),
    (r"-- …", "-- --seed=0,1"),
    (r"^…", ""),
)

STEPS = "--dataset=digits --steps=2 --nll_samples=2"
SMALL = f"{STEPS} --widths=8"
ONCE = "--rounds=1 --model_steps=1 --batch_size=2"
TIMED = (
    "--widths=8 --batch_size=10 --rounds=1 --steps_timed=2 --conv_steps=0 "
    "--timed_nll_samples=2 --members=2 --starts=1"
)


class Shorter(NamedTuple):
    """Flags that shorten a kind of command, the last value of each holds; slow: even so."""

    program: str
    having: str  # text that the command holds
    flags: str
    slow: bool = False


# The first row that fits holds.
SHORTER = (
    Shorter("experiments.run", "--help", ""),
    Shorter("experiments.run", "--preset=oduerr_arc", "--steps=2 --nll_samples=2", slow=True),
    Shorter("experiments.run", "--preset=doersch", STEPS, slow=True),
    Shorter("experiments.run", "--preset=oduerr", f"{SMALL} --validation_size=10", slow=True),
    Shorter("experiments.run", "--preset=iwae --model=two_layer", STEPS, slow=True),
    Shorter("experiments.run", "--preset", SMALL, slow=True),
    Shorter("experiments.run", "--model=two_layer", STEPS, slow=True),
    Shorter("experiments.run", "--model=hvae", STEPS, slow=True),
    Shorter("experiments.run", "--model=conv_hvae", STEPS, slow=True),
    Shorter("experiments.run", "--groups=2x7", f"{STEPS} --groups=1x2-1x4", slow=True),
    Shorter("experiments.run", "--model=ladder", STEPS, slow=True),
    Shorter("experiments.run", "--likelihood_scale", SMALL, slow=True),
    Shorter("experiments.run", "--dataset=mnist", SMALL, slow=True),
    Shorter("experiments.run", "", SMALL),
    Shorter("experiments.evaluate", "--ais_images",
            "--images=20 --nll_samples=2 --ais_images=2 --ais_temperatures=2 --ais_chains=2"),
    Shorter("experiments.evaluate", "", "--images=20 --nll_samples=2"),
    Shorter("experiments.priors", "", f"{SMALL} --posteriors=diagonal", slow=True),
    Shorter("experiments.fit_prior", "", "--epochs=1 --nll_samples=2"),
    Shorter("experiments.inpainting", "", f"{STEPS} --completions=2 --digits=2", slow=True),
    Shorter("experiments.linear_vae", "", "--dataset=digits --images=200 --latent_dim=5 --steps=2"),
    Shorter("experiments.benchmark.sweeps", "", TIMED),
    Shorter("experiments.benchmark.models", "--model=ladder", f"{ONCE} --channels=8 --groups=2"),
    Shorter("experiments.benchmark.models", "", ONCE, slow=True),
    Shorter("experiments.benchmark", "", TIMED, slow=True),
    Shorter("experiments.latent_dim", "--preset=doersch", f"{STEPS} --latent_dims=1,2", slow=True),
    Shorter("experiments.latent_dim", "", f"{SMALL} --latent_dims=1,2 --seeds=1", slow=True),
    Shorter("experiments.kl_weight", "", f"{SMALL} --betas=0.5,1 --seeds=1", slow=True),
    Shorter("experiments.objectives", "", SMALL, slow=True),
    Shorter("experiments.theory", "", "", slow=True),
    Shorter("./launch.sh", "--slurm", "--dry_run"),
    Shorter("./launch.sh", "--latent_dim", "--devices=cpu", slow=True),
)  # fmt: skip
# In a process of its own: its classes as annotations are those of the first __main__ that had them.
# So is what has a --coordinator, which must come before JAX has looked for its devices.
ALONE = {"experiments.inpainting"}
LAUNCHED = "--dataset=digits --widths=8 --steps=2 --nll_samples=2"  # flags of a launch's runs


class Printed(NamedTuple):
    program: str
    rest: str

    @property
    def kind(self) -> Shorter:
        rows = (s for s in SHORTER if s.program == self.program and s.having in self.rest)
        return next(rows, Shorter(self.program, "", ""))

    def flags(self, run: Path) -> list[str]:
        """As printed, with what is left open filled in and what shortens it behind."""
        rest = self.rest
        for pattern, filling in FILLED:
            rest = re.sub(pattern, filling, rest)
        rest = rest.replace("RUN", str(run)).replace("PORT", str(free_port()))
        if self.program != "./launch.sh":
            return [*shlex.split(rest), *shlex.split(self.kind.flags)]
        own, dashes, of_runs = rest.partition("-- ")
        # A launch is a product of lists: the first two values of each are enough.
        of_runs = re.sub(r"(=[^,\s]+,[^,\s]+)[^\s]*", r"\1", of_runs)
        behind = [*shlex.split(of_runs), *shlex.split(LAUNCHED)] if dashes else []
        return [*shlex.split(own), *shlex.split(self.kind.flags), *[dashes.strip()][: len(behind)],
                *behind]  # fmt: skip


def printed() -> list[Printed]:
    """Every command, once; a backslash carries a line on into the next."""
    found = {}
    for path in SOURCES:
        text = re.sub(r"\\\n\s*", " ", path.read_text())
        for module, script, rest in COMMAND.findall(text):
            rest = rest.strip().rstrip(".,;:)")
            found[Printed(module or script, rest)] = None
    return list(found)


def is_a_mention(command: Printed) -> bool:
    """A name without flags, of a program that needs some."""
    needs = ("experiments.plot", "experiments.evaluate", "experiments.pack",
             "experiments.fit_prior", "./launch.sh")  # fmt: skip
    return command.program in needs and not command.rest


def to_run() -> list:
    """The commands, as parameters; those of docs/library.md need its changes, and run with them."""
    return [
        pytest.param(c, marks=[pytest.mark.slow] if c.kind.slow else [], id=" ".join(c))
        for c in printed()
        if not is_a_mention(c) and f"python -m {' '.join(c)}" not in RUN_BY_TEST_LIBRARY
    ]


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return some.getsockname()[1]


def start(command: Printed, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code; here where that is possible, in a process of its own otherwise."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    if command.program == "./launch.sh":
        return subprocess.run([ROOT / "launch.sh", *flags], env=environment).returncode
    if "--coordinator" in " ".join(flags) or command.program in ALONE:
        words = [sys.executable, "-m", command.program, *flags]
        return subprocess.run(words, env=environment).returncode
    monkeypatch.delitem(sys.modules, command.program, raising=False)  # run anew, as a program
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the processes that it starts
    monkeypatch.setattr(sys, "argv", [command.program, *flags])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    wide = jax.config.read("jax_enable_x64")
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(command.program, run_name="__main__")
    finally:
        jax.config.update("jax_enable_x64", wide)
    return ended.value.code or 0  # pyright: ignore[reportReturnType]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small run with two latents, which commands that read a run are given."""
    folder = tmp_path_factory.mktemp("printed") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        flags = [*shlex.split(SMALL), "--latent_dim=2", f"--run_dir={folder}"]
        assert start(Printed("experiments.run", ""), flags, monkeypatch) == 0
    return folder


@pytest.mark.parametrize("command", to_run())
def test_it_runs(command, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "a_run"
    if "RUN" in re.sub(FILLED[0][0], "RUN", command.rest):
        shutil.copytree(trained, run)  # a copy: what one command leaves there, another does not see
    assert start(command, command.flags(run), monkeypatch) == 0


def test_every_program_is_printed_somewhere():
    """One that no page and no docstring names could be broken without anybody seeing it."""
    programs = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in (ROOT / "experiments").rglob("*.py")
        if 'if __name__ == "__main__"' in path.read_text()
    }
    there = {command.program for command in printed()} | {"experiments.launch"}  # by launch.sh
    assert programs <= there
    assert all(find_spec(name) for name in there - {"./launch.sh"})


def test_every_row_shortens_something():
    used = {command.kind for command in printed()}
    assert not set(SHORTER) - used
