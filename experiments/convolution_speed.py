"""Are convolutions faster as matrix products of patches, or as XLA's own?

    python -m experiments.convolution_speed

Prints milliseconds a training step (28 × 28 × 1, batch 128, latent_dim 2, widths auto), called
step by step and in a loop within one program, and milliseconds an image of test NLL with 50
samples: the least of alternating rounds. `docs/performance.md` has figures to compare with. Two to
five minutes, most of it compiling.
"""

import functools
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import convolutions, data, evaluation, layers, model, objectives, training
from vae_jax.types import unconditional

X_SHAPE, BATCH, STEPS, ROUNDS, IMAGES = (28, 28, 1), 128, 5, 4, 20


def work(network: str) -> dict[str, tuple[Callable[[], Any], int]]:
    """What is timed: a name -> a function to call, and by how many its time is divided."""
    config = training.TrainConfig()
    vae = model.build(model.ModelConfig(network=network), X_SHAPE)
    images = np.random.default_rng(0).integers(0, 256, (1000, 784)).astype(np.uint8)
    test, images = unconditional(images[:IMAGES].reshape(-1, *X_SHAPE)), jnp.asarray(images)
    optimiser = training.make_optimiser(config, STEPS)
    step = training.make_step(vae, objectives.elbo, optimiser, lambda _: objectives.Weights())
    prepare, key = data.preparer("dynamic", X_SHAPE), jax.random.key(0)
    order = data.epoch_order(key, 0, len(images), BATCH)
    state = training.initial_state(vae, config, len(images))
    single = jax.jit(lambda state, rows: step(state, key, prepare(key, images[rows])))
    run = training.make_run(step, prepare)

    def step_by_step() -> Any:
        now = state
        for rows in order[:STEPS]:
            now, _ = single(now, rows)
        return now

    def loop() -> Any:  # on a copy, since the compiled run is given the memory of its state
        return run(jax.tree.map(jnp.copy, state), key, images, order, 0, STEPS)

    def nll() -> Any:
        return evaluation.log_likelihood(vae, state.params, test, key, 50)

    return {"step": (step_by_step, STEPS), "step in a loop": (loop, STEPS), "NLL": (nll, IMAGES)}


def main() -> None:
    best = {}
    timed = {("mlp", ""): work("mlp")}
    for network in ("conv", "resnet"):
        for native in (False, True):
            with mock.patch.multiple(
                layers,
                convolve=functools.partial(convolutions.convolve, native=native),
                convolve_transposed=functools.partial(
                    convolutions.convolve_transposed, native=native
                ),
            ):
                kind = "XLA's convolutions" if native else "patches"
                timed[network, kind] = work(network)
                for function, _ in timed[network, kind].values():
                    jax.block_until_ready(function())  # compiles
    for _ in range(ROUNDS + 1):
        for (network, kind), functions in timed.items():
            for name, (function, number) in functions.items():
                start = time.perf_counter()
                jax.block_until_ready(function())
                took = 1e3 * (time.perf_counter() - start) / number
                best[network, kind, name] = min(best.get((network, kind, name), took), took)
    for row, took in best.items():
        print(f"{row[0]:<8}{row[1]:<20}{row[2]:<16}{took:9.2f} ms", flush=True)


if __name__ == "__main__":
    main()
