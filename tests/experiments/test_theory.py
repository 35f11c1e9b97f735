"""The mathematics of a VAE, row by row: each formula against something that knows better.

Everything is in float64. What is exact is held to 1e-10; what is sampled, to five standard errors.
Tests called `..._misprint` show that a formula as the article prints it is wrong.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from scipy import integrate, stats

from experiments.cli.config import parse
from experiments.runner.job import assemble
from experiments.theory import analytic_vae, worlds
from experiments.theory.worlds import closed_form_kl
from vae_jax import evaluation, models, objectives, training
from vae_jax.distributions.base import LOG_2PI
from vae_jax.distributions.continuous import MultivariateNormal, Normal
from vae_jax.distributions.divergence import discrete_kl, transformed_log_prob
from vae_jax.objectives import bounds, gradients
from vae_jax.objectives.config import kl_weights
from vae_jax.types import Batch

SEEDS = range(3)
close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def integral(f, low=-np.inf, high=np.inf):
    def value(x):
        return float(f(np.float64(x)))

    return integrate.quad(value, low, high, epsabs=1e-13, epsrel=1e-12, limit=200)[0]


def within(samples, exact, errors=5):
    """The mean of independent samples [n, ...] lies within so many standard errors of `exact`."""
    samples = np.asarray(samples)
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    assert np.all(np.abs(samples.mean(axis=0) - exact) <= errors * error + 1e-12)


def gaussian(seed, d=1):
    means, scales = np.random.default_rng(seed).normal(size=(2, d))
    return Normal(jnp.asarray(means), jnp.asarray(0.5 * scales))


def full(seed, d):
    rng = np.random.default_rng(seed)
    tril = np.tril(rng.normal(size=(d, d)), -1) + np.diag(rng.uniform(0.3, 2, d))
    return MultivariateNormal(jnp.asarray(rng.normal(size=d)), jnp.asarray(tril))


def probabilities(seed, n=6):
    return jnp.asarray(np.random.default_rng(seed).dirichlet(np.ones(n)))


def world_and_image(seed, x_dim=5, z_dim=3):
    key, data = jax.random.split(jax.random.key(seed))
    world = worlds.random_linear_gaussian(key, x_dim, z_dim)
    return world, world.marginal.sample(data)


def standard(d):
    return Normal(jnp.zeros(d), jnp.zeros(d))


# 1. The KL divergence


@pytest.mark.parametrize("seed", SEEDS)
def test_discrete_kl(seed):
    p, q = probabilities(seed), probabilities(seed + 10)
    close(discrete_kl(p, q), stats.entropy(p, q))
    other = npd.kl_divergence(npd.Categorical(probs=p), npd.Categorical(probs=q))
    close(discrete_kl(p, q), other)


def test_discrete_kl_where_an_outcome_cannot_happen():
    some, both = jnp.asarray([1.0, 0.0]), jnp.asarray([0.5, 0.5])
    close(discrete_kl(some, both) / np.log(2), 1)  # one bit
    assert discrete_kl(both, some) == np.inf


@pytest.mark.parametrize("seed", SEEDS)
def test_kl_is_the_integral(seed):
    q, p = gaussian(seed), gaussian(seed + 10)

    @jax.jit
    def integrand(x):
        log_q, log_p = q.log_prob(x[None]), p.log_prob(x[None])
        return jnp.exp(log_q) * (log_q - log_p)

    low, high = (float(q.mean[0] + k * jnp.exp(q.log_scale[0])) for k in (-12, 12))
    close(closed_form_kl(q, p), integral(integrand, low, high))


@pytest.mark.parametrize("seed", SEEDS)
def test_kl_is_never_negative_and_zero_only_for_equals(seed):
    p, q = probabilities(seed), probabilities(seed + 10)
    assert discrete_kl(p, q) > 0 and discrete_kl(p, p) == 0
    assert closed_form_kl(full(seed, 3), full(seed + 10, 3)) > 0
    close(closed_form_kl(full(seed, 3), full(seed, 3)), 0)


def test_kl_as_a_distance_misprint():
    """Not symmetric, and no triangle inequality: three biased coins break it."""
    p, q, r = (jnp.asarray([a, 1 - a]) for a in (0.5, 0.25, 0.1))
    assert abs(discrete_kl(p, r) - discrete_kl(r, p)) > 0.1
    assert discrete_kl(p, r) > discrete_kl(p, q) + discrete_kl(q, r)


# 2.-5. One dimension


@pytest.mark.parametrize("seed", SEEDS)
def test_gaussian_density(seed):
    q = gaussian(seed)
    mean, scale = q.mean[0], jnp.exp(q.log_scale[0])
    for x in np.random.default_rng(seed).normal(size=(5, 1)):
        close(q.log_prob(jnp.asarray(x)), stats.norm.logpdf(x[0], mean, scale))


def test_gaussian_density_misprint():
    """N(μ, σ) as printed, with the σ² of N(μ, σ²) put for its σ, has variance σ⁴."""

    def printed(x, mean, sigma):
        return np.exp(-((x - mean) ** 2) / (2 * sigma**2)) / np.sqrt(2 * np.pi * sigma**2)

    mean, variance = 0.3, 0.49
    second = integral(lambda x: (x - mean) ** 2 * printed(x, mean, variance))
    close(second, variance**2)
    assert abs(second - variance) > 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_kl_of_gaussians(seed):
    q, p = gaussian(seed), gaussian(seed + 10)
    (m1, s1), (m2, s2) = ((d.mean[0], jnp.exp(d.log_scale[0])) for d in (q, p))
    formula = np.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5
    close(closed_form_kl(q, p), formula)
    close(closed_form_kl(q, p), npd.kl_divergence(npd.Normal(m1, s1), npd.Normal(m2, s2)))


def test_kl_of_gaussians_with_the_variance_for_the_scale_misprint():
    """N(μ, 4) read as "scale 4" where "variance 4" is meant: 0.8 nats become 6.1."""
    meant = closed_form_kl(Normal(jnp.zeros(1), jnp.log(jnp.full(1, 2.0))), standard(1))
    read = closed_form_kl(Normal(jnp.zeros(1), jnp.log(jnp.full(1, 4.0))), standard(1))
    close(meant, 1.5 - np.log(2))
    close(read, 7.5 - np.log(4))


@pytest.mark.parametrize("seed", SEEDS)
def test_kl_to_the_standard_normal_is_least_at_the_standard_normal(seed):
    q = gaussian(seed)
    m, s = q.mean[0], jnp.exp(q.log_scale[0])
    close(closed_form_kl(q, standard(1)), -np.log(s) + (s**2 + m**2) / 2 - 0.5)
    divergence = functools.partial(closed_form_kl, p=standard(1))
    close(divergence(standard(1)), 0)
    gradient = jax.grad(divergence)(standard(1))
    close(gradient.mean, 0)
    close(gradient.log_scale, 0)
    assert divergence(q) > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_kl_to_any_normal_misprint(seed):
    """ "Normal" is not enough: the special case holds for the *standard* normal alone."""
    q, p = gaussian(seed), gaussian(seed + 10)
    assert abs(closed_form_kl(q, p) - closed_form_kl(q, standard(1))) > 1e-3


def test_which_term_is_stronger():
    """y = −log σ + σ²/2 − ½ ≥ 0; it falls below σ = 1 and rises above; y″ > 0."""
    scales = jnp.linspace(0.5, 2, 100)

    def y(scale):
        return closed_form_kl(Normal(jnp.zeros(1), jnp.log(scale)[None]), standard(1))

    value, slope, second = jax.jit(
        jax.vmap(lambda s: (y(s), jax.grad(y)(s), jax.grad(jax.grad(y))(s)))
    )(scales)
    close(value, -np.log(scales) + scales**2 / 2 - 0.5)
    close(slope, scales - 1 / scales)
    np.testing.assert_array_equal(np.sign(slope), np.sign(scales - 1))
    close(second, 1 + 1 / scales**2)
    assert np.all(value >= 0)


def test_the_quadratic_term_is_stronger_misprint():
    """Counted from σ = 1, where both are 0: below 1 the logarithm gains more than σ²/2 loses."""
    scales = np.linspace(0.01, 0.99, 99)
    logarithm, quadratic = -np.log(scales), (scales**2 - 1) / 2
    assert np.all(logarithm > -quadratic)
    above = 1 / scales
    assert np.all((above**2 - 1) / 2 > np.log(above))


# 6.-7. Many dimensions


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("d", [1, 4])
def test_multivariate_density(seed, d):
    q = full(seed, d)
    x = jnp.asarray(np.random.default_rng(seed + 1).normal(size=d))
    close(q.log_prob(x), stats.multivariate_normal.logpdf(x, q.mean, q.covariance))


def test_multivariate_density_misprint():
    """With 1/√(2π det Σ), the total is √(2π) in the plane, not 1."""
    q = full(0, 2)
    inverse, det = np.linalg.inv(q.covariance), np.linalg.det(q.covariance)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)  # ∫ f(t) e^{−t²/2} dt
    noise = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    centred = noise @ np.asarray(q.scale_tril).T  # x − μ = L t, dx = √det Σ dt
    kernel = np.exp(-0.5 * np.einsum("ni,ij,nj->n", centred, inverse, centred))
    measure = np.outer(weights, weights).ravel() * np.exp(0.5 * np.sum(noise**2, axis=1))
    total = np.sum(kernel * measure) * np.sqrt(det)
    close(total / np.sqrt((2 * np.pi) ** 2 * det), 1)
    close(total / np.sqrt(2 * np.pi * det), np.sqrt(2 * np.pi))


@jax.jit
def numpyro_kl(q, p):
    theirs = [npd.MultivariateNormal(g.mean, scale_tril=g.scale_tril) for g in (q, p)]
    return npd.kl_divergence(*theirs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("d", [1, 4])
def test_kl_of_multivariate_gaussians(seed, d):
    q, p = full(seed, d), full(seed + 10, d)
    close(closed_form_kl(q, p), numpyro_kl(q, p))
    (m1, S1), (m2, S2) = ((np.asarray(g.mean), np.asarray(g.covariance)) for g in (q, p))
    inverse = np.linalg.inv(S2)
    log_dets = np.linalg.slogdet(S2)[1] - np.linalg.slogdet(S1)[1]
    printed = log_dets - d + np.trace(inverse @ S1) + (m2 - m1) @ inverse @ (m2 - m1)
    close(closed_form_kl(q, p), printed / 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_kl_of_a_diagonal_gaussian_to_the_prior(seed):
    q = gaussian(seed, 4)
    m, v = np.asarray(q.mean), np.exp(2 * np.asarray(q.log_scale))
    close(closed_form_kl(q, standard(4)), 0.5 * np.sum(m**2 + v - 1 - np.log(v)))
    as_full = MultivariateNormal(q.mean, jnp.diag(jnp.exp(q.log_scale)))
    close(closed_form_kl(as_full, standard(4)), closed_form_kl(q, standard(4)))
    close(closed_form_kl(standard(4), as_full), closed_form_kl(standard(4), q))
    close(q.covariance, as_full.covariance)


# 8. Bayes' rule, and what a generative model is good for


@pytest.mark.parametrize("seed", SEEDS)
def test_bayes_rule(seed):
    world, x = world_and_image(seed, z_dim=1)

    @jax.jit
    def joint(z):
        z = z[None]
        return jnp.exp(world.likelihood(z).log_prob(x) + standard(1).log_prob(z))

    posterior = world.posterior(x)
    centre, width = float(posterior.mean[0]), float(posterior.scale_tril[0, 0])
    evidence = integral(joint, centre - 12 * width, centre + 12 * width)
    close(np.log(evidence), world.marginal.log_prob(x))
    z = 0.3
    close(joint(np.float64(z)) / evidence, jnp.exp(posterior.log_prob(jnp.asarray([z]))))


def accepted_counts(pixels, flip=0.1):
    """The probabilities that a random image has 0, 1, … flipped pixels and is accepted."""
    h = jnp.arange(pixels + 3.0)  # beyond `pixels` they are 0
    return np.exp(jax.jit(worlds.glyph_log_accepted)(h, pixels, flip))


def glyph(pixels, flip=0.1):
    return worlds.Glyph(jnp.arange(pixels) % 2.0, flip)


def test_acceptance_by_enumeration():
    """All 2¹⁰ images: the acceptance probability, and Bayes' rule at each of them."""
    world, d = glyph(10), 10
    images = jnp.asarray((np.arange(2**d)[:, None] >> np.arange(d)) & 1, jnp.float64)
    h, log_posterior = jax.vmap(lambda x: (world.unlike(x), world.log_posterior(x)))(images)
    noise = 0.5**d
    wanted = np.prod(np.where(np.asarray(images) == np.asarray(world.image), 0.9, 0.1), axis=1)
    close(jnp.exp(worlds.glyph_log_likelihood(h, d, 0.1)), wanted)
    close(jnp.exp(log_posterior), wanted / (wanted + noise))
    close(accepted_counts(d).sum(), np.mean(wanted / (wanted + noise)))


def test_draw_until_accepted():
    """Simulated acceptance agrees, and what is accepted does not follow p(X|z)."""
    world = glyph(16)
    keys = jax.random.split(jax.random.key(0), 40_000)
    x, accepted = jax.jit(jax.vmap(world.propose))(keys)
    within(accepted, accepted_counts(16).sum())
    h = np.abs(np.asarray(x) - np.asarray(world.image)).sum(axis=1)[np.asarray(accepted)]
    law = accepted_counts(16) / accepted_counts(16).sum()
    within(h, law @ np.arange(19))
    generated = jax.jit(jax.vmap(lambda key: world.unlike(world.generate(key))))(keys)
    within(generated, 1.6)
    assert h.mean() > 1.5 * 1.6  # twice as noisy as the images that the model means


def test_proposals_from_the_model_are_accepted_right():
    """If X comes from p(X), what is accepted follows p(X|z): rejection needs the generator too."""
    h = jnp.arange(11.0)
    binomial = stats.binom.pmf
    mixture = 0.5 * binomial(h, 10, 0.1) + 0.5 * binomial(h, 10, 0.5)
    accepted = mixture * jnp.exp(worlds.glyph_log_posterior(h, 10, 0.1))
    close(accepted.sum(), 0.5)
    close(accepted / accepted.sum(), binomial(h, 10, 0.1))


# 9.-10. The identity, and mean field


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", [gaussian, full])
def test_identity(seed, family):
    """log p(X) − KL(q‖p(z|X)) = E_q log p(X|z) − KL(q‖p(z)), each of the four from its own form."""
    world, x = world_and_image(seed)
    q = family(seed, 3)
    left = world.marginal.log_prob(x) - closed_form_kl(q, world.posterior(x))
    right = world.expected_log_likelihood(q, x) - closed_form_kl(q, standard(3))
    close(left, right)
    close(world.elbo(q, x), right)
    close(
        world.marginal.log_prob(x),
        stats.multivariate_normal.logpdf(
            x,
            world.bias,
            world.weights @ world.weights.T + jnp.exp(2 * world.log_scale) * jnp.eye(5),
        ),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_identity_by_sampling(seed):
    """The library's own one-sample terms have the closed forms as their means."""
    world, x = world_and_image(seed)
    vae = worlds.linear_gaussian_vae(5, 3, exact=False)
    params = {"likelihood": world, "posterior": world, "prior": {}}
    keys = jax.random.split(jax.random.key(seed), 20_000)
    terms = jax.vmap(lambda k: models.rate_distortion(vae, params, k, x, jnp.zeros(0)))
    rate, distortion = jax.jit(terms)(keys)
    q = world.mean_field(x)
    close(rate, closed_form_kl(q, standard(3)))
    within(-distortion, world.expected_log_likelihood(q, x))


def test_p_of_x_is_fixed_misprint():
    """p(X) is constant with respect to q alone: the decoder's parameters move it."""
    world, x = world_and_image(0)
    gradient = jax.jit(jax.grad(lambda w: w.marginal.log_prob(x)))(world)
    assert jnp.linalg.norm(gradient.weights) > 0.1
    # At q = p(z|X) the bound touches log p(X): their gradients agree (Fisher's identity).
    q = world.posterior(x)
    bound = jax.jit(jax.grad(lambda w: w.elbo(q, x)))(world)
    jax.tree.map(close, bound, gradient)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_mean_field_costs(seed):
    """−½ log det of the posterior precision scaled to a unit diagonal; no diagonal q pays less."""
    world, x = world_and_image(seed)
    q, p = world.mean_field(x), world.posterior(x)
    precision = np.linalg.inv(p.covariance)
    root = np.sqrt(np.diag(precision))
    cost = -0.5 * np.linalg.slogdet(precision / np.outer(root, root))[1]
    close(closed_form_kl(q, p), cost)
    close(world.marginal.log_prob(x) - world.elbo(q, x), cost)
    close(world.marginal.log_prob(x) - world.elbo(p, x), 0)
    gradient = jax.grad(lambda q: closed_form_kl(q, p))(q)
    close(gradient.mean, 0)
    close(gradient.log_scale, 0)
    for other in range(5):
        shift = gaussian(other, 3)
        moved = jax.tree.map(lambda a, b: a + 0.1 * b, q, shift)
        assert closed_form_kl(moved, p) > cost


def test_mean_field_in_the_plane():
    """Two latents whose posterior correlation is ρ: −½ log(1 − ρ²)."""
    for rho in (0.0, 0.5, -0.9):
        p = worlds.correlated(jnp.asarray(rho))
        close(p.covariance, [[1, rho], [rho, 1]])
        q = Normal(jnp.zeros(2), jnp.full(2, 0.5 * np.log(1 - rho**2)))
        close(closed_form_kl(q, p), -0.5 * np.log(1 - rho**2))


# 11.-13. Reparameterisation


@pytest.mark.parametrize("family", [gaussian, full])
def test_sample_is_a_shift_and_a_scale_of_noise(family):
    q, key = family(3, 4), jax.random.key(1)
    noise = jax.random.normal(key, (4,))
    scale = q.scale_tril if isinstance(q, MultivariateNormal) else jnp.diag(jnp.exp(q.log_scale))
    close(q.sample(key), q.mean + scale @ noise)
    draws = np.asarray(jax.jit(jax.vmap(q.sample))(jax.random.split(key, 40_000)))
    within(draws, q.mean)
    centred = draws - np.asarray(q.mean)
    within(centred[:, :, None] * centred[:, None, :], q.covariance)


def test_b_is_a_minus_1():
    """a ~ N(1, 1), b = a − 1 ~ N(0, 1): the article's example, where the scale is 1."""
    a = Normal(jnp.ones(1), jnp.zeros(1))
    for x in (-1.0, 0.2, 3.0):
        x = jnp.asarray([x])
        close(a.log_prob(x), standard(1).log_prob(x - 1))


def test_noise_added_to_the_input_misprint():
    """g(X + ε) for g(X, ε): with a linear g the noise passes through the encoder's weights, so that
    z has covariance A Aᵀ, whatever σ_φ(X) says; with A = 0 it has no noise at all.
    """
    encoder = np.asarray([[1.0, 2.0, 0.0], [0.5, 0.0, 1.0]])
    x, q = np.asarray([0.3, -1.0, 0.7]), Normal(jnp.zeros(2), jnp.log(jnp.full(2, 0.1)))
    noise = np.random.default_rng(0).normal(size=(40_000, 3))
    printed = (x + noise) @ encoder.T
    centred = printed - encoder @ x
    within(centred[:, :, None] * centred[:, None, :], encoder @ encoder.T)
    assert np.all(np.abs(np.cov(printed.T) - q.covariance) > 0.4)


@pytest.mark.parametrize("seed", SEEDS)
def test_density_under_change_of_variables(seed):
    """q(z|X) = p(ε)/∏σ_j, and by the general rule; the same for a full covariance, with det L."""
    q, p = gaussian(seed, 4), full(seed, 4)
    noise = jnp.asarray(np.random.default_rng(seed).normal(size=4))
    base = standard(4)
    scales = jnp.exp(q.log_scale)
    log_q = q.log_prob(q.mean + scales * noise)
    close(log_q, base.log_prob(noise) - jnp.log(jnp.prod(scales)))
    close(log_q, transformed_log_prob(base, lambda e: q.mean + scales * e, noise))
    log_p = p.log_prob(p.mean + p.scale_tril @ noise)
    close(log_p, transformed_log_prob(base, lambda e: p.mean + p.scale_tril @ e, noise))


def test_density_without_the_jacobian_misprint():
    """q(z) = p(ε) integrates, over z, to σ."""
    sigma = 0.4
    close(integral(lambda z: stats.norm.pdf(z / sigma)), sigma)


@pytest.mark.parametrize("seed", SEEDS)
def test_kl_between_the_noises_misprint(seed):
    """KL(q(ε)‖p(ε)) is 0 whatever the encoder says; the identity misses KL(q(z|X)‖p(z))."""
    world, x = world_and_image(seed)
    q = gaussian(seed, 3)
    left = world.marginal.log_prob(x) - closed_form_kl(q, world.posterior(x))
    printed = world.expected_log_likelihood(q, x) - closed_form_kl(standard(3), standard(3))
    close(printed - left, closed_form_kl(q, standard(3)))
    assert printed - left > 0.1


# 14. Why reparameterise


def square(params, z):
    return jnp.sum(z**2)


@functools.partial(jax.jit, static_argnames=("estimator", "f"))
def estimates(estimator, f, q, seed=0, **options):
    """Many one-sample estimates of the gradient of E_q[f] with respect to q's own parameters."""
    keys = jax.random.split(jax.random.key(seed), 20_000)
    return jax.vmap(lambda key: estimator(f, lambda q: q, q, key, **options))(keys)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("d", [1, 4])
def test_gradients_of_a_square(seed, d):
    """∂E‖z‖²/∂μ = 2μ from both, with the variances that Gaussian moments give."""
    mean, scale = np.random.default_rng(seed).uniform(0.3, 1.5, 2)
    q = Normal(jnp.full(d, mean), jnp.full(d, np.log(scale)))
    exact = worlds.square_gradient_variance(d, mean, scale)
    found = {
        "pathwise": estimates(gradients.pathwise, square, q, seed),
        "score": estimates(gradients.score_function, square, q, seed, baseline=0.0),
        "baseline": estimates(
            gradients.score_function, square, q, seed, baseline=d * (mean**2 + scale**2)
        ),
    }
    for name, sampled in found.items():
        within(sampled.mean, 2 * mean)
        within(sampled.log_scale, 2 * scale**2)
        within((sampled.mean[:, 0] - 2 * mean) ** 2, exact[name])
    assert exact["pathwise"] < exact["baseline"] < exact["score"]


def test_gradients_of_the_elbo():
    """Both have the exact gradient as their mean, also of what depends on φ without z."""
    world, x = world_and_image(1)
    q = gaussian(5, 3)

    def log_ratio(q, z):
        log_joint = world.likelihood(z).log_prob(x) + standard(3).log_prob(z)
        return log_joint - q.log_prob(z) + jnp.sum(q.mean**2)

    exact = jax.jit(jax.grad(lambda q: world.elbo(q, x) + jnp.sum(q.mean**2)))(q)
    spread = {}
    for estimator in (gradients.pathwise, gradients.score_function):
        sampled = estimates(estimator, log_ratio, q)
        jax.tree.map(within, sampled, exact)
        spread[estimator] = np.var(sampled.mean, axis=0).sum()
    assert spread[gradients.pathwise] < 0.1 * spread[gradients.score_function]


def test_score_function_needs_no_slope():
    """A step has slope 0 almost everywhere: the pathwise estimate is 0 and wrong."""
    q = Normal(jnp.full(1, 0.5), jnp.zeros(1))

    def step(params, z):
        return jnp.sum(z > 0).astype(jnp.float64)

    assert not estimates(gradients.pathwise, step, q).mean.any()
    within(estimates(gradients.score_function, step, q).mean, stats.norm.pdf(0.5))


# 15. The network's losses


@functools.cache
def bernoulli_vae(n=100):
    """A small VAE of 12 pixels and 3 latents, n images, and its loss."""
    vae = models.build(models.ModelConfig(latent_dim=3, widths="8"), (12,))
    params = jax.tree.map(lambda a: a + 0.1, jax.jit(vae.init)(jax.random.key(0)))
    x = jax.random.uniform(jax.random.key(1), (n, 12))
    loss = jax.jit(functools.partial(bounds.elbo, vae))
    return vae, params, Batch(x, jnp.zeros((n, 0))), loss


def test_losses_are_sums_over_units_and_means_over_the_batch():
    vae, params, batch, objective = bernoulli_vae()
    key = jax.random.key(2)
    loss, metrics = objective(params, key, batch, objectives.KLWeights())
    rates, distortions = [], []
    encode, decode = jax.jit(vae.posterior), jax.jit(vae.likelihood)
    for x, k in zip(np.asarray(batch.x), jax.random.split(key, 100), strict=True):
        q = encode(params, x, jnp.zeros(0))
        m, v = np.asarray(q.mean), np.exp(2 * np.asarray(q.log_scale))
        rates.append(0.5 * np.sum(m**2 + v - 1 - np.log(v)))
        p = np.asarray(decode(params, q.sample(k), jnp.zeros(0)).mean)
        distortions.append(-np.sum(x * np.log(p) + (1 - x) * np.log1p(-p)))
    close(metrics["rate"], np.mean(rates))
    close(metrics["distortion"], np.mean(distortions))
    close(loss, np.mean(rates) + np.mean(distortions))


def test_means_over_units_change_the_kl_weight():
    """Pixel means beside latent means are β = pixels/latents: 26 for 784 pixels and 30 latents."""
    _, params, batch, objective = bernoulli_vae()
    key = jax.random.key(2)
    loss, metrics = objective(params, key, batch, objectives.KLWeights(beta=12 / 3))
    close(12 * (metrics["distortion"] / 12 + metrics["rate"] / 3), loss)
    assert abs(loss - (metrics["distortion"] + metrics["rate"])) > 1


def test_the_loss_weight_of_one_in_a_hundred_is_the_mean():
    vae, params, batch, objective = bernoulli_vae()
    key = jax.random.key(2)
    loss, _ = objective(params, key, batch, objectives.KLWeights())
    keys = jax.random.split(key, 100)
    term = jax.jit(lambda key, x, c: sum(models.rate_distortion(vae, params, key, x, c)))
    total = sum(float(term(*example)) for example in zip(keys, *batch, strict=True))
    close(total / 100, loss)


# Doersch's tutorial: the ring


@pytest.mark.parametrize("d", [2, 3])
def test_ring_density(d):
    """By the general change of variables, and in total 1."""
    for seed in SEEDS:
        z = jnp.asarray(np.random.default_rng(seed).normal(size=d))
        close(
            worlds.ring_log_prob(worlds.ring(z)), transformed_log_prob(standard(d), worlds.ring, z)
        )
    area = {2: 2 * np.pi, 3: 4 * np.pi}[d]
    along = jax.jit(lambda r: jnp.exp(worlds.ring_log_prob(jnp.zeros(d).at[0].set(r))))
    close(integral(lambda r: area * r ** (d - 1) * along(r), 1 + 1e-15, 3), 1)
    assert along(np.float64(0.9)) == 0


# The estimate of P(X) from prior and from posterior


@pytest.mark.parametrize("seed", SEEDS)
def test_second_moment_of_importance_weights(seed):
    rng = np.random.default_rng(seed)
    (m1, m2), (s1, s2) = rng.normal(size=(2, 1)), rng.uniform(0.5, 0.7, (2, 1))
    p, q = (
        Normal(jnp.asarray(m1), jnp.asarray(np.log(s1))),
        Normal(jnp.asarray(m2), jnp.asarray(np.log(s2))),
    )

    def ratio(z):
        return np.exp(2 * stats.norm.logpdf(z, m1, s1) - stats.norm.logpdf(z, m2, s2))[0]

    close(worlds.log_second_moment(p, q), np.log(integral(ratio, -20, 20)))
    close(worlds.log_second_moment(p, p), 0)


def test_second_moment_diverges_when_q_is_too_narrow():
    """The mean-field posterior of two latents: above |ρ| = ½ its weights have no variance."""
    for rho, finite in ((0.45, True), (0.55, False)):
        p = worlds.correlated(jnp.asarray(rho))
        q = Normal(jnp.zeros(2), jnp.full(2, 0.5 * np.log(1 - rho**2)))
        assert np.isfinite(worlds.log_second_moment(p, q)) == finite


@pytest.mark.parametrize("family", ["prior", "mean_field"])
def test_estimates_of_p_of_x(family):
    """KLWeights average to p(X), with the variance that the closed form gives."""
    world = worlds.informative_world(jax.random.key(0), 2)
    x = world.marginal.sample(jax.random.key(1))
    q = {"prior": standard(2), "mean_field": world.mean_field(x)}[family]
    log_w = worlds.log_weights(world, q, x, jax.random.key(2), 30_000)
    ratio = np.exp(log_w - world.marginal.log_prob(x))
    within(ratio, 1)
    within(ratio**2, np.exp(worlds.log_second_moment(world.posterior(x), q)))


def test_posterior_samples_have_no_error():
    world = worlds.informative_world(jax.random.key(0), 2)
    x = world.marginal.sample(jax.random.key(1))
    log_w = worlds.log_weights(world, world.posterior(x), x, jax.random.key(2), 10)
    close(log_w, np.full(10, world.marginal.log_prob(x)))


@functools.partial(jax.jit, static_argnums=0)
def relative_variances(z_dim):
    """Var[w]/E[w]² of weights from the prior and from q."""
    world = worlds.informative_world(jax.random.key(0), z_dim)
    x = world.marginal.sample(jax.random.key(1))
    p, pair = world.posterior(x), (standard(z_dim), world.mean_field(x))
    return jnp.expm1(jnp.stack([worlds.log_second_moment(p, q) for q in pair]))


def test_samples_needed_from_the_prior_grow_without_bound():
    needed = []
    for z_dim in (2, 8):
        needed.append(relative_variances(z_dim))
    prior, posterior = np.transpose(needed)
    assert prior[1] > 1e3 * prior[0]
    assert np.all(posterior < 1)


# σ² is the KL weight


def linear_data(seed=0, n=50):
    return analytic_vae.data_with_spectrum(
        jax.random.key(seed), jnp.asarray([4.0, 2.0, 1.0, 0.25]), n
    )


def with_noise(vae, log_scale):
    return vae._replace(world=vae.world._replace(log_scale=jnp.asarray(log_scale)))


@jax.jit
def loss(vae, data, beta=1.0):
    return vae.loss(data, beta)


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_variance_is_the_kl_weight(seed):
    """σ²·loss(σ², β=1) = loss(σ=1, β=σ²) + ½ d [σ² log 2πσ² − log 2π], for any parameters."""
    data, log_scale = linear_data(seed), 0.4 * (seed - 1.3)
    variance = np.exp(2 * log_scale)
    vae = analytic_vae.random_linear_vae(jax.random.key(seed), 4, 3, 0.0)
    vae = jax.tree.map(lambda a: a + 0.2, vae)
    fixed = loss(with_noise(vae, log_scale), data)
    weighted = loss(with_noise(vae, 0.0), data, variance)
    constant = 2 * (variance * (LOG_2PI + 2 * log_scale) - LOG_2PI)
    close(variance * fixed, weighted + constant)
    # β = σ is not it.
    assert abs(variance * fixed - loss(with_noise(vae, 0.0), data, np.exp(log_scale))) > 0.1


@pytest.mark.parametrize("log_scale", [-0.5, 0.0, 0.25])
def test_both_have_one_optimum(log_scale):
    data, variance = linear_data() + 0.3, np.exp(2 * log_scale)
    fixed = analytic_vae.best_linear_vae(data, 3, log_scale)
    weighted = analytic_vae.best_linear_vae(data, 3, 0.0, variance)
    jax.tree.map(close, fixed, with_noise(weighted, log_scale))
    for vae, beta in ((fixed, 1.0), (weighted, variance)):
        gradient = jax.jit(jax.grad(loss))(vae, data, beta)
        jax.tree.map(lambda a: close(a, 0), with_noise(gradient, 0.0))
        for seed in SEEDS:
            step = analytic_vae.random_linear_vae(jax.random.key(seed), 4, 3, 0.0)
            near = jax.tree.map(lambda a, b: a + 0.1 * b, vae, step)
            assert loss(near, data, beta) > loss(vae, data, beta)
    # The best bound is tight: the average log-likelihood of probabilistic PCA.
    marginal = fixed.world.marginal
    exact = stats.multivariate_normal.logpdf(data, marginal.mean, marginal.covariance)
    close(-loss(fixed, data), np.mean(exact))


@pytest.mark.parametrize("variance", [0.1, 0.5, 1.5, 5.0])
def test_the_optimum_fills_water(variance):
    """rate_j = max(0, ½ log λ_j/σ²), error_j = min(λ_j, σ²): Shannon's reverse water-filling."""
    data, spectrum = linear_data(), np.asarray([4.0, 2.0, 1.0, 0.25])
    vae = analytic_vae.best_linear_vae(data, 4, 0.5 * np.log(variance))
    close(vae.rates(data), np.maximum(0, 0.5 * np.log(spectrum / variance)))
    close(vae.squared_error(data), np.minimum(spectrum, variance).sum())


@pytest.mark.parametrize("seed", SEEDS)
def test_rates_and_error_make_the_loss(seed):
    data = linear_data(seed)
    vae = jax.tree.map(
        lambda a: a + 0.2, analytic_vae.random_linear_vae(jax.random.key(seed), 4, 3, 0.0)
    )
    variance = np.exp(2 * vae.world.log_scale)
    distortion = 0.5 * vae.squared_error(data) / variance + 2 * (LOG_2PI + np.log(variance))
    close(distortion + 3 * vae.rates(data).sum(), loss(vae, data, 3.0))


def test_both_trainings_arrive_there():
    """Adam from the same start: the same path, the same end."""
    data, variance = linear_data(), 0.5
    start = analytic_vae.random_linear_vae(jax.random.key(1), 4, 3, 0.5 * np.log(variance))
    fixed = analytic_vae.train_linear_vae(start, data, 1.0)
    weighted = analytic_vae.train_linear_vae(with_noise(start, 0.0), data, variance)
    best = analytic_vae.best_linear_vae(data, 3, 0.5 * np.log(variance))
    np.testing.assert_allclose(fixed.encoder, weighted.encoder, atol=1e-4)
    np.testing.assert_allclose(loss(fixed, data), loss(best, data), atol=1e-6)
    np.testing.assert_allclose(weighted.rates(data).sum(), best.rates(data).sum(), atol=1e-3)


def test_data_with_spectrum():
    data = np.asarray(linear_data())
    close(data.mean(axis=0), 0)
    close(np.linalg.eigvalsh(data.T @ data / len(data)), [0.25, 1, 2, 4])


def test_on_images_too():
    """Noise σ² with β = 1, noise 1 with β = σ²: one path of training, of a network on digits."""
    common = ["--dataset=digits", "--binarisation=none", "--likelihood=gaussian", "--widths=16"]
    ends = []
    for flags in (["--likelihood_scale=0.2"], ["--likelihood_scale=1", "--beta=0.04"]):
        job = assemble(parse([*common, "--steps=60", "--latent_dim=3", *flags]))
        *_, progress = training.fit(
            job.vae, job.objective, job.rows, job.config.training,
            prepare=job.prepare, weights=kl_weights(job.config.objective),
        )  # fmt: skip
        batch, key = job.held_out(job.dataset.test), jax.random.key(0)
        ends.append(evaluation.elbo(job.vae, progress.state.params, batch, key))
    noise, weight = ends
    assert noise["rate"] == pytest.approx(weight["rate"], rel=1e-3)
    errors = [
        2 * s**2 * (end["distortion"] - 32 * math.log(2 * math.pi * s**2))
        for s, end in ((0.2, noise), (1.0, weight))
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
