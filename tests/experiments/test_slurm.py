"""The launcher under a real Slurm, started for the test on this machine alone.

apt-get install slurm-wlm munge
pytest -m slurm        # as root; about three minutes
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ended import result

from vae_jax.runs import checkpoints

ROOT = Path(__file__).parents[2]
NEEDED = ("sbatch", "scontrol", "slurmctld", "slurmd", "munge", "service")
FLAGS = ["--dataset=digits", "--widths=8", "--steps=6000", "--nll_samples=2", "--eval_every=2"]
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
ReturnToService=2
MpiDefault=none
KillWait=2
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

pytestmark = pytest.mark.slurm


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(condition, seconds: float, what: str):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return found


def said(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


@pytest.fixture
def cluster(tmp_path_factory, monkeypatch):
    """A cluster of this one machine, gone afterwards; munge too, where it was not running."""
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        pytest.skip(
            f"no Slurm here ({', '.join(missing)} not found): apt-get install slurm-wlm munge"
        )
    if os.getuid():
        pytest.skip("slurmctld and slurmd are started as root")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().split(".")[0]
    text = CONFIGURATION.format(host=host, folder=folder, ports=free_ports(2), cpus=os.cpu_count())
    (folder / "slurm.conf").write_text(text)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    had_munge = subprocess.run(["munge", "-n"], capture_output=True).returncode == 0
    if not had_munge:
        subprocess.run(["service", "munge", "start"], check=True, capture_output=True)
    try:
        subprocess.run(["slurmctld"], check=True, capture_output=True)
        subprocess.run(["slurmd"], check=True, capture_output=True)
        wait_for(
            lambda: "idle" in subprocess.run(["sinfo"], capture_output=True, text=True).stdout,
            60,
            "a node",
        )
        yield
    finally:
        subprocess.run(["scancel", "--signal=KILL", "--full", "--user=root"], capture_output=True)
        subprocess.run(["scancel", "--user=root"], capture_output=True)
        stop(folder / "slurmd.pid")
        stop(folder / "slurmctld.pid")
        if not had_munge:
            subprocess.run(["service", "munge", "stop"], capture_output=True)


def stop(pid_file: Path) -> None:
    """Asked to end, and made to where it does not: slurmd may wait for a task for ever."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    for number in (signal.SIGTERM, signal.SIGKILL):
        for _ in range(50):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            number = 0
            time.sleep(0.1)


def launch(*options: str) -> str:
    done = subprocess.run(
        [ROOT / "launch.sh", "--slurm", *options, "--", *FLAGS, "--seed=0,1,2,3"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def job_of(output: str) -> str:
    return re.findall(r"Submitted batch job (\d+)", output)[0]


def directories() -> list[Path]:
    """Those of the four points, by seed."""
    text = launch("--dry_run")
    return [Path(name) for name in re.findall(r"run_dir=(\S+) ;;", text)]


def pid_of(directory: Path) -> int:
    """The process that trains there."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if f"--run_dir={directory}" in command:
            return int(folder.name)
    return 0


def test_an_array_to_its_end_with_tasks_killed_on_the_way(cluster, tmp_path, monkeypatch):
    """One task requeued by Slurm, one warned as before the time limit, one killed outright: the
    first goes on by itself, the others when launched again, and the numbers show no trace of it.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHON", sys.executable)
    paths = directories()
    job = job_of(launch("--sbatch=--cpus-per-task=1"))
    # Tasks start in order, as there is room for them.
    for index, how in ((1, "requeue"), (2, "warn"), (3, "kill")):
        path = paths[index - 1]
        wait_for(lambda: checkpoints.checkpoints(path), 240, f"a checkpoint of task {index}")
        if how == "requeue":
            said("scontrol", "requeue", f"{job}_{index}")
        elif how == "warn":  # what --signal=B:TERM@120 has Slurm do
            # It may ask twice, and complain that the task has gone.
            subprocess.run(["scancel", "--batch", "--signal=TERM", f"{job}_{index}"])
        else:
            os.kill(pid_of(path), signal.SIGKILL)
        assert not (path / "summary.json").exists()
    said("scontrol", "update", f"JobId={job}_1", "StartTime=now")  # else in two minutes
    wait_for(lambda: not said("squeue", "--noheader", f"--jobs={job}"), 400, "the array to end")
    finished = [(path / "summary.json").exists() for path in paths]
    assert finished == [True, False, False, True]
    assert "stopped and saved; go on with" in (paths[1] / "log.txt").read_text()
    assert (paths[0] / "log.txt").read_text().count("directory  ") == 2
    again = launch()
    assert "2 of 4 runs that are not finished" in again
    wait_for(lambda: not said("squeue", "--noheader"), 400, "the second array to end")
    assert all((path / "summary.json").exists() for path in paths)
    assert "all 4 finished before" in launch()
    assert result(paths[0]) == result(undisturbed(tmp_path, seed=0))


def undisturbed(folder: Path, seed: int) -> Path:
    command = [sys.executable, "-m", "experiments.run", *FLAGS, f"--seed={seed}", "--run_dir=alone"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder,
                   env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    return folder / "alone"
