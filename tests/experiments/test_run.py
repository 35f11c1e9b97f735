"""The main job, end to end: what it leaves, how it stops and goes on, what it refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from ended import result, rows
from idx import write_idx_set
from PIL import Image

import vae_jax
from experiments import run as job
from experiments import runner
from experiments.cli.config import parse
from experiments.runner.run_directory import locked
from vae_jax import data
from vae_jax.data import download
from vae_jax.runs import checkpoints
from vae_jax.settings import UserError

ROOT = Path(__file__).parents[2]
TINY = ["--dataset=digits", "--widths=16", "--epochs=4", "--nll_samples=7", "--batch_size=64"]


def run(directory: Path, *flags: str) -> int:
    return job.main(parse([*TINY, f"--run_dir={directory}", *flags]))


def command(directory: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "experiments.run", *TINY, f"--run_dir={directory}", *flags]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run that nothing disturbed."""
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run(directory) == 0
    return directory


# What it leaves


def test_it_says_what_it_will_do_and_ends_with_a_table(tmp_path, capsys):
    assert run(tmp_path / "r", "--epochs=1") == 0
    out = capsys.readouterr().out
    for said in (
        "digits, 8×8×1: 1,350 training, 150 validation, 297 test images",
        "parameters",
        "objective  elbo, beta 1",
        "device     ",
        f"directory  {tmp_path / 'r'}",
        "nats per image",
        "(7 samples each)",
        "manifold.png",
    ):
        assert said in out
    assert "\r" not in out  # no progress bar without a terminal


def test_a_standard_error_is_shown_where_there_is_one():
    assert [runner.plus_minus(error) for error in (None, 0.125)] == ["", " ± 0.12"]


def test_files(finished):
    config = json.loads((finished / "config.json").read_text())
    assert config["settings"]["training"]["epochs"] == 4
    assert config["dataset"]["name"] == "digits"
    assert config["dataset"]["images"] == {"train": 1350, "valid": 150, "test": 297}
    environment = config["environment"]
    assert environment["packages"]["jax"] == jax.__version__
    assert environment["matmul_precision"]["evaluation"] == "highest"
    assert {"git_commit", "device", "python"} <= environment.keys()
    names = [path.name for path in sorted((finished / "figures").iterdir())]
    assert names == [
        f"{name}.png" for name in ("curves", "latents", "manifold", "reconstructions", "samples")
    ]
    assert not list(finished.rglob("*.tmp"))


def test_metrics_are_one_row_an_epoch_of_true_sums(finished):
    for i, row in enumerate(rows(finished)):
        assert (row["step"], row["epoch"]) == (21 * (i + 1), i + 1)
        for split in ("train", "valid"):
            elbo, rate, distortion, loss = (
                row[f"{split}_{name}"] for name in ("elbo", "rate", "distortion", "loss")
            )
            assert elbo == pytest.approx(-(rate + distortion), rel=1e-6)
            assert loss == pytest.approx(-elbo, rel=1e-6)


def test_the_summary_is_what_the_library_says_of_the_best_checkpoint(finished):
    """ELBO and NLL recomputed from the loaded run; −ELBO ≥ NLL; the best row was chosen."""
    from vae_jax import evaluation
    from vae_jax.types import unconditional

    summary = json.loads((finished / "summary.json").read_text())
    loaded = vae_jax.load(finished)
    test = unconditional(data.load(parse(TINY).data).test.x)
    key = jax.random.key(0)
    terms = evaluation.elbo(loaded.vae, loaded.params, test, key)
    estimate = evaluation.log_likelihood(loaded.vae, loaded.params, test, key, 7)
    assert summary["elbo"] == pytest.approx(terms["elbo"], abs=1e-6)
    assert summary["elbo"] == pytest.approx(-(summary["rate"] + summary["distortion"]))
    assert summary["nll"] == pytest.approx(evaluation.nll(estimate)["nll"], abs=1e-6)
    assert summary["nll"] <= -summary["elbo"] and summary["nll_samples"] == 7
    assert summary["bits_per_dim"] == pytest.approx(summary["nll"] / (64 * np.log(2)))
    best = min(rows(finished), key=lambda row: row["valid_loss"])
    assert summary["checkpoint"]["step"] == best["step"]


def test_latents_other_than_two(tmp_path):
    """No manifold; none or one latent still gives figures; grey values have no bits."""
    for latent_dim, absent in ((0, {"manifold", "latents"}), (1, {"manifold"}), (3, {"manifold"})):
        directory = tmp_path / str(latent_dim)
        flags = [f"--latent_dim={latent_dim}", "--epochs=1", "--binarisation=none"]
        assert run(directory, *flags, "--figure_format=pdf", "--validation_size=0") == 0
        drawn = {path.stem for path in (directory / "figures").glob("*.pdf")}
        usual = {"manifold", "samples", "reconstructions", "latents", "curves"}
        assert drawn == usual - absent | ({"traversals"} if latent_dim > 2 else set())
        summary = json.loads((directory / "summary.json").read_text())
        assert summary["bits_per_dim"] is None
        assert summary["checkpoint"]["chosen"] == "last"


def test_the_notebook_of_oduerr_leaves_all_its_pictures(tmp_path):
    """Side by side, one z decoded, the manifold, and the latents of the training set."""
    flags = ["--preset=oduerr", "--decoder_widths=16", "--epochs=1", "--figure_format=svg"]
    assert run(tmp_path / "r", *flags) == 0
    folder = tmp_path / "r" / "figures"
    names = {path.stem for path in folder.iterdir()}
    usual = {"manifold", "samples", "reconstructions", "latents", "curves"}
    assert names == usual | {"training_latents", "encodings", "decoded"}
    said = {"training_latents": "1,350 points", "latents": "297 points", "manifold": "linspace"}
    for name, text in said.items():
        assert text in (folder / f"{name}.svg").read_text()


def test_mnist_files_and_default_directory(tmp_path, monkeypatch):
    """A tiny set in MNIST's own format; the directory's name tells data set and latents."""
    write_idx_set(tmp_path / "mnist", 40, 20, seed=0)
    monkeypatch.chdir(tmp_path)
    flags = ["--widths=8", "--epochs=1", "--nll_samples=2", "--batch_size=9", "--latent_dim=1"]
    assert job.main(parse([*flags, f"--data_dir={tmp_path}"])) == 0
    (directory,) = Path("runs").iterdir()
    assert directory.name.startswith("mnist-z1-")
    assert len(rows(directory)) == 1
    # A longer run finds the shorter one; another beta does not.
    assert job.main(parse([*flags, f"--data_dir={tmp_path}", "--epochs=2", "--resume"])) == 0
    assert [row["step"] for row in rows(directory)] == [4, 8]
    assert job.main(parse([*flags, f"--data_dir={tmp_path}", "--beta=2"])) == 0
    assert len(list(Path("runs").iterdir())) == 2


def test_a_substitute_is_announced(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "reachable", lambda url, seconds=3.0: False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    flags = ["--widths=8", "--epochs=1", "--nll_samples=2"]
    assert job.main(parse(flags)) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "going on with digits in place of MNIST" in first
    (directory,) = Path("runs").iterdir()
    assert directory.name.startswith("digits-z2-")
    config = json.loads((directory / "config.json").read_text())
    assert (
        config["dataset"]["name"] == "digits" and "MNIST" in config["dataset"]["fallback"].upper()
    )


def test_figures_are_pictures(finished):
    for path in (finished / "figures").iterdir():
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L"))
        assert min(pixels.shape) > 200 and pixels.std() > 10


def test_a_run_loads_anywhere(finished):
    loaded = vae_jax.load(str(finished))
    images = data.load(parse(TINY).data).test.x[:5]
    z = loaded.encode(images).mean
    assert z.shape == (5, 2)
    decoded = loaded.decode(z)
    assert decoded.shape == (5, 8, 8, 1) and decoded.min() >= 0 and decoded.max() <= 1
    np.testing.assert_allclose(loaded.reconstruct(images), decoded, rtol=1e-5)
    assert loaded.sample(jax.random.key(1), 3).shape == (3, 8, 8, 1)
    last = vae_jax.load(finished, checkpoint="last")
    assert last.meta["step"] == 84
    assert loaded.config["settings"]["model"]["latent_dim"] == 2


# How it stops and goes on


class Killed(BaseException):
    """As abrupt as an exception can be."""


@pytest.mark.parametrize("saves", [0, 1, 3])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_a_save_and_resumed_it_ends_in_the_same_bits(
    tmp_path, monkeypatch, finished, saves, when
):
    """Killed before or after the n-th checkpoint is written (metrics and best already are)."""
    save, count = checkpoints.save_checkpoint, 0

    def dying(*arguments):
        nonlocal count
        if count == saves and when == "before":
            raise Killed
        save(*arguments)
        count += 1
        if count > saves:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints, "save_checkpoint", dying)
        run(tmp_path / "r")
    assert run(tmp_path / "r", "--resume") == 0
    assert result(tmp_path / "r") == result(finished)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("long") / "run"
    assert run(directory, "--epochs=100", "--eval_every=5") == 0
    return directory


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_some_moment(tmp_path, long_run, number):
    """The real thing: a process, a signal while it trains, and --resume."""
    directory = tmp_path / "r"
    flags = ["--epochs=100", "--eval_every=5"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command(directory, *flags), cwd=ROOT, stderr=log, stdout=log)
        while not checkpoints.checkpoints(directory) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(number)
        code = process.wait(60)
    if number != signal.SIGKILL:
        assert code == 128 + number
        assert "--resume" in (tmp_path / "log").read_text()
    stopped_at = int(checkpoints.checkpoints(directory)[0].stem.split("-")[1])
    assert stopped_at < 100 * 21
    assert run(directory, *flags, "--resume") == 0
    assert result(directory) == result(long_run)


def test_resume_with_nothing_there_starts_afresh(tmp_path, finished):
    assert run(tmp_path / "r", "--resume") == 0
    assert result(tmp_path / "r") == result(finished)


def test_a_run_of_a_version_with_fewer_settings_goes_on(finished, tmp_path, capsys):
    """What its config.json does not name is what the default now is, and nothing else."""
    old = tmp_path / "old"
    shutil.copytree(finished, old)
    config = json.loads((old / "config.json").read_text())
    del config["settings"]["run"]["decode_at"], config["settings"]["training"]["clip"]
    (old / "config.json").write_text(json.dumps(config))
    assert run(old, "--resume") == 0
    assert "finished" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"clip was 0\.0, now 1\.0"):
        run(old, "--resume", "--clip=1")


def test_resume_of_a_finished_run_says_so(finished, capsys):
    before = result(finished)
    assert run(finished, "--resume") == 0
    assert "finished" in capsys.readouterr().out
    assert result(finished) == before


def test_a_run_may_grow(tmp_path, finished):
    assert run(tmp_path / "r", "--epochs=2") == 0
    assert run(tmp_path / "r", "--epochs=4", "--resume") == 0
    assert result(tmp_path / "r") == result(finished)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--beta=2"], "beta was 1.0, now 2.0"),
        (["--latent_dim=5", "--seed=3"], "latent_dim was 2, now 5; seed was 0, now 3"),
        (["--epochs=3"], r"epochs was 4, now 3 \(may only grow\)"),
        (["--binarisation=static"], "binarisation was 'dynamic', now 'static'"),
    ],
)
def test_another_configuration_is_refused(finished, flags, message):
    with pytest.raises(UserError, match=message):
        run(finished, "--resume", *flags)


def test_growing_under_a_cosine_is_refused(tmp_path):
    assert run(tmp_path / "r", "--schedule=cosine", "--epochs=1") == 0
    with pytest.raises(UserError, match="may not grow"):
        run(tmp_path / "r", "--schedule=cosine", "--epochs=2", "--resume")


def test_a_broken_checkpoint_is_passed_over(tmp_path, finished):
    assert run(tmp_path / "r", "--epochs=3") == 0
    newest = checkpoints.checkpoints(tmp_path / "r")[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="is broken"):
        assert run(tmp_path / "r", "--resume") == 0
    assert result(tmp_path / "r") == result(finished)


# What it refuses


def test_a_directory_that_holds_something_is_left_alone(finished, tmp_path):
    with pytest.raises(UserError, match="already holds this run: go on with --resume"):
        run(finished)
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(UserError, match=r"is not empty \(thesis.tex\)"):
        run(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "words"


def test_two_runs_on_one_directory(tmp_path):

    with (
        locked(tmp_path / "r"),
        pytest.raises(UserError, match="in use by another run"),
    ):
        run(tmp_path / "r")


def test_a_diverging_run_names_the_step_and_the_way_out(tmp_path, capsys):
    assert run(tmp_path / "r", "--optimiser=sgd", "--learning_rate=1000") == 1
    error = capsys.readouterr().err
    assert re.search(r"the loss is (nan|inf) at step \d+ .*--clip", error)
    assert not (tmp_path / "r" / "summary.json").exists()


BAD = {
    "batch larger than the data": (["--batch_size=5000"], "batch_size must be at most"),
    "missing folder": (["--dataset=mnist", "--data_dir=/no/such"], "/no/such"),
    "run_dir under a file": (["--run_dir=/dev/null/run"], "cannot be written"),
    "a flag's typo": (["--latent_dims=2"], "Did you mean: latent_dim"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_from_the_command_line(tmp_path, case):
    """One line, exit code 2, no traceback, nothing left behind."""
    flags, message = BAD[case]
    run_dir = [] if any(flag.startswith("--run_dir") for flag in flags) else ["--run_dir=r"]
    command = [sys.executable, "-m", "experiments.run", *TINY, *run_dir, *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
