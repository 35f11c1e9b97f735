"""Ladders: exact where all is linear and Gaussian, one pass that is the composition, its cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.stats import multivariate_normal

from vae_jax import distributions, evaluation, models
from vae_jax.distributions import Normal, kl
from vae_jax.models import families, scales, top_down
from vae_jax.models.build import ModelConfig
from vae_jax.models.ladder import parse_groups
from vae_jax.models.top_down import Path, Stage
from vae_jax.networks import ladder as modules
from vae_jax.objectives import KLWeights, bounds
from vae_jax.settings import UserError
from vae_jax.types import Net, unconditional

KEY = jax.random.key(0)
NOTHING = jnp.zeros(0)

# A world that is linear and Gaussian: the state s_l = Σ_{k≤l} a_k z_k, scalars z_l ~ N(b_l·s_{l−1},
# σ_l²), x ~ N(C s_3, S²). Its posterior q(z_l|z_<l, x) is a regression on s_{l−1} and x.

RNG = np.random.default_rng(0)
A, B, SIGMA = RNG.normal(size=(3, 2)), RNG.normal(size=(3, 2)), np.array([1.3, 0.6, 0.9])
C, S = RNG.normal(size=(4, 2)), 0.7


def exact():
    """Each group's regression of z_l on (s_{l−1}, x), its deviation, and the covariance of x.

    Everything is a linear map of the noise (e_1, e_2, e_3, noise of x): rows of it.
    """
    state, weights, deviations = np.zeros((2, 7)), [], []
    states, latents = [], []
    for level in range(3):
        z = B[level] @ state + SIGMA[level] * np.eye(7)[level]
        states.append(state)
        latents.append(z)
        state = state + np.outer(A[level], z)
    x = C @ state + S * np.eye(7)[3:]
    for before, z in zip(states, latents, strict=True):
        seen = np.concatenate([before, x])
        w = z @ seen.T @ np.linalg.pinv(seen @ seen.T, rcond=1e-10)
        weights.append(w)
        deviations.append(np.sqrt(z @ z - w @ seen @ z))
    return np.stack(weights), np.array(deviations), x @ x.T


def added(apply):
    """A net without parameters of its own: what a test puts into the tree reaches it."""
    return Net(lambda key: {}, apply)


def world(groups, off=0.0):
    """The VAE of these numbers of groups a stage, and parameters that are right but for `off`."""
    weights, deviations, covariance = exact()
    stages, params, start = [], {"top": jnp.zeros(2)}, 0
    for i, count in enumerate(groups):
        stages.append(Stage(
            count, (2,), (1,),
            up=added(lambda own, h: 0 * h),
            p=added(lambda own, s: jnp.concatenate([own["b"] @ s, own["log"], 0 * s])),
            q=added(lambda own, s, x: jnp.concatenate([
                own["w"] @ jnp.concatenate([s, x]) + own["shift"], own["log"]
            ])),
            add=added(lambda own, z: own["a"][0] * z[0]),
            down=added(lambda own, s: 0 * s),
            enter=added(lambda own, c: jnp.zeros(2)),
            coarser=added(lambda own, x, *c: x),
        ))  # fmt: skip
        at = slice(start, start + count)
        start += count
        params[f"stage{i}"] = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), {
            "up": np.zeros(count), "down": np.zeros(count), "enter": 0.0, "coarser": 0.0,
            "p": {"b": B[at][:, None], "log": np.log(SIGMA[at])[:, None]},
            "q": {"w": weights[at][:, None], "shift": np.full((count, 1), off),
                  "log": np.log(deviations[at])[:, None] + off},
            "add": {"a": A[at][:, None]},
        })  # fmt: skip
    net = Net(lambda key: {}, lambda own, s, c: Normal(C @ s, jnp.full(4, jnp.log(S))))
    vae = top_down.ladder(Path(tuple(stages), scales.unbounded), net)
    return vae, {"path": params, "likelihood": {}}, covariance, deviations


LAYOUTS = [(3,), (1, 2), (1, 1, 1)]


@functools.cache
def drawn(groups, off=0.0, count=4000):
    vae, params, covariance, deviations = world(groups, off)
    x = np.random.default_rng(1).multivariate_normal(np.zeros(4), covariance, 3).astype(np.float32)
    draw = jax.vmap(jax.vmap(vae.draw, (None, 0, None, None)), (None, 0, 0, None))
    draws = jax.jit(draw)(params, jax.random.split(KEY, (3, count)), x, NOTHING)
    log_p = multivariate_normal(np.zeros(4), covariance).logpdf(x)
    return vae, params, x, draws, log_p, deviations


@pytest.mark.parametrize("groups", LAYOUTS)
def test_with_the_true_posterior_every_weight_is_p_of_x(groups):
    *_, draws, log_p, _ = drawn(groups)
    log_w = draws.log_likelihood + draws.log_prior - draws.log_posterior
    np.testing.assert_allclose(log_w, np.broadcast_to(log_p[:, None], log_w.shape), atol=3e-4)


def test_how_groups_are_stacked_changes_nothing():
    """The same z and costs, whether three groups are one stage, or each its own."""
    one, *others = (drawn(groups, 0.2)[3] for groups in LAYOUTS)
    for other in others:
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), other, one
        )


def test_bounds_of_a_posterior_that_is_off():
    """The mean weight is p(x). The ELBO is below log p(x) by Σ_l KL of conditionals whose means
    and log scales are off by the same number; the bound rises with the samples.
    """
    off = 0.25
    vae, params, x, draws, log_p, deviations = drawn((1, 2), off)
    log_w = np.asarray(draws.log_likelihood + draws.log_prior - draws.log_posterior, np.float64)
    weights = np.exp(log_w - log_p[:, None])
    error = weights.std(axis=1) / weights.shape[1] ** 0.5
    assert np.all(np.abs(weights.mean(axis=1) - 1) < 5 * error)
    gap = np.sum((np.exp(2 * off) - 1 + off**2 / deviations**2) / 2 - off)
    for values in (log_w, np.asarray(draws.log_likelihood - draws.rate, np.float64)):
        error = values.std(axis=1) / values.shape[1] ** 0.5
        assert np.all(np.abs(values.mean(axis=1) - (log_p - gap)) < 5 * error)
    five, fifty = (np.log(weights.reshape(3, -1, k).mean(-1)).mean(1) for k in (5, 50))
    assert np.all(-gap < five) and np.all(five < fifty) and np.all(fifty < 0.05)
    estimate = evaluation.log_likelihood(vae, params, unconditional(x), KEY, 2000)
    assert np.all(np.abs(estimate.log_p - log_p) < 5 * np.sqrt(estimate.variance) + 1e-3)


def test_the_top_group_sees_what_the_last_block_says():
    """Blocks that add 1, 10 to an image of 0, and 100 beyond them: from the top down."""
    block = added(lambda own, h: 0 * h + own)
    one = added(lambda own, h, *c: h)
    stage = Stage(2, (1,), (1,), block, *[one] * 4, one, one)
    path = Path((stage._replace(groups=1), stage), scales.unbounded)
    params = {
        "stage0": {"coarser": {}, "up": jnp.array([100.0])},
        "stage1": {"coarser": {}, "up": jnp.array([1.0, 10.0])},
    }
    top, below = path.up(params, jnp.zeros(1), NOTHING)
    np.testing.assert_array_equal(top, [[111]])
    np.testing.assert_array_equal(below, [[11], [1]])


# The models of the settings

X = jax.random.bernoulli(KEY, 0.4, (3, 4, 4, 1)).astype(jnp.float32)
SMALL = {"channels": 8, "group_latents": 2}
CASES = [
    ("2", (0,), {}),
    ("3", (5,), {"likelihood": "gaussian", "likelihood_scale": "per_pixel"}),
    ("1x1-2x2-1x4", (0,), {}),
    ("2x2", (5,), {"likelihood": "logistic_mixture", "remat": "off"}),
]


@functools.cache
def small(groups, condition=(0,), **settings):
    config = ModelConfig(model="ladder", groups=groups, **SMALL, **settings)
    vae = models.build(config, (4, 4, 1), condition)
    params = jax.tree.map(lambda a: a + 0.05, jax.jit(vae.init)(KEY))
    return vae, params


def test_draw_is_the_composition_of_the_three():
    for groups, condition, settings in CASES:
        vae, params = small(groups, condition, **settings)
        c = jnp.ones(condition)

        @jax.jit
        def both(params, x, c, vae=vae):
            q, p = vae.posterior(params, x, c), vae.prior(params, c)
            z, log_q = q.sample_and_log_prob(KEY)
            log_x = vae.likelihood(params, z, c).log_prob(x)
            parts = (log_q, q.log_prob(z), p.log_prob(z), log_x)
            return vae.draw(params, KEY, x, c), z, parts, p.sample(KEY)

        draw, z, parts, sample = both(params, X[0], c)
        for ours, other in zip(draw.z, z, strict=True):
            np.testing.assert_allclose(ours, other, rtol=1e-5, atol=1e-6)
        ours = (draw.log_posterior, draw.log_posterior, draw.log_prior, draw.log_likelihood)
        np.testing.assert_allclose(ours, parts, rtol=1e-4)
        np.testing.assert_allclose(jnp.sum(draw.rates), draw.rate, rtol=1e-5)
        assert draw.rates.shape == (len(z),) == (sum(n for n, _ in parse_groups(groups)),)
        shapes = [(*((r, r) if r else ()), 2) for n, r in parse_groups(groups) for _ in range(n)]
        assert [a.shape for a in z] == [a.shape for a in sample] == shapes


def test_the_condition_reaches_prior_posterior_and_likelihood():
    vae, params = small("2x2", (5,), likelihood="logistic_mixture", remat="off")
    one, other = (vae.draw(params, KEY, X[0], c) for c in (jnp.zeros(5), jnp.ones(5)))
    assert one.log_posterior != other.log_posterior
    for part in (lambda c: vae.prior(params, c).log_prob(one.z),
                 lambda c: vae.likelihood(params, one.z, c).log_prob(X[0])):  # fmt: skip
        assert part(jnp.zeros(5)) != part(jnp.ones(5))


def test_one_pass_has_the_gradient_of_the_three_with_and_without_remat():
    sampled = functools.partial(bounds.elbo, closed_form=False)
    vae, params = small("1x1-2x2-1x4")
    kept, _ = small("1x1-2x2-1x4", remat="off")
    composed = models.compose(vae.init, vae.posterior, vae.likelihood, vae.prior)

    def gradient(vae):
        def loss(params):
            return sampled(vae, params, KEY, unconditional(X), KLWeights())[0]

        return ravel_pytree(jax.jit(jax.grad(loss))(params))[0]

    ours = gradient(vae)
    assert np.all(np.isfinite(ours)) and np.mean(ours != 0) > 0.9
    for other in (kept, composed):
        np.testing.assert_allclose(ours, gradient(other), rtol=1e-3, atol=1e-4)


def test_the_rates_are_those_of_the_samples_on_average():
    vae, params = small("2")
    draws = jax.jit(jax.vmap(lambda key: vae.draw(params, key, X[0], NOTHING)))(
        jax.random.split(KEY, 8000)
    )
    gap = np.asarray(draws.rate - draws.sampled_rate, np.float64)
    assert gap.std() > 0 and abs(gap.mean()) < 5 * gap.std() / 8000**0.5


def test_it_starts_with_a_prior_of_unit_scale():
    """The last layers of p start at 0, so that p(z_l|z_<l) = N(0, I) at first."""
    vae = small("1x1-2x2-1x4")[0]
    z = vae.prior(params := vae.init(KEY), NOTHING).sample(KEY)
    expected = sum(jnp.sum(jax.scipy.stats.norm.logpdf(a)) for a in z)
    np.testing.assert_allclose(vae.prior(params, NOTHING).log_prob(z), expected, rtol=1e-5)


def test_temperatures_scale_each_group_given_those_above():
    vae, params = small("2")
    p = vae.prior(params, NOTHING)
    for z, other in zip(distributions.cooled(p, KEY, 1.0), p.sample(KEY), strict=True):
        np.testing.assert_allclose(z, other, rtol=1e-4, atol=1e-5)
    top = [distributions.cooled(p, KEY, t)[0] for t in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(top[1], (top[0] + top[2]) / 2, rtol=1e-5)


def test_groups_below_a_level_are_drawn_anew_and_those_above_stay():
    """With the same key as a sample of the prior, none kept is that sample; all kept is z."""
    vae, params = small("1x1-2x2-1x4")
    p = vae.prior(params, NOTHING)
    z, other = p.sample(jax.random.key(5)), p.sample(KEY)
    again = jax.jit(lambda kept: distributions.redrawn(p, KEY, z, kept))
    for kept in range(5):
        new = again(kept)
        for i, (a, old) in enumerate(zip(new, z, strict=True)):
            assert np.array_equal(a, old) == (i < kept)
    for a, b in zip(again(0), other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_twenty_groups_are_the_program_of_two():
    """What is traced, and so the time to compile, does not grow with equal groups."""

    def size(groups):
        vae, _ = small(groups)
        shapes = jax.eval_shape(vae.init, KEY)

        def draw(params):
            return vae.draw(params, KEY, X[0], NOTHING)

        return len(str(jax.make_jaxpr(draw)(shapes)))

    assert size("20") < 1.5 * size("2")


def test_arithmetic_in_bfloat16_leaves_float32():
    vae, _ = small("1x1-2x2-1x4", compute_dtype="bfloat16")
    draw = jax.eval_shape(vae.draw, jax.eval_shape(vae.init, KEY), KEY, X[0], NOTHING)
    assert {leaf.dtype for leaf in jax.tree.leaves(draw)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("wrong, message", [
    ({"groups": "2x7-3"}, "groups must be a number of groups, such as 5, or so many"),
    ({"groups": "2x7-3x10"}, "groups must be"),
    ({"groups": "0"}, "groups must be"),
    ({"groups": "1x0"}, "groups must be"),
    ({"latent_dim": 5}, "latent_dim does nothing for model ladder"),
    ({"prior": "conditional"}, "prior does nothing for model ladder"),
])  # fmt: skip
def test_wrong_settings_are_one_line(wrong, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(model="ladder", **wrong)


@pytest.mark.parametrize("shape, message", [
    ((4, 4, 1), r"groups must be at some of 1, 2, 4 rows of images \(4, 4, 1\); got \[3\]"),
    ((6,), "groups at rows of the image need images"),
])  # fmt: skip
def test_rows_that_an_image_has_not_are_one_line(shape, message):
    with pytest.raises(UserError, match=message):
        models.build(ModelConfig(model="ladder", groups="1x3"), shape)


# Modules


def test_patches_and_their_inverse():
    x = jnp.arange(4 * 6 * 2.0).reshape(4, 6, 2)
    together = modules.patches(x, 2)
    np.testing.assert_array_equal(together[1, 2], x[2:4, 4:6].ravel())
    np.testing.assert_array_equal(modules.unpatched(together, 2), x)
    spread = modules.repeated(x, 3)
    np.testing.assert_array_equal(spread[::3, ::3], x)
    np.testing.assert_array_equal(spread[3:6, 6:9], jnp.broadcast_to(x[1, 2], (3, 3, 2)))


def test_parameters_of_blocks_by_hand():
    net = modules.stacked(modules.Block(6, 2, 3), 5, (4, 4, 8), (4, 4, 1))
    leaves = jax.tree.leaves(jax.eval_shape(net.init, KEY))
    one = (9 * 2 + 2) + 2 * (9 * 2 * 2 + 2) + (2 * 6 + 6)
    assert sum(leaf.size for leaf in leaves) == 5 * one
    dense = modules.stacked(modules.Block(6, 7, 1), 5, (8,))
    leaves = jax.tree.leaves(jax.eval_shape(dense.init, KEY))
    assert sum(leaf.size for leaf in leaves) == 5 * ((8 * 7 + 7) + (7 * 6 + 6))


# Cost


def flops(f, *arguments):
    return jax.jit(f).lower(*arguments).compile().cost_analysis()["flops"]


def test_a_ladder_costs_what_a_hand_written_pass_costs():
    """The same loss written down at once, for groups that are not scanned: the compiler counts the
    body of a loop once, whatever its length.
    """
    config = ModelConfig(
        model="ladder", groups="1x1-1x2-1x4", channels=32, group_latents=4, remat="off"
    )
    vae = models.build(config, (4, 4, 1))
    params = jax.tree.map(lambda a: a + 0.02, vae.init(KEY))
    path = vae.prior(params, NOTHING).path
    bound = path.bound

    def by_hand(params, key):
        def image(key, x):
            own, said, h = params["path"], [], (x, NOTHING)
            one = [jax.tree.map(lambda a: a[0], {n: own[f"stage{i}"][n] for n in top_down.STACKED})
                   for i in range(3)]  # fmt: skip
            for i in (2, 1, 0):
                stage = path.stages[i]
                h = stage.coarser.apply(own[f"stage{i}"]["coarser"], *h)
                h = h + stage.up.apply(one[i]["up"], h)
                said.append(h)
                h = (h,)
            state, rate = own["top"], 0.0
            for i, of_z in enumerate(jax.random.split(key, 3)):
                stage = path.stages[i]
                if i:
                    state = modules.repeated(state, 2)
                mean, log, more = jnp.split(stage.p.apply(one[i]["p"], state), [4, 8], axis=-1)
                p = Normal(mean, bound(log))
                mean, log = jnp.split(stage.q.apply(one[i]["q"], state, said[2 - i]), 2, axis=-1)
                q = Normal(mean, bound(log))
                z = q.sample(of_z)
                rate += kl(q, p, of_z)
                state = state + more + stage.add.apply(one[i]["add"], z)
                state = state + stage.down.apply(one[i]["down"], state)
            decoder = modules.from_linen(modules.Pixels((4, 4, 1), (4, 4, 1)), [state.shape])
            logits = families.bernoulli(decoder).apply(params["likelihood"], state)
            return rate - logits.log_prob(x)

        return jnp.mean(jax.vmap(image)(jax.random.split(key, (3, 1))[:, 0], X))

    def loss(params, key, vae=vae):
        return bounds.elbo(vae, params, key, unconditional(X), KLWeights())[0]

    ours, hand = jax.grad(loss), jax.grad(by_hand)
    for a, b in zip(
        *(ravel_pytree(jax.jit(f)(params, KEY))[:1] for f in (ours, hand)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)
    composed = models.compose(vae.init, vae.posterior, vae.likelihood, vae.prior)
    cost = flops(hand, params, KEY)
    assert flops(ours, params, KEY) < 1.05 * cost
    assert flops(jax.grad(functools.partial(loss, vae=composed)), params, KEY) > 1.2 * cost
