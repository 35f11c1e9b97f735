"""p(x|z,c): what the decoder's outputs mean as a distribution over images.

An entry of LIKELIHOODS takes (shapes, architecture) and makes a `Net` with `apply(params, z, c)`;
the families themselves are in `families`. Those over [0, 1] or the whole line are densities, and
their log p(x) may exceed 0; those with `levels` are probabilities.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

from vae_jax.distributions.pixels import LEVELS
from vae_jax.models.families import (
    FLOOR,
    bernoulli,
    beta,
    categorical,
    continuous_bernoulli,
    gaussian,
    laplace,
    logistic_mixture,
    logits_at,
    student_t,
)
from vae_jax.networks import Architecture
from vae_jax.settings import UserError, setting, validate
from vae_jax.types import Net, Shape, Shapes


def parse_scale(text: str) -> float | str:
    """'0.1' -> 0.1; 'learned', 'per_pixel' and 'optimal' as they are. Raises ValueError."""
    if text in ("learned", "per_pixel", "optimal"):
        return text
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise ValueError("learned, per_pixel, optimal or a positive number such as 0.1")
    return scale


# Entries: what the registry names, each with its own settings. `levels`: over how many values of a
# pixel it is a probability, None of a density; `real`: whether it is one of the whole line.


def _channels(x_shape: Shape, number: int) -> Shape:
    return (*x_shape[:-1], number)


def _decoder(shapes: Shapes, architecture: Architecture, output: Shape, start: Any = None) -> Net:
    return architecture.decoder([shapes.z, shapes.c], output, image=shapes.x, start=start)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A family of pixels; `levels` and `real` as above."""

    levels: ClassVar[int | None] = None
    real: ClassVar[bool] = False

    def __post_init__(self) -> None:
        validate(self)


@dataclasses.dataclass(frozen=True)
class BernoulliPixels(_Entry):
    """Black and white, or grey levels taken as probabilities."""

    output_bias: str = setting(
        "zero",
        "bernoulli: the decoder's initial output bias; data_mean: its output is the mean training "
        "image",
        choices=("zero", "data_mean"),
    )
    levels = 2

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        start = None
        if self.output_bias == "data_mean":
            if shapes.x_mean is None:
                raise UserError("output_bias data_mean needs the mean training image, x_mean")
            start = logits_at(shapes.x_mean)
        return bernoulli(_decoder(shapes, architecture, shapes.x, start))


class ContinuousBernoulliPixels(_Entry):
    """Grey levels in [0, 1] (Loaiza-Ganem & Cunningham 2019)."""

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        return continuous_bernoulli(_decoder(shapes, architecture, shapes.x))


@dataclasses.dataclass(frozen=True)
class _Floored(_Entry):
    """A family whose scale is learned."""

    scale_floor: float = setting(
        FLOOR,
        "smallest scale that any likelihood can learn, where white is 1; about one grey level",
        above=0,
        at_most=0.1,
    )


@dataclasses.dataclass(frozen=True)
class _Located(_Floored):
    """A family with location and scale."""

    likelihood_scale: str = setting(
        "learned",
        "scale of the pixels, where white is 1: a number; learned, one for all (at its best the "
        "root mean squared error, as in σ-VAE); per_pixel, by the decoder; gaussian: optimal, for "
        "each image its own at its best, made a density (student_t)",
        parse=parse_scale,
    )
    real = True

    def _located(self, family: Callable[..., Net], shapes: Shapes, nets: Architecture) -> Net:
        scale = parse_scale(self.likelihood_scale)
        output = _channels(shapes.x, shapes.x[-1] * (2 if scale == "per_pixel" else 1))
        return family(_decoder(shapes, nets, output), scale, self.scale_floor)


class GaussianPixels(_Located):
    """Real numbers with Gaussian errors."""

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        if self.likelihood_scale == "optimal":
            return student_t(_decoder(shapes, architecture, shapes.x), self.scale_floor)
        return self._located(gaussian, shapes, architecture)


class LaplacePixels(_Located):
    """Real numbers whose errors are absolute."""

    def __post_init__(self) -> None:
        validate(self)
        if self.likelihood_scale == "optimal":
            raise UserError("likelihood_scale optimal goes with likelihood gaussian; got laplace")

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        return self._located(laplace, shapes, architecture)


class StudentTPixels(_Floored):
    """Gaussian errors of a scale that differs from image to image."""

    real = True

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        return student_t(_decoder(shapes, architecture, shapes.x), self.scale_floor)


class BetaPixels(_Floored):
    """Grey levels in [0, 1]."""

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        output = _channels(shapes.x, 2 * shapes.x[-1])
        return beta(_decoder(shapes, architecture, output), self.scale_floor)


class DiscretizedLogisticPixels(_Floored):
    """256 levels, one logistic each."""

    levels = LEVELS

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        return _logistics(shapes, architecture, 1, self.scale_floor)


@dataclasses.dataclass(frozen=True)
class LogisticMixturePixels(_Floored):
    """256 levels, a mixture of logistics each (Salimans et al. 2017)."""

    mixture_components: int = setting(5, "logistic_mixture: logistics to a pixel", at_least=1)
    levels = LEVELS

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        return _logistics(shapes, architecture, self.mixture_components, self.scale_floor)


def _logistics(shapes: Shapes, architecture: Architecture, k: int, floor: float) -> Net:
    output = _channels(shapes.x, k - 1 + 2 * shapes.x[-1] * k)
    return logistic_mixture(_decoder(shapes, architecture, output), k, floor)


class CategoricalPixels(_Entry):
    """256 levels, a softmax each."""

    levels = LEVELS

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        output = _channels(shapes.x, LEVELS * shapes.x[-1])
        return categorical(_decoder(shapes, architecture, output))


# name -> (shapes, architecture) -> Net with apply(params, z, c)
LIKELIHOODS = {
    "bernoulli": BernoulliPixels,
    "continuous_bernoulli": ContinuousBernoulliPixels,
    "gaussian": GaussianPixels,
    "laplace": LaplacePixels,
    "student_t": StudentTPixels,
    "beta": BetaPixels,
    "discretized_logistic": DiscretizedLogisticPixels,
    "logistic_mixture": LogisticMixturePixels,
    "categorical": CategoricalPixels,
}
