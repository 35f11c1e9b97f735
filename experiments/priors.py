"""What do posteriors and priors make of the same nets, data and time?

    python -m experiments.priors --epochs=10 --latent_dim=20 --run_dir=runs/priors

Trains every pair of --posteriors and --priors on MNIST (784-500-20, batch 128, Adam 1e-3) and
prints one table: the true test ELBO, its rate and the KL(q(z)‖p(z)) in it, the importance-weighted
NLL, active units and milliseconds a step. Every other flag of `experiments.run` works; those of one
posterior or prior reach the pairs that have it. Each run is a directory of its own under --run_dir,
and the table is written there as priors.json; a second call goes on where the first was stopped.
Expected: a richer prior takes the marginal KL away, a richer posterior tightens the bound, and the
NLL gains less than either. About two minutes a pair on two CPU cores.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments import cli, runner
from experiments.cli import config as cli_config
from experiments.runner.job import Job, assemble
from experiments.runner.run import perform
from vae_jax import evaluation, files, runs
from vae_jax.models import ModelConfig
from vae_jax.models.posteriors import POSTERIORS
from vae_jax.models.priors import PRIORS
from vae_jax.parallel.processes import ProcessConfig
from vae_jax.settings import UserError, readers, setting, validate

COLUMNS = ("elbo", "rate", "marginal_kl", "marginal_kl_se", "nll", "nll_se", "active_units")


def names(text: str, registry: Any) -> tuple[str, ...]:
    """'diagonal,full' -> those names. Raises ValueError where one is none of a registry."""
    found = tuple(text.split(","))
    if not set(found) <= set(registry) or len(set(found)) < len(found):
        raise ValueError(f"some of {', '.join(registry)}, joined by commas")
    return found


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Which posteriors and priors."""

    posteriors: str = setting(
        "diagonal,full,mixture", "joined by commas", parse=lambda text: names(text, POSTERIORS)
    )
    priors: str = setting(
        "standard,mixture,vamp", "joined by commas", parse=lambda text: names(text, PRIORS)
    )

    def __post_init__(self) -> None:
        validate(self)


class Table(NamedTuple):
    """What the table is made of: pairs by name, each the configuration of a run."""

    run: cli_config.RunConfig
    processes: ProcessConfig
    members: dict[str, cli_config.Config]


@dataclasses.dataclass(frozen=True)
class Config(cli_config.Config):
    """The flags of `experiments.run`, and which pairs."""

    pairs: Pairs = Pairs()

    @classmethod
    def of_flags(cls, preset: str, given: dict[str, Any]) -> Any:
        if {"posterior", "prior"} & given.keys():
            raise UserError("posterior and prior are this experiment's own: give --posteriors and "
                            "--priors")  # fmt: skip
        lists = ("posteriors", "priors")
        own = Pairs(**{name: given[name] for name in lists if name in given})
        shared = {name: value for name, value in given.items() if name not in lists}
        chosen = names(own.posteriors, POSTERIORS), names(own.priors, PRIORS)
        directory = Path(given.get("run_dir") or "runs/priors")
        members = {}
        for posterior, prior in itertools.product(*chosen):
            name = f"{posterior}-{prior}"
            pair = {"posterior": posterior, "prior": prior}
            more = {**pair, "run_dir": str(directory / name), "resume": True}
            values = read_by(pair, shared, dict(zip(pair, chosen, strict=True)))
            members[name] = cli_config.Config.of_flags(preset, values | more)
        first = next(iter(members.values()))
        run = dataclasses.replace(first.run, run_dir=str(directory))
        return Table(run, first.processes, members)


def read_by(
    pair: dict[str, str], given: dict[str, Any], chosen: dict[str, tuple[str, ...]]
) -> dict[str, Any]:
    """The settings given, without those that only other pairs of the table read."""
    where = readers(ModelConfig)

    def is_others(name: str) -> bool:
        entries = {c: set(n) & set(chosen[c]) for c, n in where.get(name, {}).items() if c in pair}
        return any(entries.values()) and not any(pair[c] in n for c, n in entries.items())

    return {name: value for name, value in given.items() if not is_others(name)}


def main(table: Table) -> int:
    directory, rows = Path(table.run.run_dir), {}
    for name, config in table.members.items():
        print(f"\n{name}", flush=True)
        job = assemble(config)
        code = perform(job)
        if code:
            return code
        rows[name] = row(job)
    described = files.read_json(directory / next(iter(rows)) / "config.json")
    files.write_json(directory / "priors.json", {"run": described, "rows": rows})
    print("\n" + markdown(rows))
    return 0


def row(job: Job) -> dict[str, Any]:
    """The numbers of a finished run."""
    directory = Path(job.config.run.run_dir)
    summary, run = files.read_json(directory / "summary.json"), runs.load(directory)
    key = jax.random.key(job.config.data.data_seed)
    more, _ = evaluation.aggregate(run.vae, run.params, job.held_out(job.dataset.test), key)
    numbers = {name: value for name, value in {**summary, **more}.items() if name in COLUMNS}
    step = 1000 * summary["train_seconds"] / run.history[-1]["step"]
    return {**numbers, "ms_per_step": step, "parameters": count(run)}


def count(run: runs.Run) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(run.params))


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as a Markdown table, in nats per image."""
    lines = [
        "| posterior | prior | ELBO | rate | marginal KL | NLL | active units | ms a step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        posterior, _, prior = name.partition("-")
        cells = [f"`{posterior}`", f"`{prior}`", f"{row['elbo']:.2f}", f"{row['rate']:.2f}"]
        cells.append(_with_error(row, "marginal_kl") if "marginal_kl" in row else "")
        cells += [_with_error(row, "nll"), str(row["active_units"]), f"{row['ms_per_step']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_error(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.2f}{runner.plus_minus(row[f'{name}_se'])}"


if __name__ == "__main__":
    cli.main("experiments.priors", main, Config)
