"""The gradient of an expectation, ∇_φ E_{z ~ q_φ}[f(φ, z)], from one sample of z: two ways.

Both are unbiased. The pathwise one differentiates through the sample z = g(φ, ε) and needs f to be
differentiable in z; the score-function one needs only its value, and pays for that in variance.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from vae_jax.types import Key, Params, Scalar

Integrand = Callable[[Params, Array], Scalar]  # f(φ, z)
Family = Callable[[Params], Any]  # φ -> q_φ


def pathwise(f: Integrand, q: Family, params: Params, key: Key) -> Params:
    """∇_φ f(φ, g(φ, ε)): the reparameterisation trick (Kingma & Welling 2014, §2.4)."""
    return jax.grad(lambda params: f(params, q(params).sample(key)))(params)


def score_function(
    f: Integrand, q: Family, params: Params, key: Key, baseline: Scalar | float = 0.0
) -> Params:
    """(f(φ, z) − baseline) ∇_φ log q_φ(z) + ∇_φ f(φ, z), z held fixed (Williams 1992, "REINFORCE").

    Any baseline that does not depend on z leaves the mean alone, because E_q[∇_φ log q_φ] = 0.
    """
    z = jax.lax.stop_gradient(q(params).sample(key))

    def surrogate(params: Params) -> Scalar:
        value = f(params, z)
        return value + jax.lax.stop_gradient(value - baseline) * q(params).log_prob(z)

    return jax.grad(surrogate)(params)
