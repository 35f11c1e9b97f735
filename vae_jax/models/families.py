"""From a decoder's net to p(x|z,c): the families of pixels.

Each makes a `Net` with `apply(params, z, c)` of a net for the numbers it needs: an image with the
data's height and width and, for each family, so many channels.

Scales, in units where white is 1, are net outputs or parameters kept above `floor`: a density with
no lower bound on its scale grows without limit wherever a pixel can be predicted exactly, such as
the black border of digits. log s = log floor + softplus(raw − log floor) is raw itself well above
the floor and never loses its gradient (the lower bound in the code of Rybkin, Daniilidis & Levine,
ICML 2021). Raw 0 stands for 1/√12 ≈ 0.29, the standard deviation of uniform pixels.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.distributions.continuous import Laplace, Normal, StudentT
from vae_jax.distributions.pixels import (
    LEVELS,
    Bernoulli,
    Beta,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
)
from vae_jax.types import Array, Key, Net, Params

FLOOR = 0.004  # about one grey level, 1/255
START = -math.log(12) / 2


def bernoulli(net: Net) -> Net:
    """Independent Bernoulli pixels; the net's output, of the image's shape, is their logits."""
    return _of(net, Bernoulli)


def continuous_bernoulli(net: Net) -> Net:
    """Independent continuous Bernoulli pixels; the net's output, of the image's shape, is λ."""
    return _of(net, ContinuousBernoulli)


def gaussian(net: Net, scale: float | str = "learned", floor: float = FLOOR) -> Net:
    """Independent Gaussian pixels; the net's output is their means.

    scale: the standard deviation, a number; "learned", one for all pixels and images, a parameter
    of its own; or "per_pixel", and the net's output has twice the image's channels, the second
    half for the raw log scales. Where the learned one is best it is the root mean squared error
    over the training set and the posterior, σ*² = E‖x−μ‖²/d: the optimum that σ-VAE computes for
    each batch instead (Rybkin, Daniilidis & Levine 2021). For one σ per image see `student_t`.
    """
    located = _located(net, scale, floor)
    return Net(located.init, lambda params, *inputs: Normal(*located.apply(params, *inputs)))


def laplace(net: Net, scale: float | str = "learned", floor: float = FLOOR) -> Net:
    """Independent Laplace pixels, mean absolute error's likelihood; arguments as in `gaussian`."""
    located = _located(net, scale, floor)
    return Net(located.init, lambda params, *inputs: Laplace(*located.apply(params, *inputs)))


def student_t(net: Net, floor: float = FLOOR, dof: float = 4.0) -> Net:
    """Gaussian pixels whose σ differs from image to image and is integrated out; the net's output
    is their means, the typical scale a learned parameter.

    The gradient with respect to the means is that of a Gaussian with

        σ̂² = (ν s² + ‖x−μ‖²) / (ν + d),

    σ²'s posterior mode, up to ν and s the image's mean squared error: the per-image optimal σ-VAE.
    Inserting that optimum itself, max_σ N(x|μ,σ²I), is no density (its integral over x diverges),
    so that its "log-likelihood" bounds nothing; this is one. (Student-t VAEs: Takahashi, Iwata,
    Yamanaka, Yamada & Yagi, IJCAI 2018.)
    """
    located = _located(net, "learned", floor)

    def apply(params: Params, z: Any, condition: Array) -> StudentT:
        mean, log_scale = located.apply(params, z, condition)
        return StudentT(mean, log_scale.ravel()[0], jnp.asarray(dof, mean.dtype))

    return Net(located.init, apply)


def beta(net: Net, floor: float = FLOOR) -> Net:
    """Independent Beta pixels; the net's output has twice the image's channels, log α and log β.

    Both are kept, softly, between log 0.01 and log (1/(8 floor²)), at which α = β have a standard
    deviation of about `floor`.
    """
    low, high = math.log(0.01), -math.log(8 * floor**2)

    def bounded(raw: Array) -> Array:
        return high - jax.nn.softplus(high - _above(raw, low))

    def apply(params: Params, z: Any, condition: Array) -> Beta:
        return Beta(*map(bounded, jnp.split(net.apply(params, z, condition), 2, axis=-1)))

    return Net(net.init, apply)


def logistic_mixture(net: Net, num_components: int = 1, floor: float = FLOOR) -> Net:
    """The 256 levels under mixtures of k discretised logistics (Salimans et al. 2017).

    The net's output has k − 1 + 2ck channels for an image with c: log weights of all components
    but the first, then locations and raw log scales. Raw locations of 0 are spread evenly over
    [0, 1], so that the components start apart.
    """
    k = num_components
    spread = (jnp.arange(k, dtype=jnp.float32) + 0.5) / k

    def apply(params: Params, z: Any, condition: Array) -> DiscretizedLogistic:
        raw = net.apply(params, z, condition)
        log_weights = jnp.pad(raw[..., : k - 1], [(0, 0)] * (raw.ndim - 1) + [(1, 0)])
        location, raw_scale = jnp.split(raw[..., k - 1 :], 2, axis=-1)
        location, raw_scale = (a.reshape(*a.shape[:-1], -1, k) for a in (location, raw_scale))
        location += jnp.broadcast_to(spread, location.shape)
        return DiscretizedLogistic(location, _log_scale(raw_scale, floor), log_weights)

    return Net(net.init, apply)


def categorical(net: Net) -> Net:
    """Independent softmaxes over the 256 levels; 256 of the net's channels for each of the image's.

    Nothing tells it that neighbouring levels are alike. The net's last layer is large.
    """

    def apply(params: Params, z: Any, condition: Array) -> Categorical:
        raw = net.apply(params, z, condition)
        return Categorical(raw.reshape(*raw.shape[:-1], -1, LEVELS))

    return Net(net.init, apply)


def _of(net: Net, family: Callable[[Array], object]) -> Net:
    """A family with one parameter, the net's output."""
    return Net(net.init, lambda params, *inputs: family(net.apply(params, *inputs)))


def _above(raw: Array, low: float) -> Array:
    """Raw itself well above `low`, and never below it."""
    return low + jax.nn.softplus(raw - low)


def _log_scale(raw: Array, floor: float) -> Array:
    return _above(raw + START, math.log(floor))


def _located(net: Net, scale: float | str, floor: float) -> Net:
    """A net that returns (location, log scale), both of the image's shape."""

    def fixed(params: Params, z: Any, condition: Array) -> tuple[Array, Array]:
        location = net.apply(params, z, condition)
        return location, jnp.full_like(location, math.log(float(scale)))

    def learned(params: Params, z: Any, condition: Array) -> tuple[Array, Array]:
        location = net.apply(params["net"], z, condition)
        log_scale = _log_scale(params["log_scale"], floor)
        return location, jnp.broadcast_to(log_scale, location.shape)

    def per_pixel(params: Params, z: Any, condition: Array) -> tuple[Array, Array]:
        location, raw = jnp.split(net.apply(params, z, condition), 2, axis=-1)
        return location, _log_scale(raw, floor)

    def with_scale(key: Key) -> Params:
        return {"net": net.init(key), "log_scale": jnp.zeros((), jnp.float32)}

    named = {"learned": Net(with_scale, learned), "per_pixel": Net(net.init, per_pixel)}
    return named[scale] if isinstance(scale, str) else Net(net.init, fixed)


def logits_at(mean: Array) -> Array:
    """The logits of Bernoulli pixels of these means, clipped to [0.001, 0.999] (Burda et al. 2016,
    in their code).
    """
    mean = jnp.clip(mean, 1e-3, 1 - 1e-3)
    return jnp.log(mean) - jnp.log1p(-mean)
