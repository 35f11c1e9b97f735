"""How fast is a training step, and what could no code avoid?

    python -m experiments.benchmark --latent_dim=20

Times, in alternating rounds in one process, on random images of MNIST's shape:

    compiled loop   the training loop of the library
    single steps    the same step, called one at a time from Python
    floor           the step's matrix products alone, plus one update of the optimiser alone

and says each as a ratio to the floor; the convolutional networks' step both ways; the test NLL
with 5,000 samples, in images/s and as a share of the machine's rate of matrix products; sixteen
members of a sweep, all at once and one after the other (`benchmark.sweeps`); then importing,
starting, and memory, each in processes of their own. Every flag of `experiments.run` that shapes
the step works, and those of `timing` say how long is timed. Three minutes.
"""

import dataclasses
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmark import sweeps
from experiments.benchmark.timing import BenchmarkConfig
from vae_jax import evaluation, models, objectives, training, types
from vae_jax.data import conditions
from vae_jax.data.batches import Rows, preparer
from vae_jax.types import Shape

SHAPE, NUM_IMAGES = (28, 28, 1), 60_000
CONVOLUTIONAL = ("conv", "resnet")
FEW_ROUNDS = 3  # of what takes long
NLL_IMAGES = 100


def main(config: BenchmarkConfig) -> None:
    started_up = start_up(
        config.timing.starts
    )  # first: a child's peak memory counts what it is forked from
    steps, rounds = config.timing.steps_timed, config.timing.rounds
    workloads = {
        "compiled loop": compiled_loop(config, steps),
        "single steps": single_steps(config, steps),
        "matrix products": matrix_products(config, steps),
        "optimiser": optimiser(config, steps),
    }
    times = alternate(workloads, steps, rounds)
    floor = [a + b for a, b in zip(times["matrix products"], times["optimiser"], strict=True)]
    rows = {
        "compiled loop": times["compiled loop"],
        "single steps": times["single steps"],
        "floor": floor,
        "  matrix products": times["matrix products"],
        "  optimiser": times["optimiser"],
    }
    m, batch = config.model, config.training.batch_size
    device = jax.devices()[0].device_kind
    print(f"{m.nets}, {m.short}, batch {batch}, on {device}")
    print(f"{'':<20}{'ms a step':>12}{'ratio to floor':>16}{'images/s':>12}")
    for name, seconds in rows.items():
        ratio = statistics.median(s / f for s, f in zip(seconds, floor, strict=True))
        step = statistics.median(seconds)
        print(f"{name:<20}{1e3 * step:>12.2f}{ratio:>16.2f}{batch / step:>12,.0f}")
    if config.timing.conv_steps:
        convolutional(config)
    test_nll(config)
    sweeps.main(config)
    print(started_up)


def alternate(
    workloads: dict[str, Callable[[], Any]], steps: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds a step of each workload in each round; the first round compiles and is dropped."""
    times = {name: [] for name in workloads}
    for _ in range(rounds + 1):
        for name, work in workloads.items():
            started = time.perf_counter()
            jax.block_until_ready(work())
            times[name].append((time.perf_counter() - started) / steps)
    return {name: seconds[1:] for name, seconds in times.items()}


def convolutional(config: BenchmarkConfig) -> None:
    """The loop and single steps of the convolutional networks, and how they compare."""
    steps, batch = config.timing.conv_steps, config.training.batch_size
    rounds = min(FEW_ROUNDS, config.timing.rounds)
    print(f"{'':<20}{'ms a step':>12}{'single steps':>16}{'images/s':>12}")
    for network in CONVOLUTIONAL:
        shape = dataclasses.replace(config.model, network=network, widths="auto")
        settings = dataclasses.replace(config, model=shape)
        both = {"loop": compiled_loop(settings, steps), "single": single_steps(settings, steps)}
        times = alternate(both, steps, rounds)
        loop, single = statistics.median(times["loop"]), statistics.median(times["single"])
        print(f"{network:<20}{1e3 * loop:>12.1f}{1e3 * single:>16.1f}{batch / loop:>12,.0f}")


def test_nll(config: BenchmarkConfig) -> None:
    """Images/s of the importance-weighted NLL, and its decoder's share of the matrix rate."""
    vae = models.build(config.model, SHAPE, x_mean=jnp.full(SHAPE, 0.5), examples=examples(SHAPE))
    params = vae.init(jax.random.key(0))
    x = np.random.default_rng(0).random((NLL_IMAGES, *SHAPE), np.float32)
    data, key = types.unconditional(x), jax.random.key(0)
    samples = config.timing.timed_nll_samples
    side = 2048
    square = jnp.ones((side, side))
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    work = {
        "nll": lambda: evaluation.log_likelihood(vae, params, data, key, samples).log_p,
        "matrix": lambda: product(square),
    }
    times = alternate(work, 1, min(FEW_ROUNDS, config.timing.rounds))
    seconds, rate = (
        statistics.median(times["nll"]),
        2 * side**3 / statistics.median(times["matrix"]),
    )
    weights = [leaf.size for leaf in jax.tree.leaves(params["likelihood"]) if leaf.ndim == 2]
    share = 2 * sum(weights) * samples * NLL_IMAGES / seconds / rate
    print(f"{f'NLL, {samples:,} samples':<20}{NLL_IMAGES / seconds:>10.1f} images/s, "
          f"{100 * share:.0f} % of the matrix rate, {rate / 1e9:,.0f} GFLOP/s")  # fmt: skip


def make_step(config: BenchmarkConfig, steps: int, shape: Shape = SHAPE) -> tuple[Any, Any, Any]:
    """The step, what prepares its batch, and where it starts."""
    vae = models.build(config.model, shape, x_mean=jnp.full(shape, 0.5), examples=examples(shape))
    objective = objectives.build(config.objective, vae, shape, NUM_IMAGES)
    weights = objectives.kl_weights(config.objective)
    update = training.make_optimiser(config.training, steps)
    step = training.make_step(vae, objective, update, weights, config.training.ema)
    state = training.initial_state(vae, objective, config.training, NUM_IMAGES)
    return step, preparer(config.data.binarisation, conditions.none(shape)), state


def examples(shape: Shape) -> Callable[[int], jax.Array]:
    """Training images that pseudo-inputs may start from."""
    return lambda k: jax.random.uniform(jax.random.key(0), (k, *shape))


def images(config: BenchmarkConfig, steps: int, shape: Shape = SHAPE) -> tuple[Any, Any]:
    """Random images as rows, and the order of `steps` batches of them."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (NUM_IMAGES, int(np.prod(shape))), dtype=np.uint8)
    order = rng.integers(0, NUM_IMAGES, (steps, config.training.batch_size))
    some = Rows(jnp.asarray(rows), jnp.zeros(NUM_IMAGES, jnp.int32))
    return some, jnp.asarray(order)


def compiled_loop(config: BenchmarkConfig, steps: int, shape: Shape = SHAPE) -> Callable[[], Any]:
    step, prepare, state = make_step(config, steps, shape)
    run, key = training.make_run(step, prepare), jax.random.key(0)
    rows, order = images(config, steps, shape)
    return lambda: run(jax.tree.map(jnp.copy, state), key, rows, order, 0, steps)


def single_steps(config: BenchmarkConfig, steps: int) -> Callable[[], Any]:
    step, prepare, start = make_step(config, steps)
    (rows, order), key = images(config, steps), jax.random.key(0)

    @partial(jax.jit, donate_argnums=0)
    def one(state: Any, rows: Any, order: Any, i: Any) -> Any:
        keys = jax.random.split(jax.random.fold_in(key, state.step))
        return step(state, keys[1], prepare(keys[0], jax.tree.map(lambda a: a[order[i]], rows)))

    def work() -> Any:
        state = jax.tree.map(jnp.copy, start)
        for i in range(steps):
            state, _ = one(state, rows, order, i)
        return state

    return work


def matrix_products(config: BenchmarkConfig, steps: int) -> Callable[[], Any]:
    """Of each layer, forwards x W and then backwards xᵀ g and g Wᵀ, in the step's own order: each
    needs the one before. Not g Wᵀ at the images.
    """
    params = make_step(config, steps)[2].params
    layers = [
        leaf for part in ("posterior", "likelihood") for leaf in jax.tree.leaves(params[part])
    ]
    matrices = [leaf for leaf in layers if leaf.ndim == 2]
    x = jnp.ones((config.training.batch_size, int(np.prod(SHAPE))))

    def fitted(a: Any, width: int) -> Any:  # μ and log σ come out of the encoder, one z goes on
        return jnp.pad(a[:, :width], [(0, 0), (0, max(0, width - a.shape[1]))])

    def products(x: Any, matrices: Any) -> list[Any]:
        inputs, results = [], []
        for w in matrices:
            inputs.append(fitted(x, w.shape[0]))
            x = inputs[-1] @ w
        for i, (x_in, w) in reversed(list(enumerate(zip(inputs, matrices, strict=True)))):
            gradient = fitted(x, w.shape[1])
            results.append(x_in.T @ gradient)
            x = gradient @ w.T if i else gradient
        return results

    @jax.jit
    def work(x: Any, matrices: Any) -> Any:
        def body(_: Any, seen: Any) -> Any:  # each turn depends on the whole of the last
            results = jax.lax.optimization_barrier(products(x + seen, matrices))
            return 1e-30 * sum(result[0, 0] for result in results)

        return jax.lax.fori_loop(0, steps, body, jnp.zeros(()))

    return lambda: work(x, matrices)


def optimiser(config: BenchmarkConfig, steps: int) -> Callable[[], Any]:
    state = make_step(config, steps)[2]
    update = training.make_optimiser(config.training, steps)

    @jax.jit
    def work(params: Any, opt_state: Any) -> Any:
        gradient = jax.tree.map(lambda p: 0.01 * p, params)

        def body(_: Any, carry: Any) -> Any:
            params, opt_state = carry
            updates, opt_state = update.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        return jax.lax.fori_loop(0, steps, body, (params, opt_state))

    return lambda: work(state.params, state.opt_state)


def start_up(starts: int) -> str:
    """Seconds to import, to the first step of a run, and that run's peak memory."""
    needed, ours = [], []
    for _ in range(starts):
        needed.append(run_python("import jax, flax.linen, optax"))
        ours.append(run_python("import vae_jax"))
    ratio = statistics.median(b / a for a, b in zip(needed, ours, strict=True))
    imports = statistics.median(ours)
    with tempfile.TemporaryDirectory() as folder:
        first = first_step(Path(folder) / "run")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    return "\n".join([
        f"{'import vae_jax':<20}{imports:>10.2f} s, {ratio:.2f} of jax, flax.linen and optax",
        f"{'to the first step':<20}{first:>10.2f} s from the command, digits, 64-500-2",
        f"{'peak memory':<20}{peak:>10.0f} MiB, the same run whole",
    ])  # fmt: skip


def run_python(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def first_step(directory: Path) -> float:
    """From the command to the first checkpoint, which follows the first step."""
    flags = ["--dataset=digits", "--steps=1", "--nll_samples=1", f"--run_dir={directory}"]
    command = [sys.executable, "-m", "experiments.run", *flags]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not list(directory.glob("checkpoints/step-*.npz")) and process.poll() is None:
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    if process.wait():
        raise RuntimeError(f"{command} failed")
    return seconds
