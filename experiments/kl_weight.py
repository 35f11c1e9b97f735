"""What does the KL weight β make of rate and distortion?

    python -m experiments.kl_weight --latent_dim=20 --betas=0.25,0.5,1,2,4 --seeds=4

Trains a β-VAE (Higgins et al. 2017) for each β and seed; see `sweep` for how. Expected: the points
(distortion, rate) of rising β run down a convex curve, on which β is minus the slope's inverse,
dR/dD = −1/β (Alemi et al. 2018): a lower rate is paid for in distortion. The ELBO is best at
β = 1, and units switch off as β rises.

With --latent_dims or --learning_rates the lists are crossed. Twenty members of 30 epochs of MNIST
take as long as twenty runs on two CPU cores, one and a half hours.
"""

import dataclasses
from functools import partial

from experiments import cli
from experiments.sweep import train
from experiments.sweep.members import SweepConfig, SweepSettings, listed

PROGRAM = "experiments.kl_weight"


@dataclasses.dataclass(frozen=True)
class Lists(SweepSettings):
    betas: str = listed("beta", float, "0.25,0.5,1,2,4")


@dataclasses.dataclass(frozen=True)
class Config(SweepConfig):
    sweep: Lists = Lists()
    question = "betas"


main = partial(train.main, PROGRAM)

if __name__ == "__main__":
    cli.main(PROGRAM, main, Config)
