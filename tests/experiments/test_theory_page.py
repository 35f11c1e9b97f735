"""docs/theory.md, docs/systems.md and `experiments.theory`: names that exist, commands that can be
given, numbers that are current, pictures.
"""

import ast
import functools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import cli
from experiments.theory import page
from vae_jax.settings import UserError

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "theory.md").read_text()
SYSTEMS = (DOCS / "systems.md").read_text()
NAMED = sorted(set(re.findall(r"\[`(\w+)`\]\(([^)]+)\)", PAGE)))
NAMED_THERE = sorted(set(re.findall(r"\[`(\w+)`\]\(([^)]+)\)", SYSTEMS)))


@functools.cache
def defined(path):
    """The names of the functions and classes that a file defines."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)}


@pytest.mark.parametrize(("name", "link"), [*NAMED, *NAMED_THERE])
def test_every_name_on_the_pages_exists(name, link):
    assert name in defined(DOCS / link)


def test_every_link_on_the_page_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGE) if "://" not in link]
    assert len(links) > len(NAMED) > 40
    for link in links:
        assert (DOCS / link).exists(), link


def test_every_proof_is_named():
    tests = {
        name
        for name in defined(DOCS / "../tests/experiments/test_theory.py")
        if name.startswith("test_")
    }
    assert tests - {name for name, _ in NAMED} == {"test_data_with_spectrum"}  # a tool, not a claim


@pytest.mark.parametrize("page", [PAGE, SYSTEMS])
def test_every_footnote_is_used_and_written(page):
    used = re.findall(r"(?<=[^\n])\[\^(\w+)\]", page)
    assert used and sorted(used) == sorted(re.findall(r"^\[\^(\w+)\]:", page, flags=re.MULTILINE))


def test_every_picture_of_the_systems_is_there():
    shown = re.sub(r"<!--.*?-->", "", SYSTEMS, flags=re.DOTALL)
    pictures = re.findall(r"figures/[\w-]+\.png", shown)
    assert len(pictures) >= 3
    for picture in pictures:
        assert (DOCS / picture).exists(), picture


def test_the_pictures_are_those_of_the_experiment():
    shown = re.findall(r"!\[[^\]]+\]\(figures/(\w+)\.png\)", PAGE)
    assert sorted(shown) == sorted(page.FIGURES)


def test_the_numbers_are_those_of_the_experiment():
    found = json.loads((DOCS / "figures/theory.json").read_text())
    printed = "\n".join(page.table(name, numbers) for name, numbers in found.items())
    assert f"```\n{printed}\n```" in PAGE
    assert list(found) == list(page.FIGURES)


def test_a_picture_is_the_same_each_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, "FIGURES", {"kl_gaussian": page.kl_gaussian})
    for part in ("first", "second"):
        config = cli.parse([f"--out_dir={tmp_path / part}"], page.Config)
        assert page.main(config) == 0
    for name in ("kl_gaussian.png", "theory.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    committed = json.loads((DOCS / "figures/theory.json").read_text())["kl_gaussian"]
    assert json.loads((tmp_path / "first/theory.json").read_text())["kl_gaussian"] == committed
    assert "KL at σ = 2, bits" in capsys.readouterr().out


@pytest.mark.slow
def test_all_numbers_come_out_again(tmp_path):
    page.main(cli.parse([f"--out_dir={tmp_path}"], page.Config))
    again = json.loads((tmp_path / "theory.json").read_text())
    for name, numbers in json.loads((DOCS / "figures/theory.json").read_text()).items():
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        np.testing.assert_allclose(
            [*again[name].values()], [*numbers.values()], rtol=2e-3, atol=1e-4
        )


@pytest.mark.parametrize("flag", ["--outdir=x", "--out_dir", "here", "--latent_dim=2"])
def test_a_wrong_flag_is_one_line(flag, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["theory", flag])
    with pytest.raises(SystemExit) as stop:
        cli.main("experiments.theory", page.main, page.Config)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("error: ") and error.count("\n") == 1


def test_no_folder_is_one_line():
    with pytest.raises(UserError, match="out_dir must be a folder"):
        page.OutputConfig("")


def test_a_file_where_the_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="out_dir must be a folder"):
            page.main(cli.parse([f"--out_dir={place}"], page.Config))


def test_help_names_the_flag(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["theory", "--help"])
    with pytest.raises(SystemExit) as stop:
        cli.main("experiments.theory", page.main, page.Config)
    assert stop.value.code == 0
    assert "--out_dir" in capsys.readouterr().out
