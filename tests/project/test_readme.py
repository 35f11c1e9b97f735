"""The README's Python runs as printed, and its links lead somewhere."""

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_example_runs(capsys):
    """In under 20 lines, and it learns: the ELBO rises over the epochs."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) < 20
    exec(compile(code, "README.md", "exec"), {})
    losses = [float(text) for text in re.findall(r"loss (\S+)", capsys.readouterr().out)]
    assert len(losses) > 1 and losses[-1] < losses[0]


def test_every_link_leads_somewhere():
    root = Path(__file__).parents[2]
    for target in re.findall(r"\]\(([^)#]+)|src=\"([^\"]+)", README):
        target = "".join(target)
        if "://" not in target:
            assert (root / target).exists(), target


def test_the_address_is_the_same_everywhere():
    """OWNER, until a fork writes its name; the badge opens the first notebook."""
    root = Path(__file__).parents[2]
    (address,) = re.findall(
        r"repository-code: https://github.com/(\S+)", (root / "CITATION.cff").read_text()
    )
    badge = f"colab.research.google.com/github/{address}/blob/main/notebooks/manifold.ipynb)"
    assert f"colab-badge.svg)](https://{badge}" in README
    (files,) = re.findall(r"grep -rl \S+/vae-jax (.*?) \|", README)
    for name in files.split():
        assert (root / name).exists(), name
