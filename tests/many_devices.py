"""Run by test_devices on eight simulated devices: the same on one of them and on all.

python many_devices.py NAME …      prints a line of JSON
"""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli
from experiments.runner.job import Job, assemble
from vae_jax import training
from vae_jax.objectives.config import kl_weights
from vae_jax.parallel import devices

FLAGS = ["--dataset=digits", "--widths=8", "--latent_dim=2", "--steps=12", "--ema=0.9"]
ROW = 64 + 4  # bytes of an image and its label


def trained(job: Job, limit: float | None = None) -> training.TrainState:
    *_, last = training.fit(
        job.vae, job.objective, job.rows, job.config.training,
        prepare=job.prepare, weights=kl_weights(job.config.objective), chunk=7, limit=limit,
    )  # fmt: skip
    return last.state


def distance(a, b) -> float:
    """The largest difference, as a part of the largest value."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    scale = max(float(np.max(np.abs(x))) for x in jax.tree.leaves(a.params))
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)))) for x, y in pairs) / scale


def training_agrees(*flags: str) -> dict:
    job = assemble(cli.parse([*FLAGS, *flags]))
    one = trained(job)
    with devices.everywhere():
        kept = trained(job)
        streamed = trained(job, limit=2 * 5 * job.config.training.batch_size * ROW + 1)
    leaf = jax.tree.leaves(kept.params)[0]
    return {
        "kept": distance(one, kept),
        "streamed": distance(one, streamed),
        "whole": leaf.sharding.is_fully_replicated,
        "devices": len(leaf.sharding.device_set),
    }


def collectives() -> dict:
    """What the devices tell each other in a step: its gradient and its metrics, summed up."""
    job = assemble(cli.parse(FLAGS))
    optimiser = training.make_optimiser(job.config.training, 12)
    weights = kl_weights(job.config.objective)
    step = training.make_step(job.vae, job.objective, optimiser, weights, ema=0.9)
    run = training.make_run(step, job.prepare)
    with devices.everywhere():
        state = devices.put(training.initial_state(job.vae, job.config.training, 1000))
        order = jnp.zeros((3, 128), jnp.int32)
        inputs = (state, jax.random.key(0), devices.put(job.rows), order, 0, 3)
        text = run.lower(*inputs).compile().as_text()
    kinds = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
    return {kind: len(re.findall(rf"\b{kind}(?:-start)?\(", text)) for kind in kinds}


if __name__ == "__main__":
    what = {"training": training_agrees, "collectives": collectives}
    print(json.dumps(what[sys.argv[1]](*sys.argv[2:])))
