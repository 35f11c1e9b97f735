"""Two layers of latents, inferred from the top down (Tomczak & Welling 2018, §4, their HVAE).

    p(z₂) p(z₁|z₂) p(x|z₁,z₂),    q(z₂|x) q(z₁|x,z₂)

z is (z₂, z₁), from the top down. The rate is KL(q(z₂|x)‖p(z₂)) + KL(q(z₁|x,z₂)‖p(z₁|z₂)), the
second in closed form, and the first where there is one. p(z₂) is any prior; one that is made of
encoded images is handed q(z₂|x).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.distributions import Chain
from vae_jax.models.gaussians import gaussian
from vae_jax.models.standard import WithPrior
from vae_jax.models.two_layer import Layers, initialised
from vae_jax.models.vae import VAE, Draw, rate
from vae_jax.networks import Architecture, branches, mlp, seen_and_drawn
from vae_jax.settings import UserError, build, chosen
from vae_jax.types import Array, Key, Net, Params, Shape, Shapes


def top_down(q2: Net, q1: Net, p2: Net, p1: Net, likelihood: Net) -> VAE:
    """The VAE of nets for q(z₂|x,c), q(z₁|x,z₂,c), p(z₂|c), p(z₁|z₂,c) and p(x|z₁,z₂,c), the last
    of which takes (z, c), and each of which gives a distribution.
    """
    parts = {"posterior": {"upper": q2, "lower": q1}, "prior": {"upper": p2, "lower": p1}}

    q_below, p_below = _below(q1), _below(p1)

    def posterior(params: Params, x: Any, c: Any) -> Chain:
        own = params["posterior"]
        return Chain(q2.apply(own["upper"], x, c), (own["lower"], x, c), q_below)

    def top(params: Params, c: Any) -> Any:
        def encode(x: Any) -> Any:
            return q2.apply(params["posterior"]["upper"], x, c)

        return p2.apply(params["prior"]["upper"], encode, c)

    def prior(params: Params, c: Any) -> Chain:
        return Chain(top(params, c), (params["prior"]["lower"], c), p_below)

    def decode(params: Params, z: Any, c: Any) -> Any:
        return likelihood.apply(params["likelihood"], z, c)

    def draw(params: Params, key: Key, x: Any, c: Any) -> Draw:
        q, p, keys = posterior(params, x, c), prior(params, c), jax.random.split(key)
        z2, log_q2 = q.first.sample_and_log_prob(keys[0])
        below, p_z1 = q_below(q.params, z2), p_below(p.params, z2)
        z1, log_q1 = below.sample_and_log_prob(keys[1])
        log_p2, log_p1 = p.first.log_prob(z2), p_z1.log_prob(z1)
        rates = jnp.stack([
            rate(q.first, p.first, keys[0], log_q2 - log_p2),
            rate(below, p_z1, keys[1], log_q1 - log_p1),
        ])  # fmt: skip
        log_x = decode(params, (z2, z1), c).log_prob(x)
        return Draw((z2, z1), log_x, log_p2 + log_p1, log_q2 + log_q1, jnp.sum(rates), rates)

    return VAE(initialised({**parts, "likelihood": likelihood}), posterior, decode, prior, draw)


def _below(net: Net) -> Callable[[Any, Any], Any]:
    """((params, what is seen …, c), z₂) -> the lower layer's distribution."""

    def given(params: Any, z2: Any) -> Any:
        own, *seen, c = params
        return net.apply(own, *seen, z2, c)

    return given


def of_both(architecture: Architecture, upper: Shape, lower: Shape) -> Architecture:
    """Its decoder reads z = (z₂, z₁) and c, whatever shapes of z it is told."""

    def decoder(shapes: Any, output: Shape, image: Shape = (), start: Array | None = None) -> Net:
        net = architecture.decoder([lower, upper, shapes[1]], output, image, start)
        return Net(net.init, lambda params, z, c: net.apply(params, z[1], z[0], c))

    return Architecture(architecture.encoder, decoder)


@dataclasses.dataclass(frozen=True)
class HVAE(WithPrior, Layers):
    """As published: gated nets, the weights of He et al. (2015)."""

    published = "40-40", "300-300,300-300"
    activation = "gated"
    initialiser = "he"
    auto_range = "-3,1"  # log variances in [−6, 2]

    def architectures(self, shapes: Shapes) -> tuple[Architecture, Architecture]:
        """Those of q(z₂|x), and of q(z₁|x,z₂) and p(x|z₁,z₂)."""
        return mlp(self.widths[0], self.style), branches(self.widths[1], self.style)

    def build(self, shapes: Shapes) -> VAE:
        upper, lower = ((size,) for size in self.latents)
        if not self.widths[1]:
            raise UserError("layer_widths of the lower layer must be one number at least")
        dense, (top, joint) = mlp(self.widths[0], self.style), self.architectures(shapes)
        pixels = of_both(joint, upper, lower)
        return top_down(
            gaussian(top.encoder([shapes.x, shapes.c], (2, *upper)), self.bound),
            gaussian(joint.encoder([shapes.x, upper, shapes.c], (2, *lower)), self.bound),
            build(chosen(self, "prior"), shapes._replace(z=upper), dense),
            gaussian(dense.decoder([upper, shapes.c], (2, *lower)), self.bound),
            build(chosen(self, "likelihood"), shapes, pixels),
        )


# kernel, channels, stride of the convolutions of q(z₂|x) and of q(z₁|x,z₂): to 7 × 7 × 6 of 28 × 28
TOP = ((7, 32, 1), (3, 32, 2), (5, 64, 1), (3, 64, 2), (3, 6, 1))
LOWER = tuple((3, channels, stride) for _, channels, stride in TOP)


class ConvHVAE(HVAE):
    """As published: gated convolutions next to the image, gated layers elsewhere."""

    def architectures(self, shapes: Shapes) -> tuple[Architecture, Architecture]:
        if len(shapes.x) != 3:
            raise UserError(f"model conv_hvae needs images; got x of shape {shapes.x}")
        branch, *joint = self.widths[1]
        drawn = (64,) * 4
        return (
            seen_and_drawn(TOP, (), branch, drawn, self.style),
            seen_and_drawn(LOWER, joint, branch, drawn, self.style),
        )
