"""Each objective has its defining property, where log p(x) is known exactly."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats

from vae_jax import models, objectives
from vae_jax.distributions.continuous import MultivariateNormal, Normal
from vae_jax.distributions.divergence import kl, kl_per_unit
from vae_jax.models.build import ModelConfig, build
from vae_jax.objectives import OBJECTIVES, Facts, ObjectiveConfig, aggregate, bounds
from vae_jax.objectives.terms import KLWeights, Objective
from vae_jax.settings import UserError, chosen
from vae_jax.types import unconditional

EXTRA = {
    "iwae": {"num_samples": 4},
    "miwae": {"num_samples": 4, "num_groups": 2},
    "ciwae": {"num_samples": 4, "mix": 0.3},
    "dreg": {"num_samples": 4},
    "score_function": {"num_samples": 4},
    "factor": {"discriminator_widths": "8"},
    "geco": {"target_distortion": 3.0},
}


@functools.cache
def named(name, num_examples=50, **settings):
    config = ObjectiveConfig(objective=name, **(EXTRA.get(name, {}) | settings))
    return chosen(config, "objective").build(Facts(num_examples, 2))


@functools.cache
def weighted(**options):
    return functools.partial(bounds.importance_weighted, **options)


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=oracles.QUICK)
def _thousand(objective, vae, params, batch, beta, keys):
    def one(key):
        def loss(params):
            return objective(vae, params, key, batch, KLWeights(beta))

        (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        parts = {"encoder": gradient["posterior"], "decoder": gradient["likelihood"]}
        flat = {name: ravel_pytree(part)[0] for name, part in parts.items()}
        return {"loss": value, **flat, **metrics}

    return jax.vmap(one)(keys)


def measure(objective, world, n=1000, beta=1.0, seed=1):
    """n independent losses, metrics and gradients of encoder and decoder, compiled once."""
    keys = jax.random.split(jax.random.key(seed), (n // 1000, 1000))
    own = objective.init(jax.random.key(9)) if isinstance(objective, Objective) else {}
    params = world.params | {"objective": own}
    parts = [_thousand(objective, world.vae, params, world.batch, beta, some) for some in keys]
    return jax.tree.map(lambda *a: np.concatenate(a).astype(np.float64), *parts)


def posteriors(world):
    encode = jax.jit(jax.vmap(world.vae.posterior, (None, 0, 0)), compiler_options=oracles.QUICK)
    return encode(world.params, *world.batch)


def same(a, b, rtol=1e-4, atol=1e-4):
    for name in ("loss", "encoder", "decoder"):
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=atol)


@pytest.fixture(params=oracles.WORLDS)
def world(request):
    return oracles.WORLDS[request.param]()


# Importance weighting


def test_iwae_with_one_sample_is_the_elbo_with_a_sampled_kl(world):
    for beta in (1.0, 0.4):
        iwae = measure(named("iwae", num_samples=1), world, beta=beta)
        same(iwae, measure(named("elbo", kl_estimate="sampled"), world, beta=beta))


def test_the_closed_form_and_the_sampled_elbo_agree_in_expectation(world):
    sampled = measure(named("elbo", kl_estimate="sampled"), world, 4000)
    closed = measure(named("elbo"), world, 4000)
    assert abs(oracles.z_scores(sampled["loss"] - closed["loss"])) < 5
    assert np.std(closed["rate"]) < 1e-5 < np.std(sampled["rate"])


def test_the_bound_rises_with_samples_and_stays_below_log_p(world):
    by_size = [measure(named("iwae", num_samples=k), world, 3000)["bound"] for k in (1, 4, 64)]
    for low, high in itertools.pairwise(by_size):
        assert oracles.z_scores(high - low) > 5
    truth = world.log_p.mean()
    assert all(oracles.z_scores(bound, truth) < 5 for bound in by_size)
    assert truth - by_size[-1].mean() < 0.6 * (truth - by_size[0].mean())


def test_at_the_true_posterior_every_weight_is_p():
    world = oracles.linear(off=0, full=True)
    for name in ("iwae", "dreg"):
        loss = measure(named(name), world)["loss"]
        np.testing.assert_allclose(loss, -world.log_p.mean(), rtol=1e-5)


def test_miwae_and_ciwae_average_what_they_should(world):
    @functools.partial(jax.jit, compiler_options=oracles.QUICK)
    def weights(keys):
        draws = jax.vmap(lambda key: objectives.draw(world.vae, world.params, key, world.batch, 4))(
            keys
        )
        return draws.log_likelihood - draws.sampled_rate

    log_w = np.asarray(weights(jax.random.split(jax.random.key(1), (1, 1000))[0]), np.float64)
    elbo, iwae = log_w.mean(axis=-1), log_mean(log_w)
    pairs = log_mean(log_w.reshape(1000, -1, 2, 2)).mean(axis=-1)
    for name, bound in (("iwae", iwae), ("miwae", pairs), ("ciwae", 0.3 * elbo + 0.7 * iwae)):
        loss = measure(named(name), world)["loss"]
        np.testing.assert_allclose(loss, -bound.mean(axis=-1), rtol=1e-4, atol=1e-4)
    assert np.all(elbo <= pairs + 1e-9) and np.all(pairs <= iwae + 1e-9)


def log_mean(log_w):
    return np.logaddexp.reduce(log_w, axis=-1) - np.log(log_w.shape[-1])


def test_weights_favour_the_likelier_sample(world):
    """The IWAE gradient is the average of single samples' gradients under softmax(+log w)."""
    key, batch = jax.random.key(5), unconditional(world.batch.x[:1])

    def log_w(params):
        draws = objectives.draw(world.vae, params, key, batch, 4)
        return (draws.log_likelihood - draws.sampled_rate)[0]

    def loss(params):
        return named("iwae")(world.vae, params, key, batch, KLWeights())[0]

    @functools.partial(jax.jit, compiler_options=oracles.QUICK)
    def both(params):
        return log_w(params), jax.jacobian(log_w)(params), jax.grad(loss)(params)

    log_weights, single, got = both(world.params)
    weights = np.exp(log_weights) / np.exp(log_weights).sum()
    expected = jax.tree.map(lambda g: -np.tensordot(weights, g, 1), single)
    got = ravel_pytree(got)[0]
    np.testing.assert_allclose(got, ravel_pytree(expected)[0], rtol=1e-3, atol=1e-4)


GROUPED = [weighted(num_samples=4, num_groups=2, mix=0.3, doubly=d) for d in (False, True)]


@pytest.mark.parametrize("pair", [(named("iwae"), named("dreg")), GROUPED], ids=["dreg", "grouped"])
def test_the_doubly_reparameterised_gradient_is_unbiased(world, pair):
    for beta in (1.0, 0.5, 2.0):
        plain, doubly = [measure(objective, world, 20_000, beta) for objective in pair]
        for name in ("loss", "decoder"):
            np.testing.assert_allclose(plain[name], doubly[name], rtol=1e-3, atol=1e-3)
        assert abs(oracles.z_scores(plain["encoder"] - doubly["encoder"])).max() < 5
        assert np.std(plain["encoder"] - doubly["encoder"]) > 1e-2  # not sample by sample


@functools.cache
def trained(name):
    """The world with its encoder fitted to its batch."""
    world, objective, optimiser = oracles.WORLDS[name](), named("iwae"), optax.adam(0.02)

    def step(carry, key):
        encoder, state = carry

        def loss(encoder):
            params = world.params | {"posterior": encoder}
            return objective(world.vae, params, key, world.batch, KLWeights())[0]

        updates, state = optimiser.update(jax.grad(loss)(encoder), state)
        return (optax.apply_updates(encoder, updates), state), ()

    encoder = world.params["posterior"]
    keys = jax.random.split(jax.random.key(9), 600)
    scan = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys))
    (encoder, _), _ = scan((encoder, optimiser.init(encoder)), keys)
    return world._replace(params=world.params | {"posterior": encoder})


@pytest.mark.parametrize("name", oracles.WORLDS)
def test_dreg_has_the_smaller_variance_where_trained(name):
    plain, doubly = [
        measure(named(objective), trained(name), 2000)["encoder"] for objective in ("iwae", "dreg")
    ]
    assert doubly.var(axis=0).sum() < 0.5 * plain.var(axis=0).sum()
    assert abs(oracles.z_scores(plain - doubly)).max() < 5


# STL


def test_stl_has_no_gradient_at_the_true_posterior():
    world = oracles.linear(off=0, full=True)
    assert np.abs(measure(named("stl"), world)["encoder"]).max() < 1e-4  # float32's zero
    sampled = measure(named("elbo", kl_estimate="sampled"), world)["encoder"]
    assert np.abs(sampled).max() > 1


def test_stl_has_no_gradient_where_the_decoder_ignores_z():
    """Then the true posterior of the Bernoulli network is N(0, I)."""
    world = oracles.WORLDS["bernoulli"]()
    world = world._replace(params=jax.tree.map(jnp.zeros_like, world.params))
    assert np.all(measure(named("stl"), world)["encoder"] == 0)
    sampled = measure(named("elbo", kl_estimate="sampled"), world)["encoder"]
    assert np.abs(sampled).max() > 1


def test_stl_is_unbiased(world):
    for beta in (1.0, 0.5):
        stl, elbo = (measure(named(n), world, 20_000, beta) for n in ("stl", "elbo"))
        assert abs(oracles.z_scores(stl["encoder"] - elbo["encoder"])).max() < 5


class _Stopped:
    """A posterior whose log_prob has no gradient to its parameters."""

    def __init__(self, q):
        self.q, self.sample = q, q.sample

    def sample_and_log_prob(self, key):
        z = self.q.sample(key)
        return z, jax.tree.map(jax.lax.stop_gradient, self.q).log_prob(z)


def test_stl_with_several_samples_is_biased_and_refused(world):
    def naive(vae, *rest):
        """IWAE with log q(z|x) stopped: what STL with several samples would be."""
        stopped = models.compose(
            vae.init, lambda *args: _Stopped(vae.posterior(*args)), vae.likelihood, vae.prior
        )
        loss, _ = bounds.importance_weighted(stopped, *rest, num_samples=4)
        return loss, {}

    naive, iwae = (measure(f, world, 20_000)["encoder"] for f in (naive, named("iwae")))
    assert abs(oracles.z_scores(naive - iwae)).max() > 10
    with pytest.raises(UserError, match="num_samples does nothing for objective stl"):
        ObjectiveConfig(objective="stl", num_samples=2)


# Score function


def test_the_score_function_gradient_is_unbiased(world):
    for beta in (1.0, 0.5):
        score = measure(named("score_function"), world, 20_000, beta)
        elbo = measure(named("elbo"), world, 20_000, beta)
        for name in ("loss", "encoder", "decoder"):
            assert abs(oracles.z_scores(score[name] - elbo[name])).max() < 5
        assert np.std(score["encoder"]) > 1.1 * np.std(elbo["encoder"])


def test_the_baseline_removes_what_all_samples_share(world):
    """Adding a constant to log p(x|z) changes nothing but the loss."""

    class Shifted:
        def __init__(self, p):
            self.p = p

        def log_prob(self, x):
            return self.p.log_prob(x) + 50.0

    likelihood = world.vae.likelihood
    shifted = world.vae._replace(likelihood=lambda *args: Shifted(likelihood(*args)))
    a = measure(named("score_function"), world)
    b = measure(named("score_function"), world._replace(vae=shifted))
    np.testing.assert_allclose(a["loss"] - b["loss"], 50, rtol=1e-5)
    np.testing.assert_allclose(a["encoder"], b["encoder"], rtol=1e-2, atol=1e-2)


# KL weights


@pytest.mark.parametrize("name", [n for n in OBJECTIVES if n != "prior_alone"])
def test_the_reported_numbers_are_the_true_ones_whatever_beta(world, name):
    one, three = (measure(named(name), world, beta=beta) for beta in (1.0, 3.0))
    metrics = set(one) - {"loss", "encoder", "decoder"}
    for metric in metrics:
        np.testing.assert_allclose(one[metric], three[metric], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(one["elbo"], -(one["rate"] + one["distortion"]), rtol=1e-5)
    assert np.all(np.abs(three["loss"] - one["loss"]) > 0)
    if "bound" in metrics:
        np.testing.assert_allclose(one["loss"], -one["bound"], rtol=1e-4)
        assert oracles.z_scores(three["bound"], world.log_p.mean()) < 5


def test_beta_capacity_and_free_bits():
    rates = jnp.asarray([0.5, 2.0, 3.0])
    weighted = bounds.weighted_rate
    assert weighted(rates, KLWeights()) == 5.5
    assert weighted(rates, KLWeights(beta=0.5)) == 2.75
    assert weighted(rates, KLWeights(2.0, capacity=7.0)) == 2 * 1.5
    assert weighted(rates, KLWeights(2.0, capacity=5.0)) == 2 * 0.5
    assert weighted(rates, KLWeights(1.0, free_bits=1.0)) == 6.0
    assert weighted(jnp.asarray([-0.25]), KLWeights()) == -0.25  # a sampled rate may be negative
    gradient = jax.grad(weighted)(rates, KLWeights(1.0, free_bits=1.0))
    np.testing.assert_array_equal(gradient, [0, 1, 1])  # free: no pull to the prior


@pytest.mark.parametrize("groups", [0, 2])
def test_free_bits_are_of_the_batch_mean_of_each_group(groups):
    vae = build(ModelConfig(latent_dim=4, widths=""), (3, 3, 1))
    params = jax.jit(vae.init, compiler_options=oracles.QUICK)(jax.random.key(0))
    batch = unconditional(3 * np.random.default_rng(0).random((6, 3, 3, 1), np.float32))
    q = posteriors(oracles.World(vae, params, batch, np.zeros(0)))
    units = 0.5 * (np.exp(2 * q.log_scale) + q.mean**2 - 1) - q.log_scale
    units = np.asarray(units).mean(axis=0)
    rates = units.reshape(2, 2).sum(1) if groups else units
    free = float(np.median(rates))
    config = ObjectiveConfig(free_bits=free, free_bits_groups=groups)
    objective = chosen(config, "objective").build(Facts(6, 2))

    @functools.partial(jax.jit, compiler_options=oracles.QUICK)
    def f(params, batch):
        weights = objectives.kl_weights(config)(0)
        return objective(vae, params, jax.random.key(2), batch, weights)

    loss, metrics = f(params, batch)
    expected = metrics["distortion"] + np.maximum(rates, free).sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["rate"], units.sum(), rtol=1e-5)
    assert loss > metrics["distortion"] + metrics["rate"] + 1e-4


def test_the_rate_is_the_sum_over_units():
    """And the library's closed form for one unit is the integral of q log(q/p)."""
    q, p = (
        Normal(jnp.asarray([0.3, -1.0]), jnp.asarray([-0.5, 0.4])),
        Normal(jnp.ones(2), -jnp.ones(2)),
    )
    units = kl_per_unit(q, p)
    np.testing.assert_allclose(units.sum(), kl(q, p, jax.random.key(0)), rtol=1e-6)
    z = np.linspace(-12, 12, 20_001)
    for d in range(2):
        log_q, log_p = [stats.norm.logpdf(z, n.mean[d], np.exp(n.log_scale[d])) for n in (q, p)]
        integral = np.trapezoid(np.exp(log_q) * (log_q - log_p), z)
        np.testing.assert_allclose(units[d], integral, rtol=1e-4)
    with pytest.raises(UserError, match="diagonal Gaussian"):
        kl_per_unit(MultivariateNormal(jnp.zeros(2), jnp.eye(2)), p)


# The aggregate posterior


@pytest.mark.parametrize(
    "objective", [named("beta_tc"), named("beta_tc", tc_estimator="stratified")]
)
def test_the_terms_of_beta_tc_sum_to_the_rate(world, objective):
    got = measure(objective, world)
    sampled = measure(named("elbo", kl_estimate="sampled"), world)["rate"]
    terms = [got[k] for k in ("mutual_information", "total_correlation", "dimension_kl")]
    np.testing.assert_allclose(sum(terms), sampled, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["rate"], sampled, rtol=1e-5, atol=1e-5)


def test_beta_tc_weighs_the_total_correlation_alone(world):
    sampled = named("elbo", kl_estimate="sampled")
    same(measure(named("beta_tc"), world), measure(sampled, world))
    six = measure(named("beta_tc"), world, beta=6.0)
    parts = six["mutual_information"] + 6 * six["total_correlation"] + six["dimension_kl"]
    np.testing.assert_allclose(six["loss"], six["distortion"] + parts, rtol=1e-5)


@functools.partial(jax.jit, static_argnums=0, compiler_options=oracles.QUICK)
def random_posteriors(n, key):
    keys = jax.random.split(key, 3)
    q = Normal(jax.random.normal(keys[0], (n, 2)), 0.3 * jax.random.normal(keys[1], (n, 2)))
    return q, jax.vmap(lambda q, k: q.sample(k))(q, jax.random.split(keys[2], n))  # they overlap


@functools.partial(jax.jit, static_argnums=(2, 3), compiler_options=oracles.QUICK)
def log_aggregates(q, z, n, stratified):
    """Over a leading axis of batches."""
    return jax.vmap(lambda q, z: aggregate.log_aggregates(q, z, n, stratified))(q, z)


def densities(q, z):
    """q(z_i,d | x_j) by SciPy."""
    mean, scale = np.asarray(q.mean, np.float64), np.exp(np.asarray(q.log_scale, np.float64))
    return stats.norm.pdf(np.asarray(z)[:, None], mean[None], scale[None])


def test_stratified_weights_are_unbiased_and_exact_for_the_whole_set():
    n, size = 6, 3
    q, z = random_posteriors(n, jax.random.key(3))
    exact = densities(q, z).prod(-1).mean(axis=1)
    whole, _ = log_aggregates(*jax.tree.map(lambda a: a[None], (q, z)), n, True)
    np.testing.assert_allclose(np.exp(whole[0]), exact, rtol=1e-4)
    rows = [r for r in itertools.permutations(range(n), size) if r[1:] == tuple(sorted(r[1:]))]
    batches = jax.tree.map(lambda a: np.asarray(a)[np.asarray(rows)], (q, z))
    estimates = np.exp(log_aggregates(*batches, n, True)[0][:, 0])
    estimates = estimates.reshape(n, -1)  # of each z_i, over all choices of the others
    np.testing.assert_allclose(estimates.mean(axis=1), exact, rtol=1e-4)


def test_minibatch_weights_are_those_of_the_paper():
    """(1/(N·B)) Σ_j q(z_i|x_j), jointly and for each dimension."""
    q, z = random_posteriors(4, jax.random.key(4))
    density = densities(q, z)
    joint, product = log_aggregates(*jax.tree.map(lambda a: a[None], (q, z)), 100, False)
    np.testing.assert_allclose(np.exp(joint[0]), density.prod(-1).sum(1) / 400, rtol=1e-4)
    np.testing.assert_allclose(np.exp(product[0]), (density.sum(1) / 400).prod(-1), rtol=1e-4)


def test_dip_penalises_the_covariance_of_means_or_of_z():
    world = oracles.WORLDS["bernoulli"]()
    q = posteriors(world)
    i = np.cov(np.asarray(q.mean, np.float64).T, bias=True)
    ii = i + np.diag(np.exp(2 * np.asarray(q.log_scale, np.float64)).mean(axis=0))
    for name, c, ratio in (("dip_i", i, 10), ("dip_ii", ii, 1)):
        got = measure(named(name), world)
        expected = 10 * 2 * c[0, 1] ** 2 + 10 * ratio * ((np.diag(c) - 1) ** 2).sum()
        np.testing.assert_allclose(got["dip"], expected, rtol=1e-4)
        np.testing.assert_allclose(got["loss"], -got["elbo"] + expected, rtol=1e-4)


def test_the_covariance_of_z_is_that_of_its_samples():
    world = oracles.bernoulli(batch=4, posterior="full")
    q = posteriors(world)

    @functools.partial(jax.jit, compiler_options=oracles.QUICK)
    def sample(q, keys):
        return jax.vmap(lambda q, k: jax.vmap(q.sample)(k))(q, keys).reshape(-1, 2)

    z = sample(q, jax.random.split(jax.random.key(0), (4, 50_000)))
    centred = np.asarray(z - z.mean(0, keepdims=True), np.float64)
    products = centred[:, :, None] * centred[:, None, :]
    assert np.abs(oracles.z_scores(products, aggregate.covariance(q))).max() < 5


def test_mmd_has_its_expectation():
    """Gaussians N(m, I) and N(0, I) in d dimensions: 2 (d/(d+2))^(d/2) (1 − e^(−‖m‖²/(2(d+2))))."""
    d, n = 3, 20
    for shift in (0.0, 1.0):

        def one(key, shift=shift):
            a, b = jax.random.normal(key, (2, n, d))
            return aggregate.mmd(a + shift, b)

        samples = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 4000))
        expected = 2 * (d / (d + 2)) ** (d / 2) * (1 - np.exp(-d * shift**2 / (2 * (d + 2))))
        assert abs(oracles.z_scores(samples, expected)) < 5
        assert shift == 0 or samples.mean() > 0.1


def test_info_adds_the_mmd(world):
    got = measure(named("info", info_lambda=10.0), world, beta=0.25)
    expected = got["distortion"] + 0.25 * got["rate"] + 9.75 * got["mmd"]
    np.testing.assert_allclose(got["loss"], expected, rtol=1e-5)


# The full-covariance posterior


def test_the_full_posterior_can_be_any_gaussian():
    from vae_jax.models.posteriors import full
    from vae_jax.types import Net

    covariance = np.asarray([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])
    tril = np.linalg.cholesky(covariance)
    np.fill_diagonal(tril, np.log(np.diag(tril)))
    numbers = jnp.asarray([1.0, 2.0, 3.0, *tril[np.tril_indices(3)]])
    q = full(Net(lambda key: {}, lambda params, x, c: numbers), 3).apply(
        {}, jnp.zeros(0), jnp.zeros(0)
    )
    np.testing.assert_allclose(q.covariance, covariance, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(q.mean, [1, 2, 3])


def test_what_the_mean_field_costs():
    """In the linear world the ELBO is log p(x) − KL(q‖p(z|x)): 0 for the full posterior."""
    for full in (True, False):
        world = oracles.linear(off=0, full=full)

        @functools.partial(jax.jit, compiler_options=oracles.QUICK)
        def gap(params, x, c, world=world):
            q, truth = world.vae.posterior(params, x, c), params["likelihood"].posterior(x)
            return kl(q, truth, jax.random.key(0))

        gap = np.mean([gap(world.params, x, jnp.zeros(0)) for x in world.batch.x])
        elbo = measure(named("elbo"), world, 20_000)["elbo"]
        assert abs(oracles.z_scores(elbo, world.log_p.mean() - gap)) < 5
        assert abs(gap) < 1e-5 if full else gap > 0.01


# Everything there is a name for


@pytest.mark.parametrize(
    ("name", "latent_dim", "size"),
    [(name, 0, 4) for name in ("elbo", "dreg", "score_function", "beta_tc", "dip_ii", "info")]
    + [(name, 3, 1) for name in ("beta_tc", "info")],
)
def test_objectives_are_finite_without_latents_and_for_one_image(name, latent_dim, size):
    vae = build(ModelConfig(latent_dim=latent_dim, widths=""), (2, 2, 1))
    config = ObjectiveConfig(objective=name, **EXTRA.get(name, {}))
    objective = objectives.build(config, vae, (2, 2, 1), 50)
    params = jax.jit(vae.init, compiler_options=oracles.QUICK)(jax.random.key(0))
    batch = unconditional(np.full((size, 2, 2, 1), 0.3, np.float32))
    got = measure(objective, oracles.World(vae, params, batch, np.zeros(0)))
    assert all(np.isfinite(a).all() for a in got.values())
    assert latent_dim or np.all(got["rate"] == 0)


# Bad input


@pytest.mark.parametrize(
    "settings",
    [
        {"num_samples": 0},
        {"objective": "iwae", "num_samples": 0},
        {"objective": "miwae", "num_samples": 5, "num_groups": 2},
        {"objective": "iwae", "num_groups": 2, "num_samples": 2},
        {"objective": "stl", "num_samples": 2},
        {"objective": "score_function"},
        {"objective": "dip_i", "num_samples": 2},
        {"objective": "elbo", "mix": 0.5},
        {"objective": "ciwae", "mix": 1.5},
        {"objective": "iwae", "free_bits": 0.5},
        {"objective": "iwae", "capacity": 5.0},
        {"kl_estimate": "sampled", "free_bits": 0.5},
        {"objective": "info", "info_lambda": 0.5},
        {"kl_schedule": "linear"},
        {"kl_warmup": 10},
        {"capacity_steps": 5},
        {"free_bits_groups": 2},
        {"capacity": 5.0, "free_bits": 0.5},
        {"beta": -1.0},
        {"kl_cycles": 0},
    ],
)
def test_settings_that_do_not_fit_are_one_line(settings):
    with pytest.raises(UserError) as error:
        ObjectiveConfig(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "settings", "reason"),
    [
        ({"posterior": "full"}, {"objective": "beta_tc"}, "--posterior=diagonal"),
        ({"posterior": "full"}, {"free_bits": 0.5}, "diagonal Gaussian"),
        ({"latent_dim": 3}, {"free_bits": 0.5, "free_bits_groups": 2}, "divide latent_dim"),
    ],
)
def test_objectives_that_do_not_fit_the_model_are_found_when_built(model, settings, reason):
    vae = build(ModelConfig(widths="5", **model), (3, 3, 1))
    with pytest.raises(UserError, match=reason) as error:
        objectives.build(ObjectiveConfig(**settings), vae, (3, 3, 1), 50)
    assert "\n" not in str(error.value)


def test_functions_called_directly_check_their_samples(world):
    call = functools.partial(
        bounds.importance_weighted,
        world.vae,
        world.params,
        jax.random.key(0),
        world.batch,
        KLWeights(),
    )
    for options in ({"num_samples": 0}, {"num_samples": 3, "num_groups": 2}):
        with pytest.raises(UserError):
            call(**options)
