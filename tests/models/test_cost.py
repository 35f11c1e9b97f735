"""What the contracts cost, by the compiler's count of operations, against hand-written passes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import models
from vae_jax.distributions import Bernoulli, Distribution, Mixture, Normal, distribution, kl, static
from vae_jax.models import likelihoods, posteriors
from vae_jax.models.vae import VAE, Draw
from vae_jax.networks import mlp
from vae_jax.objectives import KLWeights, bounds
from vae_jax.types import Net, unconditional

KEY = jax.random.key(0)


def flops(f, *arguments) -> float:
    return jax.jit(f).lower(*arguments).compile().cost_analysis()["flops"]


def gradient_of(objective, vae, x):
    def loss(params, key):
        return objective(vae, params, key, unconditional(x), KLWeights())[0]

    return jax.grad(loss)


# A prior that is made of the encoder: once a batch, not once an image


def pseudo_inputs(k):
    def apply(params, encode, c):
        return Mixture(jax.vmap(encode)(params["images"]), jnp.zeros(k))

    return Net(lambda key: {"images": jax.random.uniform(key, (k, 28, 28, 1))}, apply)


def test_pseudo_inputs_are_encoded_once_a_batch():
    """Against the same loss by hand, the prior made outside of the `vmap` over images."""
    net, k, n = mlp((100, 100)), 50, 50
    x = jax.random.uniform(KEY, (n, 28, 28, 1))
    q = posteriors.diagonal(net.encoder([(28, 28, 1), (0,)], (2, 20)))
    p = likelihoods.bernoulli(net.decoder([(20,), (0,)], (28, 28, 1)))
    vae = models.assemble(q, p, pseudo_inputs(k))
    params = vae.init(KEY)

    def by_hand(params, key):
        empty = jnp.zeros(0)

        def encode(x):
            return q.apply(params["posterior"], x, empty)

        prior = Mixture(jax.vmap(encode)(params["prior"]["images"]), jnp.zeros(k))

        def one(key, x):
            z, log_q = encode(x).sample_and_log_prob(key)
            log_x = p.apply(params["likelihood"], z, empty).log_prob(x)
            return log_q - prior.log_prob(z) - log_x

        return jnp.mean(jax.vmap(one)(jax.random.split(key, (n, 1))[:, 0], x))

    ours = gradient_of(bounds.elbo, vae, x)
    np.testing.assert_allclose(
        jax.flatten_util.ravel_pytree(ours(params, KEY))[0],
        jax.flatten_util.ravel_pytree(jax.grad(by_hand)(params, KEY))[0], rtol=1e-3, atol=1e-4,
    )  # fmt: skip
    assert flops(ours, params, KEY) < 1.05 * flops(jax.grad(by_hand), params, KEY)


# A ladder of four layers whose three distributions share a path: one pass

GROUPS, LATENTS, WIDTH, PIXELS = 4, 8, 64, 100


def ladder_params(key):
    def matrix(key, *shape):
        return 0.3 * jax.random.normal(key, shape) / shape[0] ** 0.5

    keys = iter(jax.random.split(key, 6 * GROUPS + 1))
    sizes = [PIXELS, *[WIDTH] * (GROUPS - 1)]
    return {
        "up": [matrix(next(keys), size, WIDTH) for size in sizes],
        "q": [matrix(next(keys), 2 * WIDTH, 2 * LATENTS) for _ in range(GROUPS)],
        "p": [matrix(next(keys), WIDTH, 2 * LATENTS) for _ in range(GROUPS)],
        "down": [matrix(next(keys), WIDTH, WIDTH) for _ in range(GROUPS)],
        "z": [matrix(next(keys), LATENTS, WIDTH) for _ in range(GROUPS)],
        "top": jnp.ones(WIDTH),
        "x": matrix(next(keys), WIDTH, PIXELS),
    }


def upwards(params, x):
    """What the image says to each group, the top one first."""
    h, found = x, []
    for matrix in params["up"]:
        h = jnp.tanh(h @ matrix)
        found.append(h)
    return found[::-1]


def gaussian(h, matrix):
    return Normal(*jnp.split(h @ matrix, 2))


def downwards(params, choose):
    """The top-down path; choose(group, state, p(z_l|z_<l)) -> z_l."""
    state, z = params["top"], []
    for group in range(GROUPS):
        z.append(choose(group, state, gaussian(state, params["p"][group])))
        state = jnp.tanh(state @ params["down"][group] + z[-1] @ params["z"][group])
    return tuple(z), Bernoulli(state @ params["x"])


@distribution
class Path(Distribution):
    """p(z) or, with what the image says, q(z|x), of all groups."""

    params: dict
    said: list
    posterior: bool = static(False)

    def of(self, group, state, p):
        if not self.posterior:
            return p
        return gaussian(jnp.concatenate([state, self.said[group]]), self.params["q"][group])

    def sample(self, key):
        return self.sample_and_log_prob(key)[0]

    def sample_and_log_prob(self, key):
        keys, log = jax.random.split(key, GROUPS), []

        def choose(group, state, p):
            z, log_q = self.of(group, state, p).sample_and_log_prob(keys[group])
            log.append(log_q)
            return z

        return downwards(self.params, choose)[0], sum(log)

    def log_prob(self, x):
        log = []

        def choose(group, state, p):
            log.append(self.of(group, state, p).log_prob(x[group]))
            return x[group]

        downwards(self.params, choose)
        return sum(log)


def posterior(params, x, c):
    return Path(params, upwards(params, x), posterior=True)


def prior(params, c):
    return Path(params, [])


def likelihood(params, z, c):
    return downwards(params, lambda group, *_: z[group])[1]


def one_pass(params, key, x, c):
    keys, terms = jax.random.split(key, GROUPS), []
    q_of = posterior(params, x, c).of

    def choose(group, state, p):
        q = q_of(group, state, p)
        z, log_q = q.sample_and_log_prob(keys[group])
        terms.append((p.log_prob(z), log_q, kl(q, p, key)))
        return z

    z, p_x = downwards(params, choose)
    log_p, log_q, rate = map(sum, zip(*terms, strict=True))
    return Draw(z, p_x.log_prob(x), log_p, log_q, rate)


LADDER = VAE(ladder_params, posterior, likelihood, prior, one_pass)
COMPOSED = models.compose(ladder_params, posterior, likelihood, prior)
X = jax.random.bernoulli(KEY, 0.3, (20, PIXELS)).astype(jnp.float32)


def test_one_pass_is_the_composition_of_the_three():
    params = ladder_params(KEY)
    nothing = jnp.zeros(0)
    one, three = (vae.draw(params, KEY, X[0], nothing) for vae in (LADDER, COMPOSED))
    for name in ("z", "log_likelihood", "log_prior", "log_posterior"):
        for a, b in zip(
            jax.tree.leaves(getattr(one, name)), jax.tree.leaves(getattr(three, name)), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    draws = jax.vmap(lambda key: LADDER.draw(params, key, X[0], nothing))(
        jax.random.split(KEY, 4000)
    )
    gap = np.asarray(draws.rate - draws.sampled_rate)
    assert abs(gap.mean()) < 5 * gap.std() / 4000**0.5
    sampled = functools.partial(bounds.elbo, closed_form=False)
    gradients = [gradient_of(sampled, vae, X)(params, KEY) for vae in (LADDER, COMPOSED)]
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def by_hand(num_samples):
    """A loss written down at once, each image's upward path taken once."""

    def loss(params, key):
        keys = jax.random.split(key, (len(X), num_samples))

        def image(keys, x):
            said = upwards(params, x)

            def sample(key):
                rates, keys = [], jax.random.split(key, GROUPS)

                def choose(group, state, p):
                    q = gaussian(jnp.concatenate([state, said[group]]), params["q"][group])
                    z, log_q = q.sample_and_log_prob(keys[group])
                    sampled = log_q - p.log_prob(z)
                    rates.append(kl(q, p, key) if num_samples == 1 else sampled)
                    return z

                _, p_x = downwards(params, choose)
                return p_x.log_prob(x) - sum(rates)

            log_w = jax.vmap(sample)(keys)
            return jax.nn.logsumexp(log_w) - jnp.log(num_samples)

        return -jnp.mean(jax.vmap(image)(keys, X))

    return jax.grad(loss)


@pytest.mark.parametrize("num_samples", [1, 5])
def test_a_ladder_costs_what_a_hand_written_pass_costs(num_samples):
    params = ladder_params(KEY)
    objective = bounds.elbo if num_samples == 1 else functools.partial(
        bounds.importance_weighted, num_samples=num_samples
    )  # fmt: skip
    ours, hand = gradient_of(objective, LADDER, X), by_hand(num_samples)
    for a, b in zip(
        jax.tree.leaves(ours(params, KEY)), jax.tree.leaves(hand(params, KEY)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5)
    cost = flops(hand, params, KEY)
    assert flops(ours, params, KEY) < 1.05 * cost
    assert flops(gradient_of(objective, COMPOSED, X), params, KEY) > 1.2 * cost
