"""What a sweep leaves beside its members' directories.

sweep.csv    one row a member
sweep.json   the same with the KL of each unit, and the command, settings and versions
figures/     the rate-distortion plane, ELBO, NLL and active units, KL per unit, samples, manifolds
"""

import csv
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.sweep import data_entropy
from experiments.sweep.members import Planned, SweepConfig
from vae_jax import files, plots, runs
from vae_jax.plots import seed_means, sweeps

COLUMNS = (
    "name", "latent_dim", "beta", "learning_rate", "seed", "status", "steps", "elbo", "rate",
    "distortion", "nll", "nll_se", "nll_samples", "active_units", "bits_per_dim", "train_seconds",
)  # fmt: skip
TABLE = ("elbo", "rate", "distortion", "nll", "active_units")
SIDE = 5  # of a member's sheet of samples
GRID = 12  # of a member's manifold

Row = dict[str, Any]


def write(
    program: str,
    config: SweepConfig,
    described: dict[str, Any],
    planned: Sequence[Planned],
    where: Path,
) -> int:
    """Writes it all and prints the table; returns the exit code: 1 where every member diverged.

    described: what sweep.json says of the whole sweep, as a run's config.json does of the run.
    """
    rows = [row(member) for member in planned]
    command = shlex.join(["python", "-m", program, *sys.argv[1:]])
    files.write_json(where / "sweep.json", {
        "command": command, **described, "members": rows,
    })  # fmt: skip
    with (
        files.replacing(where / "sweep.csv") as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([row[name] for name in COLUMNS] for row in rows)
    paths = draw(config, planned, rows, where / "figures")
    print(table(rows))
    print(f"figures    {', '.join(path.name for path in paths)} in {where / 'figures'}")
    print(f"written    {where / 'sweep.csv'}, sweep.json")
    return 0 if any(row["status"] == "finished" for row in rows) else 1


def row(member: Planned) -> Row:
    """A member's row: what it has of its own, and what was measured; None where it was not."""
    own = {"name": member.name, **member.values._asdict()}
    nothing = dict.fromkeys((*COLUMNS, "kl_per_unit"))
    summary = member.directory.summary
    if summary:
        steps = member.directory.history[-1]["step"]
        measured = {name: value for name, value in summary.items() if name in nothing}
        return nothing | measured | own | {"status": "finished", "steps": steps}
    end = member.directory.diverged or {}
    return nothing | own | {
        "status": "diverged", "steps": end["step"], "train_seconds": end["seconds"],
    }  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Means over the seeds, with their standard errors where there are several."""
    varies = seed_means.varying(seed_means.by_setting(rows))
    means = {name: seed_means.over_seeds(rows, name) for name in TABLE}
    cells = [["test set", "seeds", *TABLE]]
    for setting, some in seed_means.by_setting(rows).items():
        numbers = [cell(means[name].get(setting)) for name in TABLE]
        cells.append([seed_means.label(setting, varies) or "all", str(len(some)), *numbers])
    size = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join([line[0].ljust(size[0]), *map(str.rjust, line[1:], size[1:])]) for line in cells
    ]
    lines += [f"{r['name']} diverged at step {r['steps']:,}" for r in rows if r["elbo"] is None]
    return "\n".join(lines)


def cell(mean: seed_means.Mean | None) -> str:
    return "–" if mean is None else mean.text


# Figures


def draw(
    config: SweepConfig, planned: Sequence[Planned], rows: Sequence[Row], folder: Path
) -> list[Path]:
    """Draws every figure that there is something to show in; returns their paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    if not any(row["status"] == "finished" for row in rows):
        return paths
    for name, figure in figures(planned, rows, config.run.manifold_grid):
        paths.append(folder / f"{name}.{config.run.figure_format}")
        plots.save(figure, paths[-1])
    return paths


def figures(
    planned: Sequence[Planned], rows: Sequence[Row], grid: Any
) -> Iterator[tuple[str, Any]]:
    """Pairs of a name and a matplotlib figure."""
    yield "rate-distortion", sweeps.rate_distortion(rows, data_entropy.of(planned[0].job))
    for name in ("latent_dim", "beta"):
        if len({row[name] for row in rows}) > 1:
            yield name.replace("_", "-"), sweeps.against(rows, name)
    if any(row["kl_per_unit"] for row in rows):
        yield "units", sweeps.kl_heat_map(rows)
    good = [m for m, row in zip(planned, rows, strict=True) if row["status"] == "finished"]
    yield "samples", sweeps.sheet_of({m.name: samples(m) for m in good})
    flat = [m for m in good if m.values.latent_dim == 2 and m.job.condition.c_shape == (0,)]
    if flat and flat[0].job.config.model.is_sized:
        z = plots.manifold_latents(GRID, grid)
        tiles = {m.name: np.asarray(loaded(m).decode(z)) for m in flat}
        yield "manifolds", sweeps.sheet_of(tiles, gap=0)


def loaded(member: Planned) -> runs.Run:
    return member.directory.load(member.job.vae, member.job.condition)


def samples(member: Planned) -> np.ndarray:
    """Images that a member draws: the same noise, and the same condition, for all of them."""
    run = loaded(member)
    c = np.resize(
        member.job.held_out(member.job.dataset.test).condition, (SIDE**2, *run.condition.c_shape)
    )
    return np.asarray(run.merge(run.sample(jax.random.key(0), SIDE**2, c), c))
