"""What the latents carry: posterior means, active units, their rates, the aggregate posterior."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Bool, Float

from vae_jax import distributions, models
from vae_jax.distributions import kl_per_unit
from vae_jax.distributions.bijectors import Transformed
from vae_jax.evaluation.per_example import PRECISION, mean, per_example, standard_error
from vae_jax.models.vae import VAE
from vae_jax.settings import UserError
from vae_jax.types import Batch, Key, Params, Shape

ACTIVE = 0.01  # a unit is active when Var_x(E[z|x]) exceeds this (Burda et al. 2016, §5.2)


def _posterior_mean(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> Any:
    # The same noise for every image: a unit that tells nothing has the same estimate everywhere.
    shared = jax.random.key(0)
    return ravel_pytree(distributions.mean(vae.posterior(params, x, c), shared))[0]


def posterior_means(
    vae: VAE, params: Params, data: Batch, at_once: int = 5000
) -> Float[np.ndarray, "n latents"]:
    """E[z|x] under the posterior, of every image, all latents in one vector; where it is not known
    in closed form, estimated from samples (see `mean_is_exact`), of about `at_once` z at a time.
    """
    exact = mean_is_exact(vae, data.x.shape[1:], data.condition.shape[1:])
    batch_size = max(1, min(500, at_once // (1 if exact else distributions.MEAN_SAMPLES)))
    return per_example(_posterior_mean, vae, params, jax.random.key(0), data, batch_size)


def mean_is_exact(vae: VAE, x_shape: Shape, c_shape: Shape = (0,)) -> bool:
    """Whether the posterior knows its mean; computes nothing."""
    known = []

    def ask(params: Params, x: Any, c: Any) -> Any:
        q = vae.posterior(params, x, c)
        known.append(distributions.has_mean(q))
        return q.sample(jax.random.key(0))

    x, c = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x_shape, c_shape))
    jax.eval_shape(ask, jax.eval_shape(vae.init, jax.random.key(0)), x, c)
    return known[0]


def active_units(means: Float[np.ndarray, "n latents"]) -> Bool[np.ndarray, " latents"]:
    """Which latents use the data: Var_x(E[z|x]) > 0.01 (Burda et al. 2016, §5.2)."""
    return np.var(np.asarray(means, np.float64), axis=0) > ACTIVE


def _kl_units(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> Any:
    return kl_per_unit(vae.posterior(params, x, c), vae.prior(params, c))


def unit_rates(vae: VAE, params: Params, data: Batch) -> Float[np.ndarray, " latents"]:
    """The mean KL of each latent, in nats; they sum to the rate. Diagonal Gaussians only."""
    units = per_example(_kl_units, vae, params, jax.random.key(0), data)
    return np.mean(np.asarray(units, np.float64), axis=0)


def prior_sees_condition(vae: VAE, c_shape: Shape) -> bool:
    """Whether p(z|c) is another for another c: then there is no one aggregate posterior."""
    params = jax.eval_shape(vae.init, jax.random.key(0))
    c = jax.ShapeDtypeStruct(c_shape, jnp.float32)
    traced = jax.make_jaxpr(lambda c, p: jax.tree.leaves(vae.prior(p, c)))(c, params).jaxpr
    used = [v for equation in traced.eqns for v in equation.invars] + list(traced.outvars)
    return any(v is traced.invars[0] for v in used)


def _posterior_and_sample(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> Any:
    q = vae.posterior(params, x, c)
    z, log_q = q.sample_and_log_prob(key)
    return q, z, log_q, vae.prior(params, c).log_prob(z)


def _posterior_on_shapes(vae: VAE, data: Batch) -> Any:
    params = jax.eval_shape(vae.init, jax.random.key(0))
    x, c = (jax.ShapeDtypeStruct(np.shape(a)[1:], jnp.float32) for a in data)
    return jax.eval_shape(vae.posterior, params, x, c)


@jax.jit
def _log_sums(q: Any, z: Any) -> Any:
    """log Σ_j q(z_i|x_j) for each of some samples z."""
    with jax.default_matmul_precision(PRECISION):
        return jax.lax.map(lambda z: jax.nn.logsumexp(jax.vmap(lambda q: q.log_prob(z))(q)), z)


def aggregate_posterior(
    vae: VAE, params: Params, data: Batch, key: Key, block: int = 1000
) -> dict[str, float | bool | None]:
    """The rate taken apart over all N images, q(z) = (1/N) Σ_n q(z|x_n) (Hoffman & Johnson 2016):

        rate = I(x; z) + KL(q(z)‖p(z)),   I(x; z) = E[log q(z|x) − log q(z)] ≤ log N.

    From one z an image, with standard errors. Within 1 nat of log N the mutual information says
    little more than that there were only N images, and `at_ceiling` is true. Costs N² densities;
    the prior must not depend on the condition. Of a hierarchy or a flow, each density of which is a
    pass through networks, UserError.
    """
    if isinstance(_posterior_on_shapes(vae, data), Transformed):
        raise UserError("that of a flow takes each image's flow at all other images' samples")
    if isinstance(models.latents(vae, data.x.shape[1:], data.condition.shape[1:]), tuple):
        raise UserError("each of the N² densities of a hierarchy is a pass through its networks")
    q, z, log_q, log_prior = per_example(_posterior_and_sample, vae, params, key, data)
    n = len(log_q)
    total = np.full(n, -np.inf)
    for start in range(0, n, block):
        some = jax.tree.map(lambda a: a[start : start + block], q)
        total = np.logaddexp(total, np.asarray(_log_sums(some, z), np.float64))
    log_aggregate = total - np.log(n)
    information, marginal = log_q - log_aggregate, log_aggregate - log_prior
    return {
        "mutual_information": mean(information),
        "mutual_information_se": standard_error(information),
        "marginal_kl": mean(marginal),
        "marginal_kl_se": standard_error(marginal),
        "ceiling": float(np.log(n)),
        "at_ceiling": bool(mean(information) > np.log(n) - 1),
    }
