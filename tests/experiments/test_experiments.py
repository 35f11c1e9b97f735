"""Experiments that train several runs: every row is there, and a second call changes nothing."""

import json

import pytest

from experiments import objectives as experiment
from experiments.cli.config import parse
from vae_jax.settings import UserError

TINY = ["--dataset=digits", "--widths=8", "--steps=2", "--nll_samples=2", "--batch_size=64"]


@pytest.mark.slow
def test_every_objective_has_its_row(tmp_path, capsys):
    config = parse([*TINY, "--latent_dim=3", f"--run_dir={tmp_path}"])
    assert experiment.main(config) == 0
    rows = json.loads((tmp_path / "objectives.json").read_text())["rows"]
    assert list(rows) == experiment.COMPARED
    first = capsys.readouterr().out
    assert experiment.main(config) == 0
    assert capsys.readouterr().out.splitlines()[-1] == first.splitlines()[-1]


def test_the_objective_is_not_for_the_user_to_choose(tmp_path):
    with pytest.raises(UserError, match="leave them out"):
        experiment.main(parse([*TINY, "--beta=2", f"--run_dir={tmp_path}"]))
    assert not list(tmp_path.iterdir())
