"""What stands around the column that is given? One digit, or the average of all that could?

    python -m experiments.inpainting --dataset=mnist

Trains a conditional VAE and the regressor that it is without latents, by default as in
cdoersch/vae_tutorial (--preset=doersch: 60,000 steps, the middle column given; --condition gives
something else). Leaves two run directories, cvae and regressor, under --run_dir; inpainting.json
with log p(y|x) of both and how sharp what they draw is; and two figures: CVAE | regressor | ground
truth for the first 60 test images, 15 by 4, and several completions of some of them. Expected: the
regressor averages, its completions are blurred; the CVAE draws one of the digits that fit, at a
better likelihood. About an hour on two CPU cores.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments import cli, runner
from experiments.cli.presets import resolve
from experiments.figures.context import pictures
from experiments.runner.job import Job, assemble
from experiments.runner.run_directory import RunDirectory
from vae_jax import data, evaluation, files, plots, runs
from vae_jax.data import batches, fixed_draws
from vae_jax.evaluation.per_example import mean
from vae_jax.settings import UserError, setting, validate
from vae_jax.types import Batch

COLUMNS, SHOWN = 15, 60  # of the sheets, as in the original


@dataclasses.dataclass(frozen=True)
class InpaintingConfig:
    """What is drawn."""

    completions: int = setting(8, "completions drawn by the CVAE of each digit shown", at_least=1)
    digits: int = setting(10, "test images whose completions are drawn", at_least=1, at_most=100)

    def __post_init__(self) -> None:
        validate(self)


@dataclasses.dataclass(frozen=True)
class Config(cli.Config):
    """The CVAE's settings, and what is drawn."""

    inpainting: InpaintingConfig = InpaintingConfig()

    @classmethod
    def of_flags(cls, preset: str, given: dict[str, Any]) -> "Config":
        """As for a run, of a CVAE."""
        model = given.get("model", "cvae")
        if model != "cvae":
            raise UserError(f"model must be cvae, the regressor comes by itself; got {model}")
        return cli.assemble(cls, resolve(preset, {**given, "model": "cvae"}))


class System(NamedTuple):
    """One of the two, trained."""

    job: Job
    run: runs.Run
    summary: dict[str, Any]


def main(config: Config) -> int:
    directory = Path(config.run.run_dir or "runs/inpainting")
    jobs = systems(config, directory)
    for name, job in jobs.items():
        print(f"\n{name}", flush=True)
        code = runner.perform(job)
        if code:
            return code
    trained = {name: finished(job) for name, job in jobs.items()}
    numbers = measure(trained)
    described = files.read_json(directory / "cvae" / "config.json")
    steps = next(iter(jobs.values())).length[1]
    commit = described["environment"]["git_commit"]
    files.write_json(directory / "inpainting.json", {"steps": steps, "commit": commit, **numbers})
    for name, figure in figures(trained, config.inpainting):
        plots.save(figure, directory / f"{name}.{config.run.figure_format}")
    print("\n" + table(numbers))
    print(f"written    inpainting.json, sheets and completions in {directory}")
    return 0


def systems(config: Config, directory: Path) -> dict[str, Job]:
    """The two jobs: the same in all but latents."""
    regressor = dataclasses.replace(config.model, latent_dim=0, prior="standard")
    dataset = data.load(config.data)
    jobs = {}
    for name, model in (("cvae", config.model), ("regressor", regressor)):
        run = dataclasses.replace(config.run, run_dir=str(directory / name), resume=True)
        parts = (config.data, model, config.objective, config.training, run)
        jobs[name] = assemble(cli.Config(*parts), dataset)
    return jobs


def finished(job: Job) -> System:
    directory = RunDirectory.of(job.config, job.dataset)
    return System(job, directory.load(job.vae, job.condition), directory.summary or {})


def measure(trained: dict[str, System]) -> dict[str, Any]:
    """log p(y|x) in nats per image, and sharpness, over the whole test set."""
    rows = {}
    for name, system in trained.items():
        job, run = system.job, system.run
        key = jax.random.key(job.config.data.data_seed)
        binary = job.held_out(drawn(job))
        samples = job.config.run.nll_samples if job.config.model.latent_dim else 1
        estimate = evaluation.log_likelihood(run.vae, run.params, binary, key, samples)
        nll = evaluation.nll(estimate)
        test = job.held_out(job.dataset.test)
        rows[name] = {
            "log_p": -nll["nll"],
            "log_p_se": nll["nll_se"],
            "nll_samples": samples,
            "log_p_as_trained": -system.summary["nll"],
            **sharpness(run, completions(system, test), test.condition),
        }
    truth = trained["cvae"]
    test = truth.job.held_out(truth.job.dataset.test)
    images = batches.unit_interval(test.x)
    return {**rows, "truth": sharpness(truth.run, images, test.condition)}


def drawn(job: Job) -> Any:
    """The test images as 0 and 1, drawn once: log p of grey values is no probability's."""
    test = job.dataset.test
    return test._replace(x=fixed_draws.draw_once(test.x, job.config.data.data_seed, "test"))


def completions(system: System, batch: Batch, seed: int = 0) -> np.ndarray:
    """E[y|z,x] with one z from the prior for each image."""
    key = jax.random.key(seed)
    return np.asarray(system.run.sample(key, len(batch.x), batch.condition))


def sharpness(run: runs.Run, x: Any, c: Any) -> dict[str, float]:
    return {
        "entropy": mean_entropy(x),
        "gradient_energy": gradient_energy(np.asarray(run.merge(x, c))),
    }


def figures(trained: dict[str, System], settings: InpaintingConfig) -> Any:
    """Pairs of a name and a figure."""
    cvae, regressor = trained["cvae"], trained["regressor"]
    test = cvae.job.held_out(cvae.job.dataset.test)
    x, c = (a[:SHOWN] for a in test)
    truth = pictures(cvae.run, batches.unit_interval(x), c)
    guesses = {name: pictures(s.run, completions(s, Batch(x, c)), c) for name, s in trained.items()}
    sheets = {"CVAE": guesses["cvae"], "regressor": guesses["regressor"], "ground truth": truth}
    yield "sheets", plots.sheets(sheets, COLUMNS)
    x, c = x[: settings.digits], c[: settings.digits]
    several = [
        pictures(cvae.run, completions(cvae, Batch(x, c), seed), c)
        for seed in range(settings.completions)
    ]
    columns = {
        "truth": truth[: settings.digits],
        "regressor": pictures(regressor.run, completions(regressor, Batch(x, c)), c),
        "CVAE": np.stack(several, axis=1).reshape(-1, *truth.shape[1:]),
    }
    yield "completions", plots.columns(columns, settings.digits)


def table(numbers: dict[str, Any]) -> str:
    """The numbers for a terminal and a README."""
    lines = [
        "| | log p(y\\|x), nats | bits | of grey values | entropy, nats/pixel | gradient energy |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in numbers.items():
        log_p = f"{row['log_p']:.2f}{runner.plus_minus(row['log_p_se'])}" if "log_p" in row else ""
        bits = f"{row['log_p'] / math.log(2):.2f}" if log_p else ""
        grey = f"{row['log_p_as_trained']:.2f}" if log_p else ""
        sharp = f"{row['entropy']:.4f} | {row['gradient_energy']:.2f}"
        lines.append(f"| {name} | {log_p} | {bits} | {grey} | {sharp} |")
    return "\n".join(lines)


def mean_entropy(means: Any) -> float:
    """Mean entropy of Bernoulli pixels with these means, in nats per pixel: 0 for black and white,
    log 2 for grey. What a model is unsure of it draws grey.
    """
    entropy = jax.vmap(lambda p: jnp.sum(jax.scipy.special.entr(jnp.stack([p, 1 - p]))))
    return mean(entropy(jnp.ravel(jnp.asarray(means))))


def gradient_energy(images: Float[np.ndarray, "n h w c"]) -> float:
    """Σ of squared differences of neighbouring pixels, across and down; the mean over images."""
    x = np.asarray(images, np.float64)
    across, down = np.diff(x, axis=2), np.diff(x, axis=1)
    return float((np.sum(across**2) + np.sum(down**2)) / len(x))


if __name__ == "__main__":
    cli.main("experiments.inpainting", main, Config, preset="doersch")
