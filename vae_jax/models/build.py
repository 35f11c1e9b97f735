"""The one place where names become a model."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vae_jax import settings
from vae_jax.data.conditions import CONDITIONS
from vae_jax.models.doersch import Doersch
from vae_jax.models.hvae import HVAE, ConvHVAE
from vae_jax.models.ladder import Ladder
from vae_jax.models.standard import Standard
from vae_jax.models.two_layer import TwoLayer
from vae_jax.models.vae import VAE, with_constant_condition
from vae_jax.settings import choice, setting, validate, with_entries
from vae_jax.types import Array, Shape, Shapes

# name -> (shapes) -> VAE; x, c and the data's mean are known, the model decides about z
MODELS = {
    "standard": Standard,
    "doersch": Doersch,
    "two_layer": TwoLayer,
    "hvae": HVAE,
    "conv_hvae": ConvHVAE,
    "ladder": Ladder,
}


@dataclasses.dataclass(frozen=True)
@with_entries
class ModelConfig:
    """Everything that decides which functions a VAE consists of, data shapes apart."""

    condition: str = setting(
        "none",
        "what is given of each image, p(x|c): its label, or some of its pixels, drawn as "
        "Bernoulli(grey) anew at each use, and the others are the target",
        choices=CONDITIONS,
    )
    model: str = choice(
        "standard",
        MODELS,
        "standard: one layer of latents, of the parts below; doersch: the nets of "
        "cdoersch/vae_tutorial; two_layer: latents of latents, from the bottom up (Burda et al. "
        "2016); hvae, conv_hvae: from the top down (Tomczak & Welling 2018); ladder: many groups "
        "of them along one path, dense or convolutional (after Child 2021)",
    )

    if TYPE_CHECKING:  # some of what the entries bring
        latent_dim: int = 2
        network: str = "mlp"
        posterior: str = "diagonal"
        prior: str = "standard"
        likelihood: str = "bernoulli"

    def __post_init__(self) -> None:
        validate(self)
        settings.chosen(self, "model")  # the entries check what goes together

    @property
    def described(self) -> str:
        """The model in a few words, for people."""
        own = getattr(settings.chosen(self, "model"), "described", "")
        if own:
            return f"{self.model}, {own}"
        if self.model != "standard":
            return self.nets + f", latent_dim {self.latent_dim}" * self.is_sized
        return (
            f"{self.nets}, latent_dim {self.latent_dim}, {self.posterior} posterior, "
            f"{self.prior} prior, {self.likelihood} likelihood"
        )

    @property
    def short(self) -> str:
        """The model in a word, for names of files: its number of latents, or what it is."""
        return f"z{self.latent_dim}" if self.is_sized else self.model.rpartition(":")[2]

    @property
    def is_sized(self) -> bool:
        """Whether it is latent_dim that says how many latents there are."""
        return hasattr(settings.chosen(self, "model"), "latent_dim")

    @property
    def nets(self) -> str:
        """The networks in a word or two, such as mlp 500."""
        if self.model != "standard":
            return self.model
        network = settings.chosen(self, "network")
        widths = "-".join(map(str, getattr(network, "hidden", ())))
        return f"{self.network} {widths}".strip()


def build(
    config: ModelConfig,
    x_shape: Shape,
    c_shape: Shape = (0,),
    x_mean: Any | None = None,
    examples: Callable[[int], Array] | None = None,
) -> VAE:
    """The VAE that a configuration names, for targets of x_shape and conditions of c_shape.

    x_mean: the mean target in [0, 1], which `init` needs where output_bias is data_mean.
    examples: k -> k targets of the training data, float [k, *x_shape], which `init` needs where
    pseudo-inputs start from data. Raises UserError where the parts do not go together with these
    shapes.
    """
    model = settings.chosen(config, "model")
    shapes = Shapes(x_shape, c_shape, x_mean=x_mean, examples=examples)
    return with_constant_condition(settings.build(model, shapes))
