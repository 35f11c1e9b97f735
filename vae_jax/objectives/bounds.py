"""Bounds on log p(x) as objectives: the ELBO, importance-weighted bounds, and their gradients.

    objective(vae, params, key, batch, weights) -> (loss, metrics)

In nats per image. Below, with z ~ q(z|x),

    log w = log p(x|z) + log p(z) − log q(z|x),
    log w_β = log p(x|z) + β [log p(z) − log q(z|x)],

and S is the number of samples z of each image.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from vae_jax.distributions.divergence import kl_per_unit
from vae_jax.models.vae import VAE
from vae_jax.objectives.terms import (
    KLWeights,
    Metrics,
    draw,
    sample_keys,
    summary,
    with_gradient_of,
)
from vae_jax.settings import UserError
from vae_jax.types import Array, Batch, Key, Keys, Params, Scalar


def _stopped(tree: Any) -> Any:
    return jax.tree.map(jax.lax.stop_gradient, tree)


# The ELBO and how its rate is weighted


def elbo(
    vae: VAE,
    params: Params,
    key: Key,
    batch: Batch,
    weights: KLWeights,
    *,
    num_samples: int = 1,
    closed_form: bool = True,
    groups: int = 1,
) -> tuple[Scalar, Metrics]:
    """distortion + β·rate, the batch's mean (Kingma & Welling 2014, eq. 10; β-VAE for β ≠ 1).

    With β = 1, no capacity and no free bits the loss is −ELBO; otherwise it is no bound on
    log p(x). closed_form=False takes the rate from the samples even where it is known exactly.
    `groups` is the number of groups of units for free bits, 0 for one a unit, or for one each group
    of a hierarchy.
    """
    _at_least_one(num_samples)
    draws = draw(vae, params, key, batch, num_samples)
    rate = draws.rate if closed_form else draws.sampled_rate
    metrics = summary(rate, -draws.log_likelihood)
    if groups == 1:
        by_group = jnp.mean(rate)[None]
    elif draws.rates is not None:
        by_group = _layer_rates(draws.rates, groups)
    else:
        by_group = _group_rates(vae, params, batch, groups)
    return metrics["distortion"] + weighted_rate(by_group, weights), metrics


def weighted_rate(rates: Float[Array, " groups"], weights: KLWeights) -> Scalar:
    """β |R − C| with R = Σ_g max(λ, R_g), for the batch's mean rates R_g of groups of units.

    λ are free bits (Kingma et al. 2016); C is the capacity (Burgess et al. 2018, where β is γ).
    Where both are 0 this is β·R exactly, also for a sampled R below 0.
    """
    free, capacity = weights.free_bits, weights.capacity
    rate = jnp.sum(jnp.where(free > 0, jnp.maximum(rates, free), rates))
    return weights.beta * jnp.where(capacity > 0, jnp.abs(rate - capacity), rate)


def _layer_rates(
    rates: Float[Array, "batch samples layers"], groups: int
) -> Float[Array, " layers"]:
    """The batch's mean rate of each group of a hierarchy, which are what they are."""
    if groups:
        raise UserError(
            f"free_bits_groups must be 0 (each group of a hierarchy) or 1; got {groups}"
        )
    return jnp.mean(rates, axis=(0, 1))


def _group_rates(vae: VAE, params: Params, batch: Batch, groups: int) -> Float[Array, " groups"]:
    """The batch's mean KL of each group of neighbouring units; of each unit where groups is 0."""

    def example(x: Any, c: Any) -> Array:
        return kl_per_unit(vae.posterior(params, x, c), vae.prior(params, c))

    units = jnp.mean(jax.vmap(example)(*batch), axis=0)
    if groups == 0:
        return units
    if len(units) % groups:
        raise UserError(f"free_bits_groups must divide latent_dim, {len(units)}; got {groups}")
    return units.reshape(groups, -1).sum(axis=1)


def prior_alone(
    vae: VAE, params: Params, key: Key, batch: Batch, weights: KLWeights
) -> tuple[Scalar, Metrics]:
    """distortion + β·rate as a function of the prior alone: encoder and decoder get no gradient.

    Its minimum is the prior nearest to the aggregate posterior, E_x KL(q(z|x)‖p(z)) = I(x; z) +
    KL(q(z)‖p(z)) (Hoffman & Johnson 2016): what is left of the rate is the mutual information.
    """
    if not jax.tree.leaves(params.get("prior", ())):
        raise UserError("prior_alone trains the prior, and the model's has no parameters")
    fixed = {name: _stopped(part) for name, part in params.items() if name != "prior"}
    draws = draw(vae, {**fixed, "prior": params["prior"]}, key, batch)
    metrics = summary(draws.rate, -draws.log_likelihood)
    return metrics["distortion"] + weighted_rate(metrics["rate"][None], weights), metrics


# Several samples


def importance_weighted(
    vae: VAE,
    params: Params,
    key: Key,
    batch: Batch,
    weights: KLWeights,
    *,
    num_samples: int,
    num_groups: int = 1,
    mix: float = 0.0,
    doubly: bool = False,
) -> tuple[Scalar, Metrics]:
    """−log (1/S) Σ_s w_s and its relatives, with log w_β for log w.

    IWAE (Burda et al. 2016, §3): one group. MIWAE (Rainforth et al. 2018): the mean of
    this over `num_groups` groups of samples. CIWAE (there): `mix` times the ELBO from the same
    samples plus (1 − mix) times this. `doubly`: the encoder's gradient reparameterised twice, as
    DReG (Tucker et al. 2019) or, with one sample, STL (Roeder et al. 2017).

    The metric `bound` is the true bound, of β = 1: with β ≠ 1 the loss is none.
    """
    _check_groups(num_samples, num_groups)
    draws = draw(vae, params, key, batch, num_samples)
    average = functools.partial(_average, num_groups=num_groups, mix=mix)
    bound = average(draws.log_likelihood - draws.sampled_rate)
    if doubly:
        values, surrogate = _doubly(
            vae, params, key, batch, weights.beta, num_samples, num_groups, mix
        )
        loss = -with_gradient_of(average(values), surrogate)
    else:
        loss = -average(draws.log_likelihood - weights.beta * draws.sampled_rate)
    return loss, summary(draws.rate, -draws.log_likelihood, bound=jax.lax.stop_gradient(bound))


def _average(log_w: Float[Array, "batch samples"], num_groups: int, mix: float) -> Scalar:
    """(1 − mix) · mean over groups of log mean w + mix · mean log w, the batch's mean."""
    groups = log_w.reshape(len(log_w), num_groups, -1)
    inside = jax.nn.logsumexp(groups, axis=-1) - jnp.log(groups.shape[-1])
    return (1 - mix) * jnp.mean(inside) + mix * jnp.mean(log_w)


def _doubly(
    vae: VAE,
    params: Params,
    key: Key,
    batch: Batch,
    beta: Any,
    num_samples: int,
    num_groups: int,
    mix: float,
) -> tuple[Float[Array, "batch samples"], Scalar]:
    """log w_β, and something whose gradient is the doubly reparameterised one.

    With normalised weights w̃, decoder and prior get Σ w̃ ∂log w_β; the encoder, through z alone,
    Σ w̃ (1 − β + β w̃) (∂log w_β/∂z)(∂z/∂φ): the score function −β Σ w̃ ∂log q/∂φ, reparameterised,
    takes β (w̃ − w̃²) from the w̃ of the path through z. The two share their forward pass.
    """

    def example(keys: Keys, x: Any, c: Any) -> tuple[Array, Array]:
        q = vae.posterior(params, x, c)

        def log_weight(params: Params, z: Any) -> Array:
            log_prior = vae.prior(params, c).log_prob(z)
            rate = _stopped(q).log_prob(z) - log_prior
            return vae.likelihood(params, z, c).log_prob(x) - beta * rate

        def one(key: Key) -> tuple[Array, Array]:
            z = q.sample(key)
            return log_weight(params, _stopped(z)), log_weight(_stopped(params), z)

        return jax.vmap(one)(keys)

    model, encoder = jax.vmap(example)(sample_keys(key, batch, num_samples), *batch)
    groups = _stopped(model).reshape(len(model), num_groups, -1)
    w = jax.nn.softmax(groups, axis=-1).reshape(model.shape)
    to_model = (1 - mix) * w / num_groups + mix / num_samples
    to_encoder = (1 - mix) * w * (1 - beta + beta * w) / num_groups + mix / num_samples
    return model, jnp.mean(jnp.sum(to_model * model + to_encoder * encoder, axis=1))


def score_function(
    vae: VAE, params: Params, key: Key, batch: Batch, weights: KLWeights, *, num_samples: int
) -> tuple[Scalar, Metrics]:
    """−mean log w_β, with the encoder's gradient by the score function (REINFORCE).

    (1/S) Σ_s (log w_s − b_s) ∂log q(z_s)/∂φ with b_s the mean of the *other* samples' log w (Mnih &
    Rezende 2016; Kool et al. 2019): unbiased, no path through z, for any posterior.
    """
    if num_samples < 2:
        raise UserError(
            "score_function needs num_samples ≥ 2, because its baseline is the other samples' "
            f"mean; got {num_samples}"
        )

    def example(keys: Keys, x: Any, c: Any) -> Array:
        q, p = vae.posterior(params, x, c), vae.prior(params, c)

        def one(key: Key) -> tuple[Array, Array]:
            z = _stopped(q.sample(key))
            log_likelihood = vae.likelihood(params, z, c).log_prob(x)
            return log_likelihood + weights.beta * p.log_prob(z), q.log_prob(z)

        log_joint, log_q = jax.vmap(one)(keys)
        log_w = jax.lax.stop_gradient(log_joint - weights.beta * log_q)
        advantage = (log_w - jnp.mean(log_w)) * num_samples / (num_samples - 1)  # log w − baseline
        return with_gradient_of(jnp.mean(log_w), jnp.mean(log_joint + advantage * log_q))

    draws = draw(vae, params, key, batch, num_samples)
    values = jax.vmap(example)(sample_keys(key, batch, num_samples), *batch)
    return -jnp.mean(values), summary(draws.rate, -draws.log_likelihood)


def _at_least_one(num_samples: int) -> None:
    if num_samples < 1:
        raise UserError(f"num_samples must be a whole number ≥ 1; got {num_samples}")


def _check_groups(num_samples: int, num_groups: int) -> None:
    _at_least_one(num_samples)
    if num_groups < 1 or num_samples % num_groups:
        raise UserError(
            f"num_groups must divide num_samples, {num_samples}, into equal groups; "
            f"got {num_groups}"
        )
