"""What the benchmark of models counts."""

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmark.models import MODELS, Config, main, products, work_of_a_step
from experiments.benchmark.timing import BenchmarkConfig, parse_image


def _flop(f, *arguments):
    return products(jax.make_jaxpr(f)(*arguments).jaxpr)


def test_a_product_is_two_flop_for_each_multiplication():
    a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
    assert _flop(jnp.matmul, a, b) == 2 * 3 * 5 * 7
    assert _flop(jax.jit(lambda a, b: jnp.tanh(a @ b)), a, b) == 2 * 3 * 5 * 7
    assert _flop(jax.vmap(jnp.matmul, (0, None)), jnp.ones((4, 3, 5)), b) == 4 * 2 * 3 * 5 * 7


def test_a_gradient_is_two_products_more_or_one_where_nothing_is_before():
    w, x = jnp.ones((5, 7)), jnp.ones((3, 5))

    def loss(w, x):
        return jnp.sum(jnp.tanh(x @ w))

    assert _flop(jax.grad(loss), w, x) == 2 * (2 * 3 * 5 * 7)
    assert _flop(jax.grad(loss, (0, 1)), w, x) == 3 * (2 * 3 * 5 * 7)


def test_a_scan_counts_as_often_as_it_turns_and_a_branch_as_its_longest():
    w = jnp.ones((5, 5))

    def turned(w):
        return jax.lax.scan(lambda h, _: (w @ h, None), w, None, length=6)[0]

    def branched(w):
        return jax.lax.cond(w[0, 0] > 0, lambda w: w @ w @ w, lambda w: w @ w, w)

    assert _flop(turned, w) == 6 * 2 * 5**3
    assert _flop(branched, w) == 2 * 2 * 5**3


def test_a_convolution():
    x, k = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 4))

    def convolved(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert _flop(convolved, x, k) == 2 * (8 * 8 * 4) * (3 * 3 * 3)


def test_the_work_of_a_step_of_dense_nets():
    config = BenchmarkConfig.of_flags("", {"latent_dim": 20, "batch_size": 8})
    flop, parameters = work_of_a_step(config, (28, 28, 1))
    first, others = 784 * 500, 500 * 40 + 20 * 500 + 500 * 784
    assert flop == 2 * 8 * (2 * first + 3 * others)  # no gradient at the images
    assert parameters == first + others + 500 + 40 + 500 + 784


def test_flags_of_a_model_leave_that_one_alone():
    assert list(Config.of_flags("", {"rounds": 2}).configs) == list(MODELS)
    timed = Config.of_flags("", {"model": "two_layer", "rounds": 2})
    assert [config.model.model for config in timed.configs.values()] == ["two_layer"]


def test_every_kind_of_model_is_timed(capsys):
    tiny = {"rounds": 1, "model_steps": 1, "batch_size": 2, "image": "8x8x1"}
    main(Config.of_flags("", {"prior": "vamp", "widths": "4", "pseudo_inputs": 3, **tiny}))
    row = next(line for line in capsys.readouterr().out.splitlines() if "as given" in line)
    milliseconds, rate, parameters, flop, share = row.removeprefix("as given").split()
    assert float(milliseconds) > 0 and int(parameters.replace(",", "")) > 3 * 64
    assert abs(float(rate.replace(",", "")) - 2000 / float(milliseconds)) < 0.05 * 2000
    assert float(flop) >= 0 and share.endswith("%")


@pytest.mark.parametrize("text", ["", "28", "28x28", "28x28x0", "axbxc", "28x28x-1"])
def test_an_image_is_three_numbers(text):
    with pytest.raises(ValueError, match="such as 28x28x1"):
        parse_image(text)
