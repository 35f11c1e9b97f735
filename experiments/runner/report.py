"""What a run says of itself on a terminal."""

import math
from pathlib import Path
from typing import Any

from experiments.runner.job import Job
from vae_jax import models
from vae_jax.data.dataset import Dataset, noun
from vae_jax.objectives.config import ObjectiveConfig
from vae_jax.parallel import devices


def header(job: Job, where: Path) -> str:
    """The first lines of output: what is about to happen."""
    config, dataset, (steps_per_epoch, total) = job.config, job.dataset, job.length
    count = sum(models.count_parameters(job.vae).values())
    m, t = config.model, config.training
    return "\n".join([
        data_line(dataset),
        f"model      {_model(job)}{m.described}: {count:,} parameters",
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
    lines += rates(summary)
    speed, seconds = summary["images_per_second"], summary["train_seconds"]
    lines.append(f"  {'training':<20}{seconds:>9.1f} s, {speed:,.0f} {example}s/s")
    return "\n".join(lines)


def rates(summary: dict[str, Any]) -> list[str]:
    """A line with the rate of each group of a hierarchy; none of other models."""
    if not summary["rates"]:
        return []
    of_groups = ", ".join(f"{rate:.2f}" for rate in summary["rates"])
    return [f"  {'rates, top down':<20}  {of_groups}"]


def plus_minus(error: float | None) -> str:
    """A standard error to go behind its number; nothing where there is none, as of one image."""
    return "" if error is None else f" ± {error:.2f}"
