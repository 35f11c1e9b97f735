"""The notebooks: short cells that run from top to bottom, committed with what they show.

The code cells are executed as they are, in order, in one namespace; nothing in them is a notebook's
own language but the installation, which is for Colab alone. To write their output anew:

    pip install jupyter && jupyter nbconvert --execute --inplace notebooks/*.ipynb
"""

import ast
import json
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
(REPOSITORY,) = re.findall(r"repository-code: (\S+)", (ROOT / "CITATION.cff").read_text())


def cells(path: Path, kind: str = "code") -> list[dict]:
    found = json.loads(path.read_text())["cells"]
    return [
        cell | {"source": "".join(cell["source"])} for cell in found if cell["cell_type"] == kind
    ]


def pictures(cell: dict) -> list[str]:
    return [
        out["data"]["image/png"] for out in cell["outputs"] if "image/png" in out.get("data", {})
    ]


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["manifold", "sweep", "tour"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_and_committed_with_their_output(path):
    assert path.stat().st_size < 10**6
    for i, cell in enumerate(cells(path)):
        assert len(cell["source"].splitlines()) <= 10
        assert cell["execution_count"] == i + 1
        assert "error" not in {out["output_type"] for out in cell["outputs"]}
        drawn = len(re.findall(r"plots\.show\(", cell["source"]))
        assert len(pictures(cell)) == drawn
        assert "matplotlib" not in cell["source"]  # what is drawn, the library draws
    assert sum(len(pictures(cell)) for cell in cells(path)) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_open_in_colab_and_install_from_the_repository(path):
    words = "\n".join(cell["source"] for cell in cells(path, "markdown"))
    address = (
        f"{REPOSITORY.replace('https://github.com', '/github')}/blob/main/notebooks/{path.name}"
    )
    assert f"colab.research.google.com{address})" in words
    install = cells(path)[0]["source"]
    assert install == cells(NOTEBOOKS[0])[0]["source"] and f'"{REPOSITORY}"' in install


def test_installing_pins_what_colab_brings(monkeypatch, tmp_path):
    """JAX stays as it is: pip is told its version, and would rather fail than change it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    ran = []
    shell = type("Shell", (), {"system": staticmethod(ran.append)})
    exec(cells(NOTEBOOKS[0])[0]["source"], {"get_ipython": lambda: shell})
    pins = (tmp_path / "pins.txt").read_text()
    from importlib.metadata import version

    for name in ("jax", "jaxlib", "numpy"):
        assert f"{name}=={version(name)}\n" in pins
    assert ran == [
        f"git clone -q --depth 1 {REPOSITORY} vae-jax",
        "pip install -q -c pins.txt ./vae-jax",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    """From the notebook's folder, as it is opened; what draws ends in a picture."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setattr(sys, "path", [*sys.path])
    names: dict = {}
    for cell in cells(path):
        body = ast.parse(cell["source"]).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), path.name, "exec"), names)
        if last:
            value = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
            assert hasattr(value, "_repr_png_") == bool(pictures(cell))
    assert not [name for name in os.listdir() if name not in ("experiments", "notebooks", "runs")]
