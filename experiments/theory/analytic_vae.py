"""A VAE that is linear on both sides: its loss, its optimum and its training, without sampling.

    x|z ~ N(W z + b, σ² I),  q(z|x) = N(A x + a, diag s²),  loss = distortion + β·rate

With fixed noise σ² and β = 1, or with noise 1 and β = σ², the optimum is the same.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from experiments.theory.worlds import LinearGaussian
from vae_jax.distributions.base import LOG_2PI
from vae_jax.distributions.continuous import Normal
from vae_jax.types import Key, Scalar


class LinearVAE(NamedTuple):
    """A linear-Gaussian decoder, and an encoder q(z|x) = N(A x + a, diag s²) that is linear too."""

    world: LinearGaussian
    encoder: Float[Array, "z x"]
    offset: Float[Array, " z"]
    log_scale: Float[Array, " z"]

    def posterior(self, x: Float[Array, " x"]) -> Normal:
        return Normal(self.encoder @ x + self.offset, self.log_scale)

    def loss(self, data: Float[Array, "n x"], beta: Scalar | float = 1.0) -> Scalar:
        """distortion + β·rate in nats an example, exact: no sampling."""
        terms = jax.vmap(lambda x: -self.world.elbo(self.posterior(x), x, beta))(data)
        return jnp.mean(terms)

    def rates(self, data: Float[Array, "n x"]) -> Float[Array, " z"]:
        """KL(q(z_j|x)‖p(z_j)) of each latent j, the data's mean, in nats."""
        means = jax.vmap(lambda x: self.posterior(x).mean)(data)
        square = jnp.mean(means**2, axis=0) + jnp.exp(2 * self.log_scale)
        return 0.5 * (square - 1) - self.log_scale

    def squared_error(self, data: Float[Array, "n x"]) -> Scalar:
        """E‖x − W z − b‖² under q, the data's mean, summed over pixels."""
        unit = self.world._replace(log_scale=jnp.zeros(()))
        log_p = jax.vmap(lambda x: unit.expected_log_likelihood(self.posterior(x), x))(data)
        return -2 * jnp.mean(log_p) - data.shape[1] * LOG_2PI


@functools.partial(jax.jit, static_argnames=("x_dim", "z_dim"))
def random_linear_vae(key: Key, x_dim: int, z_dim: int, log_scale: Scalar | float) -> LinearVAE:
    """A decoder with the given noise, and an encoder, both with small random weights."""
    decoder, encoder = jax.random.split(key)
    weights = 0.1 * jax.random.normal(decoder, (x_dim, z_dim))
    world = LinearGaussian(weights, jnp.zeros(x_dim), jnp.asarray(log_scale, weights.dtype))
    zeros = jnp.zeros(z_dim)
    return LinearVAE(world, 0.1 * jax.random.normal(encoder, (z_dim, x_dim)), zeros, zeros)


@functools.partial(jax.jit, static_argnames="z_dim")
def best_linear_vae(
    data: Float[Array, "n x"],
    z_dim: int,
    log_scale: Scalar | float = 0.0,
    beta: Scalar | float = 1.0,
) -> LinearVAE:
    """The LinearVAE of least loss on the data, its decoder's noise given.

    With t = β σ² and the data covariance's eigenpairs (λ_j, u_j), largest first, the decoder's
    columns are u_j √max(λ_j − t, 0): the maximum-likelihood fit with noise t (Tipping & Bishop
    1999, eq. 7); the encoder is that fit's posterior, diagonal because the columns are orthogonal.
    """
    mean = jnp.mean(data, axis=0)
    centred = data - mean[None]
    values, vectors = jnp.linalg.eigh(centred.T @ centred / len(data))
    values, vectors = values[::-1][:z_dim], vectors[:, ::-1][:, :z_dim]
    t = beta * jnp.exp(2 * jnp.asarray(log_scale))
    weights = vectors * jnp.sqrt(jnp.maximum(values - t, 0))[None]
    precision = jnp.sum(weights**2, axis=0) + t
    encoder = weights.T / precision[:, None]
    world = LinearGaussian(weights, mean, jnp.asarray(log_scale, weights.dtype))
    return LinearVAE(world, encoder, -encoder @ mean, 0.5 * jnp.log(t / precision))


@functools.partial(jax.jit, static_argnames="n")
def data_with_spectrum(key: Key, eigenvalues: Float[Array, " d"], n: int) -> Float[Array, "n d"]:
    """n points whose mean is 0 and whose covariance (over n) has exactly these eigenvalues."""
    points, rotation = jax.random.split(key)
    noise = jax.random.normal(points, (n, len(eigenvalues)))
    white, _ = jnp.linalg.qr(noise - jnp.mean(noise, axis=0)[None])
    basis, _ = jnp.linalg.qr(jax.random.normal(rotation, 2 * (len(eigenvalues),)))
    return (jnp.sqrt(n * eigenvalues)[None] * white) @ basis.T


@functools.partial(jax.jit, static_argnames="steps")
def train_linear_vae(
    start: LinearVAE, data: Float[Array, "n x"], beta: Scalar | float, steps: int = 2000
) -> LinearVAE:
    """All but the decoder's noise, trained by Adam on the exact loss, the learning rate cooling."""
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, steps), eps=1e-12)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        vae, state = carry
        gradient = jax.grad(lambda vae: vae.loss(data, beta))(vae)
        updates, state = optimiser.update(gradient, state)
        moved: Any = optax.apply_updates(vae, updates)
        world = moved.world._replace(log_scale=start.world.log_scale)
        return (moved._replace(world=world), state), None

    return jax.lax.scan(step, (start, optimiser.init(start)), length=steps)[0][0]
