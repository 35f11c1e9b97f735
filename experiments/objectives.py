"""What does each objective make of the same model, data and time?

    python -m experiments.objectives --epochs=10 --latent_dim=20 --run_dir=runs/objectives

Trains every objective on MNIST (784-500-20, batch 128, Adam 1e-3) and prints one table: the true
test ELBO, rate and distortion, the importance-weighted NLL, active units and training time. Every
flag of `experiments.run` works but those that choose the objective. Each run is a directory of its
own under --run_dir, and the table is written there as objectives.json; a second call goes on where
the first was stopped. Expected: the multi-sample bounds reach a better NLL than the ELBO at a
worse ELBO; the score function, with five samples and their baseline, is not far behind. About
twenty minutes on two CPU cores.
"""

import dataclasses
from pathlib import Path

from experiments import cli, runner
from experiments import run as job
from experiments.cli.config import Config
from vae_jax import files
from vae_jax.objectives.config import OBJECTIVES, ObjectiveConfig
from vae_jax.settings import UserError

SAMPLES = 5  # of z, for the objectives that take several
SETTINGS = {
    "iwae": {"num_samples": SAMPLES},
    "miwae": {"num_samples": 2 * SAMPLES, "num_groups": 2},
    "ciwae": {"num_samples": SAMPLES},
    "dreg": {"num_samples": SAMPLES},
    "score_function": {"num_samples": SAMPLES},
    "beta_tc": {"beta": 4.0},
    "geco": {"target_distortion": 80.0},
}
COMPARED = [name for name in OBJECTIVES if name != "prior_alone"]  # of models that are trained
COLUMNS = ("elbo", "rate", "distortion", "nll", "nll_se", "active_units", "train_seconds")


def main(config: Config) -> int:
    if config.objective != ObjectiveConfig():
        raise UserError("the objective's flags are this experiment's own: leave them out")
    directory = Path(config.run.run_dir or "runs/objectives")
    rows = {}
    for name in COMPARED:
        settings = SETTINGS.get(name, {})
        objective = ObjectiveConfig(objective=name, **settings)
        run = dataclasses.replace(config.run, run_dir=str(directory / name), resume=True)
        print(f"\n{name} {settings or ''}", flush=True)
        code = job.main(dataclasses.replace(config, objective=objective, run=run))
        if code:
            return code
        summary = files.read_json(directory / name / "summary.json")
        rows[name] = {**settings, **{column: summary[column] for column in COLUMNS}}
    described = files.read_json(directory / "elbo" / "config.json")
    files.write_json(directory / "objectives.json", {"run": described, "rows": rows})
    print("\n" + table(rows))
    return 0


def table(rows: dict[str, dict]) -> str:
    """The rows as a Markdown table, in nats per image."""
    lines = [
        "| objective | ELBO | rate | distortion | NLL | active units | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        settings = ", ".join(f"{k}={v:g}" for k, v in row.items() if k not in COLUMNS)
        numbers = [f"{row[column]:.2f}" for column in ("elbo", "rate", "distortion")]
        numbers += [f"{row['nll']:.2f}{runner.plus_minus(row['nll_se'])}", str(row["active_units"])]
        lines.append(
            f"| `{name}`{' ' + settings if settings else ''} | {' | '.join(numbers)} "
            f"| {row['train_seconds']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    cli.main("experiments.objectives", main)
