"""The environment that a command is started in decides none of its results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = ["--dataset=digits", "--steps=3", "--widths=8", "--nll_samples=2", "--likelihood=gaussian"]
RUN = [sys.executable, "-m", "experiments.run", *FLAGS, "--binarisation=none"]


def run(directory: Path, command: str = "", **variables) -> subprocess.CompletedProcess:
    """A small run; command: what a shell does with its outputs."""
    environment = {**os.environ, **{k: v for k, v in variables.items() if v is not None}}
    for name in (k for k, v in variables.items() if v is None):
        environment.pop(name, None)
    words = [*RUN, f"--run_dir={directory}"]
    if command:
        words = ["bash", "-c", f'"$@" {command}', "bash", *words]
    return subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace"
    )


def numbers(directory: Path) -> dict:
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    return {name: summary[name] for name in ("elbo", "rate", "nll", "active_units")}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    directory = tmp_path_factory.mktemp("plain") / "run"
    done = run(directory)
    assert done.returncode == 0, done.stderr
    return numbers(directory)


VARIABLES = {
    "x64": {"JAX_ENABLE_X64": "1"},
    "promotion": {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"},
    "random numbers": {"JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_THREEFRY_PARTITIONABLE": "0"},
    "no home, Latin-1": {"HOME": None, "PYTHONIOENCODING": "latin-1", "LC_ALL": "C"},
}


@pytest.mark.parametrize("case", VARIABLES)
def test_variables_do_not_change_the_numbers(case, plain, tmp_path):
    done = run(tmp_path / "run", **VARIABLES[case])
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path / "run") == plain


OUTPUTS = {"closed": ">&- 2>&-", "a broken pipe": "| head -1; exit ${PIPESTATUS[0]}"}


@pytest.mark.parametrize("case", OUTPUTS)
def test_a_run_goes_on_though_nobody_reads_it(case, plain, tmp_path):
    done = run(tmp_path / "run", OUTPUTS[case])
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert numbers(tmp_path / "run") == plain


def test_a_full_output_is_one_line(tmp_path):
    done = run(tmp_path / "run", "> /dev/full")
    assert done.returncode == 1
    assert done.stderr == "error: stdout: No space left on device; what was saved is whole\n"


def test_a_platform_that_is_not_there_is_one_line(tmp_path):
    done = run(tmp_path / "run", JAX_PLATFORMS="cuda")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: JAX_PLATFORMS=cuda asks for devices")
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_help_where_its_letters_cannot_be_written():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", "--help"], cwd=ROOT, capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0 and b"--latent_dim" in done.stdout and not done.stderr


def test_figures_are_the_same_whatever_matplotlib_is_told(tmp_path):
    """A notebook's backend that is not here, and settings that would turn images upside down."""
    told = "image.origin: lower\naxes.grid: True\nfont.size: 30\nlines.linewidth: 9\n"
    (tmp_path / "matplotlibrc").write_text(told)
    assert run(tmp_path / "plain").returncode == 0
    hostile = {"MPLBACKEND": "module://no_such.backend", "MATPLOTLIBRC": str(tmp_path)}
    done = run(tmp_path / "hostile", **hostile)
    assert done.returncode == 0, done.stderr
    for name in ("samples", "reconstructions", "manifold", "latents"):
        pictures = [(tmp_path / d / "figures" / f"{name}.png").read_bytes()
                    for d in ("plain", "hostile")]  # fmt: skip
        assert pictures[0] == pictures[1], name


def test_a_figure_that_fails_is_a_warning_that_names_it(tmp_path, monkeypatch):
    from run_helpers import untrained

    import vae_jax
    from experiments.figures import catalogue

    job = untrained(tmp_path / "run")

    def failing(scene):
        raise RuntimeError("no such colour\nand more")

    broken = catalogue.FIGURES["samples"]._replace(draw=failing)
    monkeypatch.setitem(catalogue.FIGURES, "samples", broken)
    with pytest.warns(UserWarning, match="figure samples could not be drawn: no such colour"):
        paths = catalogue.draw(vae_jax.load(tmp_path / "run"), job.dataset, tmp_path / "figures")
    names = [path.stem for path in paths]
    assert "samples" not in names and {"manifold", "reconstructions", "curves"} <= set(names)


LOAD = """
import jax, vae_jax, sys, numpy as np
jax.config.update("jax_enable_x64", sys.argv[2] == "1")
run = vae_jax.load(sys.argv[1])
assert {str(a.dtype) for a in jax.tree.leaves(run.params)} == {"float32"}
x = run.decode(np.zeros((2, 2)))
print(x.dtype, float(x.sum()))
"""


def test_a_run_loads_whatever_the_width_of_numbers(tmp_path):
    """Of the library itself, in a program that has switched to 64 bits."""
    assert run(tmp_path / "run").returncode == 0
    said = [
        subprocess.run(
            [sys.executable, "-c", LOAD, str(tmp_path / "run"), wide],
            cwd=ROOT, capture_output=True, text=True,
        )
        for wide in "01"
    ]  # fmt: skip
    assert said[0].stdout == said[1].stdout != "", said[1].stderr[-2000:]
