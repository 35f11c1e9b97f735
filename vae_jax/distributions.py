"""Distributions as pytrees, and the KL divergence between them.

A distribution describes one example: its parameters have the shape of the event, `log_prob` sums
over the event and returns a scalar in nats. Batches are made with `jax.vmap`, one key per example:

    jax.vmap(lambda mean, key: Normal(mean, log_scale).sample(key))(means, keys)

Every distribution has `sample(key)`, `log_prob(x)`, `sample_and_log_prob(key)` and, where they
exist in closed form, `mean` and `mode`. They are frozen dataclasses, registered as pytrees: `jit`,
`vmap` and `tree.map` see their parameters. Those made for pixels are in `pixels`.

    KL(q‖p) = E_q[log q(x) − log p(x)] ≥ 0
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln, rel_entr
from jax.tree_util import GetAttrKey, register_pytree_with_keys
from jaxtyping import Float

from vae_jax.settings import UserError
from vae_jax.types import Array, Key, Scalar

LOG_2PI = float(np.log(2 * np.pi))


class Distribution(Protocol):
    """What every distribution can do; see the module's docstring. A new one need not inherit."""

    def sample(self, key: Key) -> Array: ...

    def log_prob(self, x: Array) -> Scalar: ...

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Scalar]:
        x = self.sample(key)
        return x, self.log_prob(x)


T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def distribution(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass whose fields are the leaves of a pytree.

    Unflattening goes past `__init__`: JAX puts placeholders that are not arrays into pytrees.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    names = tuple(field.name for field in dataclasses.fields(cls))  # pyright: ignore[reportArgumentType]

    def flatten(self: Any) -> tuple[tuple[Any, ...], None]:
        return tuple((GetAttrKey(name), getattr(self, name)) for name in names), None

    def unflatten(_: None, leaves: Any) -> Any:
        self = object.__new__(cls)
        for name, leaf in zip(names, leaves, strict=True):
            object.__setattr__(self, name, leaf)
        return self

    register_pytree_with_keys(cls, flatten, unflatten)
    return cls


def event(x: Array, shape: tuple[int, ...]) -> Array:
    """x itself; a batch handed to an un-vmapped `log_prob` would silently be summed, so: no."""
    if jnp.shape(x) != shape:
        raise ValueError(
            f"log_prob takes one example of shape {shape}, got {jnp.shape(x)}; "
            "use jax.vmap for batches"
        )
    return x


@distribution
class Normal(Distribution):
    """Independent Gaussians, N(mean, exp(log_scale)²); both of the event's shape."""

    mean: Float[Array, "*event"]
    log_scale: Float[Array, "*event"]

    @property
    def mode(self) -> Array:
        return self.mean

    @property
    def covariance(self) -> Array:
        return jnp.diag(jnp.exp(2 * jnp.ravel(self.log_scale)))

    def sample(self, key: Key) -> Array:
        """mean + scale·ε with ε ~ N(0, I): shift *and* scale (Kingma & Welling 2014, §2.4)."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_scale) * noise

    def log_prob(self, x: Array) -> Scalar:
        """−Σ [½ ((x−μ)/σ)² + log σ + ½ log 2π]."""
        # Flat, because XLA's CPU loops over [height, width, 1] do not vectorise.
        x, mean, log_scale = map(jnp.ravel, (event(x, self.mean.shape), self.mean, self.log_scale))
        whitened = (x - mean) * jnp.exp(-log_scale)
        return -jnp.sum(0.5 * (whitened**2 + LOG_2PI) + log_scale)


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


@distribution
class MultivariateNormal(Distribution):
    """N(mean, L Lᵀ) with L lower triangular, its diagonal positive: [d] and [d, d]."""

    mean: Float[Array, " d"]
    scale_tril: Float[Array, "d d"]

    @property
    def mode(self) -> Array:
        return self.mean

    @property
    def covariance(self) -> Array:
        return self.scale_tril @ self.scale_tril.T

    def sample(self, key: Key) -> Array:
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + self.scale_tril @ noise

    def log_prob(self, x: Array) -> Scalar:
        """−½ [d log 2π + log det Σ + (x−μ)ᵀ Σ⁻¹ (x−μ)]."""
        centred = event(x, self.mean.shape) - self.mean
        whitened = solve_triangular(self.scale_tril, centred, lower=True)
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.scale_tril)))
        return -0.5 * (whitened @ whitened + len(centred) * LOG_2PI) - log_det


@distribution
class Laplace(Distribution):
    """Independent Laplace variables: exp(−|x − mean|/scale) / (2 scale); both of the event's shape.

    `mean` is also the median and the mode; the standard deviation is √2·scale.
    """

    mean: Float[Array, "*event"]
    log_scale: Float[Array, "*event"]

    @property
    def mode(self) -> Array:
        return self.mean

    def sample(self, key: Key) -> Array:
        noise = jax.random.laplace(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_scale) * noise

    def log_prob(self, x: Array) -> Scalar:
        """−Σ [|x−μ|/b + log 2b]."""
        x, mean, log_scale = map(jnp.ravel, (event(x, self.mean.shape), self.mean, self.log_scale))
        error = jnp.maximum(x - mean, mean - x)  # |x−μ|, whose derivative at 0 is then 0
        return -jnp.sum(error * jnp.exp(-log_scale) + log_scale + np.log(2))


@distribution
class StudentT(Distribution):
    """A Gaussian N(mean, σ²I) over the whole event whose one unknown variance is integrated out.

    1/σ² ~ Gamma(ν/2, rate ν s²/2) with ν = dof and s = exp(log_scale), both scalars: Student's t
    distribution in d dimensions, d the event's size. Components are uncorrelated, not independent.
    The mean exists for ν > 1, the variance, s² ν/(ν−2), for ν > 2.
    """

    mean: Float[Array, "*event"]
    log_scale: Float[Array, ""]
    dof: Float[Array, ""]

    @property
    def mode(self) -> Array:
        return self.mean

    def sample(self, key: Key) -> Array:
        of_scale, of_noise = jax.random.split(key)
        noise = jax.random.normal(of_noise, self.mean.shape, self.mean.dtype)
        precision = jax.random.gamma(of_scale, self.dof / 2, dtype=self.mean.dtype) * 2 / self.dof
        return self.mean + jnp.exp(self.log_scale) * noise / jnp.sqrt(precision)

    def log_prob(self, x: Array) -> Scalar:
        """log Γ((ν+d)/2) − log Γ(ν/2) − d/2 log(νπs²) − (ν+d)/2 log(1 + ‖x−μ‖²/(νs²))."""
        x, mean = jnp.ravel(event(x, self.mean.shape)), jnp.ravel(self.mean)
        nu, d = self.dof, mean.size
        distance = jnp.sum(((x - mean) * jnp.exp(-self.log_scale)) ** 2)
        gammas = gammaln((nu + d) / 2) - gammaln(nu / 2)
        volume = d * (0.5 * jnp.log(nu * np.pi) + self.log_scale)
        return gammas - volume - (nu + d) / 2 * jnp.log1p(distance / nu)


@distribution
class Mixture(Distribution):
    """Σ_k w_k p_k(x): one of k distributions at a time for the whole of x.

    components: k distributions of one family in one pytree, its leaves [k, ...], as `jax.vmap`
    makes them. log_weights: [k], up to a constant.
    """

    components: Any
    log_weights: Float[Array, " k"]

    @property
    def mean(self) -> Array:
        """Σ_k w_k E_k[x]; of one mixture (wrap in `jax.vmap` for a batch of mixtures)."""
        means = jax.vmap(lambda component: component.mean)(self.components)
        return jnp.tensordot(jax.nn.softmax(self.log_weights), means, axes=1)

    def sample(self, key: Key) -> Array:
        of_index, of_x = jax.random.split(key)
        index = jax.random.categorical(of_index, self.log_weights)
        return jax.tree.map(lambda leaf: leaf[index], self.components).sample(of_x)

    def log_prob(self, x: Array) -> Scalar:
        """log Σ_k w_k p_k(x): each p_k is a joint density, summed over x before the logsumexp."""
        log_p = jax.vmap(lambda component: component.log_prob(x))(self.components)
        return jax.nn.logsumexp(jax.nn.log_softmax(self.log_weights) + log_p)


def kl(q: Any, p: Any, key: Key) -> Scalar:
    """KL(q‖p) in nats: closed form where there is one, else one sample.

    The sample is the z that `q.sample(key)` draws, so that a bound which uses the same key sees
    the same z; the estimate log q(z) − log p(z) is unbiased but may be negative.
    """
    closed_form = KL.get((type(q), type(p)))
    if closed_form:
        return closed_form(q, p)
    z, log_q = q.sample_and_log_prob(key)
    return log_q - p.log_prob(z)


def kl_per_unit(q: Any, p: Any) -> Float[Array, "*event"]:
    """KL of each dimension, ½ [(σ_q² + (μ_q − μ_p)²)/σ_p² − 1] + log(σ_p/σ_q), in nats.

    For two Normals, whose KL is the sum over dimensions; of others UserError.
    """
    if not (isinstance(q, Normal) and isinstance(p, Normal)):
        raise UserError(
            "the KL of single units needs a diagonal Gaussian posterior and prior; "
            f"got {type(q).__name__} and {type(p).__name__}"
        )
    log_ratio = q.log_scale - p.log_scale
    distance = ((q.mean - p.mean) * jnp.exp(-p.log_scale)) ** 2
    return 0.5 * (jnp.exp(2 * log_ratio) + distance - 1) - log_ratio


def _kl_normal(q: Normal, p: Normal) -> Scalar:
    return jnp.sum(kl_per_unit(q, p))


def _full(p: Any) -> MultivariateNormal:
    """A Gaussian with its whole covariance."""
    if isinstance(p, Normal):
        return MultivariateNormal(p.mean, jnp.diag(jnp.exp(p.log_scale)))
    return p


def _kl_multivariate_normal(q: Any, p: Any) -> Scalar:
    """½ [log(det Σ_p/det Σ_q) − d + tr(Σ_p⁻¹ Σ_q) + (μ_p−μ_q)ᵀ Σ_p⁻¹ (μ_p−μ_q)]."""
    q, p = _full(q), _full(p)
    ratio = solve_triangular(p.scale_tril, q.scale_tril, lower=True)
    distance = solve_triangular(p.scale_tril, q.mean - p.mean, lower=True)
    log_dets = [jnp.sum(jnp.log(jnp.diagonal(d.scale_tril))) for d in (p, q)]
    trace, d = jnp.sum(ratio**2), len(q.mean)
    return log_dets[0] - log_dets[1] + 0.5 * (trace - d + distance @ distance)


KL = {
    (Normal, Normal): _kl_normal,
    (MultivariateNormal, Normal): _kl_multivariate_normal,
    (Normal, MultivariateNormal): _kl_multivariate_normal,
    (MultivariateNormal, MultivariateNormal): _kl_multivariate_normal,
}


def discrete_kl(p: Float[Array, " outcomes"], q: Float[Array, " outcomes"]) -> Scalar:
    """Σ p log(p/q) of two probability vectors, in nats: 0 log 0 is 0, and ∞ where q = 0 < p."""
    return jnp.sum(rel_entr(p, q))


def transformed_log_prob(base: Any, transform: Callable[[Array], Array], noise: Array) -> Scalar:
    """log density of z = transform(ε) where ε = noise: log p(ε) − log|det ∂z/∂ε|, in nats.

    `transform` is any one-to-one function [d] -> [d]; the Jacobian is taken whole, d passes.
    """
    _, log_det = jnp.linalg.slogdet(jax.jacfwd(transform)(noise))
    return base.log_prob(noise) - log_det
