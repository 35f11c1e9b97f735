"""Distributions: densities are scipy's, samples are theirs, and kl is the integral it names.

The score identity E_p[∇θ log p(x)] = 0 ties `sample` to `log_prob` in every parameter: a wrong
scale, a wrong link or a missing normaliser moves it. Monte-Carlo checks allow 5 standard errors.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax import distributions
from vae_jax.distributions.base import event
from vae_jax.distributions.composed import Mixture
from vae_jax.distributions.continuous import Laplace, MultivariateNormal, Normal, StudentT
from vae_jax.distributions.divergence import KL
from vae_jax.distributions.pixels import Bernoulli

KEY = jax.random.key(0)
kl = jax.jit(distributions.kl)
NUM_SAMPLES = 20_000


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def triangular(seed, d=3, as_array=jnp.asarray):
    """A Cholesky factor that is not close to diagonal."""
    return as_array(np.tril(numbers(seed, d, d), -1) + np.diag(np.exp(0.5 * numbers(seed + 1, d))))


def normal(seed, *shape):
    return Normal(jnp.asarray(numbers(seed, *shape)), jnp.asarray(0.5 * numbers(seed + 1, *shape)))


def multivariate(seed, d=3):
    return MultivariateNormal(jnp.asarray(numbers(seed, d)), triangular(seed + 1, d))


# name -> function that makes one, in the floating-point type of the moment
FAMILIES = {
    "normal": lambda: normal(0, 2, 3),
    "laplace": lambda: Laplace(*jax.tree.leaves(normal(2, 2, 3))),
    "student_t": lambda: StudentT(jnp.asarray(numbers(4, 3)), jnp.asarray(-0.4), jnp.asarray(5.0)),
    "bernoulli": lambda: Bernoulli(jnp.asarray(2 * numbers(5, 2, 3))),
    "multivariate_normal": lambda: multivariate(6),
    "mixture": lambda: Mixture(normal(8, 4, 3), jnp.asarray(numbers(9, 4))),
}
family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES.keys())


@functools.partial(jax.jit, static_argnums=1)
def samples(p, number=NUM_SAMPLES):
    return jax.vmap(p.sample)(jax.random.split(KEY, number))


@jax.jit
def draw(p, key):
    return p.sample(key)


@jax.jit
def log_prob(p, x):
    return p.log_prob(x)


@jax.jit
def log_probs(p, x):
    return jax.vmap(p.log_prob)(x)


@jax.jit
def value_and_gradient(p, x):
    return jax.value_and_grad(lambda p: p.log_prob(x))(p)


def shape_of(p):
    return jax.eval_shape(p.sample, KEY).shape


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_mean(values, expected, what=""):
    """The mean of independent draws [n, ...] is as expected, to 5 standard errors."""
    values = np.asarray(values, np.float64)
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) + 1e-6
    deviation = np.abs(values.mean(axis=0) - np.asarray(expected)) / error
    assert np.all(deviation < 5), f"{what} off by {deviation.max():.1f} standard errors"


# Densities


def test_normal_density_is_scipys(float64):
    p, x = normal(0, 2, 3), numbers(7, 2, 3)
    expected = scipy.stats.norm.logpdf(x, p.mean, np.exp(p.log_scale)).sum()
    np.testing.assert_allclose(log_prob(p, x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("d", [1, 7, 28 * 28])
def test_log_2pi_counts_once_for_each_dimension(d, float64):
    zeros = jnp.zeros(d)
    expected = -d / 2 * np.log(2 * np.pi)
    for p in (Normal(zeros, zeros), MultivariateNormal(zeros, jnp.eye(d))):
        np.testing.assert_allclose(log_prob(p, zeros), expected, rtol=1e-14)


def test_laplace_density_is_scipys(float64):
    p, x = FAMILIES["laplace"](), numbers(7, 2, 3)
    expected = scipy.stats.laplace.logpdf(x, p.mean, np.exp(p.log_scale)).sum()
    np.testing.assert_allclose(log_prob(p, x), expected, rtol=0, atol=1e-10)


def test_bernoulli_density_is_scipys(float64):
    p, x = FAMILIES["bernoulli"](), (numbers(7, 2, 3) > 0).astype(float)
    expected = scipy.stats.bernoulli.logpmf(x, scipy.special.expit(p.logits)).sum()
    np.testing.assert_allclose(log_prob(p, x), expected, rtol=0, atol=1e-10)


def test_bernoulli_on_grey_values_is_the_cross_entropy(float64):
    p, x = FAMILIES["bernoulli"](), np.abs(np.sin(numbers(7, 2, 3)))
    mean = scipy.special.expit(p.logits)
    expected = np.sum(x * np.log(mean) + (1 - x) * np.log1p(-mean))
    np.testing.assert_allclose(log_prob(p, x), expected, rtol=0, atol=1e-10)


def test_multivariate_normal_density_is_scipys(float64):
    p, x = multivariate(0), numbers(7, 3)
    expected = scipy.stats.multivariate_normal.logpdf(x, p.mean, p.covariance)
    np.testing.assert_allclose(log_prob(p, x), expected, rtol=0, atol=1e-10)


def test_student_t_density_is_scipys(float64):
    p, x = FAMILIES["student_t"](), numbers(7, 3)
    shape = np.exp(2 * p.log_scale) * np.eye(3)
    expected = scipy.stats.multivariate_t.logpdf(x, p.mean, shape, df=float(p.dof))
    np.testing.assert_allclose(log_prob(p, x), expected, rtol=0, atol=1e-10)


def test_student_t_is_a_gaussian_whose_variance_is_integrated_out(float64):
    p, x = FAMILIES["student_t"](), numbers(7, 3)
    nu, s = float(p.dof), float(np.exp(p.log_scale))
    precision = scipy.stats.gamma(nu / 2, scale=2 / (nu * s**2))

    def integrand(t):
        return np.exp(scipy.stats.norm.logpdf(x, p.mean, t**-0.5).sum()) * precision.pdf(t)

    integral, _ = scipy.integrate.quad(integrand, 0, np.inf, epsabs=1e-13, epsrel=1e-11)
    np.testing.assert_allclose(log_prob(p, x), np.log(integral), atol=1e-9)


def test_student_t_tends_to_the_gaussian(float64):
    mean, x = jnp.asarray(numbers(4, 5)), numbers(7, 5)
    p = StudentT(mean, jnp.asarray(0.3), jnp.asarray(1e8))
    expected = log_prob(Normal(mean, np.full(5, 0.3)), x)
    np.testing.assert_allclose(log_prob(p, x), expected, rtol=1e-6)


def test_mixture_density_is_of_joint_densities(float64):
    p, x = FAMILIES["mixture"](), numbers(7, 3)
    components = scipy.stats.norm.logpdf(x, p.components.mean, np.exp(p.components.log_scale))
    weights = scipy.special.softmax(p.log_weights)
    expected = scipy.special.logsumexp(components.sum(axis=1), b=weights)
    np.testing.assert_allclose(log_prob(p, x), expected, rtol=0, atol=1e-10)
    one_for_each_dimension = scipy.special.logsumexp(components, axis=0, b=weights[:, None]).sum()
    assert abs(one_for_each_dimension - expected) > 0.1


def test_mixture_weights_need_not_be_normalised(float64):
    p, x = FAMILIES["mixture"](), numbers(7, 3)
    shifted = Mixture(p.components, p.log_weights + 3.0)
    np.testing.assert_allclose(log_prob(shifted, x), log_prob(p, x), atol=1e-12)


def test_mixture_draws_one_component_for_the_whole_event():
    ends = Normal(jnp.asarray([[-9.0, -9.0], [9.0, 9.0]]), jnp.zeros((2, 2)))
    signs = np.sign(samples(Mixture(ends, jnp.log(jnp.asarray([0.3, 0.7])))))
    np.testing.assert_array_equal(signs[:, 0], signs[:, 1])
    assert_mean(signs[:, 0] > 0, 0.7)


# Samples


@family
def test_samples_follow_the_density(make):
    """The score identity, in every parameter."""
    p = make()
    _, scores = jax.jit(jax.vmap(value_and_gradient, in_axes=(None, 0)))(p, samples(p))
    for path, score in jax.tree.leaves_with_path(scores):
        if "scale_tril" in str(path):
            score = np.tril(score)  # what is above the diagonal is no parameter
        assert_mean(score, 0, jax.tree_util.keystr(path))


@family
def test_mean_is_the_samples_mean(make):
    p = make()
    assert_mean(samples(p), p.mean)


@pytest.mark.parametrize("name", ["normal", "laplace", "student_t", "bernoulli"])
def test_nothing_is_likelier_than_the_mode(name):
    p = FAMILIES[name]()
    assert log_probs(p, samples(p)).max() <= log_prob(p, p.mode)


def test_normal_scale_is_a_standard_deviation():
    """Not exp(log-variance); shift and scale, so that the gradient passes through both."""
    p = Normal(jnp.asarray([2.0]), jnp.asarray([np.log(3.0)]))
    assert_mean((samples(p) - 2) ** 2, 9.0)
    x, gradient = jax.jit(jax.value_and_grad(lambda p: p.sample(KEY)[0]))(p)
    noise = (x - 2) / 3
    np.testing.assert_allclose(gradient.mean, 1)
    np.testing.assert_allclose(gradient.log_scale, 3 * noise, rtol=1e-6)


def test_bernoulli_probability_is_the_sigmoid():
    """Not the softplus, which at logit 0 is 0.69."""
    logits = jnp.asarray([-2.0, 0.0, 1.0])
    assert_mean(samples(Bernoulli(logits)), scipy.special.expit(logits))


def test_multivariate_normal_covariance_is_the_samples():
    p = multivariate(0)
    centred = np.asarray(samples(p)) - np.asarray(p.mean)
    assert_mean(centred[:, :, None] * centred[:, None, :], p.covariance)


# KL


PAIRS = {
    "normal, normal": lambda: (normal(0, 3), normal(10, 3)),
    "multivariate, normal": lambda: (multivariate(0), normal(10, 3)),
    "normal, multivariate": lambda: (normal(0, 3), multivariate(10)),
    "multivariate, multivariate": lambda: (multivariate(0), multivariate(10)),
}  # that of mixtures, which is no closed form: tests/models/test_priors.py
pairs = pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS.keys())


def test_every_closed_form_is_tested():
    closed = set(KL) - {(Mixture, None)}
    assert {tuple(map(type, make())) for make in PAIRS.values()} == closed


@pairs
def test_kl_is_the_mean_log_ratio(make):
    q, p = make()
    x = samples(q)
    assert_mean(log_probs(q, x) - log_probs(p, x), kl(q, p, KEY))


@pairs
def test_kl_in_one_dimension_is_the_integral(make, float64):
    """Of q log(q/p); each family cut down to one dimension."""

    def one(d):
        if isinstance(d, Normal):
            return jax.tree.map(lambda leaf: leaf[:1], d)
        return MultivariateNormal(d.mean[:1], d.scale_tril[:1, :1])

    q, p = map(one, make())
    x, step = np.linspace(-40, 40, 40_001, retstep=True)
    log_q, log_p = (log_probs(d, x[:, None]) for d in (q, p))
    integrand = np.exp(log_q) * (log_q - log_p)
    # The trapezoidal rule is exact to rounding for smooth functions that vanish at both ends.
    np.testing.assert_allclose(kl(q, p, KEY), step * integrand.sum(), atol=1e-10)


def test_kl_of_gaussians_is_the_textbook_formula(float64):
    q, p = multivariate(0), multivariate(10)
    inverse, difference = np.linalg.inv(p.covariance), p.mean - q.mean
    log_dets = [np.linalg.slogdet(d.covariance)[1] for d in (p, q)]
    expected = 0.5 * (
        log_dets[0] - log_dets[1] - 3
        + np.trace(inverse @ q.covariance) + difference @ inverse @ difference
    )  # fmt: skip
    np.testing.assert_allclose(kl(q, p, KEY), expected, atol=1e-10)


def test_kl_to_the_standard_normal(float64):
    """½ Σ (μ² + σ² − 1 − log σ²)."""
    q, zeros = normal(0, 4), jnp.zeros(4)
    expected = 0.5 * np.sum(q.mean**2 + np.exp(2 * q.log_scale) - 1 - 2 * q.log_scale)
    np.testing.assert_allclose(kl(q, Normal(zeros, zeros), KEY), expected, atol=1e-12)


@pairs
def test_kl_is_zero_for_equals_and_positive_otherwise(make, float64):
    q, p = make()
    assert kl(q, p, KEY) > 0.1
    for d in (q, p):
        np.testing.assert_allclose(kl(d, d, KEY), 0, atol=1e-12)
    full = MultivariateNormal(q.mean, jnp.diag(jnp.exp(q.mean)))
    np.testing.assert_allclose(kl(Normal(q.mean, q.mean), full, KEY), 0, atol=1e-12)


def test_kl_is_never_negative(float64):
    q = normal(0, 50, 3)
    near = jax.tree.map(lambda leaf: leaf + 1e-4 * numbers(1, 50, 3), q)
    values = jax.vmap(lambda q, p: kl(q, p, KEY))(q, near)
    assert np.all((values > 0) & (values < 1e-6))


def test_kl_without_closed_form_is_one_sample_the_same_that_is_drawn(float64):
    q, p = normal(8, 3), FAMILIES["mixture"]()
    z = q.sample(KEY)
    expected = log_prob(q, z) - log_prob(p, z)
    np.testing.assert_allclose(kl(q, p, KEY), expected, atol=1e-12)


# Shapes and pytrees


@family
def test_a_batch_is_refused(make):
    p = make()
    with pytest.raises(ValueError, match="vmap"):
        p.log_prob(np.zeros((3, *shape_of(p))))


@family
def test_a_smaller_event_is_refused(make):
    """Broadcasting would count it several times."""
    p = make()
    with pytest.raises(ValueError, match="one example of shape"):
        p.log_prob(np.zeros((*shape_of(p)[:-1], 1)))


@family
def test_flattening_and_back(make):
    p = make()
    flat, tree = jax.tree.flatten(p)
    again = jax.tree.unflatten(tree, flat)
    assert type(again) is type(p) and jax.tree.structure(again) == tree
    for a, b in zip(jax.tree.leaves(again), flat, strict=True):
        assert a is b
    jax.tree.unflatten(tree, [object()] * len(flat))  # JAX does so with its own placeholders


@family
def test_frozen(make):
    p = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(p, dataclasses.fields(p)[0].name, 0)


@family
def test_stop_gradient_stops_everything(make):
    p = make()
    x = np.full(shape_of(p), 0.3)

    @jax.jit
    def stopped(p):
        return jax.grad(lambda p: jax.tree.map(jax.lax.stop_gradient, p).log_prob(x))(p)

    assert any(np.any(leaf != 0) for leaf in leaves(value_and_gradient(p, x)[1]))
    assert all(np.all(leaf == 0) for leaf in leaves(stopped(p)))


@family
def test_vmap_makes_batches_and_jit_changes_nothing(make):
    p = make()
    batch = jax.tree.map(lambda leaf: np.stack([leaf, 0.9 * leaf, 1.1 * leaf]), p)
    keys = jax.random.split(KEY, 3)
    x, log_p = jax.jit(jax.vmap(lambda p, key: p.sample_and_log_prob(key)))(batch, keys)
    assert log_p.shape == (3,)
    for i in range(3):
        one = jax.tree.map(lambda leaf: leaf[i], batch)
        np.testing.assert_allclose(x[i], draw(one, keys[i]), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(log_p[i], log_prob(one, x[i]), rtol=1e-5, atol=1e-5)


# Extremes


@pytest.mark.parametrize("logit", [90.0, 1e4, -90.0, -1e4])
@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_bernoulli_is_exact_at_any_logit(logit, x):
    p, x = Bernoulli(jnp.asarray([logit])), jnp.asarray([x])
    log_p, slope = value_and_gradient(p, x)
    expected = logit * x - max(logit, 0)  # log(1 + e^−90) is 0 in 32 bits
    np.testing.assert_allclose(log_p, expected, rtol=1e-6)
    np.testing.assert_allclose(slope.logits, x - (logit > 0), atol=1e-6)


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_bernoulli_gradient_where_nets_start(x):
    """x − σ(0) at logits of exactly 0, where |l| and max(l, 0) have no derivative."""
    _, slope = value_and_gradient(Bernoulli(np.zeros(1)), np.asarray([x]))
    np.testing.assert_allclose(slope.logits, [x - 0.5], atol=1e-7)


def test_laplace_does_not_pull_a_mean_that_is_right():
    _, slope = value_and_gradient(Laplace(np.zeros(1), np.zeros(1)), np.zeros(1))
    np.testing.assert_array_equal(slope.mean, [0.0])


@pytest.mark.parametrize("mean", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("log_scale", [-9.0, 0.0, 40.0])
@pytest.mark.parametrize("name", ["normal", "laplace", "student_t"])
def test_densities_are_finite_far_from_the_data(name, mean, log_scale):
    scale = log_scale if name == "student_t" else np.full(3, log_scale)
    kind = type(FAMILIES[name]())
    p = kind(*map(jnp.asarray, [np.full(3, mean), scale, *[4.0] * (name == "student_t")]))
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves(value_and_gradient(p, np.ones(3))))


@pytest.mark.parametrize(
    ("shape", "hint"),
    [((5, 8, 8, 1), "jax.vmap"), ((8, 8), "channel axis"), ((5, 8, 8), "channel axis")],
)
def test_a_wrong_shape_says_what_to_do(shape, hint):
    with pytest.raises(ValueError, match=hint):
        event(jnp.zeros(shape), (8, 8, 1))
