"""Sweeps from the command line: what they leave, how they go on, what they refuse."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ended import result, timeless

import vae_jax
from experiments import kl_weight, latent_dim, runner
from experiments import run as single
from experiments.cli.config import parse
from experiments.figures import catalogue
from experiments.runner.run_directory import locked
from experiments.sweep import results
from vae_jax.runs import checkpoints
from vae_jax.settings import UserError
from vae_jax.training import sweeps

ROOT = Path(__file__).parents[2]
TINY = ["--dataset=digits", "--widths=8", "--epochs=2", "--nll_samples=3", "--batch_size=256"]
CROSSED = ["--latent_dims=1,3", "--betas=0.5,1"]


def run(directory: Path, *flags: str, experiment=latent_dim) -> int:
    return experiment.main(parse([*TINY, f"--run_dir={directory}", *flags], experiment.Config))


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Pictures take most of the time, and have tests of their own."""
    monkeypatch.setattr(catalogue, "draw", lambda *_: [])
    monkeypatch.setattr(results, "draw", lambda *_: [])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep all at once that nothing disturbed."""
    directory = tmp_path_factory.mktemp("undisturbed") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "draw", lambda *_: [])
        patch.setattr(results, "draw", lambda *_: [])
        assert run(directory, *CROSSED, "--vectorize=on") == 0
    return directory


def settings(directory: Path) -> dict:
    """config.json, but for where it is."""
    config = json.loads((directory / "config.json").read_text())
    return {**config, "settings": {**config["settings"], "run": None}}


# What it leaves


def test_members_are_the_runs_of_their_settings(finished, tmp_path):
    """As `experiments.run` leaves them; the numbers agree, all at once or one after the other."""
    assert single_run(tmp_path / "z3-beta0.5", "--latent_dim=3", "--beta=0.5") == 0
    assert run(tmp_path, *CROSSED, "--vectorize=off") == 0
    names = sorted(path.name for path in finished.iterdir() if path.is_dir())
    assert names == [f"z{k}-beta{b}" for k in (1, 3) for b in ("0.5", "1")]
    for name in names:
        assert settings(finished / name) == settings(tmp_path / name)
        one, other = (
            json.loads((d / name / "summary.json").read_text()) for d in (finished, tmp_path)
        )
        for number, value in timeless(one).items():
            if isinstance(value, float):
                assert value == pytest.approx(other[number], abs=1e-3), number
        assert vae_jax.load(finished / name).meta == vae_jax.load(tmp_path / name).meta
    assert {p.name for p in (finished / "z3-beta0.5").rglob("*")} == {
        p.name for p in (tmp_path / "z3-beta0.5").rglob("*")
    }


def single_run(directory: Path, *flags: str) -> int:
    return single.main(parse([*TINY, f"--run_dir={directory}", *flags]))


def test_the_table(finished):
    with open(finished / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == results.COLUMNS
    assert [row["name"] for row in rows] == ["z1-beta0.5", "z1-beta1", "z3-beta0.5", "z3-beta1"]
    for row, full in zip(
        rows, json.loads((finished / "sweep.json").read_text())["members"], strict=True
    ):
        summary = json.loads((finished / row["name"] / "summary.json").read_text())
        assert (row["status"], row["steps"], row["nll_samples"]) == ("finished", "10", "3")
        assert float(row["elbo"]) == summary["elbo"]
        assert len(full["kl_per_unit"]) == int(row["latent_dim"])
        assert sum(full["kl_per_unit"]) == pytest.approx(summary["rate"], rel=1e-4)


def test_seeds_and_names(tmp_path):
    for flags, names in (
        (["--latent_dims=30"], ["z30"]),
        (["--latent_dims=1,2", "--learning_rates=1e-3"], ["z1", "z2"]),
        (["--latent_dims=4", "--seeds=2", "--seed=3"], ["z4-seed3", "z4-seed4"]),
        (["--latent_dims=4", "--learning_rates=1e-5,0.25"], ["z4-lr1e-05", "z4-lr0.25"]),
    ):
        config = parse([*TINY, *flags], latent_dim.Config)
        assert [name for name, _ in sweep_members(config)] == names
    config = parse([*TINY, "--seeds=2"], kl_weight.Config)
    assert [name for name, _ in sweep_members(config)][:3] == [
        "beta0.25-seed0",
        "beta0.25-seed1",
        "beta0.5-seed0",
    ]


def sweep_members(config):
    from experiments.sweep.members import expand

    return list(expand(config))


# How it goes on


def test_what_is_finished_is_not_done_again(finished, capsys):
    before = {path: path.read_bytes() for path in finished.rglob("summary.json")}
    assert run(finished, *CROSSED, "--resume") == 0
    assert before == {path: path.read_bytes() for path in finished.rglob("summary.json")}
    assert "4 of them done" in capsys.readouterr().out


def test_killed_and_called_again(finished, tmp_path, monkeypatch):
    """After any write of a checkpoint: the members end in the bits of never having stopped."""
    written = []

    def save(directory, state, meta, whole=checkpoints.save_checkpoint):
        whole(directory, state, meta)
        written.append(directory.name)
        if len(written) == 6:  # of 4 members at 2 epochs
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save_checkpoint", save)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *CROSSED, "--vectorize=on")
    assert not list(tmp_path.rglob("summary.json"))
    assert run(tmp_path, *CROSSED, "--vectorize=on") == 0
    for name in ("z1-beta0.5", "z3-beta1"):
        assert result(tmp_path / name) == result(finished / name)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["on", "off"])
def test_a_signal_and_a_member_that_diverges(tmp_path, way):
    """24 members, one of which diverges, stopped by SIGTERM in the middle: as if never stopped."""
    flags = [*TINY, "--epochs=40", "--optimiser=sgd", "--learning_rates=1e-4,999", "--seeds=3"]
    flags += ["--latent_dims=1,3", "--betas=0.5,1", f"--vectorize={way}"]
    stopped = [
        sys.executable,
        "-m",
        "experiments.latent_dim",
        *flags,
        f"--run_dir={tmp_path / 'a'}",
    ]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(stopped, cwd=ROOT, stderr=log, stdout=log)
        while not list(tmp_path.rglob("step-*")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        code = process.wait(200)
    said = (tmp_path / "log").read_text()
    assert code == 143 and "go on with: python -m experiments.latent_dim" in said, said
    for name in "ab":
        assert (
            subprocess.run([*stopped[:-1], f"--run_dir={tmp_path / name}"], cwd=ROOT).returncode
            == 0
        )
    with open(tmp_path / "a" / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    for row in rows:
        diverged = row["learning_rate"] == "999.0"
        assert row["status"] == ("diverged" if diverged else "finished")
        if not diverged:
            assert result(tmp_path / "a" / row["name"]) == result(tmp_path / "b" / row["name"])


def test_a_member_that_diverges_is_marked(tmp_path, capsys):
    """And not tried again."""
    flags = ["--latent_dims=2", "--learning_rates=1e-4,999", "--optimiser=sgd", "--vectorize=on"]
    assert run(tmp_path, *flags) == 0
    assert "z2-lr999 diverged at step" in capsys.readouterr().out
    with open(tmp_path / "sweep.csv") as file:
        good, bad = csv.DictReader(file)
    assert (good["status"], bad["status"], bad["elbo"]) == ("finished", "diverged", "")
    assert 1 <= int(bad["steps"]) < int(good["steps"]) == 10
    assert run(tmp_path, *flags) == 0
    assert "2 of them done" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "z2-lr0.0001")
    assert run(tmp_path, *flags[:1], "--learning_rates=999", "--optimiser=sgd") == 1  # as z2


@pytest.mark.slow
def test_trained_members_agree_in_their_elbo(tmp_path):
    """To 0.05 nats after 40 epochs of digits: masked, unmasked in turn, and single runs."""
    flags = ["--epochs=40", "--batch_size=64"]
    assert run(tmp_path / "on", *flags, "--latent_dims=2,10", "--vectorize=on") == 0
    assert run(tmp_path / "off", *flags, "--latent_dims=2,10", "--vectorize=off") == 0
    for k in (2, 10):
        assert single_run(tmp_path / f"single{k}", *flags, f"--latent_dim={k}") == 0
        where = (tmp_path / "on" / f"z{k}", tmp_path / "off" / f"z{k}", tmp_path / f"single{k}")
        elbos = [json.loads((d / "summary.json").read_text())["elbo"] for d in where]
        assert max(elbos) - min(elbos) < 0.05


# How members are put together


def test_groups(tmp_path, capsys, monkeypatch):
    trained = []
    for fit in ("fit", "fit_in_turn"):

        def spy(*_, members, fit=fit, **__):
            trained.append((fit, [m.latent_dim for m in members]))
            return iter([])

        monkeypatch.setattr(sweeps, fit, spy)
    monkeypatch.setattr(runner, "evaluate", lambda *_: ({"elbo": 0, "nll": 0}, []))
    monkeypatch.setattr(results, "write", lambda *_: 0)
    all_at_once = ["--vectorize=on", "--latent_dims=1,2,40"]
    assert run(tmp_path / "a", *all_at_once) == 0
    assert run(tmp_path / "b", *all_at_once, "--max_members=2") == 0
    assert "2 groups, the largest of 2" in capsys.readouterr().out
    assert run(tmp_path / "c", *all_at_once, "--posterior=full") == 0
    assert run(tmp_path / "d", "--latent_dims=1,2", "--seeds=2", "--vectorize=off") == 0
    assert trained == [
        ("fit", [1, 2, 40]),
        ("fit", [1, 2]), ("fit", [40]),
        ("fit", [1]), ("fit", [2]), ("fit", [40]),
        ("fit_in_turn", [1, 1]), ("fit_in_turn", [2, 2]),
    ]  # fmt: skip


# What it refuses

BAD = {
    "an empty value": (["--betas=1,,2"], r"betas must be numbers joined .* got '1,,2'"),
    "no value": (["--betas="], "betas must name at least one value"),
    "a repeated value": (["--latent_dims=5,5.0"], "latent_dims must be whole numbers"),
    "the same number": (["--betas=1,1.0"], "none twice"),
    "both": (["--beta=2", "--betas=1,2"], "betas takes the place of beta"),
    "the other": (["--latent_dim=2"], "latent_dims takes the place of latent_dim"),
    "one that cannot be": (["--betas=1,-1"], r"member z1-beta-1: beta must be .* ≥ 0; got -1.0"),
    "too many seeds": (["--seed=4294967295", "--seeds=2"], "member z1-seed4294967296: seed must"),
    "no latents": (["--latent_dims=0,1", "--model=cvae"], "latent_dim must be at least 1"),
    "a batch": (["--batch_size=5000"], "member z1: batch_size must be at most"),
    "objective": (["--objective=info", "--info_lambda=2", "--betas=1,4"], "member z1-beta4: info_"),
    "free bits": (
        ["--free_bits=1", "--free_bits_groups=2", "--latent_dims=2,3"],
        "member z3: free",
    ),
    "streams": (["--vectorize=on", "--device_limit=1e-6"], "vectorize on keeps the images"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_writes_nothing(tmp_path, case):
    flags, message = BAD[case]
    with pytest.raises(UserError, match=message) as error:
        run(tmp_path / "r", *flags)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_directories_that_hold_something_else(finished, tmp_path):
    with pytest.raises(UserError, match=r"z1-beta0.5 holds another run: epochs was 2, now 1"):
        run(finished, *CROSSED, "--epochs=1")
    with pytest.raises(UserError, match=r"holds a run of experiments.run"):
        run(finished / "z1-beta0.5", *CROSSED)
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(UserError, match=r"is not empty \(thesis.tex\)"):
        run(tmp_path, *CROSSED)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "some-run").mkdir()
    (tmp_path / "some-run/config.json").write_text("{}")  # one run makes no sweep of the rest
    with pytest.raises(UserError, match=r"is not empty \(thesis.tex\)"):
        run(tmp_path, *CROSSED)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_member_in_use(tmp_path):

    with (
        locked(tmp_path / "z3"),
        pytest.raises(UserError, match="z3 is in use by another"),
    ):
        run(tmp_path, "--latent_dims=1,3")
    assert not (tmp_path / "z1").exists()


def test_from_the_command_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "experiments.kl_weight",
        "--betas=1,1",
        f"--run_dir={tmp_path / 'r'}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and re.fullmatch("error: betas must .*\n", done.stderr)
