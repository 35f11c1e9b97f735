"""The README's Python runs as printed, and its commands are the ones that exist."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_runs(capsys):
    """In under 20 lines, and it learns: the ELBO rises over the epochs."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) < 20
    exec(compile(code, "README.md", "exec"), {})
    losses = [float(text) for text in re.findall(r"loss (\S+)", capsys.readouterr().out)]
    assert len(losses) > 1 and losses[-1] < losses[0]


def test_every_module_that_a_command_names_exists():
    root = Path(__file__).parent.parent
    for module in re.findall(r"python -m ([\w.]+)", README):
        if module != "pytest":
            assert (root / f"{module.replace('.', '/')}.py").exists(), module


def test_every_link_leads_somewhere():
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\(([^)#]+)|src=\"([^\"]+)", README):
        target = "".join(target)
        if "://" not in target:
            assert (root / target).exists(), target
