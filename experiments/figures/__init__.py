"""The figures of a run."""

from experiments.figures.catalogue import FIGURES, draw
from experiments.figures.context import Scene, pictures

__all__ = ["FIGURES", "Scene", "draw", "pictures"]
