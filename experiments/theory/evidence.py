"""How many samples does an estimate of P(X) need, from the prior and from q(z|X)?

The picture `evidence` of `experiments.theory`. In `worlds.informative_world` P(X) is known exactly.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.theory import figures, worlds
from vae_jax.distributions.continuous import Normal

MOST = 20  # latents


def estimation_error(z_dim: int, prior: bool, counts: np.ndarray) -> tuple[np.ndarray, float]:
    """Root-mean-square error of log P(X) from n samples, n in counts; and Var[w]/E[w]², exact."""
    world = worlds.informative_world(jax.random.key(0), z_dim)
    x = world.marginal.sample(jax.random.key(1))
    q = Normal(*jnp.zeros((2, z_dim))) if prior else world.mean_field(x)
    exact = world.marginal.log_prob(x)
    errors = []
    for key in jax.random.split(jax.random.key(2), 60):
        log_w = worlds.log_weights(world, q, x, key, int(counts[-1]))
        total = np.logaddexp.accumulate(np.asarray(log_w))[counts - 1]
        errors.append(total - np.log(counts) - float(exact))
    variance = jnp.expm1(worlds.log_second_moment(world.posterior(x), q))
    return np.sqrt(np.mean(np.square(errors), axis=0)), float(variance)


@jax.jit
def samples_needed(z_dim: Any, key: Any) -> Any:
    """Samples for a relative error of 10 %, [2]: from the prior and from q, for a world with z_dim
    latents and an image of it.

    Of a world with MOST latents all but z_dim, and their pixels, are cut off: latents that touch no
    pixel, and pixels that no latent touches, change neither.
    """
    world_key, z_key, x_key = jax.random.split(key, 3)
    world, prior = worlds.informative_world(world_key, MOST), Normal(*jnp.zeros((2, MOST)))
    row, column = jnp.indices(world.weights.shape)
    inside = (row < 16 * z_dim) & (column < z_dim)
    world = world._replace(weights=world.weights * inside * jnp.sqrt(MOST / z_dim))
    x = world.likelihood(prior.sample(z_key)).sample(x_key)
    pair = (prior, world.mean_field(x))
    moments = jnp.stack([worlds.log_second_moment(world.posterior(x), q) for q in pair])
    return jnp.maximum(jnp.expm1(moments) / 0.1**2, 1.0)


def evidence() -> tuple[Figure, dict[str, float]]:
    """P(X) as a mean over the prior, and over q, against the exact value."""
    counts = 2 ** np.arange(14)
    errors = {f"prior, {d} latents": estimation_error(d, True, counts) for d in (2, 6, 10)}
    errors["q(z|X), 10 latents"] = estimation_error(10, False, counts)
    dims, keys = np.arange(1, MOST + 1), jax.random.split(jax.random.key(3), 101)
    needed = [[samples_needed(float(d), key) for key in keys] for d in dims]
    bands = np.quantile(np.array(needed), (0.1, 0.5, 0.9), axis=1)  # [3, dims, 2]
    names = ("from the prior", "from q(z|X)")
    figure = figures.evidence(
        counts, errors, dims, {name: bands[:, :, i] for i, name in enumerate(names)}
    )
    numbers = {
        f"{name}: error of log P(X) from {counts[-1]} samples, nats": float(error[-1])
        for name, (error, _) in errors.items()
    }
    for i, name in enumerate(names):
        for d in (10, 20):
            median = float(bands[1, dims.tolist().index(d), i])
            numbers[f"{name}, {d} latents: samples for 10 %"] = median
    return figure, numbers
