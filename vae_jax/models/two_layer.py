"""Two layers of latents, inferred from the bottom up (Burda, Grosse & Salakhutdinov 2016, §5).

    p(z₂) p(z₁|z₂) p(x|z₁),    q(z₁|x) q(z₂|z₁),    z₂ ~ N(0, I)

z is (z₂, z₁), from the top down. The rate is the exact KL of the upper layer, given z₁, and
log q(z₁|x) − log p(z₁|z₂): z₂ comes after z₁, so that there is no KL of the lower one.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax.distributions import Chain
from vae_jax.models.gaussians import gaussian
from vae_jax.models.priors import standard
from vae_jax.models.scales import Bounded
from vae_jax.models.standard import WithLikelihood
from vae_jax.models.vae import VAE, Draw, rate
from vae_jax.networks import ACTIVATIONS, INITIALISERS, Arithmetic, Style, mlp
from vae_jax.networks import parse_widths as parse
from vae_jax.settings import build, chosen, setting
from vae_jax.types import Key, Net, Params, Shape, Shapes


def bottom_up(q1: Net, q2: Net, p1: Net, likelihood: Net, upper: Shape) -> VAE:
    """The VAE of nets for q(z₁|x,c), q(z₂|z₁), p(z₁|z₂) and p(x|z₁,c), each giving a distribution.

    upper: the shape of z₂, whose prior is N(0, I).
    """
    top = standard(upper).apply({}, lambda x: x, jnp.zeros(0, jnp.float32))
    parts = {"posterior": {"lower": q1, "upper": q2}, "prior": {"lower": p1}}

    def posterior(params: Params, x: Any, c: Any) -> Chain:
        own = params["posterior"]
        return Chain(q1.apply(own["lower"], x, c), own["upper"], q2.apply, upwards=True)

    def prior(params: Params, c: Any) -> Chain:
        return Chain(top, params["prior"]["lower"], p1.apply)

    def decode(params: Params, z: Any, c: Any) -> Any:
        return likelihood.apply(params["likelihood"], z[1], c)

    def draw(params: Params, key: Key, x: Any, c: Any) -> Draw:
        of_z1, of_z2 = jax.random.split(key)
        z1, log_q1 = q1.apply(params["posterior"]["lower"], x, c).sample_and_log_prob(of_z1)
        q = q2.apply(params["posterior"]["upper"], z1)
        z2, log_q2 = q.sample_and_log_prob(of_z2)
        log_p1, log_p2 = p1.apply(params["prior"]["lower"], z2).log_prob(z1), top.log_prob(z2)
        rates = jnp.stack([rate(q, top, of_z2, log_q2 - log_p2), log_q1 - log_p1])
        log_x = decode(params, (z2, z1), c).log_prob(x)
        return Draw((z2, z1), log_x, log_p2 + log_p1, log_q1 + log_q2, jnp.sum(rates), rates)

    return VAE(initialised({**parts, "likelihood": likelihood}), posterior, decode, prior, draw)


def initialised(parts: dict[str, Any]) -> Any:
    """key -> the parameters of a tree of nets, in dicts as theirs."""
    nets, structure = jax.tree.flatten(parts, is_leaf=lambda part: isinstance(part, Net))

    def init(key: Key) -> Params:
        keys = jax.random.split(key, len(nets))
        return jax.tree.unflatten(structure, [n.init(k) for n, k in zip(nets, keys, strict=True)])

    return init


# Settings


def parse_layers(text: str) -> tuple[tuple[int, ...], ...]:
    """'100-100,200-200' -> ((100, 100), (200, 200)). Raises ValueError."""
    try:
        upper, lower = (parse(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            "auto, or widths joined by '-' of the upper and the lower layer, joined by ',', such "
            "as 100-100,200-200"
        ) from None
    return upper, lower


def parse_latents(text: str) -> tuple[int, int]:
    """'50-100' -> (50, 100). Raises ValueError."""
    try:
        upper, lower = (int(part) for part in text.split("-"))
    except ValueError:
        upper = lower = 0
    if min(upper, lower) < 1:
        raise ValueError("auto, or latents of the upper and the lower layer, such as 50-100")
    return upper, lower


@dataclasses.dataclass(frozen=True)
class Layers(Bounded, WithLikelihood, Arithmetic):
    """What models of two layers have in common."""

    layer_latents: str = setting(
        "auto", "latents of two layers, from the top down; auto: two_layer 50-100, hvae, "
        "conv_hvae 40-40",
        parse=lambda text: text == "auto" or parse_latents(text),
    )  # fmt: skip
    layer_widths: str = setting(
        "auto", "hidden widths of their nets, the upper layer's first; auto: two_layer "
        "100-100,200-200, hvae, conv_hvae 300-300,300-300",
        parse=lambda text: text == "auto" or parse_layers(text),
    )  # fmt: skip
    published: ClassVar[tuple[str, str]]  # latents and widths
    activation: ClassVar[str]
    initialiser: ClassVar[str]

    @property
    def latents(self) -> tuple[int, int]:
        own = self.layer_latents
        return parse_latents(self.published[0] if own == "auto" else own)

    @property
    def widths(self) -> tuple[tuple[int, ...], ...]:
        own = self.layer_widths
        return parse_layers(self.published[1] if own == "auto" else own)

    @property
    def style(self) -> Style:
        return Style(ACTIVATIONS[self.activation], INITIALISERS[self.initialiser], self.dtype)

    @property
    def described(self) -> str:
        """The model in a few words, for people."""
        latents, widths = (f"{upper} and {lower}" for upper, lower in (
            self.latents, ["-".join(map(str, widths)) for widths in self.widths]
        ))  # fmt: skip
        return f"{latents} latents, nets of {widths}"


class TwoLayer(Layers):
    """As published: tanh nets, the weights of Glorot & Bengio (2010)."""

    published = "50-100", "100-100,200-200"
    activation = "tanh"
    initialiser = "glorot"

    def build(self, shapes: Shapes) -> VAE:
        upper, lower = ((size,) for size in self.latents)
        narrow, wide = (mlp(widths, self.style) for widths in self.widths)
        return bottom_up(
            gaussian(wide.encoder([shapes.x, shapes.c], (2, *lower)), self.bound),
            gaussian(narrow.encoder([lower], (2, *upper)), self.bound),
            gaussian(narrow.decoder([upper], (2, *lower)), self.bound),
            build(chosen(self, "likelihood"), shapes._replace(z=lower), wide),
            upper,
        )
