"""The entropy of the data, where it is known: of a world that a data set shows whole.

No model's rate and distortion sum to less than H, in expectation over the data: D + R ≥ H (Alemi
et al. 2018, §2), if the likelihood is a probability.
"""

import hashlib
from collections import Counter

import numpy as np

from experiments.runner.job import Job
from vae_jax.models import domains

WHOLE = ("sprites", "dsprites")  # data sets of all combinations of their factors, each once


def of(job: Job) -> float | None:
    """H in nats; None where it is not known, or bounds no density."""
    splits = (job.dataset.train, job.dataset.valid, job.dataset.test)
    family, drawn = job.config.model.likelihood, job.dataset.binarisation in ("dynamic", "static")
    if job.dataset.name not in WHOLE or job.condition.c_shape != (0,):
        return None
    for split in splits:
        if not domains.is_probability(family, split.x):
            return None
        if drawn and not domains.is_probability("bernoulli", split.x):  # grey: drawn, not known
            return None
    images = (image.tobytes() for split in splits for image in split.x)
    counts = Counter(hashlib.blake2b(image, digest_size=16).digest() for image in images)
    p = np.array([*counts.values()]) / counts.total()
    return float(-np.sum(p * np.log(p)))
