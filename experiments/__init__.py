"""Experiments: thin programs on the library, one file for each question."""
