r"""Many runs of `experiments.run`: on this machine, or as one job array under Slurm.

    ./launch.sh [options] -- --latent_dim=2,5,10 --beta=1,4 --seed=0,1,2

What follows the -- are flags of experiments.run; commas make a product of them (a comma that is
part of a value is written \,). Every point is checked, and the data fetched, before anything
starts. Each run has its own directory, with its output in log.txt; called again, only what is not
finished runs, and what was cut is resumed. Ctrl-C or SIGTERM stops every run, saved.

It ends in a table, means over seeds with their standard errors, and --out/results.csv, a row for
each run. Called again it makes both of what is finished by then, also after --slurm.

Exit codes: 0 all finished or submitted, 1 some failed, 2 bad input, 128 + n stopped by signal n.
"""

import dataclasses
import shlex
from collections.abc import Sequence

from experiments import cli
from experiments.launch import grid, local, results, slurm
from vae_jax.settings import UserError, setting, validate


def names(text: str) -> None:
    """Raises ValueError where a name between commas is empty."""
    if not all(text.split(",")):
        raise ValueError("auto, cpu, or GPUs joined by commas, none empty, such as 0,1,3")


def words(text: str) -> None:
    """Raises ValueError where a quote is not closed."""
    try:
        shlex.split(text)
    except ValueError:
        raise ValueError("options as a shell reads them, every quote closed") from None


@dataclasses.dataclass(frozen=True)
class LaunchConfig:
    """Where and how many at a time."""

    points: str = setting("", "a file with the flags of one run on each line, in place of, or "
                          "times, those after the --")  # fmt: skip
    dry_run: bool = setting(False, "print the commands, or the job script, and do nothing else")
    devices: str = setting(
        "auto", "the GPUs to use, such as 0,1,3, one process each; cpu: none; auto: "
        "CUDA_VISIBLE_DEVICES, or all that nvidia-smi lists", parse=names,
    )  # fmt: skip
    per_device: int = setting(
        1, "runs that share a GPU, each with its part of the memory", unit="runs", at_least=1
    )
    jobs: int = setting(
        0, "runs at a time on a CPU, which share its cores out, or under Slurm; 0: one for every "
        "four cores; all under Slurm", unit="runs", at_least=0,
    )  # fmt: skip
    slurm: bool = setting(False, "submit one job array in place of running here")
    sbatch: str = setting(
        "", "options of sbatch, such as '--time=4:00:00 --gres=gpu:1'", parse=words
    )

    out: str = setting("", "folder for results.csv; by default runs/launch-<hash of the flags>")

    def __post_init__(self) -> None:
        validate(self)
        if self.sbatch and not self.slurm:
            raise UserError("sbatch needs --slurm")


@dataclasses.dataclass(frozen=True)
class Config:
    launch: LaunchConfig


def main(arguments: list[str]) -> int:
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    own, flags = arguments[:cut], arguments[cut + 1 :]
    if {"--help", "-help", "-h"} & set(own):
        print(__doc__)
        print(cli.usage("experiments.launch", Config))
        return 0
    try:
        settings = cli.parse(own, Config).launch
    except UserError as error:
        raise UserError(f"{error}; flags of the runs come after --") from None
    if not flags and not settings.points:
        raise UserError("give the flags of the runs after --, such as -- --latent_dim=2,5,10")
    todo = grid.plan(flags, settings.points)
    if settings.dry_run:
        return dry_run(todo, settings)
    where = results.folder(todo, settings.out)
    if settings.slurm:
        results.check(where)
        code, failed = slurm.launch(todo, settings.sbatch, settings.jobs), []
    else:
        pool = local.Pool(todo, local.slots(settings.devices, settings.per_device, settings.jobs))
        results.check(where)
        code, failed = pool.run(), pool.failed
    results.write(grid.now(todo), where, {point.directory: fault for point, fault in failed})
    return code


def dry_run(todo: Sequence[grid.Point], settings: LaunchConfig) -> int:
    """Prints what would be done."""
    if settings.slurm:
        slurm.show(todo, settings.sbatch, settings.jobs)
        return 0
    slots = local.slots(settings.devices, settings.per_device, settings.jobs)
    print(f"# {len(slots)} at a time", *(f"[{slot}]" for slot in slots if str(slot)))
    print("\n".join(shlex.join(local.command(p)) for p in todo if not p.finished))
    return 0
