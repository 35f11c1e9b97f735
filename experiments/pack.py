"""One file of a run, to carry to a notebook or to send to someone.

    python -m experiments.pack runs/mnist-z2-1a2b3c4d --out=mnist.safetensors

Config, evaluated weights, summary and metrics, without code: see `vae_jax.runs.packs`.
`vae_jax.load("mnist.safetensors")` opens it, and so does whatever reads safetensors.
"""

import dataclasses
from pathlib import Path

from experiments import cli
from vae_jax import runs
from vae_jax.runs import packs
from vae_jax.settings import UserError, setting, validate

SUFFIX = ".safetensors"


@dataclasses.dataclass(frozen=True)
class PackConfig:
    """What is packed, and where to."""

    run_dir: str = setting("", "the run directory")
    out: str = setting(
        "", f"the file to write; empty: the directory's name and {SUFFIX}, beside it"
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
    pack: PackConfig


def main(config: Config) -> int:
    directory, trust = Path(config.pack.run_dir), config.pack.trust.split(",")
    out = Path(config.pack.out) if config.pack.out else beside(directory)
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UserError(f"out must be a file in a folder that exists; got {config.pack.out!r}")
    run = runs.load(directory, trust=trust)
    try:
        packs.write(out, packs.Pack(run.config, run.meta, run.summary, run.history), run.params)
    except OSError as error:
        raise UserError(f"out {out} cannot be written: {error.strerror or error}") from None
    runs.load(out, trust=trust)  # as whoever gets it will
    finished = "" if run.summary else "; the run is not finished"
    print(f"packed     {out}, {out.stat().st_size / 2**20:.1f} MiB{finished}")
    return 0


def beside(directory: Path) -> Path:
    """A file of the directory's name next to it, cut to what a file's name may have, 255 bytes."""
    whole = directory if directory.name else directory.resolve()
    name = whole.name.encode()[:200].decode(errors="ignore")
    return whole.with_name(name + SUFFIX)


if __name__ == "__main__":
    cli.main("experiments.pack", main, Config, "run_dir")
