"""The VAE as pure functions of one example, and what follows from them.

p(x, z | c) = p(z|c) p(x|z,c),    q(z|x,c) ≈ p(z|x,c)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from vae_jax.distributions.divergence import kl
from vae_jax.types import Key, Net, Params


class VAE(NamedTuple):
    """Functions of one example; `jax.vmap` makes batches.

    init(key) -> params, a dict with one entry for each of the other three;
    posterior(params, x, c) -> q(z|x,c); likelihood(params, z, c) -> p(x|z,c);
    prior(params, c) -> p(z|c). Each takes the whole of params.
    """

    init: Callable[[Key], Params]
    posterior: Callable[..., Any]
    likelihood: Callable[..., Any]
    prior: Callable[..., Any]


def assemble(posterior: Net, likelihood: Net, prior: Net) -> VAE:
    """A VAE from its three parts."""
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

    return VAE(init, encode, decode, latents)


def count_parameters(vae: VAE) -> dict[str, int]:
    """Number of scalars in each part, without computing any of them."""
    shapes = jax.eval_shape(vae.init, jax.random.key(0))
    return {name: sum(leaf.size for leaf in jax.tree.leaves(p)) for name, p in shapes.items()}


def rate_distortion(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> tuple[Any, Any]:
    """One example's rate KL(q(z|x,c)‖p(z|c)) and distortion −log p(x|z,c), z ~ q, in nats.

    Minus their sum is an unbiased estimate of the ELBO. Closed-form KL where there is one.
    """
    q = vae.posterior(params, x, c)
    distortion = -vae.likelihood(params, q.sample(key), c).log_prob(x)
    return kl(q, vae.prior(params, c), key), distortion


def log_weight(vae: VAE, params: Params, key: Key, x: Any, c: Any) -> Any:
    """One example's log w = log p(x|z,c) + log p(z|c) − log q(z|x,c), z ~ q, in nats.

    E[w] = p(x|c) (Burda et al. 2016, §3, average w over several z).
    """
    z, log_q = vae.posterior(params, x, c).sample_and_log_prob(key)
    log_joint = vae.likelihood(params, z, c).log_prob(x) + vae.prior(params, c).log_prob(z)
    return log_joint - log_q
