"""Distributions of pixels: images x [height, width, channels] in [0, 1], level v stored as v/255.

The conventions are those of `distributions` (one example, nats, summed over the image). Two are
densities on an interval,

    ContinuousBernoulli   p(x) ∝ exp(λx) on [0, 1]
    Beta                  y^(α−1) (1−y)^(β−1) at y = (v + ½)/256

and two are probabilities of the 256 levels, which sum to one:

    DiscretizedLogistic   a mixture of logistic densities, integrated over each level's bin
    Categorical           a softmax over the levels

Probabilities compare across discrete families and give bits per dimension. Densities do not: they
change with the unit of x, and at a stored level say nothing of the level's probability.

`mean` and `mode` also work on batched parameters: they treat all axes but the last alike.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln
from jaxtyping import Float

from vae_jax.distributions.base import Distribution, distribution, event
from vae_jax.types import Array, Key, Scalar


@distribution
class Bernoulli(Distribution):
    """Independent Bernoullis with P(x = 1) = sigmoid(logits).

    `log_prob` takes x in [0, 1]: for grey values it is the negative cross-entropy, which treats
    them as means (the usual loss for grey images; not a normalised density over [0, 1]).
    """

    logits: Float[Array, "*event"]

    @property
    def mean(self) -> Array:
        return jax.nn.sigmoid(self.logits)

    @property
    def mode(self) -> Array:
        return (self.logits > 0).astype(self.logits.dtype)

    def sample(self, key: Key) -> Array:
        return jax.random.bernoulli(key, self.mean).astype(self.logits.dtype)

    def log_prob(self, x: Array) -> Scalar:
        # max(l, 0) − l·x + log(1 + e^−|l|) is finite and exact at any logit. One comparison picks
        # both branches: `maximum` and `abs` each have a derivative of their own at 0, where they
        # add up to a wrong one, and nets that start at 0 start there. Flat as in Normal: a third
        # of a training step.
        l, x = jnp.ravel(self.logits), jnp.ravel(event(x, self.logits.shape))  # noqa: E741
        positive = l > 0
        softplus = jnp.where(positive, l, 0) + jnp.log1p(jnp.exp(jnp.where(positive, -l, l)))
        return jnp.sum(l * x - softplus)


LEVELS = 256
TOP = LEVELS - 1  # white


@distribution
class ContinuousBernoulli(Distribution):
    """Independent densities p(x) = λ e^(λx) / (e^λ − 1) on [0, 1]; λ = logits.

    The Bernoulli's formula σ(λ)^x (1−σ(λ))^(1−x), normalised over grey values (Loaiza-Ganem &
    Cunningham 2019, whose λ is our σ(λ)). An exponential family:

        log p(x) = λx − A(λ),   A(λ) = log ((e^λ − 1)/λ),   E[x] = A'(λ)
    """

    logits: Float[Array, "*event"]

    @property
    def mean(self) -> Array:
        """A'(λ) = 1/(1 − e^−λ) − 1/λ; not σ(λ)."""
        return jax.grad(lambda logits: jnp.sum(_log_partition(logits)))(self.logits)

    @property
    def mode(self) -> Array:
        return (self.logits > 0).astype(self.logits.dtype)

    def sample(self, key: Key) -> Array:
        """F⁻¹(u) = log(1 + u (e^λ − 1))/λ, for −|λ| and reflected, so that nothing overflows."""
        u = jax.random.uniform(key, self.logits.shape, self.logits.dtype)
        size = jnp.abs(self.logits)
        small = size < 1e-3  # 0/0 at 0; F⁻¹(u) = u − ½|λ| u(1−u) + O(λ²)
        safe = jnp.where(small, 1.0, size)
        x = jnp.where(small, u - size / 2 * u * (1 - u), -jnp.log1p(u * jnp.expm1(-safe)) / safe)
        return jnp.where(self.logits < 0, x, 1 - x)

    def log_prob(self, x: Array) -> Scalar:
        logits, x = jnp.ravel(self.logits), jnp.ravel(event(x, self.logits.shape))
        return jnp.sum(logits * x - _log_partition(logits))


def _log_partition(logits: Float[Array, "*event"]) -> Float[Array, "*event"]:
    """A(λ) = log ∫₀¹ e^(λx) dx = max(λ, 0) + log((1 − e^−|λ|)/|λ|), with its derivative, anywhere.

    Near 0 the value would still be exact but the derivative a difference of two 1/λ; there the
    series λ/2 + log(sinh h / h) with h = λ/2, wrong by less than 1e-11 at |λ| = ½.
    """
    size = jnp.abs(logits)
    small = size < 0.5
    h = jnp.where(small, logits, 0.0) / 2
    series = h + h**2 / 6 - h**4 / 180 + h**6 / 2835 - h**8 / 37800
    safe = jnp.where(small, 1.0, size)  # where's other branch must be finite too, or 0·NaN is NaN
    exact = jnp.maximum(logits, 0.0) + jnp.log(-jnp.expm1(-safe)) - jnp.log(safe)
    return jnp.where(small, series, exact)


@distribution
class Beta(Distribution):
    """Independent Beta(α, β) densities of y = (255x + ½)/256, with α = exp(log_alpha), β likewise.

    A Beta density is 0 or infinite at 0 and 1, where many pixels are. Level v stands at the middle
    of its bin of y instead, (v + ½)/256: at least a margin of 1/512 from both ends, and no two
    levels fall together, as clipping would make them (the squeeze of Smithson & Verkuilen 2006).
    In x it is a density, integrating to one over (−½/255, 1 + ½/255), where `sample` draws.
    """

    log_alpha: Float[Array, "*event"]
    log_beta: Float[Array, "*event"]

    @property
    def mean(self) -> Array:
        return _from_bin(jax.nn.sigmoid(self.log_alpha - self.log_beta))

    @property
    def mode(self) -> Array:
        """Clipped to [0, 1]; where the density is infinite at both ends, the end with more mass."""
        a, b = jnp.exp(self.log_alpha) - 1, jnp.exp(self.log_beta) - 1
        inside = jnp.minimum(a, b) > 0
        interior = jnp.where(inside, a, 1.0) / jnp.where(inside, a + b, 2.0)
        y = jnp.where(inside, interior, jnp.where(a > b, 1.0, jnp.where(a < b, 0.0, 0.5)))
        return jnp.clip(_from_bin(y), 0.0, 1.0)

    def sample(self, key: Key) -> Array:
        y = jax.random.beta(key, jnp.exp(self.log_alpha), jnp.exp(self.log_beta))
        return _from_bin(jnp.clip(y, 1e-6, 1 - 1e-6))  # numbers that 32 bits can tell from 0 and 1

    def log_prob(self, x: Array) -> Scalar:
        """Σ [(α−1) log y + (β−1) log(1−y) − log B(α,β) + log(255/256)].

        In 32 bits within 2e-3 nats a pixel, and that only where α and β are both in the thousands.
        """
        y = (TOP * jnp.ravel(event(x, self.log_alpha.shape)) + 0.5) / LEVELS
        a, b = jnp.exp(jnp.ravel(self.log_alpha)), jnp.exp(jnp.ravel(self.log_beta))
        log_p = (a - 1) * jnp.log(y) + (b - 1) * jnp.log1p(-y) - betaln(a, b)
        return jnp.sum(log_p) + y.size * np.log(TOP / LEVELS)


def _from_bin(y: Array) -> Array:
    """x such that y = (255x + ½)/256."""
    return (LEVELS * y - 0.5) / TOP


@distribution
class DiscretizedLogistic(Distribution):
    """The 256 levels under mixtures of k logistic densities (Salimans et al. 2017, eq. 2).

        P(v) = Σ_k w_k [σ((v + ½ − 255 μ_k)/(255 s_k)) − σ((v − ½ − 255 μ_k)/(255 s_k))]

    with the first σ replaced by 1 at v = 255 and the second by 0 at v = 0: the bins cover the line,
    so the probabilities sum to one exactly. location and log_scale: [..., channels, k], in units
    where white is 1; log_weights: [..., k], up to a constant. The channels of a pixel share one
    choice of k, as in the paper; given it they are independent (the paper adds a linear
    dependence). `log_prob` rounds x to the nearest level.
    """

    location: Float[Array, "*event k"]
    log_scale: Float[Array, "*event k"]
    log_weights: Float[Array, "*pixels k"]

    @property
    def mean(self) -> Array:
        """E[v]/255 = Σ_{v≥1} P(V ≥ v)/255: not the logistics' mean, as the end bins are open."""

        def add(v: Array, total: Array) -> Array:
            return total + jax.nn.sigmoid(-_whiten(v - 0.5, self.location, self.log_scale))

        total = jax.lax.fori_loop(1, LEVELS, add, jnp.zeros_like(self.location))
        weights = jax.nn.softmax(self.log_weights)[..., None, :]
        return jnp.sum(weights * total, axis=-1) / TOP

    @property
    def mode(self) -> Array:
        """The likeliest level of each channel on its own."""
        log_weights = jax.nn.log_softmax(self.log_weights)[..., None, :]

        def better(v: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
            log_p = _log_mass(v, self.location, self.log_scale)
            log_p = jax.nn.logsumexp(log_weights + log_p, axis=-1)
            return jnp.maximum(log_p, best[0]), jnp.where(log_p > best[0], v / TOP, best[1])

        shape, dtype = self.location.shape[:-1], self.location.dtype
        nothing = jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, dtype)
        return jax.lax.fori_loop(0, LEVELS, better, nothing)[1]

    def sample(self, key: Key) -> Array:
        of_index, of_x = jax.random.split(key)
        index = jax.random.categorical(of_index, self.log_weights)[..., None, None]
        location, log_scale = (
            jnp.take_along_axis(a, index, axis=-1)[..., 0] for a in (self.location, self.log_scale)
        )
        noise = jax.random.logistic(of_x, location.shape, location.dtype)
        return jnp.clip(jnp.round(TOP * (location + jnp.exp(log_scale) * noise)), 0, TOP) / TOP

    def log_prob(self, x: Array) -> Scalar:
        shape = self.location.shape
        v = jnp.broadcast_to(jnp.round(TOP * event(x, shape[:-1]))[..., None], shape)
        log_p = _log_mass(*map(jnp.ravel, (v, self.location, self.log_scale)))  # flat: see Normal
        log_p = jax.nn.log_softmax(self.log_weights) + jnp.sum(log_p.reshape(shape), axis=-2)
        return jnp.sum(jax.nn.logsumexp(log_p, axis=-1))


def _log_mass(v: Array, location: Array, log_scale: Array) -> Array:
    """log P(v) of one logistic, elementwise.

    σ(b) − σ(a) = σ(b) σ(−a) (1 − e^−(b−a)) has no differences of nearly equal numbers, and the
    bin's width b − a = 1/(255 s) does not depend on v.
    """
    log_width = -log_scale - np.log(TOP)
    tiny = log_width < -7  # there w itself may underflow; log(1 − e^−w) = log w − w/2 + w²/24 − …
    width, small = (jnp.exp(jnp.where(tiny == t, log_width, 0.0)) for t in (False, True))
    series = log_width - small / 2 + small**2 / 24
    log_inner = jnp.where(tiny, series, jnp.log(-jnp.expm1(-width)))
    below, above = (_whiten(v + edge, location, log_scale) for edge in (-0.5, 0.5))
    log_p = jnp.where(v < TOP, jax.nn.log_sigmoid(above), 0.0)
    log_p += jnp.where(v > 0, jax.nn.log_sigmoid(-below), 0.0)
    return log_p + jnp.where((v > 0) & (v < TOP), log_inner, 0.0)


def _whiten(edge: Array, location: Array, log_scale: Array) -> Array:
    return (edge / TOP - location) * jnp.exp(-log_scale)


@distribution
class Categorical(Distribution):
    """Independent pixels with P(v) = softmax(logits)[v]; logits: [*event, 256].

    `log_prob` rounds x to the nearest level.
    """

    logits: Float[Array, "*event levels"]

    @property
    def mean(self) -> Array:
        return jax.nn.softmax(self.logits) @ (jnp.arange(LEVELS, dtype=self.logits.dtype) / TOP)

    @property
    def mode(self) -> Array:
        return jnp.argmax(self.logits, axis=-1).astype(self.logits.dtype) / TOP

    def sample(self, key: Key) -> Array:
        return jax.random.categorical(key, self.logits).astype(self.logits.dtype) / TOP

    def log_prob(self, x: Array) -> Scalar:
        v = jnp.round(TOP * event(x, self.logits.shape[:-1])).astype(jnp.int32)
        # A sum over a mask, not a lookup: a lookup's gradient is a scatter, which is slow.
        chosen = jnp.sum(jnp.where(jax.nn.one_hot(v, LEVELS) > 0, self.logits, 0.0), axis=-1)
        return jnp.sum(chosen - jax.nn.logsumexp(self.logits, axis=-1))
