"""From a VAE, an objective and data to trained weights."""

from vae_jax.training.fit import Prepare, Progress, fit, make_run, make_step, make_steps
from vae_jax.training.state import (
    Keys,
    TrainConfig,
    TrainState,
    init_state,
    initial_state,
    keys_from_seed,
    length,
    make_optimiser,
)

__all__ = [
    "Keys",
    "Prepare",
    "Progress",
    "TrainConfig",
    "TrainState",
    "fit",
    "init_state",
    "initial_state",
    "keys_from_seed",
    "length",
    "make_optimiser",
    "make_run",
    "make_step",
    "make_steps",
]
