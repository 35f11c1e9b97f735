"""Train a VAE and see what it learned.

    python -m experiments.run --latent_dim=2

Leaves a run directory (see `vae_jax.runs`) with the trained weights, the test set's ELBO and
importance-weighted NLL in nats per image, and figures: the manifold, samples, reconstructions,
latents and training curves. About two minutes for 30 epochs of MNIST on two CPU cores.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments import board, figures
from experiments import config as configuration
from experiments import directory as directories
from experiments.config import Config
from experiments.job import Job, assemble
from experiments.loop import Stop, train
from vae_jax import devices, evaluation, files, likelihoods, model, processes, runs
from vae_jax.data import Dataset
from vae_jax.networks import widths
from vae_jax.objectives import ObjectiveConfig
from vae_jax.types import noun


def main(config: Config) -> int:
    return perform(assemble(config))


def perform(job: Job) -> int:
    """Trains, evaluates and draws one job in its run directory; returns the exit code."""
    config, dataset = job.config, job.dataset
    if config.run.tensorboard:
        board.check()
    for note in job.notes:
        print(f"note       {note}")
    directory = Path(config.run.run_dir or directories.default(config, dataset))
    description = directories.describe(config, dataset)
    processes.check_same(directories.deciding(description), "other flags or other images")
    claim = directories.claimed(directory, description, config.run.resume)
    with processes.quiet(), claim as before, Stop() as stop:
        if before == "finished":
            print(f"{directory} holds this run, finished: see {directory / 'summary.json'}")
            return 0
        print(header(job, directory), flush=True)
        if processes.first():
            directories.begin(directory, description)
        with devices.everywhere():
            code = train(job, directory, stop)
        if code == 0:
            finish(job, directory)
        return code


def header(job: Job, where: Path) -> str:
    """The first lines of output: what is about to happen."""
    config, dataset, (steps_per_epoch, total) = job.config, job.dataset, job.length
    count = sum(model.count_parameters(job.vae).values())
    m, t = config.model, config.training
    return "\n".join([
        data_line(dataset),
        f"model      {_model(job)}{m.network} {widths(m)}, latent_dim {m.latent_dim}, "
        f"{m.posterior} posterior, {m.prior} prior, {m.likelihood} likelihood: "
        f"{count:,} parameters",
        f"objective  {_objective(config.objective)}; {t.optimiser} "
        f"{t.learning_rate:g}, batch {t.batch_size}, {total:,} steps "
        f"({total / steps_per_epoch:g} epochs)",
        f"device     {devices.described()}",
        f"directory  {where}",
    ])  # fmt: skip


def data_line(dataset: Dataset) -> str:
    sizes = (len(dataset.train.x), len(dataset.valid.x), len(dataset.test.x))
    shape = "×".join(map(str, dataset.x_shape))
    return (
        f"data       {dataset.name}, {shape}: {sizes[0]:,} training, {sizes[1]:,} validation, "
        f"{sizes[2]:,} test {noun(dataset.x_shape)}s; binarisation {dataset.binarisation}; "
        f"{dataset.source}"
    )


def _model(job: Job) -> str:
    """What is given, in words; nothing where nothing is."""
    given = job.config.model.condition
    return "" if given == "none" else f"given {given}, "


def _objective(o: ObjectiveConfig) -> str:
    """With the number of its samples where there are several: a preset may have brought them."""
    several = f" with {o.num_samples} samples" if o.num_samples > 1 else ""
    return f"{o.objective}{several}, beta {o.beta:g}"


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
    paths = figures.draw(run, job.dataset, directory / "figures")
    if job.config.run.tensorboard:
        board.finish(directory, history, summary, paths)
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
    discrete = likelihoods.is_probability(config.model.likelihood, job.dataset.test.x)
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


def table(summary: dict[str, Any], example: str = "image") -> str:
    """The summary for a terminal."""
    chosen = summary["checkpoint"]
    lines = [f"test set   at step {chosen['step']:,} ({chosen['chosen']}), nats per {example}"]
    for name in ("elbo", "rate", "distortion", "nll"):
        error = note = ""
        if name == "nll":
            error = plus_minus(summary["nll_se"])
            note = f" ({summary['nll_samples']:,} samples each)"
        bits = summary[name] / math.log(2)
        lines.append(f"  {name:<20}{summary[name]:>9.2f}{error} = {bits:.2f} bits{note}")
    if summary["bits_per_dim"] is not None:
        lines.append(f"  {'bits per dimension':<20}{summary['bits_per_dim']:>9.4f}")
    lines.append(f"  {'active units':<20}{summary['active_units']:>6} of {summary['latent_dim']}")
    speed, seconds = summary["images_per_second"], summary["train_seconds"]
    lines.append(f"  {'training':<20}{seconds:>9.1f} s, {speed:,.0f} {example}s/s")
    return "\n".join(lines)


def plus_minus(error: float | None) -> str:
    """A standard error to go behind its number; nothing where there is none, as of one image."""
    return "" if error is None else f" ± {error:.2f}"


if __name__ == "__main__":
    configuration.main("experiments.run", main)
