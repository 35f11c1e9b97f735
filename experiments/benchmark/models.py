"""How fast is a step of each kind of model, and what share of the machine's matrix rate is that?

    python -m experiments.benchmark.models

Times the training loop on random images, in alternating rounds in one process. The work of a step
is that of its matrix products and convolutions, counted in the program that is traced (a scan's as
often as it turns); the machine's rate is that of one large matrix product of the same arithmetic.
Where a flag of `experiments.run` says which model, that one alone is timed, on images of --image:

    python -m experiments.benchmark.models --model=ladder --groups=5 --image=32x32x3

Five minutes on two CPU cores.
"""

import dataclasses
import statistics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli
from experiments.benchmark.step import alternate, compiled_loop, images, make_step
from experiments.benchmark.timing import BenchmarkConfig, TimingConfig, parse_image
from experiments.cli.config import RunConfig
from vae_jax.memory import programs_in
from vae_jax.parallel.processes import ProcessConfig
from vae_jax.settings import settings_of
from vae_jax.types import Shape

GATED: dict[str, Any] = {"widths": "300-300", "activation": "gated", "latent_dim": 40}
MODELS: dict[str, dict[str, Any]] = {
    "784-500-20": {"latent_dim": 20},
    "gated 300-300": GATED,
    "VampPrior": {**GATED, "prior": "vamp"},
    "two_layer": {"model": "two_layer"},
    "hvae": {"model": "hvae"},
    "ladder of 5, dense": {"model": "ladder", "groups": "5"},
    "ladder 2x7-4x14": {"model": "ladder", "groups": "2x7-4x14", "channels": 32},
}
SIDE = {"cpu": 2048}
LARGE_SIDE = 8192  # of the square matrices whose product says the rate, on other devices


class Timed(NamedTuple):
    """What is timed, by name, and what a command asks of its configuration."""

    run: RunConfig
    processes: ProcessConfig
    configs: dict[str, Any]  # of BenchmarkConfig


@dataclasses.dataclass(frozen=True)
class Config(BenchmarkConfig):
    """Those of MODELS, or the one that the flags say."""

    @classmethod
    def of_flags(cls, preset: str, given: dict[str, Any]) -> Any:
        own = {field.name for field in settings_of(TimingConfig)} | {"batch_size"}
        rows = {"as given": {}} if preset or given.keys() - own else MODELS
        configs = {
            name: BenchmarkConfig.of_flags(preset, {**row, **given}) for name, row in rows.items()
        }
        first = next(iter(configs.values()))
        return Timed(first.run, first.processes, configs)


def main(timed: Timed) -> None:
    configs = timed.configs
    timing = next(iter(configs.values())).timing
    shape = parse_image(timing.image)
    work = {name: work_of_a_step(config, shape) for name, config in configs.items()}
    loops = {
        name: compiled_loop(config, timing.model_steps, shape) for name, config in configs.items()
    }
    times = alternate(loops, timing.model_steps, timing.rounds)
    batch = next(iter(configs.values())).training.batch_size
    print(f"{shape}, batch {batch}, on {jax.devices()[0].device_kind}")
    print(f"{'':<20}{'ms a step':>12}{'images/s':>12}{'parameters':>12}{'GFLOP a step':>14}"
          f"{'of matrix rate':>16}")  # fmt: skip
    rates: dict[Any, float] = {}
    for name, config in configs.items():
        dtype = getattr(config.model, "compute_dtype", "float32")
        rates[dtype] = rates.get(dtype) or matrix_rate(dtype)
        seconds, (flop, parameters) = statistics.median(times[name]), work[name]
        print(f"{name:<20}{1e3 * seconds:>12.2f}{batch / seconds:>12,.0f}{parameters:>12,}"
              f"{flop / 1e9:>14.2f}{flop / seconds / rates[dtype]:>16.0%}")  # fmt: skip
    for dtype, rate in rates.items():
        print(f"matrix rate, {dtype}: {rate / 1e12:.2f} TFLOP/s")


def work_of_a_step(config: BenchmarkConfig, shape: Shape) -> tuple[float, int]:
    """FLOP of a step's products, and the number of parameters."""
    step, prepare, state = make_step(config, 1, shape)
    rows, order = images(config, 1, shape)
    key = jax.random.key(0)

    def one(state: Any) -> Any:
        batch = jax.tree.map(lambda a: a[order[0]], rows)
        return step(state, key, prepare(key, batch))

    size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return products(jax.make_jaxpr(one)(state).jaxpr), size


def products(jaxpr: Any) -> float:
    """FLOP of the matrix products and convolutions of a jaxpr and of those in it.

    Of a `cond`, the branch with the most; a `while`'s turns are not known: once.
    """
    total = 0.0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            total += (
                2 * eqn.outvars[0].aval.size * np.prod([shape[i] for i in contracted], initial=1.0)
            )
        elif name == "conv_general_dilated":
            kernel = eqn.invars[1].aval
            features = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * eqn.outvars[0].aval.size * kernel.size / features
        inner = [products(sub) for sub in programs_in(eqn.params.values())]
        if inner:
            turns = eqn.params["length"] if name == "scan" else 1
            total += turns * (max(inner) if name == "cond" else sum(inner))
    return total


def matrix_rate(dtype: str) -> float:
    """FLOP/s of the product of two large square matrices."""
    side = SIDE.get(jax.default_backend(), LARGE_SIDE)
    square = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(dtype))
    product = jax.jit(lambda a: a @ a)
    times = alternate({"product": lambda: product(square)}, 1, 10)["product"]
    return 2 * side**3 / statistics.median(times)


if __name__ == "__main__":
    cli.main("experiments.benchmark.models", main, Config)
