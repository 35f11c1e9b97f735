"""One layer of latents: a posterior, a prior and a likelihood of the registries, assembled."""

import dataclasses
from typing import Any

from vae_jax.models.likelihoods import LIKELIHOODS
from vae_jax.models.posteriors import POSTERIORS
from vae_jax.models.priors import PRIORS
from vae_jax.models.vae import VAE, assemble
from vae_jax.networks import NETWORKS
from vae_jax.settings import build, choice, chosen, setting, validate
from vae_jax.types import Net, Shapes


@dataclasses.dataclass(frozen=True)
class WithPrior:
    """A model whose p(z|c), or the top of it, is chosen by itself."""

    prior: Any = choice(
        "standard",
        PRIORS,
        "family of p(z|c); conditional: Gaussian, learned from c; mixture: of Gaussians; vamp: of "
        "the posteriors of learned images; realnvp, spline, maf: flows",
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclasses.dataclass(frozen=True)
class WithLikelihood:
    """A model whose p(x|z,c) is chosen by itself."""

    likelihood: Any = choice("bernoulli", LIKELIHOODS, "family of p(x|z)")

    def __post_init__(self) -> None:
        validate(self)


@dataclasses.dataclass(frozen=True)
class OneLayer(WithPrior):
    """What models of one layer of latents have in common."""

    latent_dim: int = setting(
        2, "dimension of the latent z; 0: no latents, and no encoder", at_least=0
    )


@dataclasses.dataclass(frozen=True)
class Standard(WithLikelihood, OneLayer):
    """q(z|x,c), p(z|c) and p(x|z,c), each chosen by itself."""

    network: Any = choice("mlp", NETWORKS, "architecture of encoder and decoder")
    posterior: Any = choice(
        "diagonal",
        POSTERIORS,
        "family of q(z|x); diagonal, full: a Gaussian; mixture: of several; the others: flows",
    )

    def build(self, shapes: Shapes) -> VAE:
        shapes = shapes._replace(z=(self.latent_dim,))
        architecture = build(chosen(self, "network"))

        def part(name: str) -> Net:
            return build(chosen(self, name), shapes, architecture)

        return assemble(part("posterior"), part("likelihood"), part("prior"))
