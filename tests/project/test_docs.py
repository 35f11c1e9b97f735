"""The pages: every link leads somewhere, every change they show works as printed."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from experiments import cli, plot
from experiments.figures.catalogue import FIGURES

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LIBRARY = (ROOT / "docs" / "library.md").read_text()
CHANGES = re.findall(r"```python (\S+)\n(.*?)```", LIBRARY, re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in link]
    for link in links:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_in_the_contents():
    contents = re.findall(r"\]\((\w+\.md)\)", (ROOT / "docs" / "README.md").read_text())
    assert sorted(contents) == [page.name for page in PAGES if page.name != "README.md"]


def test_every_command_names_a_program_and_flags_that_exist():
    for page in PAGES:
        for module in re.findall(r"python -m (experiments[\w.]+)", page.read_text()):
            assert find_spec(module), module
    (command,) = re.findall(
        r"python -m experiments.plot (.*)", (ROOT / "docs/running.md").read_text()
    )
    assert cli.parse(shlex.split(command), plot.Config, "run").plot.range == 4


def test_every_figure_and_its_options_are_told():
    rows = re.findall(
        r"^\| (`.*?) \| (.*?) \|", (ROOT / "docs/running.md").read_text(), re.MULTILINE
    )
    named = re.findall(r"`(\w+)`", " ".join(figure for figure, _ in rows))
    assert {*FIGURES, "animation"} <= set(named)
    flags = cli.fields(plot.Config)
    for _, options in rows:
        for flag in re.findall(r"--(\w+)", options):
            assert flag in flags or flag == "keep_checkpoints", flag


def changed(source: str, change: str) -> str:
    """The file with what is new above the first dict that it adds to, and its line in each."""
    new, *entries = re.split(r"^# in (\w+)\n", change, flags=re.MULTILINE)
    for name, line in zip(entries[::2], entries[1::2], strict=True):
        head = re.search(rf"^{name}\b.*{{\n", source, re.MULTILINE)
        assert head, name
        source = source[: head.end()] + line.rstrip() + "\n" + source[head.end() :]
    last = re.search(rf"^{entries[-2]}\b", source, re.MULTILINE)
    assert last
    return source[: last.start()] + new.rstrip() + "\n\n\n" + source[last.start() :]


CHECK = """
import json, sys
import jax, numpy as np, vae_jax
from experiments import config, run as job
from vae_jax import objectives
from vae_jax.types import unconditional

job.main(config.parse(sys.argv[1:]))
run = vae_jax.load("run")
x = unconditional(np.full((3, 8, 8, 3), 0.5, np.float32))
same = run.vae, run.params, jax.random.key(0), x, objectives.KLWeights()
p = run.vae.likelihood(run.params, np.zeros(8), np.zeros(0))
drawn, z = (
    jax.vmap(q.sample)(jax.random.split(jax.random.key(1), 4000))
    for q in (p, run.vae.prior(run.params, np.zeros(0)))
)
found = {
    "renyi": float(objectives.renyi(*same, alpha=0.0)[0]),
    "iwae": float(objectives.importance_weighted(*same, num_samples=5)[0]),
    "kurtosis": float((z**4).mean() / (z**2).mean() ** 2),
    "bias": float(abs(drawn.mean(0) - p.mean).max()),
    "parts": sorted(run.params["posterior"]),
}
print(json.dumps(found))
"""


def test_the_changes_are_real(tmp_path):
    """All five made to a copy, trained from the command line, and held to what they claim."""
    for folder in ("vae_jax", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    assert len(CHANGES) == 5
    for name, change in CHANGES:
        path = tmp_path / name
        path.write_text(changed(path.read_text(), change))
    (flags,) = re.findall(r"```sh\npython -m experiments.run (.*)\n```", LIBRARY)
    small = ["--run_dir=run", "--epochs=1", "--widths=8", "--nll_samples=2"]
    command = [sys.executable, "-c", CHECK, *shlex.split(flags), *small]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["renyi"] == pytest.approx(found["iwae"], rel=1e-5)  # at α = 0 the same bound
    assert found["parts"] == ["deep", "flat"]
    assert found["kurtosis"] > 4  # 9 for five degrees of freedom, a Gaussian's is 3
    assert found["bias"] < 0.02


def test_the_changes_are_short():
    assert [name for name, _ in CHANGES] == [
        f"vae_jax/{n}.py" for n in ("objectives", "priors", "likelihoods", "sources", "networks")
    ]
    assert max(len(change.splitlines()) for _, change in CHANGES) < 40
