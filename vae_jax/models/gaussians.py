"""Diagonal Gaussians whose numbers a net says: what posteriors, priors and layers are made of."""

from collections.abc import Callable

from vae_jax.distributions import Normal
from vae_jax.models.scales import unbounded
from vae_jax.types import Array, Net, Params

Bound = Callable[[Array], Array]


def gaussian(net: Net, bound: Bound = unbounded) -> Net:
    """N(μ, diag σ²) given anything; the net's output [2, *z] is μ and log σ, kept in `bound`."""

    def apply(params: Params, *inputs: Array) -> Normal:
        return of_numbers(net.apply(params, *inputs), bound)

    return Net(net.init, apply)


def of_numbers(numbers: Array, bound: Bound) -> Normal:
    """Of [2, *z], μ and log σ."""
    mean, log_scale = numbers
    return Normal(mean, bound(log_scale))
