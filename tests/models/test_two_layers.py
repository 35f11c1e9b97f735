"""Two layers of latents: exact where everything is linear and Gaussian, and one layer where the
second is off.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.stats import multivariate_normal

from vae_jax import distributions, evaluation, models
from vae_jax.distributions import Chain, Mixture, Normal
from vae_jax.models import hvae, two_layer
from vae_jax.models.build import ModelConfig
from vae_jax.models.priors import standard
from vae_jax.objectives import KLWeights, bounds
from vae_jax.settings import UserError
from vae_jax.types import Net, Shapes, unconditional

KEY = jax.random.key(0)
NOTHING = jnp.zeros(0)
NAMES = ("two_layer", "hvae")

# A world that is linear and Gaussian: z₂ ~ N(0, I), z₁ ~ N(a z₂, S₁), x ~ N(W z₁ + V z₂, S), with
# W's columns orthogonal (and V's along them), so that all posteriors are diagonal.

A, S1, S = np.array([0.8, -0.5]), np.array([0.6, 0.9]), 0.7
BASIS = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0][:, :2]
W = BASIS * np.array([1.5, 0.7])


def gaussian(mean, std):
    """A net of linear means: (params, *inputs) -> N; params is what it is off by."""

    def apply(params, *inputs):
        m = mean(*inputs) + params["shift"]
        return Normal(m, jnp.full(m.shape, jnp.log(jnp.asarray(std, jnp.float32))) + params["log"])

    def init(key):
        return {"shift": jnp.zeros(()), "log": jnp.zeros(())}

    return Net(init, apply)


def conditioned(prior_mean, prior_var, w, y, var):
    """Mean and variance of u ~ N(prior) given y = w·u + N(0, var), each number by itself."""
    precision = 1 / prior_var + w**2 / var
    return (prior_mean / prior_var + w * y / var) / precision, 1 / precision


def world(kind, v=(0.0, 0.0)):
    """The VAE whose posteriors are the true ones, and the covariance of x; v: z₂'s own way to x."""
    v, w = np.asarray(v), np.array([1.5, 0.7])
    p1 = gaussian(lambda z2, *c: A * z2, S1)
    # seen along the basis: y = w z₁ + v z₂ + noise
    along = w * A + v  # of z₂
    of_z1 = S1**2 * w**2 + S**2  # variance of y given z₂
    if kind == "hvae":
        _, var2 = conditioned(0, 1.0, along, 0, of_z1)
        q2 = gaussian(lambda x, c: conditioned(0, 1.0, along, x @ BASIS, of_z1)[0], var2**0.5)
        _, var1 = conditioned(0, S1**2, w, 0, S**2)

        def below(x, z2, c):
            return conditioned(A * z2, S1**2, w, x @ BASIS - v * z2, S**2)[0]

        p_x = gaussian(lambda z, c: BASIS @ (w * z[1] + v * z[0]), S)
        vae = hvae.top_down(q2, gaussian(below, var1**0.5), standard(2), p1, p_x)
    else:
        total = A**2 + S1**2
        _, var1 = conditioned(0, total, w, 0, S**2)
        q1 = gaussian(lambda x, c: conditioned(0, total, w, x @ BASIS, S**2)[0], var1**0.5)
        _, var2 = conditioned(0, 1.0, A, 0, S1**2)
        q2 = gaussian(lambda z1: conditioned(0, 1.0, A, z1, S1**2)[0], var2**0.5)
        p_x = gaussian(lambda z, c: BASIS @ (w * z), S)
        vae = two_layer.bottom_up(q1, q2, p1, p_x, (2,))
    return vae, BASIS @ np.diag(along**2 + of_z1 - S**2) @ BASIS.T + S**2 * np.eye(4)


WORLDS = [("two_layer", (0.0, 0.0)), ("hvae", (0.0, 0.0)), ("hvae", (0.4, -1.1))]


@functools.cache
def drawn(kind, v, off=0.0, count=4000):
    """Draws of three x, the posterior's means and scales off by so much, and log p(x)."""
    vae, covariance = world(kind, v)
    x = np.random.default_rng(1).multivariate_normal(np.zeros(4), covariance, 3).astype(np.float32)
    params = vae.init(KEY)
    params["posterior"] = jax.tree.map(lambda a: a + off, params["posterior"])
    keys = jax.random.split(KEY, (3, count))
    draws = jax.jit(jax.vmap(jax.vmap(vae.draw, (None, 0, None, None)), (None, 0, 0, None)))(
        params, keys, x, NOTHING
    )
    return vae, params, x, draws, multivariate_normal(np.zeros(4), covariance).logpdf(x)


@pytest.mark.parametrize("kind, v", WORLDS)
def test_with_the_true_posterior_every_weight_is_p_of_x(kind, v):
    *_, draws, log_p = drawn(kind, v)
    log_w = draws.log_likelihood + draws.log_prior - draws.log_posterior
    np.testing.assert_allclose(log_w, np.broadcast_to(log_p[:, None], log_w.shape), atol=2e-4)


@pytest.mark.parametrize("kind, v", WORLDS)
def test_bounds_of_a_posterior_that_is_off(kind, v):
    """log p(x) is the mean weight's logarithm; the ELBO is below it by KL(q‖p(z|x)), whose value is
    that of the shift and the scale along the chain, and rises with the samples.
    """
    off = 0.3
    vae, _, x, draws, log_p = drawn(kind, v, off)
    log_w = np.asarray(draws.log_likelihood + draws.log_prior - draws.log_posterior, np.float64)
    weights = np.exp(log_w - log_p[:, None])
    error = weights.std(axis=1) / weights.shape[1] ** 0.5
    assert np.all(np.abs(weights.mean(axis=1) - 1) < 5 * error)
    # KL of a chain whose conditionals are the true ones' but for the same shift and log scale
    q = vae.posterior(vae.init(KEY), x[0], NOTHING)
    conditionals = [q.first, q.then(q.params, jnp.zeros(2))]
    kls = [
        np.sum((np.exp(2 * off) - 1 + off**2 / np.exp(2 * q.log_scale)) / 2 - off)
        for q in conditionals
    ]
    elbo = log_w.mean(axis=1), log_w.std(axis=1) / log_w.shape[1] ** 0.5
    assert np.all(np.abs(elbo[0] - (log_p - sum(kls))) < 5 * elbo[1])
    of_rate = np.asarray(draws.log_likelihood - draws.rate, np.float64)
    error = of_rate.std(axis=1) / of_rate.shape[1] ** 0.5
    assert np.all(np.abs(of_rate.mean(axis=1) - (log_p - sum(kls))) < 5 * error)
    fifty = np.log(weights.reshape(3, -1, 50).mean(axis=-1)).mean(axis=1)
    five = np.log(weights.reshape(3, -1, 5).mean(axis=-1)).mean(axis=1)
    assert np.all(-sum(kls) < five) and np.all(five < fifty) and np.all(fifty < 5 * error)


def test_the_evaluation_of_a_hierarchy_is_right():
    """NLL, ELBO and the rates of the layers, by the library's own way through a data set."""
    vae, params, x, _, log_p = drawn("hvae", (0.4, -1.1), 0.3)
    data = unconditional(x)
    estimate = evaluation.log_likelihood(vae, params, data, KEY, 2000)
    assert np.all(np.abs(estimate.log_p - log_p) < 5 * np.sqrt(estimate.variance) + 1e-4)
    measured = evaluation.summary(vae, params, data, KEY, num_samples=10).numbers
    np.testing.assert_allclose(sum(measured["rates"]), measured["rate"], rtol=1e-5)
    assert [*map(tuple, measured["shapes"])] == [(2,), (2,)]


# The models themselves


def small(name, condition=(0,), **settings):
    config = ModelConfig(
        model=name, layer_latents="3-4", layer_widths="6-5,7-8", **settings
    )  # fmt: skip
    vae = models.build(config, (3, 2, 1), condition)
    params = jax.tree.map(lambda a: 1.5 * a + 0.1, vae.init(KEY))
    return vae, params


X = jax.random.bernoulli(KEY, 0.4, (4, 3, 2, 1)).astype(jnp.float32)
CASES = [
    ("two_layer", {}, (0,)),
    ("two_layer", {"likelihood": "logistic_mixture"}, (5,)),
    ("hvae", {}, (0,)),
    ("hvae", {"prior": "conditional", "likelihood": "gaussian"}, (5,)),
]


@pytest.mark.parametrize("name, settings, condition", CASES)
def test_draw_is_the_composition_of_the_three(name, settings, condition):
    vae, params = small(name, condition, **settings)
    c = jnp.ones(condition)
    draw = vae.draw(params, KEY, X[0], c)
    z, log_q = vae.posterior(params, X[0], c).sample_and_log_prob(KEY)
    assert [a.shape for a in draw.z] == [(3,), (4,)]
    for ours, other in zip(draw.z, z, strict=True):
        np.testing.assert_array_equal(ours, other)
    p, p_x = vae.prior(params, c), vae.likelihood(params, z, c)
    expected = (
        log_q,
        vae.posterior(params, X[0], c).log_prob(z),
        p.log_prob(z),
        p_x.log_prob(X[0]),
    )
    ours = (draw.log_posterior, draw.log_posterior, draw.log_prior, draw.log_likelihood)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jnp.sum(draw.rates), draw.rate, rtol=1e-6)
    assert jax.tree.structure(p.sample(KEY)) == jax.tree.structure(z)


def test_conv_hvae_is_the_same_of_convolutions():
    """The composition of its three, what a likelihood of many channels asks of it, and its size as
    published: 7 × 7 × 6 = 294 numbers of a digit, joined with as many of z₂.
    """
    vae, params = small("conv_hvae", (5,), likelihood="logistic_mixture")
    c = jnp.ones(5)
    draw = jax.jit(vae.draw)(params, KEY, X[0], c)
    z, log_q = vae.posterior(params, X[0], c).sample_and_log_prob(KEY)
    expected = (
        log_q,
        vae.prior(params, c).log_prob(z),
        vae.likelihood(params, z, c).log_prob(X[0]),
    )
    ours = (draw.log_posterior, draw.log_prior, draw.log_likelihood)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)

    def gated(*sizes):
        return 2 * sum(a * b + b for a, b in itertools.pairwise(sizes))

    def convolutions(*layers):
        return 2 * sum(k * k * a * b + b for k, a, b in layers)

    vae = models.build(ModelConfig(model="conv_hvae"), (28, 28, 1))
    top = convolutions((7, 1, 32), (3, 32, 32), (5, 32, 64), (3, 64, 64), (3, 64, 6))
    low = convolutions((3, 1, 32), (3, 32, 32), (3, 32, 64), (3, 64, 64), (3, 64, 6))
    out = 300 * 80 + 80
    assert models.count_parameters(vae) == {
        "posterior": top + 294 * 80 + 80 + low + gated(40, 294) + gated(588, 300) + out,
        "prior": gated(40, 300, 300) + out,
        "likelihood": 2 * gated(40, 300) + gated(600, 784)
        + convolutions((3, 1, 64), *[(3, 64, 64)] * 3) + 64 + 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_condition_reaches_every_part(name):
    """A posterior, a likelihood and, top down, a prior of each c."""
    vae, params = small(name, (5,))
    one, other = (vae.draw(params, KEY, X[0], c) for c in (jnp.zeros(5), jnp.ones(5)))
    assert one.log_posterior != other.log_posterior
    z = one.z
    decoded = [vae.likelihood(params, z, c).log_prob(X[0]) for c in (jnp.zeros(5), jnp.ones(5))]
    assert decoded[0] != decoded[1]
    priors = [vae.prior(params, c).log_prob(z) for c in (jnp.zeros(5), jnp.ones(5))]
    assert (priors[0] == priors[1]) == (name == "two_layer")


@pytest.mark.parametrize("name", NAMES)
def test_one_pass_has_the_gradient_of_the_three(name):
    vae, params = small(name)
    composed = models.compose(vae.init, vae.posterior, vae.likelihood, vae.prior)
    sampled = functools.partial(bounds.elbo, closed_form=False)

    def gradient(vae):
        return ravel_pytree(
            jax.grad(lambda p: sampled(vae, p, KEY, unconditional(X), KLWeights())[0])(params)
        )[0]

    np.testing.assert_allclose(gradient(vae), gradient(composed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_rates_are_those_of_the_samples_on_average(name):
    """Closed forms against log q − log p of the same layers, to 5 standard errors."""
    vae, params = small(name)
    draws = jax.jit(jax.vmap(lambda key: vae.draw(params, key, X[0], NOTHING)))(
        jax.random.split(KEY, 8000)
    )
    gap = np.asarray(draws.rate - draws.sampled_rate, np.float64)
    assert gap.std() > 0 and abs(gap.mean()) < 5 * gap.std() / 8000**0.5


def test_with_its_upper_layer_off_two_layer_is_the_one_layer_model():
    vae, params = small("two_layer")
    params = {**params, "prior": jax.tree.map(jnp.zeros_like, params["prior"])}
    upper = jax.tree.map(jnp.zeros_like, params["posterior"]["upper"])
    params["posterior"] = {**params["posterior"], "upper": upper}
    one = models.build(
        ModelConfig(latent_dim=4, widths="7-8", activation="tanh"), (3, 2, 1)
    )  # fmt: skip
    same = {"posterior": params["posterior"]["lower"], "likelihood": params["likelihood"],
            "prior": {}}  # fmt: skip
    of_z1, _ = jax.random.split(KEY)
    ours, other = vae.draw(params, KEY, X[0], NOTHING), one.draw(same, of_z1, X[0], NOTHING)
    np.testing.assert_array_equal(ours.z[1], other.z)
    np.testing.assert_allclose(ours.log_likelihood, other.log_likelihood, rtol=1e-6)
    np.testing.assert_allclose(ours.sampled_rate, other.sampled_rate, rtol=1e-5)
    np.testing.assert_allclose(ours.rates, [0, other.sampled_rate], rtol=1e-5, atol=1e-6)


def test_a_prior_of_encoded_images_is_handed_the_upper_encoder():
    """p(z₂) = (1/K) Σ q(z₂|u_k), as of a prior whose net encodes."""
    images = X[:3]

    def of_images(params, encode, c):
        return Mixture(jax.vmap(encode)(images), jnp.zeros(3))

    entry = hvae.HVAE(
        prior=lambda shapes, architecture: Net(lambda key: {}, of_images),
        layer_latents="3-4", layer_widths="6-5,7-8",
    )  # fmt: skip
    vae = entry.build(Shapes((3, 2, 1)))
    params = vae.init(KEY)
    q, p = vae.posterior(params, X[3], NOTHING), vae.prior(params, NOTHING)
    assert isinstance(q, Chain)
    encoded = [vae.posterior(params, u, NOTHING).first.log_prob(jnp.ones(3)) for u in images]
    expected = jax.nn.logsumexp(jnp.stack(encoded)) - jnp.log(3)
    np.testing.assert_allclose(p.first.log_prob(jnp.ones(3)), expected, rtol=1e-5)
    draw = vae.draw(params, KEY, X[3], NOTHING)
    np.testing.assert_allclose(
        draw.rates[0], q.first.log_prob(draw.z[0]) - p.first.log_prob(draw.z[0]), rtol=1e-4
    )


def test_the_lower_layer_is_drawn_anew_given_the_upper():
    vae, params = small("hvae")
    p = vae.prior(params, NOTHING)
    z = p.sample(jax.random.key(5))
    none, upper, both = (distributions.redrawn(p, KEY, z, kept) for kept in range(3))
    for pair in zip(none + both, p.sample(KEY) + z, strict=True):
        np.testing.assert_allclose(*pair, rtol=1e-6)
    np.testing.assert_array_equal(upper[0], z[0])
    expected = p.then(p.params, z[0]).sample(jax.random.split(KEY)[1])
    np.testing.assert_allclose(upper[1], expected, rtol=1e-6)
    with pytest.raises(UserError, match="Normal is not of several values"):
        distributions.redrawn(p.first, KEY, z[0], 0)


def test_published_sizes():
    """784-200-200-2·100, 100-100-100-2·50, 50-100-100-2·100, 100-200-200-784; and the HVAE's."""

    def dense(*sizes):
        return sum(a * b + b for a, b in itertools.pairwise(sizes))

    vae = models.build(ModelConfig(model="two_layer"), (28, 28, 1))
    assert models.count_parameters(vae) == {
        "posterior": dense(784, 200, 200, 200) + dense(100, 100, 100, 100),
        "prior": dense(50, 100, 100, 200),
        "likelihood": dense(100, 200, 200, 784),
    }

    def gated(*sizes):
        return 2 * dense(*sizes)

    vae = models.build(ModelConfig(model="hvae"), (28, 28, 1))
    assert models.count_parameters(vae) == {
        "posterior": gated(784, 300, 300) + dense(300, 80)
        + gated(784, 300) + gated(40, 300) + gated(600, 300) + dense(300, 80),
        "prior": gated(40, 300, 300) + dense(300, 80),
        "likelihood": gated(40, 300) + gated(40, 300) + gated(600, 300) + dense(300, 784),
    }  # fmt: skip


def test_free_bits_are_of_each_layer():
    vae, params = small("hvae")
    batch = unconditional(X)
    free = functools.partial(bounds.elbo, groups=0)
    rates = jnp.mean(jax.vmap(lambda k, x: vae.draw(params, k, x, NOTHING).rates)(
        jax.random.split(KEY, (4, 1))[:, 0], X
    ), axis=0)  # fmt: skip
    between = float(jnp.mean(rates))
    assert rates.min() < between < rates.max()
    loss, metrics = free(vae, params, KEY, batch, KLWeights(free_bits=between))
    expected = metrics["distortion"] + between + rates.max()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    with pytest.raises(UserError, match="each group of a hierarchy"):
        bounds.elbo(vae, params, KEY, batch, KLWeights(free_bits=1.0), groups=2)


@pytest.mark.parametrize("wrong, message", [
    ({"latent_dim": 5}, "latent_dim does nothing for model hvae"),
    ({"layer_latents": "3"}, "layer_latents must be auto, or latents of the upper"),
    ({"layer_widths": "3-4"}, "layer_widths must be auto, or widths"),
    ({"network": "conv"}, "network does nothing for model hvae"),
])  # fmt: skip
def test_wrong_settings_are_one_line(wrong, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(model="hvae", **wrong)
