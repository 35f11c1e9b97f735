"""Which data a likelihood is for: probabilities or densities, grey levels, bits or real numbers."""

from typing import Any

import numpy as np
from jaxtyping import Num

from vae_jax.distributions.pixels import LEVELS
from vae_jax.models.likelihoods import LIKELIHOODS
from vae_jax.settings import UserError, resolved


def _levels(name: str) -> int | None:
    """Over how many values of a pixel a likelihood is a probability; None of a density."""
    return getattr(_entry(name), "levels", None)


def _is_real(name: str) -> bool:
    return getattr(_entry(name), "real", False)


def _entry(name: str) -> Any:
    return resolved(LIKELIHOODS.get(name, name))


def check(name: str, x: Num[np.ndarray, "n *shape"]) -> None:
    """UserError where examples x are real numbers and the likelihood is of pixels."""
    if x.dtype != np.uint8 and not _is_real(name):
        known = ", ".join(known for known in LIKELIHOODS if _is_real(known))
        raise UserError(f"likelihood must be one of {known} for points; got {name!r}")


def is_probability(name: str, x: Num[np.ndarray, "n *shape"]) -> bool:
    """Whether exp(log p(x)) of these images is a probability: bits per dimension mean something."""
    levels = _levels(name)
    return levels is not None and (levels == LEVELS or _is_binary(x))


def _is_binary(x: Num[np.ndarray, "n *shape"]) -> bool:
    return not np.any((x > 0) & (x < LEVELS - 1))


def misfit(name: str, x: Num[np.ndarray, "n *shape"], binarisation: str) -> str:
    """One line where a likelihood does not suit images x, channels last, that will be binarised as
    said; "" where it does. Bernoulli pixels for grey values are usual practice, and pass.
    """
    if x.dtype != np.uint8:
        return ""
    colour = x.shape[-1] > 1
    grey = binarisation in ("static", "threshold") or not _is_binary(x)  # before it was binarised
    if name == "bernoulli":
        kept = "are taken as probabilities" if binarisation == "none" else "are drawn as 0 or 1"
        remedy = "--likelihood=logistic_mixture --binarisation=none models all 256 levels"
        return f"bernoulli pixels on colour images, whose levels {kept}; {remedy}" * (colour & grey)
    if binarisation == "none" and grey:
        return ""
    if _levels(name):
        waste = "spends its 256 levels on pixels that are 0 or 1"
    else:
        waste = "is a density over grey values, but every pixel will be 0 or 1"
    remedy = "add --binarisation=none to model the grey values, or use --likelihood=bernoulli"
    return f"the {name} likelihood {waste}: {remedy if grey else 'use --likelihood=bernoulli'}"
