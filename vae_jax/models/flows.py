"""Flows as posterior and as prior.

As posterior, ε ~ N(μ(x), diag σ(x)²) is bent, step by step, into z; what bends it is either the
encoder's own numbers for each image (planar, sylvester), or networks that all images share and that
read a context h(x) (iaf, realnvp, spline). As prior, ε ~ N(0, I), and the context is c. A sample's
density comes with the sample: no flow is inverted in training, but that of a prior is evaluated at
the posterior's samples, which is why `maf` is a prior and `iaf` a posterior.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.distributions import Normal
from vae_jax.distributions import bijectors as b
from vae_jax.models.gaussians import gaussian, of_numbers
from vae_jax.models.scales import Bounded
from vae_jax.networks import Architecture, parse_widths
from vae_jax.networks.masked import conditioner
from vae_jax.settings import UserError, setting, validate
from vae_jax.types import Array, Key, Net, Params, Shape, Shapes

# What couplings and chains are made of


@dataclasses.dataclass(frozen=True)
class Splined:
    spline_bins: int = setting(8, "bins of a spline", at_least=1, at_most=128)
    spline_bound: float = setting(5.0, "a spline bends [−bound, bound]", above=0, at_most=1e3)


Element = Callable[[Array], Any]


def _element(flow: Any) -> tuple[Element, int]:
    """What a coupling applies, and how many numbers it takes for each dimension."""
    if isinstance(flow, Splined):
        spline: Element = partial(b.Spline, bound=flow.spline_bound)
        return spline, b.numbers_of(flow.spline_bins)
    return b.Affine, b.Affine.size


def _couplings(flow: Any, d: int, context: Shape) -> tuple[Net, Callable[..., Any]]:
    """The networks of a chain of couplings, and what makes it of their parameters and a context.

    Between two the order is reversed, so that each half is bent in turn.
    """
    (element, m), kept = _element(flow), d // 2
    net = conditioner(flow.hidden, kept, (d - kept, m), context, False)

    def step(params: Params, h: Array) -> Any:
        return b.Coupling(params, h, net.apply, element, kept)

    return net, step


def _autoregressive(flow: Any, d: int, context: Shape, element: Any) -> tuple[Net, Callable]:
    net = conditioner(flow.hidden, d, (d, element.size), context, True)
    return net, lambda params, h: b.Autoregressive(params, h, net.apply, element)


def _chain(steps: Sequence[Any], d: int) -> b.Chain:
    """The steps, the order of the dimensions reversed between them."""
    reverse = b.Permutation(tuple(reversed(range(d))))
    return b.Chain(tuple(s for step in steps for s in (step, reverse))[:-1])


def _init(net: Net, count: int) -> Callable[[Key], list[Params]]:
    return lambda key: [net.init(k) for k in jax.random.split(key, count)]


# Posteriors


def _vector(shapes: Shapes) -> int:
    if len(shapes.z) != 1 or not shapes.z[0]:
        raise UserError(f"a flow is of one vector of latents; got latents {list(shapes.z)}")
    return shapes.z[0]


@dataclasses.dataclass(frozen=True)
class _Steps(Bounded):
    posterior_steps: int = setting(
        4, "steps of a posterior that is a flow; 0 is diagonal", at_least=0, at_most=64
    )

    def no_steps(self, shapes: Shapes, architecture: Architecture) -> Net:
        """The Gaussian itself, whose KL is in closed form."""
        return gaussian(architecture.encoder([shapes.x, shapes.c], (2, *shapes.z)), self.bound)


def amortised(
    flow: _Steps,
    shapes: Shapes,
    architecture: Architecture,
    sizes: Sequence[Shape],
    step: Callable[[Sequence[Array], int], Any],
) -> Net:
    """A posterior whose steps are the encoder's numbers: arrays of `sizes` for each, of which
    `step` makes the bijector, told how many came before.
    """
    d, k = _vector(shapes), flow.posterior_steps
    if not k:
        return flow.no_steps(shapes, architecture)
    net = architecture.encoder([shapes.x, shapes.c], (2 * d + k * sum(map(math.prod, sizes)),))

    def apply(params: Params, x: Array, c: Array) -> b.Transformed:
        first, rest = jnp.split(net.apply(params, x, c), [2 * d])
        steps = [step(_cut(row, sizes), i) for i, row in enumerate(rest.reshape(k, -1))]
        return b.Transformed(of_numbers(first.reshape(2, d), flow.bound), b.Chain(tuple(steps)))

    return Net(net.init, apply)


def _cut(row: Array, shapes: Sequence[Shape]) -> list[Array]:
    """One vector as arrays of these shapes."""
    ends = [sum(map(math.prod, shapes[: i + 1])) for i in range(len(shapes))]
    return [a.reshape(s) for a, s in zip(jnp.split(row, ends[:-1]), shapes, strict=True)]


class Planar(_Steps):
    """Rezende & Mohamed (2015)."""

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        d = _vector(shapes)
        sizes = [(d,), (d,), ()]
        return amortised(self, shapes, architecture, sizes, lambda numbers, i: b.Planar(*numbers))


@dataclasses.dataclass(frozen=True)
class Sylvester(_Steps):
    """van den Berg et al. (2018)."""

    sylvester: str = setting(
        "orthogonal",
        "Q of the posterior sylvester: orthonormal columns, a product of householder reflections, "
        "or, triangular, the identity and its reverse in turn",
        choices=("orthogonal", "householder", "triangular"),
    )
    sylvester_vectors: int = setting(
        8, "columns or reflections of Q; of triangular, all", at_least=1, at_most=4096
    )

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        sizes = self._sizes(_vector(shapes))
        return amortised(self, shapes, architecture, sizes, self._step)

    def _sizes(self, d: int) -> list[Shape]:
        n = min(self.sylvester_vectors, d)
        m = n if self.sylvester == "orthogonal" else d
        of_q = {"orthogonal": [(d, n)], "householder": [(self.sylvester_vectors, d)],
                "triangular": []}[self.sylvester]  # fmt: skip
        return [(m, m), (m, m), (m,), *of_q]

    def _step(self, numbers: Sequence[Array], index: int) -> Any:
        r1, r2, shift, *of_q = numbers
        if self.sylvester == "triangular":
            q = jnp.eye(len(shift), dtype=shift.dtype)[:: -1 if index % 2 else 1]
        else:
            make = b.orthogonal if self.sylvester == "orthogonal" else b.householder
            q = make(of_q[0])
        return b.Sylvester(q, r1, r2, shift)


@dataclasses.dataclass(frozen=True)
class _Contextual(_Steps):
    """A posterior whose steps are networks that read a context h(x)."""

    posterior_widths: str = setting(
        "64", "hidden widths of the networks in a posterior, joined by '-'", parse=parse_widths
    )
    posterior_context: int = setting(
        32, "numbers of each image that the encoder tells these networks", at_least=1
    )

    @property
    def hidden(self) -> tuple[int, ...]:
        return parse_widths(self.posterior_widths)

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        d, k, told = _vector(shapes), self.posterior_steps, self.posterior_context
        if not k:
            return self.no_steps(shapes, architecture)
        net = architecture.encoder([shapes.x, shapes.c], (2 * d + told,))
        inner, step = self.inner(d, (told,))
        steps = _init(inner, k)

        def init(key: Key) -> Params:
            of_net, of_steps = jax.random.split(key)
            return {"net": net.init(of_net), "steps": steps(of_steps)}

        def apply(params: Params, x: Array, c: Array) -> b.Transformed:
            first, h = jnp.split(net.apply(params["net"], x, c), [2 * d])
            chain = _chain([step(p, h) for p in params["steps"]], d)
            return b.Transformed(of_numbers(first.reshape(2, d), self.bound), chain)

        return Net(init, apply)

    def inner(self, d: int, context: Shape) -> tuple[Net, Callable[..., Any]]:
        return _couplings(self, d, context)


class IAF(_Contextual):
    """Inverse autoregressive (Kingma et al. 2016)."""

    def inner(self, d: int, context: Shape) -> tuple[Net, Callable[..., Any]]:
        return _autoregressive(self, d, context, b.Gate)


class RealNVP(_Contextual):
    """Affine couplings (Dinh et al. 2017)."""


@dataclasses.dataclass(frozen=True)
class SplineFlow(_Contextual, Splined):
    """Couplings of rational-quadratic splines (Durkan et al. 2019)."""


# Priors


@dataclasses.dataclass(frozen=True)
class _FlowPrior:
    """N(0, I) bent; where a condition is given, by networks that read it."""

    prior_steps: int = setting(4, "steps of a prior that is a flow", at_least=1, at_most=64)
    prior_widths: str = setting(
        "64", "hidden widths of the networks in a prior, joined by '-'", parse=parse_widths
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def hidden(self) -> tuple[int, ...]:
        return parse_widths(self.prior_widths)

    def build(self, shapes: Shapes, architecture: Architecture) -> Net:
        d = _vector(shapes)
        inner, step = self.inner(d, shapes.c)

        def apply(params: Params, encode: Callable[[Array], Any], c: Array) -> b.Transformed:
            zeros = jnp.zeros(d, jnp.float32)
            chain = _chain([step(p, jnp.ravel(c)) for p in params], d)
            return b.Transformed(Normal(zeros, zeros), chain)

        return Net(_init(inner, self.prior_steps), apply)

    def inner(self, d: int, context: Shape) -> tuple[Net, Callable[..., Any]]:
        return _couplings(self, d, (math.prod(context),))


class RealNVPPrior(_FlowPrior):
    """Affine couplings (Dinh et al. 2017)."""


@dataclasses.dataclass(frozen=True)
class SplinePrior(_FlowPrior, Splined):
    """Couplings of rational-quadratic splines (Durkan et al. 2019)."""


class MAF(_FlowPrior):
    """Masked autoregressive (Papamakarios et al. 2017): its density is one pass, a sample one for
    each latent.
    """

    def inner(self, d: int, context: Shape) -> tuple[Net, Callable[..., Any]]:
        net, step = _autoregressive(self, d, (math.prod(context),), b.Affine)
        return net, lambda params, h: b.Inverse(step(params, h))
