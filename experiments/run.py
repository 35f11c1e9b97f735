"""Train a VAE and see what it learned.

    python -m experiments.run --latent_dim=2

Leaves a run directory (see `vae_jax.runs`) with the trained weights, the test set's ELBO and
importance-weighted NLL in nats per image, and figures: the manifold, samples, reconstructions,
latents and training curves. About two minutes for 30 epochs of MNIST on two CPU cores.
"""

import math
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments import board, figures
from experiments import config as configuration
from experiments import directory as directories
from experiments.config import Config
from experiments.loop import Stop, train
from vae_jax import data, evaluation, files, likelihoods, model, objectives, runs, training
from vae_jax.networks import widths
from vae_jax.types import unconditional


def main(config: Config) -> int:
    if config.run.tensorboard:
        board.check()
    dataset = data.load(config.data)
    misfit = likelihoods.misfit(config.model.likelihood, dataset.train.x, dataset.binarisation)
    for note in filter(None, (dataset.fallback, misfit)):
        print(f"note       {note}")
    steps_per_epoch, total = training.length(config.training, len(dataset.train.x))
    vae = model.build(config.model, dataset.x_shape, x_mean=dataset.x_mean)
    objective = objectives.build(config.objective, vae, dataset.x_shape, len(dataset.train.x))
    directory = Path(config.run.run_dir or directories.default(config, dataset))
    description = directories.describe(config, dataset)
    with runs.locked(directory), Stop() as stop:
        before = directories.check(directory, description, config.run.resume)
        if before == "finished":
            print(f"{directory} holds this run, finished: see {directory / 'summary.json'}")
            return 0
        print(header(config, dataset, vae, steps_per_epoch, total, directory), flush=True)
        directories.begin(directory, description)
        code = train(config, dataset, vae, objective, directory, stop)
        if code == 0:
            finish(config, dataset, directory)
        return code


def header(
    config: Config, dataset: data.Dataset, vae: Any, steps_per_epoch: int, total: int, where: Path
) -> str:
    """The first lines of output: what is about to happen."""
    sizes = (len(dataset.train.x), len(dataset.valid.x), len(dataset.test.x))
    shape = "×".join(map(str, dataset.x_shape))
    count = sum(model.count_parameters(vae).values())
    m, t = config.model, config.training
    device = jax.devices()[0]
    return "\n".join([
        f"data       {dataset.name}, {shape}: {sizes[0]:,} training, {sizes[1]:,} validation, "
        f"{sizes[2]:,} test images; binarisation {dataset.binarisation}; {dataset.source}",
        f"model      {m.network} {widths(m)}, latent_dim {m.latent_dim}, {m.posterior} posterior, "
        f"{m.prior} prior, {m.likelihood} likelihood: {count:,} parameters",
        f"objective  {config.objective.objective}, beta {config.objective.beta:g}; {t.optimiser} "
        f"{t.learning_rate:g}, batch {t.batch_size}, {total:,} steps "
        f"({total / steps_per_epoch:g} epochs)",
        f"device     {len(jax.devices())} × {device.device_kind}",
        f"directory  {where}",
    ])  # fmt: skip


def finish(config: Config, dataset: data.Dataset, directory: Path) -> None:
    """Evaluates on the test set, this once; draws the figures; says where everything is."""
    run = runs.load(directory)
    history = runs.read_metrics(directory)
    summary = summarise(config, dataset, run, history)
    paths = figures.draw(run, dataset, history, directory / "figures")
    if config.run.tensorboard:
        board.finish(directory, history, summary, paths)
    files.write_json(directory / "summary.json", summary)
    print(table(summary))
    print(f"figures    {', '.join(path.name for path in paths)} in {directory / 'figures'}")


def summarise(
    config: Config, dataset: data.Dataset, run: runs.Run, history: list[dict[str, Any]]
) -> dict[str, Any]:
    """What summary.json holds: test numbers in nats per image (see `evaluation` for each)."""
    test, key = unconditional(dataset.test.x), jax.random.key(config.data.data_seed)
    means = evaluation.posterior_means(run.vae, run.params, test)
    with tqdm(total=len(test.x), desc="test NLL", unit=" images", disable=None) as bar:
        estimate = evaluation.log_likelihood(
            run.vae, run.params, test, key, config.run.nll_samples, report=bar.update
        )
    nll = evaluation.nll(estimate)
    last = history[-1]
    images = last["step"] * config.training.batch_size
    discrete = likelihoods.is_probability(config.model.likelihood, dataset.test.x)
    return {
        "split": "test",
        "checkpoint": run.meta,
        **evaluation.elbo(run.vae, run.params, test, key),
        **nll,
        "nll_samples": config.run.nll_samples,
        "bits_per_dim": nll["nll"] / (math.prod(run.x_shape) * math.log(2)) if discrete else None,
        "active_units": int(evaluation.active_units(means).sum()),
        "latent_dim": config.model.latent_dim,
        "train_seconds": last["seconds"],
        "images_per_second": images / last["seconds"],
    }


def table(summary: dict[str, Any]) -> str:
    """The summary for a terminal."""
    chosen = summary["checkpoint"]
    lines = [f"test set   at step {chosen['step']:,} ({chosen['chosen']}), nats per image"]
    for name in ("elbo", "rate", "distortion", "nll"):
        note = ""
        if name == "nll":
            note = f" ± {summary['nll_se']:.2f} ({summary['nll_samples']:,} samples an image)"
        lines.append(f"  {name:<20}{summary[name]:>9.2f}{note}")
    if summary["bits_per_dim"] is not None:
        lines.append(f"  {'bits per dimension':<20}{summary['bits_per_dim']:>9.4f}")
    lines.append(f"  {'active units':<20}{summary['active_units']:>6} of {summary['latent_dim']}")
    speed, seconds = summary["images_per_second"], summary["train_seconds"]
    lines.append(f"  {'training':<20}{seconds:>9.1f} s, {speed:,.0f} images/s")
    return "\n".join(lines)


if __name__ == "__main__":
    configuration.main("experiments.run", main)
