"""How fast do sixteen members of a sweep train: all at once, or one after the other?

    python -m experiments.benchmark.sweeps --latent_dim=20

The same members and the same steps in one process, in alternating rounds, on random images of
MNIST's shape; what is compiled is not timed. `sweep.VECTORIZED` is chosen from it. Every flag of
`experiments.run` that shapes the step works. Half a minute on two CPU cores.
"""

import dataclasses
import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments import cli
from experiments.benchmark.timing import BenchmarkConfig
from vae_jax import models, objectives
from vae_jax.data import conditions
from vae_jax.data.batches import Rows, preparer
from vae_jax.training import sweeps

SHAPE = (28, 28, 1)
STEPS, MOST_ROUNDS = 20, 5


def main(config: BenchmarkConfig) -> None:
    count, most = config.timing.members, rounds(config)
    at_once, in_turn = all_at_once(config), one_after_the_other(config)
    times = [(seconds(at_once, 1), seconds(in_turn, count)) for _ in range(1 + most)][1:]
    images = count * STEPS * config.training.batch_size
    print(f"{f'{count} members, {config.model.network}':<20}{'ms a step of each':>20}"
          f"{'images/s':>12}")  # fmt: skip
    for name, some in zip(
        ("all at once", "one after the other"), zip(*times, strict=True), strict=True
    ):
        middle = statistics.median(some)
        print(f"{name:<20}{1e3 * middle / count / STEPS:>20.2f}{images / middle:>12,.0f}")
    ratio = statistics.median(b / a for a, b in times)
    print(f"{'at once':<20}{ratio:>20.2f} times as fast")


def rounds(config: BenchmarkConfig) -> int:
    return min(MOST_ROUNDS, config.timing.rounds)


def seconds(training: Iterator[Any], chunks: int) -> float:
    started = time.perf_counter()
    for _ in range(chunks):
        jax.block_until_ready([progress.state for progress in next(training).values()])
    return time.perf_counter() - started


def all_at_once(config: BenchmarkConfig) -> Iterator[Any]:
    """Each chunk is STEPS steps of every member."""
    program, members = make(config, STEPS * (1 + rounds(config)))
    return sweeps.fit(program, images(config), members, [None] * len(members), chunk=STEPS)


def one_after_the_other(config: BenchmarkConfig) -> Iterator[Any]:
    """Each chunk is STEPS steps of one member, from its start; as many chunks as in all rounds."""
    program, members = make(config, STEPS)
    again = members * (1 + rounds(config))
    return sweeps.fit_in_turn(program, images(config), again, [None] * len(again), chunk=STEPS)


def make(config: BenchmarkConfig, steps: int) -> tuple[sweeps.Program, list[sweeps.Member]]:
    """What the members share, and the members, which differ in their seed."""
    m, training = config.model, dataclasses.replace(config.training, steps=steps)
    vae = models.build(m, SHAPE)
    program = sweeps.Program(
        lambda latent_dim: vae,
        objectives.build(config.objective, vae, SHAPE, STEPS * training.batch_size),
        partial(objectives.kl_weights, config.objective),
        training,
        preparer(config.data.binarisation, conditions.none(SHAPE)),
    )
    own = (m.latent_dim, config.objective.beta, training.learning_rate)
    return program, [sweeps.Member(*own, seed) for seed in range(config.timing.members)]


def images(config: BenchmarkConfig) -> Rows:
    """Random ones, an epoch of STEPS steps."""
    n = STEPS * config.training.batch_size
    x = np.random.default_rng(0).integers(0, 256, (n, int(np.prod(SHAPE))), dtype=np.uint8)
    return Rows(x, np.zeros(n, np.int32))


if __name__ == "__main__":
    cli.main("experiments.benchmark.sweeps", main, BenchmarkConfig)
