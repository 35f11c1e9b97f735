"""FactorVAE (Kim & Mnih 2018): the total correlation of q(z), by a discriminator.

A discriminator D learns to tell z ~ q(z) from z whose latents are each drawn by themselves, which
permuting them within a batch makes of it. At its best log D/(1 − D) is log q(z)/Π_j q(z_j), whose
mean under q(z) is the total correlation. The VAE pays for it; the discriminator learns beside it.

Here both are updated by one optimiser, and the permuted z are of the same batch (the paper: one
each, and a second batch).
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float

from vae_jax.models.vae import VAE
from vae_jax.networks import Style, mlp, parse_widths
from vae_jax.objectives.terms import (
    Facts,
    KLWeights,
    Metrics,
    Objective,
    draw,
    flat,
    summary,
    with_gradient_of,
)
from vae_jax.settings import UserError, setting, validate
from vae_jax.types import Array, Batch, Key, Net, Params, Scalar


def permuted(key: Key, z: Float[Array, "batch latents"]) -> Float[Array, "batch latents"]:
    """Each latent shuffled over the batch by itself (Kim & Mnih 2018, algorithm 1)."""
    keys = jax.random.split(key, z.shape[1])
    return jax.vmap(jax.random.permutation, in_axes=(0, 1), out_axes=1)(keys, z)


def factor(
    vae: VAE,
    params: Params,
    key: Key,
    batch: Batch,
    weights: KLWeights,
    *,
    net: Net,
    strength: float,
) -> tuple[Scalar, Metrics]:
    """distortion + β·rate + γ·TC, with the discriminator's cross-entropy as a second loss.

    net: z -> log D/(1 − D), [1]. strength: γ. The value is that of the VAE's loss; `tc` is the
    estimate, and `discriminator` the cross-entropy, log 2 where it can tell nothing.
    """
    draw_key, permute_key = jax.random.split(key)
    draws = draw(vae, params, draw_key, batch)
    z = flat(jax.tree.map(lambda a: a[:, 0], draws.z))
    own = params["objective"]

    def log_odds(own: Params, z: Array) -> Array:
        return jax.vmap(partial(net.apply, own))(z)[:, 0]

    tc = jnp.mean(log_odds(jax.lax.stop_gradient(own), z))
    still = jax.lax.stop_gradient(z)
    told = jax.nn.softplus(-log_odds(own, still))  # −log D of q(z)
    missed = jax.nn.softplus(log_odds(own, permuted(permute_key, still)))
    entropy = (jnp.mean(told) + jnp.mean(missed)) / 2
    metrics = summary(draws.rate, -draws.log_likelihood, tc=tc, discriminator=entropy)
    loss = metrics["distortion"] + weights.beta * metrics["rate"] + strength * tc
    return with_gradient_of(loss, loss + entropy), metrics


@dataclasses.dataclass(frozen=True)
class Factor:
    """FactorVAE (Kim & Mnih 2018)."""

    tc_weight: float = setting(6.4, "factor: weight γ of the total correlation", at_least=0)
    discriminator_widths: str = setting(
        "1000-1000-1000-1000-1000-1000", "factor: hidden widths of the discriminator",
        parse=parse_widths,
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)

    def build(self, facts: Facts) -> Objective:
        if facts.latents < 2:
            raise UserError("factor needs at least 2 latents, to be independent of each other")
        style = Style(activation=partial(jax.nn.leaky_relu, negative_slope=0.2))
        net = mlp(parse_widths(self.discriminator_widths), style).encoder([(facts.latents,)], (1,))
        return Objective(net.init, partial(factor, net=net, strength=self.tc_weight))
