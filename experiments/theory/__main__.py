"""See `page`."""

from experiments import cli
from experiments.theory.page import Config, main

if __name__ == "__main__":
    cli.main("experiments.theory", main, Config)
