"""One file of a run, to carry to a notebook or to send to someone.

    python -m experiments.pack runs/mnist-z2-1a2b3c4d --out=mnist.vae

Config, evaluated weights, summary, metrics and figures (those that are PNG files), in plain formats
without code: see `vae_jax.packs`. `vae_jax.load("mnist.vae")` opens it.
"""

import dataclasses
from pathlib import Path

from experiments import cli
from vae_jax import runs
from vae_jax.runs import packs
from vae_jax.settings import UserError, setting, validate


@dataclasses.dataclass(frozen=True)
class PackConfig:
    """What is packed, and where to."""

    run_dir: str = setting("", "the run directory")
    out: str = setting("", "the file to write; empty: the directory's name and .vae, beside it")

    def __post_init__(self) -> None:
        validate(self)
        if not Path(self.run_dir).is_dir():
            raise UserError(f"run_dir must be a run directory; got {self.run_dir!r}")


@dataclasses.dataclass(frozen=True)
class Config:
    pack: PackConfig


def main(config: Config) -> int:
    directory = Path(config.pack.run_dir)
    beside = directory if directory.name else directory.resolve()
    out = Path(config.pack.out or f"{beside}.vae")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UserError(f"out must be a file in a folder that exists; got {config.pack.out!r}")
    run = runs.load(directory)
    drawn = sorted((directory / "figures").glob("*.png"))
    figures = {p.stem: p.read_bytes() for p in drawn if packs.is_figure(p.name)}
    packs.write(
        out, packs.Pack(run.config, run.meta, run.summary, run.history), run.params, figures
    )
    runs.load(out)  # as whoever gets it will
    finished = "" if run.summary else "; the run is not finished"
    print(
        f"packed     {out}, {out.stat().st_size / 2**20:.1f} MiB, {len(figures)} figures{finished}"
    )
    return 0


if __name__ == "__main__":
    cli.main("experiments.pack", main, Config, "run_dir")
