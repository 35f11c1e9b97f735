"""Pixel families: densities integrate and probabilities sum to one; all is finite at any parameter.

Monte-Carlo checks allow 5 standard errors.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax.distributions.pixels import Beta, Categorical, ContinuousBernoulli, DiscretizedLogistic

KEY = jax.random.key(0)
NUM_SAMPLES = 5000
LEVELS = np.arange(256) / 255


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def logistic(location, log_scale, log_weights=(0.0,)):
    """One grey pixel, [1, 1, 1], under k logistics."""
    columns = (np.reshape(a, (1, 1, 1, -1)).astype(float) for a in (location, log_scale))
    return DiscretizedLogistic(*columns, np.reshape(log_weights, (1, 1, -1)).astype(float))


# One grey pixel of each family: easy, sharp, at an end. name -> parameters
ONE = {
    "continuous_bernoulli": ContinuousBernoulli(np.full((1, 1, 1), 1.7)),
    "continuous_bernoulli near ½": ContinuousBernoulli(np.full((1, 1, 1), -0.02)),
    "continuous_bernoulli black": ContinuousBernoulli(np.full((1, 1, 1), -60.0)),
    "beta": Beta(np.full((1, 1, 1), 0.7), np.full((1, 1, 1), 1.5)),
    "beta U": Beta(np.full((1, 1, 1), -0.5), np.full((1, 1, 1), -0.3)),
    "beta black": Beta(np.full((1, 1, 1), -0.1), np.full((1, 1, 1), 4.0)),
    "logistic": logistic(0.4, -2.0),
    "logistic sharp": logistic(0.5, -8.0),
    "logistic black": logistic(-0.3, -1.0),
    "logistic mixture": logistic([0.0, 0.6, 1.1], [-4.0, -2.0, -3.0], [0.5, 0.0, 1.0]),
    "categorical": Categorical(numbers(0, 1, 1, 1, 256)),
}
DENSITIES = [name for name in ONE if name.startswith(("continuous", "beta"))]
PROBABILITIES = [name for name in ONE if name not in DENSITIES]

# One colour image of each, [1, 2, 3]
IMAGES = {
    "continuous_bernoulli": ContinuousBernoulli(2 * numbers(0, 1, 2, 3)),
    "beta": Beta(0.5 * numbers(1, 1, 2, 3) + 0.5, 0.5 * numbers(2, 1, 2, 3) + 0.5),
    "logistic mixture": DiscretizedLogistic(
        numbers(3, 1, 2, 3, 2) / 2 + 0.5, numbers(4, 1, 2, 3, 2) / 2 - 2, numbers(5, 1, 2, 2)
    ),
    "categorical": Categorical(numbers(6, 1, 2, 3, 256)),
}
image = pytest.mark.parametrize("p", IMAGES.values(), ids=IMAGES.keys())


@jax.jit
def log_prob(p, x):
    return p.log_prob(x)


@jax.jit
def pixel_log_prob(p, x):
    """Of many values [n] of one grey pixel."""
    return jax.vmap(lambda x: p.log_prob(x.reshape(1, 1, 1)))(x)


@jax.jit
def pixel_gradient(p, x):
    return jax.vmap(lambda x: jax.grad(lambda p: p.log_prob(x.reshape(1, 1, 1)))(p))(x)


@jax.jit
def samples(p):
    return jax.vmap(p.sample)(jax.random.split(KEY, NUM_SAMPLES))


@jax.jit
def mean(p):
    return p.mean


@jax.jit
def mode(p):
    return p.mode


@functools.cache
def masses(name):
    """Values of one grey pixel and their probabilities (of a density, a quadrature's), both [n]."""
    with jax.enable_x64(True):
        x, weights = support(name) if name in DENSITIES else (LEVELS, 1.0)
        return x, np.exp(pixel_log_prob(ONE[name], x)) * weights


def assert_mean(values, expected, what=""):
    """The mean of independent draws [n, ...] is as expected, to 5 standard errors."""
    values = np.asarray(values, np.float64)
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) + 1e-6
    deviation = np.abs(values.mean(axis=0) - np.asarray(expected)) / error
    assert np.all(deviation < 5), f"{what} off by {deviation.max():.1f} standard errors"


def support(name):
    """Nodes and weights of a quadrature over the interval a density lives on, both [n]."""
    low, high = (-0.5 / 255, 1 + 0.5 / 255) if name.startswith("beta") else (0.0, 1.0)
    # x = (1 + tanh(π/2 sinh t))/2: exact to rounding although the ends may be infinite
    t = np.linspace(-4.2, 4.2, 4001)
    inner = np.pi / 2 * np.sinh(t)
    x = scipy.special.expit(2 * inner)
    weights = (t[1] - t[0]) * np.pi / 2 * np.cosh(t) / (2 * np.cosh(inner) ** 2)
    inside = (x > 1e-15) & (x < 1 - 1e-15)
    return low + (high - low) * x[inside], (high - low) * weights[inside]


# Every family


@pytest.mark.parametrize("name", DENSITIES)
def test_densities_integrate_to_one_and_have_their_mean(name, float64):
    x, p = masses(name)
    tolerance = 1e-6 if name == "beta U" else 1e-10  # y^(α−1) at the last number before 0 and 1
    np.testing.assert_allclose(p.sum(), 1, atol=tolerance)
    np.testing.assert_allclose(p @ x, np.squeeze(mean(ONE[name])), atol=tolerance)


@pytest.mark.parametrize("name", PROBABILITIES)
def test_probabilities_sum_to_one_and_have_their_mean_and_mode(name, float64):
    _, p = masses(name)
    np.testing.assert_allclose(p.sum(), 1, atol=1e-12)
    np.testing.assert_allclose(p @ LEVELS, np.squeeze(mean(ONE[name])), atol=1e-12)
    assert LEVELS[p.argmax()] == np.squeeze(mode(ONE[name]))


@pytest.mark.parametrize("name", DENSITIES)
def test_mode_of_densities(name):
    inside = np.linspace(0, 1, 1001)
    log_p = np.asarray(pixel_log_prob(ONE[name], inside))
    at_mode = float(pixel_log_prob(ONE[name], np.ravel(mode(ONE[name])))[0])
    assert at_mode >= log_p.max() - 1e-5 or name == "beta U"
    if name == "beta U":  # both ends are infinite: the one with more mass
        assert np.squeeze(mode(ONE[name])) == 0.0


@pytest.mark.parametrize("name", ONE)
def test_samples_have_the_probabilities(name):
    """A histogram of 17 bins: each count is binomial."""
    x = np.ravel(samples(ONE[name]))
    edges = np.linspace(-1 / 510, 1 + 1 / 510, 18)
    nodes, p = masses(name)
    if name in PROBABILITIES:
        np.testing.assert_allclose(255 * x, np.round(255 * x), atol=1e-4)
    expected = np.histogram(nodes, edges, weights=p)[0]
    counts = np.histogram(x, edges)[0]
    assert counts.sum() == NUM_SAMPLES
    slack = 2e-3 * (name in DENSITIES)  # a node near an edge falls on either side
    error = np.sqrt(np.maximum(expected * (1 - expected), 0) / NUM_SAMPLES) + 1 / NUM_SAMPLES
    assert np.all(np.abs(counts / NUM_SAMPLES - expected) < 5 * error + slack)


@image
def test_samples_follow_the_density_of_images(p):
    """The score identity E_p[∇θ log p(x)] = 0, along 8 random directions of the parameters."""

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def scores(x, direction):
        return jax.jvp(lambda p: p.log_prob(x), (p,), (direction,))[1]

    directions = jax.tree.map(lambda leaf: numbers(leaf.size, 8, *leaf.shape), p)
    assert_mean(scores(samples(p), directions), 0)
    assert_mean(samples(p), mean(p))


@image
def test_mean_and_mode_of_batches(p):
    """They may be asked of batched parameters, without `vmap`."""
    batch = jax.tree.map(lambda leaf: np.stack([leaf, 0.5 * leaf]), p)
    for f in (mean, mode):
        assert f(batch).shape == (2, 1, 2, 3)
        np.testing.assert_allclose(f(batch), jax.vmap(f)(batch), rtol=1e-6)


@image
def test_a_batch_is_refused(p):
    for shape in [(5, 1, 2, 3), (1, 2, 1), (2, 3)]:
        with pytest.raises(ValueError, match="vmap"):
            p.log_prob(np.zeros(shape))


@image
def test_stop_gradient_stops_everything(p):
    stopped = jax.jit(
        jax.grad(lambda p: jax.tree.map(jax.lax.stop_gradient, p).log_prob(np.ones((1, 2, 3))))
    )
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(stopped(p)))


EXTREME = {
    "continuous_bernoulli": [ContinuousBernoulli(np.full((1, 1, 1), l)) for l in (  # noqa: E741
        0.0, 1e-30, -1e-6, 1e-3, 0.5, -0.5, 90.0, -90.0, 1e4, -1e4)],
    "beta": [Beta(np.full((1, 1, 1), a), np.full((1, 1, 1), b)) for a in (-4.6, 0.0, 9.0)
             for b in (-4.6, 2.08, 9.0)],
    "logistic": [logistic(m, s) for m in (-1e4, -3.0, 0.5, 0.5 / 255, 1e4)
                 for s in (-5.5, -9.0, 0.0, 60.0, 1e4)],
    "categorical": [Categorical(np.where(np.arange(256) < k, a, -a).reshape(1, 1, 1, 256))
                    for k in (0, 1, 255) for a in (90.0, 1e4)],
}  # fmt: skip


@pytest.mark.parametrize("name", EXTREME)
def test_finite_at_extreme_parameters(name):
    """log p and its gradient in 32 bits, at every stored level."""
    for p in EXTREME[name]:
        values = pixel_log_prob(p, LEVELS), pixel_gradient(p, LEVELS), mean(p)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(values)), p
        assert np.all((values[2] > -0.002) & (values[2] < 1.002)), p
        x = np.asarray(samples(p))
        assert np.all((x > -0.002) & (x < 1.002)), p


# Continuous Bernoulli

LOGITS = np.concatenate([s * np.logspace(-8, 1.5, 60) for s in (-1, 1)] + [[0.4999, 0.5, 0.5001]])


def test_continuous_bernoulli_is_the_papers(float64):
    """log C(λ) + x log λ + (1−x) log(1−λ) with C = 2 atanh(1−2λ)/(1−2λ), where that is exact."""
    logits = LOGITS[(np.abs(LOGITS) > 0.1) & (np.abs(LOGITS) < 8)]  # where λ is neither ½ nor 1
    lam, x = scipy.special.expit(logits), 0.3
    log_c = np.log(2 * np.arctanh(1 - 2 * lam) / (1 - 2 * lam))
    expected = log_c + x * np.log(lam) + (1 - x) * np.log1p(-lam)
    p = ContinuousBernoulli(logits)
    log_p = jax.vmap(log_prob, in_axes=(0, None))(p, jnp.asarray(x))
    np.testing.assert_allclose(log_p, expected, atol=1e-10)
    expected = lam / (2 * lam - 1) + 1 / (2 * np.arctanh(1 - 2 * lam))
    np.testing.assert_allclose(mean(p), expected, atol=1e-10)


def test_continuous_bernoulli_is_smooth_through_one_half():
    """In 32 bits, against a series of 20 terms in 64; the mean is the derivative."""
    logits = LOGITS[np.abs(LOGITS) < 1]
    orders = np.arange(20)[:, None]
    moments = logits**orders / scipy.special.factorial(orders + 1)  # ∫ e^(λx) dx, term by term
    derivative = logits**orders / scipy.special.factorial(orders) / (orders + 2)
    p = ContinuousBernoulli(logits)
    log_partition = -jax.vmap(log_prob, in_axes=(0, None))(p, jnp.zeros(()))
    np.testing.assert_allclose(log_partition, np.log(moments.sum(0)), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(mean(p), derivative.sum(0) / moments.sum(0), rtol=1e-6)


@pytest.mark.parametrize("sign", [-1, 1])
def test_continuous_bernoulli_samples_are_smooth_through_one_half(sign):
    """The same noise just within and just beyond the series around λ = 0."""
    within, beyond = (ContinuousBernoulli(jnp.full(99, sign * s)) for s in (9.99e-4, 1.001e-3))
    np.testing.assert_allclose(within.sample(KEY), beyond.sample(KEY), atol=3e-6)


def test_continuous_bernoulli_mean_is_not_the_bernoullis():
    assert abs(mean(ContinuousBernoulli(np.asarray([3.0])))[0] - scipy.special.expit(3.0)) > 0.2


# Beta


def test_beta_is_scipys_at_the_middle_of_each_bin(float64):
    p = ONE["beta"]
    a, b = np.exp(p.log_alpha), np.exp(p.log_beta)
    y = (np.arange(256) + 0.5) / 256
    expected = scipy.stats.beta.logpdf(y, a, b).ravel() + np.log(255 / 256)
    np.testing.assert_allclose(pixel_log_prob(p, LEVELS), expected, atol=1e-10)


def test_beta_keeps_black_and_white_apart_from_their_neighbours():
    """Clipping would give levels 0 and 1 one density."""
    log_p = np.asarray(pixel_log_prob(ONE["beta black"], LEVELS))
    assert len(np.unique(log_p)) == 256


# Logistic


def test_logistic_is_scipys(float64):
    """Differences of the distribution function, with open ends."""
    p = ONE["logistic mixture"]
    location, scale = np.ravel(p.location), np.exp(np.ravel(p.log_scale))
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255, [np.inf]])
    cdf = scipy.stats.logistic.cdf(edges[:, None], location, scale)
    expected = np.log(np.diff(cdf, axis=0) @ scipy.special.softmax(np.ravel(p.log_weights)))
    np.testing.assert_allclose(pixel_log_prob(p, LEVELS), expected, atol=1e-10)


@pytest.mark.parametrize("log_scale", [-9.0, -6.0, -2.0, 1.6, 3.0])
def test_logistic_is_exact_where_differences_cancel(log_scale):
    """32 bits against 64, at levels whose probability may be e^−10000."""
    log_p = np.asarray(pixel_log_prob(logistic(0.25, log_scale), LEVELS))
    edges, s = (np.arange(255) + 0.5) / 255, np.exp(log_scale)
    upper = np.append((edges - 0.25) / s, np.inf)
    lower = np.append(-np.inf, (edges - 0.25) / s)
    log_sigmoid = lambda t: -np.logaddexp(0, -t)  # noqa: E731
    # log(σ(b) − σ(a)) in the tail where both are small
    flip = lower > 0
    a, b = np.where(flip, -upper, lower), np.where(flip, -lower, upper)
    expected = log_sigmoid(b) + np.log1p(-np.exp(log_sigmoid(a) - log_sigmoid(b)))
    np.testing.assert_allclose(log_p, expected, rtol=2e-5, atol=1e-5)


def test_channels_share_their_component():
    """The joint over two channels sums to one, and is no product of its margins."""
    location = np.asarray([[0.1, 0.9], [0.2, 0.7]]).reshape(1, 1, 2, 2)
    p = DiscretizedLogistic(location, np.full((1, 1, 2, 2), -3.0), np.zeros((1, 1, 2)))
    pairs = np.stack(np.meshgrid(LEVELS, LEVELS, indexing="ij"), -1).reshape(-1, 1, 1, 2)
    joint = np.exp(jax.jit(jax.vmap(p.log_prob))(pairs)).astype(np.float64).reshape(256, 256)
    np.testing.assert_allclose(joint.sum(), 1, atol=1e-5)
    means = joint.sum(1) @ LEVELS, joint.sum(0) @ LEVELS
    np.testing.assert_allclose(np.ravel(mean(p)), means, atol=1e-5)
    covariance = LEVELS @ joint @ LEVELS - means[0] * means[1]
    assert covariance > 0.05  # (0.9 − 0.1)(0.7 − 0.2)/4 = 0.1 but for the open ends
    x = np.asarray(samples(p)).reshape(-1, 2)
    assert_mean((x[:, 0] - means[0]) * (x[:, 1] - means[1]), covariance)


def test_levels_are_rounded():
    """v/255 in 32 bits is not a level exactly, and must count as one."""
    for name in PROBABILITIES:
        log_p = pixel_log_prob(ONE[name], LEVELS.astype(np.float32))
        moved = pixel_log_prob(ONE[name], (LEVELS + 1e-3).astype(np.float32))
        np.testing.assert_array_equal(log_p, moved)


# Categorical


def test_categorical_is_scipys(float64):
    p = ONE["categorical"]
    expected = scipy.special.log_softmax(np.ravel(p.logits))
    np.testing.assert_allclose(pixel_log_prob(p, LEVELS), expected, atol=1e-12)
