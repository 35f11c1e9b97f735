"""The VAE as pure functions of one example, and what follows from them.

    p(x, z | c) = p(z|c) p(x|z,c),    q(z|x,c) ≈ p(z|x,c)

z is an array or, in a hierarchy, a tuple of arrays of any shapes, from the top down.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.distributions.divergence import kl, rule
from vae_jax.types import Key, Net, Params, Shape


class Draw(NamedTuple):
    """One z ~ q(z|x,c) and what it costs, in nats. rate: KL(q‖p), in closed form where there is
    one, else estimated from this z. rates: [groups], the terms of the rate, one for each group of a
    hierarchy from the top down; None where z is one group.
    """

    z: Any
    log_likelihood: Any  # log p(x|z,c)
    log_prior: Any  # log p(z|c)
    log_posterior: Any  # log q(z|x,c)
    rate: Any
    rates: Any = None

    @property
    def sampled_rate(self) -> Any:
        return self.log_posterior - self.log_prior


class VAE(NamedTuple):
    """Functions of one example; `jax.vmap` makes batches.

    init(key) -> params, a dict; posterior(params, x, c) -> q(z|x,c); likelihood(params, z, c) ->
    p(x|z,c); prior(params, c) -> p(z|c); draw(params, key, x, c) -> Draw, in one pass. Each takes
    the whole of params. `compose` derives `draw` from the other three; a model whose three share
    work, such as a hierarchy's top-down path, writes its own.
    """

    init: Callable[[Key], Params]
    posterior: Callable[..., Any]
    likelihood: Callable[..., Any]
    prior: Callable[..., Any]
    draw: Callable[..., Draw]


def compose(
    init: Callable[[Key], Params],
    posterior: Callable[..., Any],
    likelihood: Callable[..., Any],
    prior: Callable[..., Any],
) -> VAE:
    """The VAE of these functions, with the `draw` that follows from them."""

    def draw(params: Params, key: Key, x: Any, c: Any) -> Draw:
        q, p = posterior(params, x, c), prior(params, c)
        z, log_q = q.sample_and_log_prob(key)
        log_p, log_likelihood = p.log_prob(z), likelihood(params, z, c).log_prob(x)
        return Draw(z, log_likelihood, log_p, log_q, rate(q, p, key, log_q - log_p))

    return with_constant_condition(VAE(init, posterior, likelihood, prior, draw))


def rate(q: Any, p: Any, key: Key, sampled: Any) -> Any:
    """KL(q‖p) as KL has it for their types, else log q(z) − log p(z) as sampled."""
    return sampled if rule(q, p) is None else kl(q, p, key)


def with_constant_condition(vae: VAE) -> VAE:
    """The same VAE, to which an empty condition, of shape (0,), is a constant.

    A batch of conditions has a batch axis even where they are empty; `vmap` would carry it through
    a prior that is the same for all, and compute it once for each image.
    """

    def constant(f: Callable[..., Any]) -> Callable[..., Any]:
        def of_last(*inputs: Any) -> Any:
            *others, c = inputs
            return f(*others, jnp.zeros(0, jnp.float32) if jnp.shape(c) == (0,) else c)

        return of_last

    return VAE(vae.init, *map(constant, vae[1:]))


def assemble(posterior: Net, likelihood: Net, prior: Net) -> VAE:
    """A VAE from its three parts; the prior's net is handed the model's own encoder too."""
    parts = {"posterior": posterior, "likelihood": likelihood, "prior": prior}

    def init(key: Key) -> Params:
        keys = jax.random.split(key, len(parts))
        return {name: net.init(k) for (name, net), k in zip(parts.items(), keys, strict=True)}

    def encode(params: Params, x: Any, c: Any) -> Any:
        return posterior.apply(params["posterior"], x, c)

    def decode(params: Params, z: Any, c: Any) -> Any:
        return likelihood.apply(params["likelihood"], z, c)

    def latents(params: Params, c: Any) -> Any:
        return prior.apply(params["prior"], lambda x: encode(params, x, c), c)

    return compose(init, encode, decode, latents)


def latents(vae: VAE, x_shape: Shape, c_shape: Shape = (0,)) -> Any:
    """The shapes and types of one z, as a pytree of `jax.ShapeDtypeStruct`; computes nothing."""
    key = jax.random.key(0)
    x, c = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x_shape, c_shape))
    return jax.eval_shape(vae.draw, jax.eval_shape(vae.init, key), key, x, c).z


def latent_dim(z: Any) -> int | None:
    """How many latents there are, where z (or its shapes) is one vector; else None."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(z)]
    return shapes[0][0] if len(shapes) == 1 and len(shapes[0]) == 1 else None


def count_parameters(vae: VAE) -> dict[str, int]:
    """Number of scalars in each part, without computing any of them."""
    shapes = jax.eval_shape(vae.init, jax.random.key(0))
    return {name: sum(leaf.size for leaf in jax.tree.leaves(p)) for name, p in shapes.items()}


def rate_distortion(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> tuple[Any, Any]:
    """One example's rate KL(q(z|x,c)‖p(z|c)) and distortion −log p(x|z,c), z ~ q, in nats.

    Minus their sum is an unbiased estimate of the ELBO. Closed-form KL where there is one.
    """
    draw = vae.draw(params, key, x, c)
    return draw.rate, -draw.log_likelihood


def log_weight(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> Any:
    """One example's log w = log p(x|z,c) + log p(z|c) − log q(z|x,c), z ~ q, in nats.

    E[w] = p(x|c) (Burda et al. 2016, §3, average w over several z).
    """
    draw = vae.draw(params, key, x, c)
    return draw.log_likelihood + draw.log_prior - draw.log_posterior
