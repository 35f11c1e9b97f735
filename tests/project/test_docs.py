"""The pages: every link leads somewhere, every change they show works as printed."""

import re
from pathlib import Path

import pytest

from experiments import cli, plot
from experiments.figures.catalogue import FIGURES

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))


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
