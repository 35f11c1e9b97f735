"""One training, from its settings to its figures."""

from experiments.runner.job import Job, assemble
from experiments.runner.report import data_line, header, plus_minus, table
from experiments.runner.run import evaluate, finish, perform

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
]
