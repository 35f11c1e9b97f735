"""One result, whatever the number of devices: eight simulated ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ended import agree, close

ROOT = Path(__file__).parents[2]
FLAGS = ["--dataset=digits", "--widths=8", "--nll_samples=2", "--batch_size=60"]


def on(devices: int, *words: str) -> str:
    """What a Python program prints on a machine of so many devices."""
    count = f"--xla_force_host_platform_device_count={devices}"
    flags = f"{count} --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def eight(*arguments: str) -> dict:
    """What many_devices.py says on a machine of eight devices."""
    said = on(8, str(Path(__file__).parents[1] / "many_devices.py"), *arguments)
    return json.loads(said.splitlines()[-1])


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "flags",
    [
        ["--batch_size=60", "--clip=1"],  # 8 · 8 > 60: a batch that does not divide
        pytest.param(["--batch_size=64", "--binarisation=dynamic"], marks=SLOW),
        pytest.param(["--batch_size=64", "--objective=beta_tc", "--beta=4"], marks=SLOW),
        pytest.param(["--batch_size=3", "--objective=info", "--optimiser=sgd"], marks=SLOW),
        pytest.param(["--batch_size=64", "--objective=dreg"], marks=SLOW),
        pytest.param(["--batch_size=16", "--network=conv", "--steps=4"], marks=SLOW),
    ],
    ids=" ".join,
)
def test_training_does_not_depend_on_the_number_of_devices(flags):
    said = eight("training", *flags)
    assert said["whole"] and said["devices"] == 8
    assert said["kept"] < 1e-5 and said["streamed"] < 1e-5


@SLOW
def test_devices_tell_each_other_nothing_but_sums():
    said = eight("collectives")
    assert said.pop("all-reduce") >= 1
    assert not any(said.values())


@SLOW
def test_a_run_moves_from_one_device_to_eight_and_back(tmp_path):
    """By its checkpoints; and its numbers are those of the run that stayed."""
    command = ("-m", "experiments.run", *FLAGS, "--latent_dim=2")
    for moving, devices in enumerate((1, 8, 1)):
        where = [f"--run_dir={tmp_path / 'moved'}", f"--steps={12 * (moving + 1)}", "--resume"]
        assert f"{devices} × cpu" in on(devices, *command, *where)
    for devices in (1, 8):
        on(devices, *command, f"--run_dir={tmp_path / str(devices)}", "--steps=36")
    for other in ("moved", "8"):
        assert agree(tmp_path / "1", tmp_path / other)
        assert close(tmp_path / "1" / "summary.json", tmp_path / other / "summary.json")


@SLOW
def test_evaluation_does_not_depend_on_the_number_of_devices(tmp_path):
    """On 40 images, which eight devices cannot share evenly in batches; AIS, too."""
    on(1, "-m", "experiments.run", *FLAGS, f"--run_dir={tmp_path}", "--steps=12")
    written, results = tmp_path / "evaluation-test.json", []
    for devices in (1, 8):
        on(devices, "-m", "experiments.evaluate", str(tmp_path), "--nll_samples=20",
           "--images=42", "--ais_images=5", "--ais_temperatures=5")  # fmt: skip
        results.append(written.rename(tmp_path / f"{devices}.json"))
    assert close(*results)


@SLOW
@pytest.mark.parametrize("vectorize", ["on", "off"])
def test_a_sweep_does_not_depend_on_the_number_of_devices(tmp_path, vectorize):
    """Three members on eight devices: at once, two of them to each."""
    sweep = ["--latent_dims=1,2,3", "--steps=12", f"--vectorize={vectorize}"]
    for devices in (1, 8):
        where = f"--run_dir={tmp_path / str(devices)}"
        on(devices, "-m", "experiments.latent_dim", *FLAGS, *sweep, where)
    for member in ("z1", "z2", "z3"):
        assert agree(tmp_path / "1" / member, tmp_path / "8" / member)
        assert close(*(tmp_path / n / member / "summary.json" for n in ("1", "8")))
