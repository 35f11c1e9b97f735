"""Objectives that see the batch as a whole: β-TCVAE, DIP-VAE, InfoVAE."""

from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.models.vae import VAE
from vae_jax.objectives import aggregate
from vae_jax.objectives.terms import KLWeights, Metrics, draw, flat, summary
from vae_jax.types import Batch, Key, Params, Scalar


def _posteriors(vae: VAE, params: Params, batch: Batch) -> Any:
    return jax.vmap(vae.posterior, in_axes=(None, 0, 0))(params, *batch)


def beta_tc(
    vae: VAE,
    params: Params,
    key: Key,
    batch: Batch,
    weights: KLWeights,
    *,
    num_examples: int,
    stratified: bool = False,
) -> tuple[Scalar, Metrics]:
    """distortion + mutual information + β·TC + dimension-wise KL: β-TCVAE (Chen et al. 2018).

    The total correlation TC alone is weighted. The three terms are estimated from the batch (see
    `aggregate`) and sum, sample by sample, to the rate that is reported, log q(z|x) − log p(z).
    num_examples: N, the size of the data set. Needs a diagonal posterior.
    """
    draws = jax.tree.map(lambda a: a[:, 0], draw(vae, params, key, batch))
    q = _posteriors(vae, params, batch)
    joint, product = aggregate.log_aggregates(q, draws.z, num_examples, stratified)
    terms = {
        "mutual_information": jnp.mean(draws.log_posterior - joint),
        "total_correlation": jnp.mean(joint - product),
        "dimension_kl": jnp.mean(product - draws.log_prior),
    }
    metrics = summary(draws.sampled_rate, -draws.log_likelihood, **terms)
    penalty = (weights.beta - 1) * terms["total_correlation"]
    return metrics["distortion"] + metrics["rate"] + penalty, metrics


def dip(
    vae: VAE,
    params: Params,
    key: Key,
    batch: Batch,
    weights: KLWeights,
    *,
    off_diagonal: float,
    diagonal: float,
    within: bool = False,
) -> tuple[Scalar, Metrics]:
    """distortion + β·rate + λ_od Σ_{i≠j} C_ij² + λ_d Σ_i (C_ii − 1)², DIP-VAE.

    Kumar et al. (2018). C is the batch's covariance of the posterior means (DIP-VAE-I)
    or, `within`, of q(z), which adds the mean posterior covariance (DIP-VAE-II).
    """
    draws = draw(vae, params, key, batch)
    q = _posteriors(vae, params, batch)
    c = aggregate.covariance(q) if within else aggregate.covariance_of_means(q)
    variances = jnp.diagonal(c)
    off = jnp.sum(c**2) - jnp.sum(variances**2)
    penalty = off_diagonal * off + diagonal * jnp.sum((variances - 1) ** 2)
    metrics = summary(draws.rate, -draws.log_likelihood, dip=penalty)
    return metrics["distortion"] + weights.beta * metrics["rate"] + penalty, metrics


def info(
    vae: VAE, params: Params, key: Key, batch: Batch, weights: KLWeights, *, strength: float
) -> tuple[Scalar, Metrics]:
    """distortion + β·rate + (λ − β)·MMD²(q(z), p(z)), InfoVAE (Zhao et al. 2017).

    `strength` is the paper's λ and β its 1 − α: β = 0 is the MMD-VAE. The MMD² is between one
    posterior sample and one prior sample for each image.
    """
    draw_key, prior_key = jax.random.split(key)
    draws = draw(vae, params, draw_key, batch)
    keys = jax.random.split(prior_key, len(batch.x))
    sample = jax.vmap(lambda key, c: vae.prior(params, c).sample(key))
    one = jax.tree.map(lambda z: z[:, 0], draws.z)
    mmd = aggregate.mmd(flat(one), flat(sample(keys, batch.condition)))
    metrics = summary(draws.rate, -draws.log_likelihood, mmd=mmd)
    loss = metrics["distortion"] + weights.beta * metrics["rate"]
    return loss + (strength - weights.beta) * mmd, metrics
