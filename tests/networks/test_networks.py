"""Networks against NumPy, against counting by hand, and against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import truncnorm

from vae_jax import networks
from vae_jax.networks.convolutions import convolve, convolve_transposed
from vae_jax.networks.layers import Style, constant, gated
from vae_jax.settings import UserError

KEY = jax.random.key(0)
SMALL = {
    "mlp": networks.mlp((6, 5)),
    "conv": networks.convolutional((2, 3), hidden=5),
    "resnet": networks.convolutional((2, 3), blocks=1, hidden=5),
}
GATED_BF16 = Style(gated, dtype=jnp.bfloat16)


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Most of these tests' time is the compiler's."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def make(name, style):
    """Networks that compile quickly: one stage of convolutions."""
    blocks = {"blocks": 1} if name == "resnet" else {}
    return (networks.mlp if name == "mlp" else networks.convolutional)((4,), style, **blocks)


def start(net):
    """Initial parameters, in one program."""
    return jax.jit(net.init)(KEY)


def size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def same(a, b):
    return jax.tree.all(jax.tree.map(jnp.array_equal, a, b))


def shapes(net):
    return jax.eval_shape(net.init, KEY)


def normal(*shape, seed=1):
    return jax.random.normal(jax.random.key(seed), shape)


# Convolutions


@pytest.mark.parametrize("stride, kernel", [(1, 3), (2, 3), (2, 4), (3, 5)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 2), (8, 6, 1)])
def test_patches_give_xlas_convolution(shape, stride, kernel):
    x, k = normal(*shape), normal(kernel, kernel, shape[-1], 3, seed=2)
    expected = convolve(x, k, stride, native=True)
    assert expected.shape == (-(-shape[0] // stride), -(-shape[1] // stride), 3)
    np.testing.assert_allclose(convolve(x, k, stride), expected, atol=1e-5)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("kernel", [2, 4])
def test_transposed_convolution_adds_what_its_definition_says(kernel, native):
    x, k = np.asarray(normal(3, 2, 2)), np.asarray(normal(kernel, kernel, 2, 3, seed=2))
    expected = np.zeros((6, 4, 3))
    for place in np.ndindex(3, 2, kernel, kernel):
        row, column = (
            2 * p + i - kernel // 2 + 1 for p, i in zip(place[:2], place[2:], strict=True)
        )
        if 0 <= row < 6 and 0 <= column < 4:
            expected[row, column] += x[place[:2]] @ k[place[2:]]
    np.testing.assert_allclose(convolve_transposed(x, k, native=native), expected, atol=1e-5)


def test_transposed_convolution_is_the_adjoint_of_the_strided_one():
    """⟨conv(x), y⟩ = ⟨x, convᵀ(y)⟩ with input and output channels exchanged."""
    x, y, k = normal(8, 6, 2), normal(4, 3, 5, seed=2), normal(4, 4, 2, 5, seed=3)
    back = convolve_transposed(y, jnp.swapaxes(k, 2, 3))
    np.testing.assert_allclose(jnp.vdot(convolve(x, k, 2), y), jnp.vdot(x, back), rtol=1e-5)


@pytest.mark.parametrize("f", [lambda x, k: convolve(x, k, 2), convolve_transposed])
def test_on_a_cpu_loops_and_sweeps_see_matrix_products_only(f):
    """XLA's convolutions are slow there: in loops, and grouped where kernels are vmapped."""

    def loss(kernel, x):
        return jnp.sum(jax.vmap(f, (0, None))(x, kernel) ** 2)

    kernels, x = jnp.ones((2, 4, 4, 3, 3)), jnp.ones((5, 8, 8, 3))
    compiled = jax.jit(jax.vmap(jax.grad(loss), (0, None))).lower(kernels, x).as_text()
    assert ("stablehlo.convolution" in compiled) == (jax.default_backend() != "cpu")


def test_native_convolutions_of_a_batch_are_one_convolution_without_groups():
    def loss(kernel, x):
        convolved = jax.vmap(lambda x: convolve(x, kernel, 2, native=True))(x)
        doubled = jax.vmap(lambda x: convolve_transposed(x, kernel, native=True))(convolved)
        return jnp.sum(doubled**2)

    gradient = jax.jit(jax.grad(loss, (0, 1)))
    text = gradient.lower(jnp.ones((4, 4, 3, 3)), jnp.ones((5, 8, 8, 3))).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert 5 <= len(lines) <= 6
    assert all("feature_group_count = 1" in line for line in lines)
    assert all("batch_group_count = 1" in line for line in lines)


# Shapes


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    "x_shape", [(28, 28, 1), (8, 8, 1), (12, 20, 3), (64, 64, 3), (7, 5, 2), (1, 1, 1)]
)
@pytest.mark.parametrize("latent_dim", [0, 1, 16])
def test_shapes(name, x_shape, latent_dim):
    """Any image, any latent dimension, and all the shapes that likelihoods ask for."""
    encoder = SMALL[name].encoder([x_shape, (3,)], (2, latent_dim))
    if latent_dim:
        output = jax.eval_shape(encoder.apply, shapes(encoder), jnp.ones(x_shape), jnp.ones(3))
        assert output.shape == (2, latent_dim)
    for wanted in (x_shape, (2, *x_shape), (*x_shape, 5), (2, 3)):
        decoder = SMALL[name].decoder([(latent_dim,), (3,)], wanted, image=x_shape)
        z, c = jnp.ones(latent_dim), jnp.ones(3)
        output = jax.eval_shape(decoder.apply, shapes(decoder), z, c)
        assert (output.shape, output.dtype) == (wanted, jnp.float32)


def test_pixels_stay_where_they_are_whatever_the_outputs_shape():
    """The same weights, asked for (h, w, 2) or (2, h, w, 1), draw the same two images."""
    x_shape = (6, 4, 1)
    last = SMALL["conv"].decoder([(2,)], (*x_shape, 2), image=x_shape)
    first = SMALL["conv"].decoder([(2,)], (2, *x_shape), image=x_shape)
    params, z = start(last), jnp.ones(2)
    expected = jnp.moveaxis(jax.jit(last.apply)(params, z), -1, 0)
    assert jnp.array_equal(jax.jit(first.apply)(params, z), expected)
    assert not jnp.array_equal(expected[0], expected[1])


# Numbers of parameters


def test_parameters_of_an_mlp():
    encoder = SMALL["mlp"].encoder([(4, 3, 1), (0,)], (2, 2))
    assert size(shapes(encoder)) == (12 * 6 + 6) + (6 * 5 + 5) + (5 * 4 + 4)


def test_parameters_of_a_gated_mlp():
    encoder = networks.mlp((6,), Style(gated)).encoder([(4, 3, 1)], (2, 2))
    assert size(shapes(encoder)) == 2 * (12 * 6 + 6) + (6 * 4 + 4)


def test_parameters_of_a_convolutional_network():
    x_shape = (7, 5, 3)  # -> 4 × 3 -> 2 × 2
    encoder = SMALL["conv"].encoder([x_shape, (2,)], (2, 4))
    convolutions = (16 * 3 * 2 + 2) + (16 * 2 * 3 + 3)
    assert size(shapes(encoder)) == convolutions + ((2 * 2 * 3 + 2) * 5 + 5) + (5 * 8 + 8)
    decoder = SMALL["conv"].decoder([(4,), (2,)], x_shape, image=x_shape)
    dense = (6 * 5 + 5) + (5 * 12 + 12)
    assert size(shapes(decoder)) == dense + (16 * 3 * 2 + 2) + (16 * 2 * 3 + 3)


def test_parameters_of_a_residual_network():
    plain, residual = (SMALL[n].encoder([(8, 8, 1)], (2, 4)) for n in ("conv", "resnet"))
    blocks = sum(2 * (9 * width * width + width) + 2 * width for width in (2, 3))
    assert size(shapes(residual)) - size(shapes(plain)) == blocks


# Values


def test_gated_layer_against_numpy():
    """h = (W x + b) ⊙ σ(V x + c)."""
    net = networks.mlp((4,), Style(gated)).encoder([(3,)], (2,))
    params = jax.tree.map(lambda a: normal(*a.shape, seed=a.size), net.init(KEY))
    x = np.asarray(normal(3))
    (w, b), (v, c), (u, d) = (
        (np.asarray(params[name]["linear"]["kernel"]), np.asarray(params[name]["linear"]["bias"]))
        for name in ("Dense_0", "Dense_1", "Dense_2")
    )
    h = (x @ w + b) / (1 + np.exp(-(x @ v + c)))
    np.testing.assert_allclose(net.apply(params, x), h @ u + d, rtol=1e-5)


def test_residual_blocks_start_as_the_identity_where_their_last_kernel_is_zero():
    """A block adds: with W₂ = 0 the residual network is a stage without activation."""
    encoder = networks.convolutional((2,), blocks=1, hidden=3).encoder([(4, 4, 1)], (2,))
    params = start(encoder)
    x = normal(4, 4, 1)
    params["Residual_0"]["Convolution_1"] = jax.tree.map(
        jnp.zeros_like, params["Residual_0"]["Convolution_1"]
    )
    linear = params["Convolution_0"]
    h = jnp.ravel(convolve(x, linear["kernel"], 2) + linear["bias"][None, None])
    expected = networks.mlp((3,)).encoder([(8,)], (2,)).apply(params["MLP_0"], h)
    np.testing.assert_allclose(encoder.apply(params, x), expected, rtol=1e-5)


def test_group_normalisation_is_of_the_example_alone():
    """Adding to the whole example and scaling it leaves the normalised branch unchanged."""
    from vae_jax.networks.layers import Residual

    block, x = Residual(Style()), normal(6, 6, 2)
    params = jax.jit(block.init)(KEY, x)
    branch, again = (jax.jit(block.apply)(params, a) - a for a in (x, 3 * x + 5))
    np.testing.assert_allclose(branch, again, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_is_its_examples_one_by_one(name):
    style = Style()
    x_shape, c = (7, 6, 1), normal(3, 2)
    encoder = make(name, style).encoder([x_shape, (2,)], (4,))
    decoder = make(name, style).decoder([(4,), (2,)], x_shape, image=x_shape)
    params = start(encoder), start(decoder)

    def both(x, c):
        return decoder.apply(params[1], encoder.apply(params[0], x, c), c)

    x = normal(3, *x_shape)
    together = jax.jit(jax.vmap(both))(x, c)
    alone = jnp.stack([jax.jit(both)(*one) for one in zip(x, c, strict=True)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert not np.allclose(alone[0], alone[1], atol=1e-3)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("style", [GATED_BF16], ids=["gated bfloat16"])
def test_gradients_are_finite_and_reach_every_parameter(name, style):
    x_shape = (5, 6, 1)
    decoder = make(name, style).decoder([(3,)], x_shape, image=x_shape)
    params = start(decoder)
    z, target = normal(8, 3), normal(8, *x_shape, seed=3)

    def loss(params):
        return jnp.mean((jax.vmap(decoder.apply, (None, 0))(params, z) - target) ** 2)

    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        assert jnp.isfinite(leaf).all() and jnp.any(leaf != 0), path
        assert leaf.dtype == jnp.float32


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_is_close_to_float32_but_not_the_same(name):
    """So the arithmetic is bfloat16's, 8 bits, and only that differs."""
    outputs = []
    for dtype in (jnp.float32, jnp.bfloat16):
        net = make(name, Style(dtype=dtype)).encoder([(8, 8, 1)], (4,))
        outputs.append(jax.jit(net.apply)(start(net), normal(8, 8, 1)))
    assert outputs[1].dtype == jnp.float32
    scale = float(jnp.max(jnp.abs(outputs[0])))
    assert 1e-5 * scale < float(jnp.max(jnp.abs(outputs[0] - outputs[1]))) < 0.05 * scale


# Conditions


@pytest.mark.parametrize("name", SMALL)
def test_no_condition_changes_nothing(name):
    x, nothing = normal(6, 4, 1), jnp.zeros(0)
    with_c = make(name, Style()).encoder([x.shape, (0,)], (2, 3))
    without = make(name, Style()).encoder([x.shape], (2, 3))
    params = start(with_c)
    assert same(params, start(without))
    assert same(jax.jit(with_c.apply)(params, x, nothing), jax.jit(without.apply)(params, x))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("c_shape", [(), (2, 2), (6, 4, 2), (5, 5, 1)])
def test_conditions_of_any_shape_matter(name, c_shape):
    encoder = make(name, Style(jnp.tanh)).encoder([(6, 4, 1), c_shape], (4,))
    decoder = make(name, Style(jnp.tanh)).decoder([(4,), c_shape], (6, 4, 1), image=(6, 4, 1))
    params = start(encoder), start(decoder)

    @jax.jit
    @jax.grad
    def slopes(cs):
        z = encoder.apply(params[0], normal(6, 4, 1), cs[0])
        return jnp.sum(z**2) + jnp.sum(decoder.apply(params[1], jnp.ones(4), cs[1]) ** 2)

    assert all(jnp.all(slope != 0) for slope in slopes([normal(*c_shape)] * 2))


def test_a_condition_of_the_images_size_enters_as_channels():
    encoder = SMALL["conv"].encoder([(6, 4, 1), (6, 4, 2)], (4,))
    assert shapes(encoder)["Convolution_0"]["kernel"].shape == (4, 4, 3, 2)


@pytest.mark.parametrize("name", SMALL)
def test_without_any_input_a_decoder_still_draws(name):
    decoder = make(name, Style()).decoder([(0,), (0,)], (4, 4, 1), image=(4, 4, 1))
    params = start(decoder)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    image = jax.jit(decoder.apply)(params, jnp.zeros(0), jnp.zeros(0))
    assert jnp.array_equal(image, jnp.zeros((4, 4, 1)))  # all biases start at 0


# Starts


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("output", [(5, 4, 1), (2, 5, 4, 1), (5, 4, 1, 3)])
def test_the_output_bias_starts_where_it_is_told(name, output):
    """With every kernel and every other bias 0, the output is its bias, number for number."""
    style, wanted = Style(initialiser=jax.nn.initializers.zeros), normal(*output)
    decoder = make(name, style).decoder([(2,)], output, image=(5, 4, 1), start=wanted)
    assert jnp.array_equal(jax.jit(decoder.apply)(start(decoder), jnp.ones(2)), wanted)


def test_initialisers_have_the_spreads_of_their_papers():
    n, m = 400, 300
    cut = truncnorm.var(-2, 2)
    spreads = {
        "lecun": 1 / n,
        "he": 2 / n,
        "glorot": 2 / (n + m),
        "normal": 0.02**2,
        "truncated_normal": cut * 0.02**2,
    }
    assert spreads.keys() < networks.INITIALISERS.keys()
    for name, spread in (("normal", 1.0), ("truncated_normal", cut)):
        kernel = networks.initialiser(name, 0.1)(KEY, (n, m), jnp.float32)
        np.testing.assert_allclose(jnp.var(kernel), spread * 0.1**2, rtol=0.03)
    for name, initialiser in networks.INITIALISERS.items():
        kernel = initialiser(KEY, (n, m), jnp.float32)
        if name == "orthogonal":
            np.testing.assert_allclose(kernel.T @ kernel, np.eye(m), atol=1e-5)
        else:
            np.testing.assert_allclose(jnp.var(kernel), spreads[name], rtol=0.03)


def test_constant_takes_any_shape_of_the_right_size():
    values = jnp.arange(6.0)
    assert jnp.array_equal(constant(values)(KEY, (2, 3)), values.reshape(2, 3))
    assert not constant(None)(KEY, (2, 3)).any()


# Names


def test_widths_in_words():
    assert networks.parse_widths("500-250") == (500, 250)
    assert networks.parse_widths("") == ()
    for wrong in ("0", "a", "3-", "-3", "3.5", "32–64"):
        with pytest.raises(ValueError, match="joined by"):
            networks.parse_widths(wrong)


def test_convolutions_say_what_they_need():
    with pytest.raises(UserError, match="at least one stage"):
        networks.convolutional(())
    with pytest.raises(UserError, match="height, width, channels"):
        SMALL["conv"].decoder([(2,)], (784,), image=(784,))
