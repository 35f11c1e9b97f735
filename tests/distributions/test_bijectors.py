"""Bijectors: log-determinants, inverses, densities, and what they make of extreme numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax.distributions import Normal
from vae_jax.distributions import bijectors as b
from vae_jax.networks.masked import conditioner
from vae_jax.settings import UserError

KEY = jax.random.key(0)
# Most of the time goes to compiling; small arrays do not need it done well.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
CONTEXT = jnp.asarray([0.5, -1.0])


def numbers(seed, *shape, scale=1.0):
    return scale * jax.random.normal(jax.random.key(seed), shape)


def net(inputs, shape, autoregressive, scale=0.4):
    """A network away from where it starts, which is 0."""
    made = conditioner((7, 5), inputs, shape, (2,), autoregressive)
    params = made.init(KEY)
    moved = [leaf + numbers(i, *leaf.shape, scale=scale)
             for i, leaf in enumerate(jax.tree.leaves(params))]  # fmt: skip
    return jax.tree.unflatten(jax.tree.structure(params), moved), made.apply


def coupling(d, element, m):
    kept = d // 2
    params, apply = net(kept, (d - kept, m), False)
    return b.Coupling(params, CONTEXT, apply, element, kept)


def autoregressive(d, element, m):
    params, apply = net(d, (d, m), True)
    return b.Autoregressive(params, CONTEXT, apply, element)


def sylvester(d, q):
    m = q.shape[1]
    return b.Sylvester(q, numbers(1, m, m), numbers(2, m, m), numbers(3, m))


spline = functools.partial(b.Spline, bound=3.0)
MADE = {
    "affine": lambda d: b.Affine(numbers(0, d, 2, scale=0.5)),
    "gate": lambda d: b.Gate(numbers(0, d, 2)),
    "spline": lambda d: spline(numbers(0, d, 3 * 5 - 1, scale=0.4)),
    "spline of one bin": lambda d: spline(numbers(0, d, 2)),
    "permutation": lambda d: b.Permutation(tuple(np.random.default_rng(0).permutation(d).tolist())),
    "realnvp": lambda d: coupling(d, b.Affine, 2),
    "spline coupling": lambda d: coupling(d, spline, 14),
    "iaf": lambda d: autoregressive(d, b.Gate, 2),
    "maf": lambda d: b.Inverse(autoregressive(d, b.Affine, 2)),
    "planar": lambda d: b.Planar(numbers(0, d), numbers(1, d), numbers(2)),
    "planar, against w": lambda d: b.Planar(-3 * numbers(1, d), numbers(1, d), numbers(2)),
    "orthogonal": lambda d: sylvester(d, b.orthogonal(numbers(4, d, max(d - 1, 1)))),
    "householder": lambda d: sylvester(d, b.householder(numbers(4, 3, d))),
    "triangular": lambda d: sylvester(d, jnp.eye(d)[::-1]),
    "chain": lambda d: b.Chain(
        (coupling(d, spline, 14), b.Permutation(tuple(reversed(range(d)))), MADE["maf"](d))
    ),
}
FORWARD_ONLY = {"planar", "planar, against w", "orthogonal", "householder", "triangular"}
every = pytest.mark.parametrize("name", MADE)
invertible = pytest.mark.parametrize("name", [n for n in MADE if n not in FORWARD_ONLY])


@every
@pytest.mark.parametrize("d", [1, 5])
def test_the_log_determinant_is_the_jacobian_s_and_the_inverse_undoes_the_map(name, d):
    f, x = MADE[name](d), numbers(9, 20, d, scale=1.5)

    @jit
    def all_of(x):
        y, log_det = f.forward_and_log_det(x)
        jacobian = jax.jacfwd(lambda x: f.forward_and_log_det(x)[0])(x)
        back = f.inverse_and_log_det(y) if name not in FORWARD_ONLY else (x, -log_det)
        return log_det, jacobian, *back

    log_det, jacobian, back, other = jax.vmap(all_of)(x)
    sign, exact = np.linalg.slogdet(np.asarray(jacobian, np.float64))
    np.testing.assert_allclose(log_det, exact, rtol=1e-4, atol=5e-5)
    assert np.all(sign > 0) or name in ("permutation", "chain")
    np.testing.assert_allclose(back, x, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(other, -log_det, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", sorted(FORWARD_ONLY))
def test_what_has_no_inverse_says_so_in_one_line(name):
    p = b.Transformed(Normal(jnp.zeros(3), jnp.zeros(3)), MADE[name](3))
    with pytest.raises(UserError, match="known of its own samples only") as error:
        p.log_prob(jnp.zeros(3))
    assert "\n" not in str(error.value)


@invertible
@pytest.mark.parametrize("d", [1, 2])
def test_densities_integrate_to_one(name, d):
    p = b.Transformed(Normal(jnp.full(d, 0.2), jnp.full(d, -0.5)), MADE[name](d))
    n, half = (8001, 25.0) if d == 1 else (801, 10.0)
    line = np.linspace(-half, half, n)
    points = np.stack(np.meshgrid(*[line] * d), axis=-1).reshape(-1, d).astype(np.float32)
    density = np.exp(np.asarray(jit(jax.vmap(p.log_prob))(points), np.float64))
    np.testing.assert_allclose(density.sum() * (line[1] - line[0]) ** d, 1, atol=0.02)


@every
@pytest.mark.parametrize("d", [1, 3])
def test_samples_come_with_their_density(name, d):
    """E_p[f(y)/p(y)] = ∫ f = 1, for the density f of a Gaussian within the samples."""
    p = b.Transformed(Normal(jnp.zeros(d), jnp.full(d, 0.7)), MADE[name](d))
    y, log_p = jit(jax.vmap(p.sample_and_log_prob))(jax.random.split(KEY, 20000))
    y = np.asarray(y, np.float64)
    inside = 0.6 * np.cov(y.T).reshape(d, d)
    log_f = stats.multivariate_normal(y.mean(axis=0), inside).logpdf(y)
    ratio = np.exp(log_f - np.asarray(log_p))
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(ratio)) + 1e-3
    if name not in FORWARD_ONLY:
        again = jax.vmap(p.log_prob)(jnp.asarray(y[:50], jnp.float32))
        np.testing.assert_allclose(again, log_p[:50], rtol=1e-3, atol=2e-3)


@every
def test_gradients_are_finite_whatever_the_numbers(name):
    """Of parameters and inputs that are 0, or large of either sign."""
    f = MADE[name](3)

    def total(f, x):
        y, log_det = f.forward_and_log_det(x)
        return jnp.sum(jnp.tanh(y)) + log_det

    gradient = jit(jax.value_and_grad(total, (0, 1)))
    for times in (0.0, 1e4, -1e4):
        scaled = jax.tree.map(lambda a: times * a, f)
        if name in ("orthogonal", "householder"):
            scaled = b.Sylvester(f.q, scaled.r1, scaled.r2, scaled.b)
        for size in (0.0, 1.0, 1e4):
            values = gradient(scaled, jnp.full(3, size))
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(values)), (times, size)


# What each is, by its definition


@pytest.mark.parametrize("widths", [(), (6,), (9, 7)])
@pytest.mark.parametrize("d", [1, 2, 6])
def test_numbers_are_of_the_dimensions_before_alone(d, widths):
    made = conditioner(widths, d, (d, 3), (2,), True)
    params = jax.tree.map(lambda a: a + 0.5, made.init(KEY))
    seen = jax.jacfwd(lambda x: made.apply(params, x, CONTEXT))(numbers(0, d) ** 2)
    before = np.tril(np.ones((d, d), bool), -1)
    np.testing.assert_array_equal(np.any(np.asarray(seen) != 0, axis=1), before)
    if widths:
        told = jax.jacfwd(lambda c: made.apply(params, jnp.ones(d), c))(CONTEXT**2)
        assert np.all(np.any(np.asarray(told) != 0, axis=(1, 2)))  # all of them the context


def test_a_network_starts_at_nought():
    for autoregressive in (True, False):
        made = conditioner((5,), 3, (3, 2), (2,), autoregressive)
        np.testing.assert_array_equal(made.apply(made.init(KEY), jnp.ones(3), CONTEXT), 0.0)


@pytest.mark.parametrize("element", [b.Affine, spline])
def test_numbers_of_nought_are_the_identity(element):
    m = 2 if element is b.Affine else 14
    x = numbers(0, 4, scale=2.0)
    y, log_det = element(jnp.zeros((4, m))).forward_and_log_det(x)
    np.testing.assert_allclose(y, x, atol=2e-6)
    np.testing.assert_allclose(log_det, 0, atol=2e-5)


def test_a_spline_goes_through_its_knots_with_its_slopes():
    f = spline(numbers(0, 1, 14))
    x, y, slopes = (np.asarray(a)[0] for a in f._knots())
    assert x[0] == y[0] == -3 and x[-1] == y[-1] == 3 and slopes[0] == slopes[-1] == 1
    assert np.all(np.diff(x) > 0) and np.all(np.diff(y) > 0) and np.all(slopes > 0)

    def at(x):
        return f.forward_and_log_det(x[None])[0][0]

    got, rises = jax.vmap(jax.value_and_grad(at))(jnp.asarray(x[1:-1] + 1e-6))
    np.testing.assert_allclose(got, y[1:-1], atol=1e-4)
    np.testing.assert_allclose(rises, slopes[1:-1], rtol=1e-2)
    outside = jnp.asarray([-100.0, -3.0, 3.0, 50.0])
    np.testing.assert_array_equal(jax.vmap(at)(outside), outside)
    line = jax.vmap(at)(jnp.linspace(-4, 4, 2001))
    assert np.all(np.diff(np.asarray(line)) > 0)


def test_planar_is_its_formula():
    u, w, shift, x = numbers(0, 4), numbers(1, 4), numbers(2), numbers(3, 4)
    y, log_det = b.Planar(u, w, shift).forward_and_log_det(x)
    wu = np.float64(w @ u)
    hat = np.asarray(u) + (np.log1p(np.exp(wu)) - 1 - wu) * np.asarray(w) / np.float64(w @ w)
    h = np.tanh(np.float64(w @ x + shift))
    np.testing.assert_allclose(y, x + hat * h, rtol=1e-5)
    np.testing.assert_allclose(log_det, np.log(1 + hat @ np.asarray(w) * (1 - h**2)), rtol=1e-4)
    assert hat @ np.asarray(w) > -1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 30.0])
def test_matrices_that_should_be_orthogonal_are(seed, scale):
    q = b.orthogonal(numbers(seed, 6, 4, scale=scale))
    np.testing.assert_allclose(q.T @ q, np.eye(4), atol=1e-4)
    h = b.householder(numbers(seed, 5, 6, scale=scale))
    np.testing.assert_allclose(h.T @ h, np.eye(6), atol=1e-5)
