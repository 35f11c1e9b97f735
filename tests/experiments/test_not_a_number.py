"""A number that is none is never a result, whenever it comes."""

import json
import math
import sys

import jax.numpy as jnp
import pytest

from experiments import run
from experiments.cli import parse
from experiments.figures import catalogue
from experiments.runner import loop
from experiments.runner import run as performing
from vae_jax import evaluation

FLAGS = ["--dataset=digits", "--widths=8", "--epochs=4", "--nll_samples=2"]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr(catalogue, "draw", lambda *_: [])


def test_the_first_validation_loss_that_is_none_ends_the_training(tmp_path, monkeypatch, capsys):
    """It is never the best, and nothing is trained or written after it."""
    whole, seen = evaluation.objective_value, []

    def once(*arguments):
        seen.append(whole(*arguments))
        return {**seen[-1], "loss": math.nan} if len(seen) == 2 else seen[-1]

    monkeypatch.setattr(loop.evaluation, "objective_value", once)
    assert run.main(parse([*FLAGS, f"--run_dir={tmp_path / 'r'}"])) == 1
    assert "the validation loss is nan at step 20" in capsys.readouterr().err
    assert len(seen) == 2 and not (tmp_path / "r/summary.json").exists()
    lines = (tmp_path / "r/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10]
    assert not (tmp_path / "r/checkpoints/step-0000000020.npz").exists()


@pytest.mark.parametrize("wrong", [{"nll": math.nan}, {"kl_per_unit": [1.0, math.inf]}])
def test_a_summary_with_such_a_number_is_none(tmp_path, monkeypatch, capsys, wrong):
    whole = evaluation.summary

    def harmed(*arguments, **options):
        measured = whole(*arguments, **options)
        return measured._replace(numbers={**measured.numbers, **wrong})

    monkeypatch.setattr(performing.evaluation, "summary", harmed)
    assert run.main(parse([*FLAGS, "--epochs=1", f"--run_dir={tmp_path / 'r'}"])) == 1
    assert f"error: {next(iter(wrong))} of the weights of step" in capsys.readouterr().err
    assert not (tmp_path / "r/summary.json").exists()


def test_weights_that_no_loss_has_seen(tmp_path, monkeypatch, capsys):
    """The very last update gives a weight that is none."""
    module = sys.modules["vae_jax.training.fit"]  # not the function of that name
    monkeypatch.setattr(module, "all_finite", lambda tree: jnp.asarray(False))
    assert run.main(parse([*FLAGS, "--steps=1", f"--run_dir={tmp_path / 'r'}"])) == 1
    assert "a weight is no finite number at step 1" in capsys.readouterr().err
    assert not (tmp_path / "r/summary.json").exists()


EARLY = ["--early_stopping=2", "--learning_rate=0.5", "--log_scale_bound=clip", "--epochs=60"]


def test_early_stopping_says_where_and_why(tmp_path):
    """Two evaluations in a row that are no better, which a rate far too high soon gives."""
    assert run.main(parse([*FLAGS, *EARLY, f"--run_dir={tmp_path / 'r'}"])) == 0
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    losses = [row["valid_loss"] for row in rows]
    assert summary["ended"] == {
        "step": rows[-1]["step"], "reason": "no better validation loss in 2 evaluations",
    }  # fmt: skip
    assert rows[-1]["step"] < 600
    assert min(losses) == losses[-3] and min(losses[:-2]) == losses[-3]
    assert summary["checkpoint"]["step"] == rows[-3]["step"]


def test_early_stopping_waits_for_the_end_of_the_warm_up(tmp_path):
    warm = ["--kl_schedule=linear", "--kl_warmup=100"]
    assert run.main(parse([*FLAGS, *EARLY, *warm, f"--run_dir={tmp_path / 'r'}"])) == 0
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    assert summary["ended"]["step"] >= 120
