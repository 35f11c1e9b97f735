"""Another prior for a trained model, fitted to its aggregate posterior.

    python -m experiments.fit_prior runs/mnist-z2-1a2b3c4d --prior=vamp --pseudo_inputs=100

Encoder and decoder stay as they are, to the last bit; the prior alone maximises the ELBO, and takes
from the rate what it can of KL(q(z)‖p(z)), which the old one left there (Hoffman & Johnson 2016).
Leaves a run directory like any other, and in it prior.json: the test set's numbers before and
after. The figure `priors` shows samples of both.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import cli
from experiments.cli.config import Config as RunConfig
from experiments.cli.config import assemble as configuration
from experiments.figures.context import Scene, pictures
from experiments.runner.job import Job, assemble
from experiments.runner.run import perform
from vae_jax import evaluation, files, plots, runs
from vae_jax.models.priors import PRIORS
from vae_jax.models.scales import Bounded
from vae_jax.parallel import devices, processes
from vae_jax.settings import (
    UserError,
    choice,
    entry_of,
    setting,
    settings_of,
    validate,
    with_entries,
)

SHARED = {field.name for field in settings_of(Bounded)}  # with the posterior, which stays
SHOWN = ("elbo", "rate", "distortion", "nll", "mutual_information", "marginal_kl")


@dataclasses.dataclass(frozen=True)
@with_entries
class FitPriorConfig:
    """Which prior, and how it is fitted."""

    run_dir: str = setting("", "the run directory whose prior is replaced")
    prior: str = choice("mixture", PRIORS, "family of p(z|c)")
    to: str = setting("", "run directory to write; empty: RUN_DIR-PRIOR")
    resume: bool = setting(False, "go on from the last checkpoint there, if any")
    data_dir: str = setting(
        "", "where the data set is now, its folder or file; empty: where the training found it"
    )
    batch_size: int = setting(128, "images per step", at_least=1)
    epochs: int = setting(10, "passes over the training images", at_least=1)
    learning_rate: float = setting(1e-3, "peak learning rate", above=0, at_most=1e3)
    seed: int = setting(
        0, "seed of initial weights, order of images and noise", at_least=0, below=2**32
    )
    nll_samples: int = setting(
        500, "importance samples an image for the test NLL", unit="samples", at_least=1
    )
    trust: str = setting(
        "", "modules whose code a run of parts from outside may run, joined by commas"
    )

    def __post_init__(self) -> None:
        validate(self)
        if not Path(self.run_dir).is_dir():
            raise UserError(f"run_dir must be a run directory; got {self.run_dir!r}")


@dataclasses.dataclass(frozen=True)
class Config:
    fit: FitPriorConfig


def main(config: Config) -> int:
    old = runs.load(config.fit.run_dir, trust=config.fit.trust.split(","))
    job = assemble(fitting(config.fit, old), old.data(config.fit.data_dir))
    code = perform(job)
    if code == 0 and processes.first():
        compare(job, old, config.fit)
    return code


def fitting(settings: FitPriorConfig, old: runs.Run) -> RunConfig:
    """The configuration of the run that fits the prior of another one."""
    given = old.config["settings"]
    kept, own = _own(given["model"]["prior"]), _own(settings.prior)
    model = {name: value for name, value in given["model"].items() if name not in kept - SHARED}
    wanted = {f.name: getattr(settings, f.name) for f in settings_of(type(settings))}
    for name in sorted(own & SHARED):
        default = type(settings).__dataclass_fields__[name].default
        if wanted[name] not in (default, model[name]):
            raise UserError(f"{name} is the trained model's, {model[name]}; got {wanted[name]}")
    prior = {name: wanted[name] for name in own - SHARED}
    training = {n: wanted[n] for n in ("batch_size", "epochs", "learning_rate", "seed")}
    directory = str(Path(settings.run_dir))
    return configuration(RunConfig, {
        **given["data"], **model, **prior, **training,
        "data_dir": settings.data_dir or given["data"]["data_dir"],
        "prior": settings.prior, "objective": "prior_alone", "start_from": directory,
        "run_dir": settings.to or f"{directory}-{settings.prior.rpartition(':')[2]}",
        "resume": settings.resume, "nll_samples": settings.nll_samples,
    })  # fmt: skip


def _own(prior: str) -> set[str]:
    """The settings of a prior's entry."""
    entry = entry_of(FitPriorConfig.__dataclass_fields__["prior"], prior)
    return {f.name for f in settings_of(entry)} if isinstance(entry, type) else set()


def compare(job: Job, old: runs.Run, settings: FitPriorConfig) -> None:
    """Writes and prints the test set's numbers before and after, and draws samples of both."""
    directory = Path(job.config.run.run_dir)
    new = runs.load(directory, trust=runs.modules_named(job.config.settings))
    with devices.everywhere():
        test, key = job.held_out(job.dataset.test), jax.random.key(job.config.data.data_seed)
        count = job.config.run.nll_samples
        before = evaluation.summary(old.vae, old.params, test, key, num_samples=count).numbers
        both = {"before": (old, before), "after": (new, new.summary)}
        numbers = {
            name: shown(summary, *evaluation.aggregate(run.vae, run.params, test, key))
            for name, (run, summary) in both.items()
        }
    described = {"from": str(settings.run_dir), "prior": settings.prior}
    files.write_json(directory / "prior.json", {**described, **numbers})
    plots.save(samples(job, {"before": old, "after": new}), directory / "figures" / "priors.png")
    print(table(numbers))
    print(f"written    {directory / 'prior.json'}, {directory / 'figures' / 'priors.png'}")


def shown(summary: dict[str, Any], aggregate: dict[str, Any], note: str | None) -> dict[str, Any]:
    """What is compared, of a run's summary and of its aggregate posterior."""
    known = {**summary, **aggregate}
    return {n: v for n, v in known.items() if n.removesuffix("_se") in SHOWN} | {
        "notes": [*summary.get("notes", []), *filter(None, [note])]
    }


def samples(job: Job, both: dict[str, runs.Run]) -> Any:
    """Sheets of samples with the same key side by side."""
    sheets = {}
    for name, run in both.items():
        scene = Scene(run, lambda: job.dataset, seed=job.config.data.data_seed)
        c = scene.given_samples()
        sheets[f"{name}: {run.config['settings']['model']['prior']} prior"] = pictures(
            run, np.asarray(run.sample(scene.key, len(c), c)), c
        )
    return plots.sheets(sheets, 10)


def table(numbers: dict[str, dict[str, Any]]) -> str:
    """A line for each number, before and after, with its standard error where it has one."""
    lines = [f"{'test set, nats':<20}{'before':>18}{'after':>18}"]
    for name in SHOWN:
        if all(name in side for side in numbers.values()):
            cells = [f"{s[name]:.2f}{_error(s.get(f'{name}_se'))}" for s in numbers.values()]
            lines.append(f"{name.replace('_', ' '):<20}{cells[0]:>18}{cells[1]:>18}")
    return "\n".join(lines)


def _error(error: float | None) -> str:
    return "" if error is None else f" ± {error:.2f}"


if __name__ == "__main__":
    cli.main("experiments.fit_prior", main, Config, "run_dir")
