"""See `step`."""

from experiments import cli
from experiments.benchmark.step import main
from experiments.benchmark.timing import BenchmarkConfig

if __name__ == "__main__":
    cli.main("experiments.benchmark", main, BenchmarkConfig)
