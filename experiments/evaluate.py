"""How good is a trained model? Its numbers on a whole data set, in nats per image.

    python -m experiments.evaluate runs/mnist-z2-1a2b3c4d --nll_samples=5000

Reads a run directory, leaves RUN_DIR/evaluation-SPLIT.json and a table. Importance-weighted NLL
with 5,000 samples of 10,000 images of 28×28 and a 500-unit decoder takes about half an hour on two
CPU cores; --images=1000 a tenth of it.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments import cli
from experiments.runner.report import rates
from vae_jax import data, evaluation, files, models, runs
from vae_jax.data.batches import binarise, held_out
from vae_jax.data.dataset import noun
from vae_jax.evaluation import annealing, disentanglement
from vae_jax.models import domains
from vae_jax.parallel import devices
from vae_jax.settings import UserError, setting, validate
from vae_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated, and how."""

    run_dir: str = setting("", "the run directory")
    checkpoint: str = setting("best", "best by validation, or last", choices=("best", "last"))
    split: str = setting("test", "which images", choices=("test", "train", "valid"))
    images: int = setting(0, "only the first so many; 0 is all", unit="images", at_least=0)
    data_dir: str = setting(
        "", "where the data set is now, its folder or file; empty: where the training found it"
    )
    nll_samples: int = setting(
        5000, "importance samples an image for the NLL", unit="samples", at_least=1
    )
    key_seed: int = setting(0, "seed of the samples of z", at_least=0, below=2**32)
    save: str = setting("", "an .npz file for log p and effective sample size of every image")
    z_at_once: int = setting(
        5000, "z that evaluation draws at a time, on each device; fewer take less memory",
        at_least=1,
    )  # fmt: skip
    save_weights: bool = setting(False, "all log-weights too: images × nll_samples numbers")
    ais_images: int = setting(
        0, "annealed importance sampling on the first so many; 0 is off", unit="images", at_least=0
    )
    ais_temperatures: int = setting(200, "temperatures, 10 leapfrog steps at each", at_least=2)
    ais_chains: int = setting(8, "chains an image", at_least=1)
    trust: str = setting(
        "", "modules whose code a run of parts from outside may run, joined by commas"
    )
    factors: str = setting(
        "",
        "MIG, DCI and FactorVAE score; own: by the data set's factors, or an .npy file of whole "
        "numbers [images, factors]; empty: own, where it has any",
    )

    def __post_init__(self) -> None:
        validate(self)
        if not self.run_dir:
            raise UserError("give one RUN_DIR; got none")
        if Path(self.run_dir).is_file():  # a pack holds neither images nor where they are
            raise UserError(f"run_dir must be a run directory, not a file; got {self.run_dir!r}")
        if self.save_weights and not self.save:
            raise UserError("save_weights needs a file, such as --save=weights.npz")
        if self.save and Path(self.save).suffix != ".npz":
            raise UserError(f"save must end in .npz; got {self.save!r}")
        place = Path(self.save).absolute()
        if self.save and (place.is_dir() or not place.parent.is_dir()):
            raise UserError(f"save must be a file in a folder that exists; got {self.save!r}")


@dataclasses.dataclass(frozen=True)
class Config:
    evaluation: EvaluationConfig


def main(config: Config) -> int:
    with devices.everywhere():
        return perform(config.evaluation)


def perform(settings: EvaluationConfig) -> int:
    run = runs.load(settings.run_dir, settings.checkpoint, settings.trust.split(","))
    if settings.ais_images and not _has_latents(run):
        raise UserError("ais_images needs latents, and this run has none: leave it out")
    batch, own = load_split(run, settings)
    factors = load_factors(run, settings, own, len(batch.x))
    run = dataclasses.replace(run, params=devices.put(run.params))
    key = jax.random.key(settings.key_seed)
    measured = measure(run, batch, settings, key)
    more, note = evaluation.aggregate(run.vae, run.params, batch, key)
    numbers = {**measured.numbers, **more}
    numbers["notes"] = [*numbers["notes"], *filter(None, [note])]
    if settings.ais_images:
        numbers |= annealed(run, batch, settings, key)
    if factors is not None:
        numbers |= scores(measured.means, factors)
    for note in numbers["notes"]:
        print(f"note       {note}")
    result = {"split": settings.split, "images": len(batch.x), "checkpoint": run.meta, **numbers}
    where = Path(settings.run_dir) / f"evaluation-{settings.split}.json"
    files.write_json(where, {"settings": dataclasses.asdict(settings), **result})
    if settings.save:
        save(Path(settings.save), measured.likelihoods)
    print(table(result, noun(run.x_shape)))
    print(f"written    {where}{settings.save and ', ' + settings.save}")
    return 0


def _has_latents(run: runs.Run) -> bool:
    shapes = models.latents(run.vae, run.condition.x_shape, run.condition.c_shape)
    return any(leaf.size for leaf in jax.tree.leaves(shapes))


def load_split(run: runs.Run, settings: EvaluationConfig) -> tuple[Batch, np.ndarray]:
    """Some of the images that the run was made with, and the factors known of them."""
    dataset = run.data(settings.data_dir)
    split = getattr(dataset, settings.split)
    some = data.select(split, np.arange(len(split.x))[: settings.images or None])
    if len(some.x) == 0:
        raise UserError(f"split must be one with images; {settings.split} has none in this run")
    key = jax.random.key(settings.key_seed)
    if settings.split == "train" and dataset.binarisation == "dynamic":  # one draw for each image
        x = np.asarray(binarise("dynamic", key, jnp.asarray(some.x)))
        some = some._replace(x=(255 * x).astype(np.uint8))
    data_seed = run.config["settings"]["data"]["data_seed"]
    return held_out(run.condition, jax.random.key(data_seed), some), some.factors


def load_factors(
    run: runs.Run, settings: EvaluationConfig, own: np.ndarray, num_images: int
) -> np.ndarray | None:
    """The factors to score by, or None; of the data set's own, those that vary in these images."""
    wanted = settings.factors
    if not _has_latents(run):
        if wanted:
            raise UserError("factors scores the latents, and this run has none: leave it out")
        return None
    if wanted in ("", "own"):
        varying = own[:, own.min(axis=0) < own.max(axis=0)] if own.size else own
        if wanted and not varying.size:
            name = run.config["dataset"]["name"]
            raise UserError(
                f"factors own needs images of known, varying factors, such as those of sprites; "
                f"{name} has none: give them as an .npy file"
            )
        return varying if varying.size else None
    try:
        factors = np.load(wanted)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"factors {wanted} cannot be read as .npy: {error}") from None
    return disentanglement.check_factors(factors, num_images)


def measure(
    run: runs.Run, batch: Batch, settings: EvaluationConfig, key: Any
) -> evaluation.Summary:
    """What a run's summary has, and the effective sample sizes."""
    likelihood = run.config["settings"]["model"]["likelihood"]
    with progress(batch, "NLL") as bar:
        measured = evaluation.summary(
            run.vae, run.params, batch, key, num_samples=settings.nll_samples,
            at_once=settings.z_at_once,
            probability=domains.is_probability(likelihood, batch.x),
            report=bar.update, keep_weights=settings.save_weights,
        )  # fmt: skip
    least, median = np.quantile(measured.likelihoods.ess, (0.0, 0.5)).tolist()
    numbers = {**measured.numbers, "ess_min": least, "ess_median": median}
    return measured._replace(numbers=numbers)


def annealed(run: runs.Run, batch: Batch, settings: EvaluationConfig, key: Any) -> dict[str, Any]:
    """NLL by AIS, and the gap between the two bounds on images that the model drew."""
    some = jax.tree.map(lambda a: a[: settings.ais_images], batch)
    size = (settings.ais_temperatures, settings.ais_chains)

    def estimate(f: Any, name: str) -> Any:
        with progress(some, name) as bar:
            return evaluation.per_example(f, run.vae, run.params, key, some, 20, bar.update)

    ais = estimate(annealing.ais(*size), "AIS")
    bounds = estimate(annealing.bidirectional(*size), "AIS, both ways")
    log_p = np.logaddexp.reduce(ais.log_w.astype(np.float64), axis=1) - np.log(size[1])
    gap = np.subtract(bounds.upper, bounds.lower, dtype=np.float64)
    return {
        "ais_nll": float(-np.mean(log_p)),
        "ais_nll_se": evaluation.standard_error(log_p),
        "ais_images": len(log_p),
        "ais_acceptance": evaluation.mean(ais.acceptance),
        "ais_gap": evaluation.mean(gap),
        "ais_gap_se": evaluation.standard_error(gap),
    }


def scores(codes: np.ndarray, factors: np.ndarray) -> dict[str, float]:
    return {
        "mig": disentanglement.mig(codes, factors),
        **disentanglement.dci(codes, factors)._asdict(),
        "factor_vae_score": disentanglement.factor_vae_score(codes, factors),
    }


def progress(batch: Batch, name: str) -> tqdm:
    return tqdm(total=len(batch.x), desc=name, unit=" images", disable=None)


def save(path: Path, estimate: evaluation.LogLikelihood) -> None:
    arrays = {"log_p": estimate.log_p, "ess": estimate.ess}
    if estimate.log_w.shape[1]:
        arrays["log_w"] = estimate.log_w
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def table(result: dict[str, Any], example: str = "image") -> str:
    """The numbers for a terminal, each with its standard error where it has one."""
    lines = [f"{result['split']:<11}{result['images']:,} {example}s, nats per {example}"]
    kl = result["kl_per_unit"]
    for name, value in result.items():
        if isinstance(value, float) and not name.endswith("_se"):
            error = result.get(f"{name}_se")
            note = "" if error is None else f" ± {error:.3f}"
            if name == "mutual_information" and result["at_ceiling"]:
                note += f"  (within 1 nat of its ceiling, log N = {result['ceiling']:.2f})"
            lines.append(f"  {name:<20}{value:>10.3f}{note}")
    lines.append(f"  {'active_units':<20}{result['active_units']:>6} of {result['latent_dim']}")
    lines += rates(result)
    if kl:
        most = ", ".join(f"{v:.2f}" for v in sorted(kl, reverse=True)[:8])
        lines.append(f"  {'kl_per_unit':<20}{most}{', …' if len(kl) > 8 else ''}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.main("experiments.evaluate", main, Config, "run_dir")
