"""The launcher: points from flags, runs side by side, one array; what failed, what goes on."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments.cli.config import parse
from experiments.launch import command, grid, local, results, slurm
from vae_jax import runs
from vae_jax.settings import UserError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch.sh"
TINY = ["--dataset=digits", "--widths=8", "--steps=20", "--nll_samples=2"]
TWELVE = [*TINY, "--latent_dim=1,2", "--beta=1,4", "--seed=0,1,2"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test in a folder of its own, as a user has one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


# Points


def test_the_product_of_comma_lists():
    found = grid.product(["--a=1,2", "--b=x", "--c", "7,8"])
    assert [label for label, _ in found] == [
        "--a=1 --c=7",
        "--a=1 --c=8",
        "--a=2 --c=7",
        "--a=2 --c=8",
    ]
    assert found[0][1] == ["--a=1", "--b=x", "--c=7"]
    assert grid.product([r"--data_dir=a\,b,c"]) == [
        ("--data_dir=a,b", ["--data_dir=a,b"]),
        ("--data_dir=c", ["--data_dir=c"]),
    ]
    assert grid.product(["--resume"]) == [("", ["--resume"])]


def test_points_from_a_file_times_flags(tmp_path):
    (tmp_path / "small").write_text("--latent_dim=1\n--beta=2\n")
    (tmp_path / "lines").write_text("# two\n--flagfile=small\n\n--latent_dim=3 --run_dir='my run'")
    found = grid.plan([*TINY], "lines")
    assert [point.label for point in found] == [
        "--flagfile=small",
        "--latent_dim=3 --run_dir='my run'",
    ]
    first, second = (parse(point.flags) for point in found)
    assert (first.model.latent_dim, first.objective.beta) == (1, 2.0)
    assert second.model.latent_dim == 3 and found[1].directory == Path("my run")
    assert len(grid.plan([*TINY, "--seed=0,1"], "small")) == 4


def test_each_point_has_the_directory_that_the_run_alone_would_have():
    """The launcher's name for it is `experiments.run`'s own."""
    from experiments.runner import run_directory
    from vae_jax import data

    config = parse([*TINY, "--latent_dim=2"])
    (point,) = grid.plan([*TINY, "--latent_dim=2"])
    assert point.directory == run_directory.default(config, data.load(config.data))
    assert parse(point.flags).run.resume and not point.finished


def test_auto_is_one_data_set_for_all(no_network):
    found = grid.plan(["--widths=8", "--seed=0,1"])
    assert {parse(point.flags).data.dataset for point in found} == {"digits"}


BAD = {
    "value": (["--latent_dim=2,x"], r"point 2 \(--latent_dim=x\): .*must be a whole number"),
    "flag": (["--latent_dims=2"], "Did you mean: latent_dim"),
    "range": (["--beta=1,-1"], r"point 2 \(--beta=-1\): beta must be"),
    "batch": (["--batch_size=64,9999"], r"point 2 .* at most the number of training images, 1350"),
    "data": (["--dataset=digits,nothing"], r"point 2 \(--dataset=nothing\): dataset must be"),
    "model": (["--objective=elbo,beta_tc", "--posterior=full"], "try --posterior=diagonal"),
    "length": (["--epochs=1,2"], "two points share the directory .* leaves out how long"),
    "twice": (["--seed=0,0"], "are the same run; a value, or a line of --points, is there twice"),
    "shared": (
        ["--run_dir=x", "--seed=0,1"],
        "which --run_dir gives to all: --seed=0 and --seed=1",
    ),
    "empty": (["--beta=1,"], "point 2"),
    "file": (["--flagfile=nothing"], "nothing"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_point_is_found_before_anything_starts(tmp_path, case):
    flags, message = BAD[case]
    with pytest.raises(UserError, match=message) as error:
        grid.plan([*TINY, *flags])
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


BAD_OPTIONS = {
    "nothing to run": ([], "give the flags of the runs after --"),
    "no dashes": (["--latent_dim=2"], "after --"),
    "sbatch alone": (["--sbatch=--time=1", "--", "--seed=0"], "sbatch needs --slurm"),
    "an open quote": (
        ["--slurm", "--sbatch='", "--", "--seed=0"],
        "sbatch must be .* quote closed",
    ),
    "no GPU's name": (["--devices=0,,1", "--", "--seed=0"], "devices must be .* none empty"),
    "no such file": (["--points=nothing"], "nothing cannot be read"),
    "jobs and GPUs": (["--devices=0,1", "--jobs=2", "--", *TINY], "jobs is for CPUs"),
    "shared CPU": (["--devices=cpu", "--per_device=2", "--", *TINY], "needs a GPU"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(case):
    arguments, message = BAD_OPTIONS[case]
    with pytest.raises(UserError, match=message):
        command.main(arguments)


def test_the_script_is_one_line_and_exit_code_2_too(tmp_path):
    done = subprocess.run([SCRIPT, "--", "--seed=x"], capture_output=True, text=True)
    assert done.returncode == 2 and "seed=x: must be a whole number" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())
    environment = os.environ | {"PYTHON": "/no/such/python"}
    done = subprocess.run([SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stderr.startswith("error: no Python at /no/such/python")


def test_a_dry_run_prints_the_commands_and_does_nothing(tmp_path, capsys):
    assert command.main(["--dry_run", "--devices=cpu", "--", *TWELVE]) == 0
    comment, *commands = capsys.readouterr().out.splitlines()
    assert comment.startswith("# ") and len(commands) == 12
    assert "-m experiments.run --dataset=digits" in commands[0] and "--resume" in commands[0]
    assert not list(tmp_path.iterdir())


# Places


def test_gpus_are_one_to_a_run_or_shared_with_a_part_of_the_memory():
    assert [slot.environment for slot in local.slots("0,3", 1, 0)] == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "3"},
    ]
    four = local.slots("0,3", 2, 0)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in four] == ["0", "3", "0", "3"]
    assert {slot.environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] for slot in four} == {"0.450"}


def test_cores_are_shared_out(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 5, 6, 7, 9})
    assert [slot.prefix for slot in local.slots("cpu", 1, 2)] == [
        ("taskset", "-c", "4,5"),
        ("taskset", "-c", "6,7,9"),
    ]
    assert local.slots("cpu", 1, 0) == [local.Slot()]
    assert len(local.slots("cpu", 1, 8)) == 8  # more than there are cores


def test_a_share_of_the_cores_is_a_smaller_thread_pool():
    code = (
        "import jax, os; jax.numpy.ones(3).block_until_ready(); print(len(os.sched_getaffinity(0)))"
    )
    slot = local.slots("cpu", 1, os.cpu_count() or 1)[0]
    done = subprocess.run(
        [*slot.prefix, sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.stdout.strip() == "1", done.stderr


# Runs, in place of which shell scripts stand


def stand_in(point: grid.Point, then: str) -> list[str]:
    """A run that leaves what a finished one does, after `then`."""
    dataset = {"name": "digits", "source": "", "sha256": "", "labels_sha256": "", "num_classes": 10}
    settings = json.dumps({
        "format": runs.FORMAT, "settings": parse(point.flags).settings, "environment": {},
        "dataset": {**dataset, "x_shape": [8, 8, 1]},
    })  # fmt: skip
    ending = """printf %s "$1" > config.json; echo '{"figures": []}' > summary.json"""
    return ["sh", "-c", f"cd {point.directory}; echo begun; {then}; {ending}", "sh", settings]


def test_twelve_points_one_killed_then_only_that_one(monkeypatch, capsys):
    started = []

    def command(point: grid.Point) -> list[str]:
        started.append(point.label)
        dies = point.label == "--latent_dim=2 --beta=1 --seed=1" and len(started) <= 12
        return stand_in(point, "echo 'half way'; kill -9 $$" if dies else ":")

    monkeypatch.setattr(local, "command", command)
    todo = grid.plan(TWELVE)
    assert local.Pool(todo, local.slots("cpu", 1, 3)).run() == 1
    out = capsys.readouterr().out
    assert "11 done, 0 running, 1 failed of 12" in out
    last = out.splitlines()[-1]
    assert last.startswith("failed  --latent_dim=2 --beta=1 --seed=1: killed by SIGKILL: half way")
    assert len(started) == 12
    again = grid.plan(TWELVE)
    assert sum(point.finished for point in again) == 11
    assert local.Pool(again, local.slots("cpu", 1, 3)).run() == 0
    assert started[12:] == ["--latent_dim=2 --beta=1 --seed=1"]
    assert "11 of 12 finished before" in capsys.readouterr().out
    assert all(point.finished for point in grid.plan(TWELVE))
    log = (again[7].directory / "log.txt").read_text()
    assert (
        log.count("$ taskset") == 2 and log.count("\nbegun\n") == 2
    )  # appended, never overwritten


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on_once_and_nothing_new_starts(monkeypatch, capsys, number):
    listens = "trap 'echo saved; exit 143' TERM; trap 'echo saved; exit 130' INT"
    waits = "i=0; while [ $i -lt 200 ]; do sleep 0.05; i=$((i+1)); done"
    monkeypatch.setattr(local, "command", lambda point: stand_in(point, f"{listens}; {waits}"))
    todo = grid.plan([*TINY, "--seed=0,1,2,3"])
    threading.Timer(0.7, os.kill, (os.getpid(), number)).start()
    before, start = signal.getsignal(number), time.monotonic()
    assert local.Pool(todo, local.slots("cpu", 1, 2)).run() == 128 + number
    assert time.monotonic() - start < 5
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "0 done, 0 running, 0 failed, 2 stopped of 4"
    assert "the same command again goes on" in captured.err
    assert signal.getsignal(number) is before
    logs = [path.read_text() for path in Path("runs").glob("*/log.txt")]
    assert len(logs) == 2 and all(log.endswith("\nsaved\n") for log in logs)


def test_a_run_that_cannot_start_is_listed(tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "lines").write_text("--run_dir=file/run\n")
    todo = grid.plan(TINY, "lines")
    assert local.Pool(todo, [local.Slot()]).run() == 1
    assert "not started: Not a directory" in capsys.readouterr().out


@pytest.mark.slow
def test_the_real_thing_twelve_points_one_child_killed(tmp_path):
    """About two minutes: launch.sh, 12 trainings two at a time, kill -9 for one, and again."""
    command = [SCRIPT, "--devices=cpu", "--jobs=2", "--", *TWELVE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (victim := child(process.pid, "--beta=4 --seed=1")):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(3)
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1, out + err
    assert "11 done, 0 running, 1 failed of 12" in out
    (failed,) = (line for line in out.splitlines() if line.startswith("failed  --"))
    assert "--beta=4 --seed=1: killed by SIGKILL" in failed
    assert "1 of 12 runs are not finished" in out and "written    runs/launch-" in out
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.splitlines()[0] == "11 of 12 finished before"
    assert "12 done, 0 running, 0 failed of 12" in again.stdout
    assert len(list((tmp_path / "runs").glob("*/summary.json"))) == 12
    logs = [path.read_text() for path in (tmp_path / "runs").glob("*/log.txt")]
    assert sorted(log.count("$ ") for log in logs) == [1] * 11 + [2]
    third = subprocess.run(command, capture_output=True, text=True)
    assert third.returncode == 0 and "12 of 12 finished before" in third.stdout


def child(parent: int, words: str) -> int:
    """The process with these words in its command that `parent` has started; 0: there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_text().replace("\0", " ")
            started_by = (folder / "stat").read_text().rpartition(") ")[2].split()[1]
            if words in command and started_by == str(parent):
                return int(folder.name)
    return 0


# Slurm


def test_the_job_script_runs_each_point(tmp_path):
    """Read by bash: the array's indices, and the run that each of them becomes."""
    todo = grid.plan([*TINY, "--latent_dim=1,2", "--seed=0,1"])
    todo = [todo[0], todo[1]._replace(finished=True), *todo[2:]]
    text = slurm.script(todo, "--time=4:00 --comment='a b'", at_once=2)
    for line in (
        "--array=1,3-4%2",
        "--signal=B:TERM@120",
        "--requeue",
        "--open-mode=append",
        "--time=4:00",
        "--comment=a b",
    ):
        assert f"#SBATCH {line}\n" in text
    text = text.replace(f"exec {sys.executable} ", "exec echo ")
    for index, point in ((1, todo[0]), (3, todo[2])):
        environment = os.environ | {"SLURM_ARRAY_TASK_ID": str(index)}
        subprocess.run(["bash"], input=text, text=True, env=environment, check=True)
        assert (point.directory / "log.txt").read_text().split() == [
            "-m", "experiments.run", *point.flags,
        ]  # fmt: skip
    environment["SLURM_ARRAY_TASK_ID"] = "2"  # finished, so not in the array
    assert subprocess.run(["bash"], input=text, text=True, env=environment).returncode == 2


def test_without_slurm_it_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="sbatch is not installed here"):
        command.main(["--slurm", "--", *TINY])


def test_nothing_left_to_submit(capsys):
    (point,) = grid.plan(TINY)
    assert slurm.launch([point._replace(finished=True)], "", 0) == 0
    assert "all 1 finished before" in capsys.readouterr().out


# Results


def finished(numbers: dict[str, dict]) -> list[grid.Point]:
    """Two latent dimensions times two seeds; those named are finished, with these numbers."""
    points = grid.plan([*TINY, "--latent_dim=1,2", "--seed=0,1"])
    for point in points:
        if point.label in numbers:
            point.directory.mkdir(parents=True)
            (point.directory / "summary.json").write_text(json.dumps(numbers[point.label]))
    return [point._replace(finished=point.label in numbers) for point in points]


def test_a_launch_ends_in_means_over_seeds(tmp_path, capsys):
    points = finished({
        "--latent_dim=1 --seed=0": {"elbo": -12.0, "nll": 10.0, "text": "no number"},
        "--latent_dim=1 --seed=1": {"elbo": -14.0, "nll": 13.0},
        "--latent_dim=2 --seed=0": {"elbo": -9.0, "nll": 8.0},
    })  # fmt: skip
    lost = points[3].directory
    results.write(points, tmp_path, {lost: "exit code 1"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["latent_dim", "runs", "elbo", "nll"]
    # s/√2 of 10 and 13 is 1.5, of −12 and −14 is 1
    assert lines[1].split() == ["1", "2", "-13.00", "±", "1.00", "11.50", "±", "1.50"]
    assert lines[2].split() == ["*", "2", "1", "-9.00", "8.00"]
    assert lines[3:5] == ["* the best by nll", "1 of 4 runs are not finished"]
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [(r["latent_dim"], r["seed"], r["status"], r["nll"]) for r in rows] == [
        ("1", "0", "finished", "10.0"), ("1", "1", "finished", "13.0"),
        ("2", "0", "finished", "8.0"), ("2", "1", "failed", ""),
    ]  # fmt: skip
    assert rows[3]["run_dir"] == str(lost) and "text" not in rows[0]


def test_where_no_nll_was_measured_the_best_has_the_largest_elbo():
    rows = [{"beta": b, "status": "finished", "elbo": e} for b, e in ((1.0, -5.0), (2.0, -3.0))]
    assert "*     2     1  -3.00" in results.table(rows, ["beta"])
    assert results.table([{"status": "failed"}], []) == "nothing is finished yet"


def test_results_go_where_the_flags_say(tmp_path):
    one, two = (grid.plan([*TINY, f"--seed={seed}"]) for seed in ("0,1", "0,2"))
    assert results.folder(one, "") == results.folder(one, "") != results.folder(two, "")
    assert results.folder(one, "here") == Path("here")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="out file/below cannot be made"):
        results.check(Path("file/below"))


def test_the_same_launch_again_makes_the_table_of_what_is_finished(monkeypatch, capsys):
    monkeypatch.setattr(local, "command", lambda point: stand_in(point, ":"))
    arguments = ["--devices=cpu", "--out=out", "--", *TINY, "--seed=0,1"]
    assert command.main(arguments) == 0
    first = Path("out/results.csv").read_text()
    assert first.count("finished") == 2 and "written" in capsys.readouterr().out
    Path("out/results.csv").unlink()
    assert command.main(arguments) == 0
    assert Path("out/results.csv").read_text() == first
    assert "2 of 2 finished before" in capsys.readouterr().out


def test_the_live_line_names_what_runs_what_failed_and_how_long_still():
    points = grid.plan([*TINY, "--seed=0,1,2,3"])
    pool = local.Pool(points, [local.Slot()])
    assert "? left" in pool._line(5)
    pool.waiting.popleft()
    pool.failed.append((pool.waiting.popleft(), "exit code 1"))
    pool.done += 1
    line = pool._line(100)  # two ended in 100 s, two wait
    assert "1 done, 0 running, 1 failed of 4, 0:01:40, about 0:01:40 left" in line
    assert "failed: --seed=1" in line
