"""A run directory without its training: random weights, and what a run writes down."""

from pathlib import Path

import jax
import numpy as np

from experiments.cli.config import parse
from experiments.runner import run_directory
from experiments.runner.job import Job, assemble
from vae_jax import files, runs
from vae_jax.runs import checkpoints

SMALL = ("--dataset=digits", "--widths=8")


def untrained(directory: Path, *flags: str) -> Job:
    """Leaves random weights, config, two rows of metrics and a summary; returns the job."""
    job = assemble(parse([*SMALL, f"--run_dir={directory}", *flags]))
    directory.mkdir(parents=True)
    files.write_json(directory / "config.json", run_directory.describe(job.config, job.dataset))
    for step in (1, 2):
        numbers = {"elbo": -50.0 + step, "rate": 2.0, "distortion": 48.0 - step}
        row = {f"train_{name}": value for name, value in numbers.items()}
        runs.append_metrics(directory, {"step": step, "epoch": step, **row})
    rng, shapes = np.random.default_rng(0), jax.eval_shape(job.vae.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: 0.3 * rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    checkpoints.save_best(directory, params, {"step": 2, "loss": 50.0})
    files.write_json(directory / "summary.json", {"elbo": -50.0})
    return job
