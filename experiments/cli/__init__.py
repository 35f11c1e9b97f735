"""The command line, made from the settings."""

from experiments.cli.config import Config, RunConfig, assemble, fields, main, numbers, parse, usage

__all__ = ["Config", "RunConfig", "assemble", "fields", "main", "numbers", "parse", "usage"]
