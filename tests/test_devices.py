"""One result, whatever the number of devices: eight simulated ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def eight(*arguments: str) -> dict:
    """What many_devices.py says on a machine of eight devices."""
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).with_name("many_devices.py")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


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
