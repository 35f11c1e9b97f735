"""How many latents does a VAE need, and how many does it use?

    python -m experiments.latent_dim --latent_dims=1,2,5,10,20,50 --seeds=3

Trains a VAE for each latent dimension and seed; see `sweep` for how. Expected: ELBO and NLL improve
with the dimension until units stay inactive; from there on more of them change nothing (on MNIST
with 784-500-z, from some twenty on).

With --betas or --learning_rates the lists are crossed. Eighteen members of 30 epochs of MNIST take
as long as eighteen runs on two CPU cores, an hour and a half.
"""

import dataclasses
from functools import partial

from experiments import cli
from experiments.sweep import train
from experiments.sweep.members import SweepConfig, SweepSettings, listed

PROGRAM = "experiments.latent_dim"


@dataclasses.dataclass(frozen=True)
class Lists(SweepSettings):
    latent_dims: str = listed("latent_dim", int, "1,2,5,10,20,50")


@dataclasses.dataclass(frozen=True)
class Config(SweepConfig):
    sweep: Lists = Lists()


main = partial(train.main, PROGRAM)

if __name__ == "__main__":
    cli.main(PROGRAM, main, Config)
