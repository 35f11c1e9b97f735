"""Experiments: thin programs on the library, one file for each question."""

import os
import sys

if sys.argv[:1] == ["-m"]:  # a command, whose figures are files: a notebook's backend is none of it
    os.environ["MPLBACKEND"] = "Agg"
