"""Any figure of a run, drawn anew without training.

    python -m experiments.plot runs/mnist-z2-1a2b3c4d --figures=manifold --manifold_grid=linspace

Takes a run directory, or a pack that `experiments.pack` made. Images are read only where a figure
needs them. `--figures=animation` is the manifold through training, where `experiments.run` was
given --keep_checkpoints.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

from experiments import cli
from experiments.cli.config import numbers
from experiments.figures.catalogue import FIGURES, manifold
from experiments.figures.context import Scene
from vae_jax import data, plots, runs
from vae_jax.runs import checkpoints
from vae_jax.settings import UserError, setting, validate

ANIMATION = "animation"


def listed(text: str, kind: Callable[[str], Any] = str) -> tuple[Any, ...]:
    """The values that commas separate; none in an empty text."""
    return tuple(kind(part) for part in text.split(",") if text)


def counted(start: int) -> Callable[[str], tuple[int, ...]]:
    """A parser of whole numbers from `start` on, each once."""

    def parse(text: str) -> tuple[int, ...]:
        values = listed(text, int) if text.replace(",", "").isdigit() or not text else (start - 1,)
        if min(values, default=start) < start or len(set(values)) < len(values):
            raise ValueError(f"different whole numbers ≥ {start}, joined by commas")
        return values

    return parse


def known(text: str) -> tuple[str, ...]:
    """Raises ValueError where a name is no figure's."""
    if not set(listed(text)) <= {*FIGURES, ANIMATION}:
        raise ValueError(f"some of {', '.join([*FIGURES, ANIMATION])}, joined by commas")
    return listed(text)


def warm(text: str) -> tuple[float, ...]:
    """Raises ValueError where a number is no temperature."""
    try:
        values = listed(text, float)
    except ValueError:
        values = ()
    if not values or not all(0 <= value <= 100 for value in values):
        raise ValueError("numbers from 0 to 100, joined by commas")
    return values


@dataclasses.dataclass(frozen=True)
class PlotConfig:
    """What is drawn, and how."""

    run: str = setting("", "a run directory, or a pack")
    figures: str = setting(
        "", f"{', '.join([*FIGURES, ANIMATION])}, joined by commas; empty: all but the last that "
        "the latents allow", parse=known,
    )  # fmt: skip
    out: str = setting(
        "", "folder for them; empty: figures/ in the run directory, or beside a pack"
    )
    figure_format: str = setting("png", "of the files", choices=("png", "pdf", "svg"))
    manifold_grid: str = setting(
        "run", "frame of the latents: quantiles of N(0,1), linspace, or as the run has it",
        choices=("run", *plots.KINDS),
    )  # fmt: skip
    n: int = setting(20, "tiles along a side of the manifold", at_least=2, at_most=100)
    range: float = setting(3.0, "linspace and traversals go from −range to range", above=0)
    axes: str = setting(
        "", "which latents, z1 is 1, such as 1,5; empty: those whose means vary most",
        parse=counted(1),
    )  # fmt: skip
    digits: str = setting("", "only test images of these labels, by name, such as 3,8")
    images: str = setting(
        "", "which test images, the first is 0: to reconstruct, to interpolate between, to start "
        "traversals from, to show the posterior of; empty: the first, or the most ambiguous",
        parse=counted(0),
    )  # fmt: skip
    decode_at: str = setting("", "the z of `decoded`, such as 1,2", parse=numbers)
    temperatures: str = setting("0,0.25,0.5,0.75,1,1.25", "of the prior", parse=warm)
    seed: int = setting(0, "of what is sampled", at_least=0, below=2**32)
    checkpoint: str = setting("best", "best by validation, or last", choices=("best", "last"))
    data_dir: str = setting(
        "", "where the data set is now, its folder or file; empty: where the training found it"
    )
    trust: str = setting(
        "", "modules whose code a run of parts from outside may run, joined by commas"
    )
    frame_seconds: float = setting(0.25, "of the animation", unit="s", at_least=0.02, at_most=10)

    def __post_init__(self) -> None:
        validate(self)


@dataclasses.dataclass(frozen=True)
class Config:
    plot: PlotConfig


def main(config: Config) -> int:
    settings = config.plot
    run = runs.load(settings.run, settings.checkpoint, settings.trust.split(","))
    scene = look(run, settings)
    check_images(run, settings)
    possible = [name for name, entry in FIGURES.items() if not entry.lacks(scene)]
    chosen = known(settings.figures) or possible
    check(scene, chosen)
    folder = Path(settings.out or place(Path(settings.run)))
    film = frames(scene, settings) if ANIMATION in chosen else []
    drawn = {name: FIGURES[name].draw(scene) for name in chosen if name != ANIMATION}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out {folder} cannot be made: {error.strerror}") from None
    for name, figure in drawn.items():
        plots.save(figure, folder / f"{name}.{settings.figure_format}")
        print(folder / f"{name}.{settings.figure_format}")
    if film:
        plots.animate(film, folder / f"{ANIMATION}.gif", settings.frame_seconds)
        print(folder / f"{ANIMATION}.gif")
    return 0


def place(run: Path) -> Path:
    return run.with_name(f"{run.stem}-figures") if run.is_file() else run / "figures"


def look(run: runs.Run, settings: PlotConfig) -> Scene:
    own = run.config["settings"].get("run", {}).get("manifold_grid", "")
    own = own if own in plots.KINDS else "quantile"
    return Scene(
        run,
        functools.partial(images, run, settings),
        kind=own if settings.manifold_grid == "run" else settings.manifold_grid,
        n=settings.n,
        high=settings.range,
        axes=tuple(axis - 1 for axis in counted(1)(settings.axes)),
        digits=listed(settings.digits),
        images=counted(0)(settings.images),
        seed=settings.seed,
        temperatures=warm(settings.temperatures),
        at=numbers(settings.decode_at),
    )


def check_images(run: runs.Run, settings: PlotConfig) -> None:
    """Raises UserError at once where there are not so many test images."""
    there = run.config["dataset"].get("images")
    count = there.get("test") if isinstance(there, dict) else None
    most = max(counted(0)(settings.images), default=-1)
    if isinstance(count, int) and most >= count:
        raise UserError(f"images must be below {count}, the number of test images; got {most}")


def images(run: runs.Run, settings: PlotConfig) -> data.Dataset:
    """The run's data set; a pack does not say where it is on this machine."""
    if Path(settings.run).is_file():
        config = run.config
        elsewhere = config["settings"]["data"] | {"data_dir": ""}
        config = config | {"settings": config["settings"] | {"data": elsewhere}}
        run = dataclasses.replace(run, config=config)
    try:
        return run.data(settings.data_dir)
    except UserError as error:
        raise UserError(f"the run's images are needed, and cannot be had: {error}") from None


def check(scene: Scene, chosen: Any) -> None:
    """Raises UserError where a figure is not for this run."""
    if max(scene.axes, default=-1) >= scene.latent_dim:
        raise UserError(f"axes must be at most {scene.latent_dim}; got {max(scene.axes) + 1}")
    for name in chosen:
        lacks = FIGURES["manifold" if name == ANIMATION else name].lacks(scene)
        if lacks:
            raise UserError(f"{name} {lacks}")


def frames(scene: Scene, settings: PlotConfig) -> list[Figure]:
    """The manifold as each kept checkpoint decodes it."""
    kept = checkpoints.read_kept(Path(settings.run), scene.run.params)
    if not kept:
        raise UserError(
            f"{settings.run} has kept no checkpoints: train with --keep_checkpoints=1 for them"
        )
    pages = []
    for params, meta in kept:
        run = dataclasses.replace(scene.run, params=jax.tree.map(jax.numpy.asarray, params))
        pages.append(manifold(dataclasses.replace(scene, run=run), f"epoch {meta['epoch']:g}"))
    return pages


if __name__ == "__main__":
    cli.main("experiments.plot", main, Config, "run")
