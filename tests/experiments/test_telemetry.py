"""A trace, costs and TensorBoard: they are there, and the numbers of a run do not know of them."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from ended import result, rows

from experiments import run as job
from experiments.cli.config import parse
from experiments.figures import catalogue
from experiments.launch import grid
from vae_jax.settings import UserError

ROOT = Path(__file__).parents[2]
FLAGS = ["--dataset=digits", "--widths=16", "--epochs=2", "--nll_samples=2", "--batch_size=64"]


def run(directory: Path, *flags: str) -> int:
    return job.main(parse([*FLAGS, f"--run_dir={directory}", *flags]))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    directory = tmp_path_factory.mktemp("plain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "draw", lambda *_: [])
        assert run(directory) == 0
    return directory


def test_costs_are_in_the_metrics(plain):
    first, last = rows(plain)
    for row in (first, last):
        assert row["compile_seconds"] > 0
        assert 2**26 < row["peak_host_bytes"] < 2**36
        assert "peak_device_bytes" in row  # None on a CPU
    assert last["compile_seconds"] >= first["compile_seconds"]
    assert last["peak_host_bytes"] >= first["peak_host_bytes"]


def test_a_profile_leaves_no_trace_in_the_numbers(tmp_path, plain, capsys, monkeypatch):
    """Of a whole run, and of one that resumes: the traced steps are thrown away."""
    monkeypatch.setattr(catalogue, "draw", lambda *_: [])
    directory = tmp_path / "r"
    assert run(directory, "--profile=5", "--epochs=1") == 0
    assert "profile    " in capsys.readouterr().out
    assert run(directory, "--profile=30", "--resume") == 0  # more than an epoch has
    assert result(directory) == result(plain)
    traces = list((directory / "profile").rglob("*.xplane.pb"))
    assert len(traces) == 2 and all(path.stat().st_size > 1000 for path in traces)


def test_tensorboard_shows_each_row_once(tmp_path, plain, monkeypatch):
    """Also when the run was resumed; and the figures, and the test numbers."""
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    directory = tmp_path / "r"
    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "draw", lambda *_: [])
        assert run(directory, "--tensorboard", "--epochs=1") == 0
    assert run(directory, "--tensorboard", "--resume") == 0
    assert result(directory) == result(plain)
    scalars, images = events(directory / "tensorboard")
    for row in rows(directory):
        assert scalars.pop(("elbo/train", row["step"])) == [pytest.approx(row["train_elbo"])]
        assert scalars.pop(("loss/valid", row["step"])) == [pytest.approx(row["valid_loss"])]
    summary = json.loads((directory / "summary.json").read_text())
    step = summary["checkpoint"]["step"]
    assert scalars.pop(("nll/test", step)) == [pytest.approx(summary["nll"])]
    assert all(len(values) == 1 for values in scalars.values())
    names = {path.stem for path in (directory / "figures").iterdir()}
    assert images == dict.fromkeys(names, 1)


def events(folder: Path) -> tuple[dict, dict]:
    """Scalars by (tag, step), and how many images there are by name."""
    from tensorboardX.proto.event_pb2 import Event

    scalars, images = {}, {}
    for path in folder.glob("events.*"):
        data = path.read_bytes()
        while data:  # length, its checksum, the event, its checksum
            size = int.from_bytes(data[:8], "little")
            event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
            for value in event.summary.value:
                if value.HasField("image"):
                    images[value.tag] = images.get(value.tag, 0) + 1
                    assert value.image.encoded_image_string.startswith(b"\x89PNG")
                else:
                    scalars.setdefault((value.tag, event.step), []).append(value.simple_value)
    return scalars, images


def test_without_tensorboardx_it_is_one_line(tmp_path, monkeypatch):
    """Before anything is done, by the run and by a launcher of it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r"pip install 'vae-jax\[tensorboard\]'"
    with pytest.raises(UserError, match=message):
        run(tmp_path / "r", "--tensorboard")
    with pytest.raises(UserError, match=message):
        grid.plan([*FLAGS, "--tensorboard"])
    assert not list(tmp_path.iterdir())


def test_it_is_imported_where_it_is_used():
    code = "import sys, experiments.run; print('tensorboardX' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr
