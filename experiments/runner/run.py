"""One job, whole: trained, evaluated, drawn, in its run directory."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments.figures import catalogue
from experiments.runner import run_directory, tensorboard
from experiments.runner.job import Job
from experiments.runner.loop import Stop, train
from experiments.runner.report import header, table
from vae_jax import evaluation, files, runs
from vae_jax.data.dataset import noun
from vae_jax.models import domains
from vae_jax.parallel import devices, processes


def perform(job: Job) -> int:
    """Trains, evaluates and draws one job in its run directory; returns the exit code."""
    config, dataset = job.config, job.dataset
    if config.run.tensorboard:
        tensorboard.check()
    for note in job.notes:
        print(f"note       {note}")
    directory = Path(config.run.run_dir or run_directory.default(config, dataset))
    description = run_directory.describe(config, dataset)
    processes.check_same(run_directory.deciding(description), "other flags or other images")
    claim = run_directory.claimed(directory, description, config.run.resume)
    with processes.quiet(), claim as before, Stop() as stop:
        if before == "finished":
            print(f"{directory} holds this run, finished: see {directory / 'summary.json'}")
            return 0
        print(header(job, directory), flush=True)
        if processes.first():
            run_directory.begin(directory, description)
        with devices.everywhere():
            code = train(job, directory, stop)
        if code == 0:
            finish(job, directory)
        return code


def finish(job: Job, directory: Path) -> None:
    """Evaluates and draws; says what came out and where everything is."""
    summary, paths = evaluate(job, directory)
    print(table(summary, noun(job.dataset.x_shape)))
    print(f"figures    {', '.join(path.name for path in paths)} in {directory / 'figures'}")


def evaluate(job: Job, directory: Path) -> tuple[dict[str, Any], list[Path]]:
    """Evaluates on the test set, this once, and draws the figures: the summary, and their paths."""
    run = trained(job, directory)
    history = run.history
    with devices.everywhere():
        shared = dataclasses.replace(run, params=devices.put(run.params))
        summary = summarise(job, shared, history)
    if not processes.first():
        return summary, []
    paths = catalogue.draw(run, job.dataset, directory / "figures")
    if job.config.run.tensorboard:
        tensorboard.finish(directory, history, summary, paths)
    files.write_json(directory / "summary.json", summary)
    return summary, paths


def trained(job: Job, directory: Path) -> runs.Run:
    """The trained run as process 0 reads it, in all of them."""
    run = runs.load(directory) if processes.first() else None
    meta, history = processes.from_first(lambda: run and (run.meta, run.history))
    shapes = jax.eval_shape(job.vae.init, jax.random.key(0))
    params = processes.arrays_from_first(run and run.params, shapes)
    return run or runs.Run({}, job.vae, params, job.condition, meta, {}, history)


def summarise(job: Job, run: runs.Run, history: list[dict[str, Any]]) -> dict[str, Any]:
    """What summary.json holds: test numbers in nats per image (see `evaluation` for each)."""
    config = job.config
    test, key = job.held_out(job.dataset.test), jax.random.key(config.data.data_seed)
    means = evaluation.posterior_means(run.vae, run.params, test)
    # Without latents every sample is the same.
    samples = config.run.nll_samples if config.model.latent_dim else 1
    quiet = None if processes.first() else True
    with tqdm(total=len(test.x), desc="test NLL", unit=" images", disable=quiet) as bar:
        estimate = evaluation.log_likelihood(
            run.vae, run.params, test, key, samples, report=bar.update
        )
    nll = evaluation.nll(estimate)
    last = history[-1]
    images = last["step"] * config.training.batch_size
    discrete = domains.is_probability(config.model.likelihood, job.dataset.test.x)
    return {
        "split": "test",
        "checkpoint": run.meta,
        **evaluation.elbo(run.vae, run.params, test, key),
        **nll,
        "nll_samples": samples,
        "bits_per_dim": nll["nll"] / (math.prod(job.condition.x_shape) * math.log(2))
        if discrete
        else None,
        "active_units": int(evaluation.active_units(means).sum()),
        "latent_dim": config.model.latent_dim,
        "train_seconds": last["seconds"],
        "images_per_second": images / last["seconds"],
    }
