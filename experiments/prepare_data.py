"""Fetches and prepares a data set before it is needed.

python -m experiments.prepare_data mnist --data_dir=data
"""

import dataclasses
from pathlib import Path

from experiments import cli
from vae_jax.data import DataConfig, load, noun, sources
from vae_jax.settings import UserError, setting, validate


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Which data set, and where to."""

    name: str = setting("", f"{', '.join(sources.NAMES)}, FILE.npz or tfds:NAME")
    data_dir: str = setting("", "where to; made where it is not there")

    def __post_init__(self) -> None:
        validate(self)
        if self.name == "auto":
            raise UserError("name must be one data set; got 'auto'")
        DataConfig(self.name)


@dataclasses.dataclass(frozen=True)
class Config:
    prepare: PrepareConfig


def main(config: Config) -> int:
    settings = config.prepare
    if settings.data_dir:
        _make(Path(settings.data_dir).expanduser())
    dataset = load(DataConfig(settings.name, settings.data_dir, binarisation="none"))
    sizes = [f"{len(getattr(dataset, s).x):,} {s}" for s in ("train", "valid", "test")]
    shape = "×".join(map(str, dataset.x_shape))
    print(f"{dataset.name}, {shape}: {', '.join(sizes)} {noun(dataset.x_shape)}s; {dataset.source}")
    return 0


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data_dir {folder} cannot be made: {error.strerror}") from None


if __name__ == "__main__":
    cli.main("experiments.prepare_data", main, Config, "name")
