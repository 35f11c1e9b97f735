"""One training, from its settings to its figures."""

from experiments.runner.job import Job, assemble
from experiments.runner.perform import evaluate, finish, perform, trained
from experiments.runner.report import data_line, header, plus_minus, table

__all__ = [
    "Job",
    "assemble",
    "data_line",
    "evaluate",
    "finish",
    "header",
    "perform",
    "plus_minus",
    "table",
    "trained",
]
