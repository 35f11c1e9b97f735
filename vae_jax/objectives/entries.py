"""The objectives by name, each with its settings.

An entry of OBJECTIVES is a frozen dataclass with `build(facts) -> Objective`, or a function of the
facts (see `terms`). Any function (vae, params, key, batch, weights) -> (loss, metrics) trains: the
registry only gives names to some.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from vae_jax.objectives.bounds import elbo, importance_weighted, prior_alone, score_function
from vae_jax.objectives.factor import Factor
from vae_jax.objectives.geco import Geco
from vae_jax.objectives.regularised import beta_tc, dip, info
from vae_jax.objectives.terms import Facts, Objective, without_parameters
from vae_jax.settings import UserError, setting, validate


def _objective(loss: Callable[..., Any], **options: Any) -> Objective:
    return without_parameters(partial(loss, **options))


@dataclasses.dataclass(frozen=True)
class _Entry:
    """An objective without settings of its own."""

    def __post_init__(self) -> None:
        validate(self)


@dataclasses.dataclass(frozen=True)
class _Sampled(_Entry):
    """An objective of several z for each image."""

    num_samples: int = setting(1, "samples of z for each image", unit="samples", at_least=1)


@dataclasses.dataclass(frozen=True)
class Elbo(_Sampled):
    """−ELBO (Kingma & Welling 2014), and how its rate is weighted."""

    kl_estimate: str = setting(
        "closed_form",
        "the rate of elbo: closed_form where there is one, or sampled",
        choices=("closed_form", "sampled"),
    )
    capacity: float = setting(
        0.0, "the rate aimed at, beta·|rate − capacity|; 0 is off", unit="nats", at_least=0
    )
    capacity_steps: int = setting(0, "linear rise of the capacity from 0", unit="steps", at_least=0)
    free_bits: float = setting(
        0.0, "rate below which a group of latents is not penalised; 0 is off", unit="nats",
        at_least=0,
    )  # fmt: skip
    free_bits_groups: int = setting(
        0, "groups of neighbouring latents for free_bits; 0: each latent is one", at_least=0
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.capacity_steps and not self.capacity:
            raise UserError(f"capacity_steps needs capacity > 0; got {self.capacity:g}")
        if self.free_bits_groups and not self.free_bits:
            raise UserError(f"free_bits_groups needs free_bits > 0; got {self.free_bits:g}")
        if self.free_bits and self.free_bits_groups != 1 and self.kl_estimate == "sampled":
            raise UserError(
                "kl_estimate sampled knows no rates of single latents: free_bits needs closed_form"
            )
        if self.capacity and self.free_bits:
            raise UserError("capacity and free_bits both bound the rate: give one of them")

    def build(self, facts: Facts) -> Objective:
        return _objective(
            elbo,
            num_samples=self.num_samples,
            closed_form=self.kl_estimate == "closed_form",
            groups=self.free_bits_groups if self.free_bits else 1,
        )


class Iwae(_Sampled):
    """The importance-weighted bound (Burda et al. 2016)."""

    def build(self, facts: Facts) -> Objective:
        return _objective(importance_weighted, num_samples=self.num_samples)


@dataclasses.dataclass(frozen=True)
class Miwae(_Sampled):
    """The mean of several importance-weighted bounds (Rainforth et al. 2018)."""

    num_groups: int = setting(1, "groups of samples, of miwae", at_least=1)

    def __post_init__(self) -> None:
        validate(self)
        if self.num_samples % self.num_groups:
            raise UserError(
                f"num_groups must divide num_samples, {self.num_samples}; got {self.num_groups}"
            )

    def build(self, facts: Facts) -> Objective:
        return _objective(
            importance_weighted, num_samples=self.num_samples, num_groups=self.num_groups
        )


@dataclasses.dataclass(frozen=True)
class Ciwae(_Sampled):
    """The ELBO and the importance-weighted bound, mixed (Rainforth et al. 2018)."""

    mix: float = setting(0.05, "weight of the ELBO in ciwae", at_least=0, at_most=1)

    def build(self, facts: Facts) -> Objective:
        return _objective(importance_weighted, num_samples=self.num_samples, mix=self.mix)


class Dreg(_Sampled):
    """The importance-weighted bound, its encoder's gradient reparameterised twice."""

    def build(self, facts: Facts) -> Objective:
        return _objective(importance_weighted, num_samples=self.num_samples, doubly=True)


class Stl(_Entry):
    """Sticking the landing (Roeder et al. 2017): of one sample; dreg is its form for several."""

    def build(self, facts: Facts) -> Objective:
        return _objective(importance_weighted, num_samples=1, doubly=True)


class ScoreFunction(_Sampled):
    """The ELBO without a path through z (REINFORCE)."""

    def __post_init__(self) -> None:
        validate(self)
        if self.num_samples < 2:
            raise UserError(
                "score_function needs num_samples ≥ 2, because its baseline is the other samples' "
                f"mean; got {self.num_samples}"
            )

    def build(self, facts: Facts) -> Objective:
        return _objective(score_function, num_samples=self.num_samples)


@dataclasses.dataclass(frozen=True)
class BetaTC(_Entry):
    """β-TCVAE (Chen et al. 2018)."""

    tc_estimator: str = setting(
        "weighted",
        "how beta_tc sees q(z) in a batch: minibatch-weighted or -stratified",
        choices=("weighted", "stratified"),
    )

    def build(self, facts: Facts) -> Objective:
        stratified = self.tc_estimator == "stratified"
        return _objective(beta_tc, num_examples=facts.num_examples, stratified=stratified)


@dataclasses.dataclass(frozen=True)
class DipI(_Entry):
    """DIP-VAE-I (Kumar et al. 2018)."""

    dip_lambda: float = setting(
        10.0, "weight of covariances; that of the variances is 10 times it (dip_i) or the same",
        at_least=0,
    )  # fmt: skip

    def build(self, facts: Facts) -> Objective:
        return _objective(dip, off_diagonal=self.dip_lambda, diagonal=10 * self.dip_lambda)


class DipII(DipI):
    """DIP-VAE-II (Kumar et al. 2018)."""

    def build(self, facts: Facts) -> Objective:
        return _objective(dip, off_diagonal=self.dip_lambda, diagonal=self.dip_lambda, within=True)


@dataclasses.dataclass(frozen=True)
class Info(_Entry):
    """InfoVAE (Zhao et al. 2017)."""

    info_lambda: float = setting(1000.0, "λ of info: beta + the weight of the MMD²", at_least=0)

    def build(self, facts: Facts) -> Objective:
        return _objective(info, strength=self.info_lambda)


class PriorAlone(_Entry):
    """The ELBO in the prior alone, of a model whose encoder and decoder are trained."""

    def build(self, facts: Facts) -> Objective:
        return _objective(prior_alone)


OBJECTIVES = {
    "elbo": Elbo,
    "iwae": Iwae,
    "miwae": Miwae,
    "ciwae": Ciwae,
    "dreg": Dreg,
    "stl": Stl,
    "score_function": ScoreFunction,
    "beta_tc": BetaTC,
    "dip_i": DipI,
    "dip_ii": DipII,
    "info": Info,
    "factor": Factor,
    "geco": Geco,
    "prior_alone": PriorAlone,
}
