"""Learning rates that change with the step, on optax's schedules."""

import jax.numpy as jnp
import optax

from vae_jax.types import Rate

# Learning rates


def constant(learning_rate: Rate, warmup: int, total: int) -> optax.Schedule:
    """A linear rise over `warmup` steps, then the same value to the end."""
    rise = optax.linear_schedule(0.0, learning_rate, warmup)
    return rise if warmup else optax.constant_schedule(learning_rate)


def cosine(learning_rate: Rate, warmup: int, total: int) -> optax.Schedule:
    """A linear rise over `warmup` steps, then half a cosine down to 0 at step `total`."""
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, max(total, warmup + 1))
    return lambda step: learning_rate * shape(step)  # optax asks the peak whether it is 0


def iwae(learning_rate: Rate, warmup: int, total: int) -> optax.Schedule:
    """Stages i = 0..7 of 3ⁱ parts of the training, at round(10^(1−i/7), 1)/10 of the rate, times a
    linear rise over the first `warmup` steps.

    Burda, Grosse & Salakhutdinov (2016, §5): 3,280 epochs at 1e-4·round(10^(1−i/7), 1).
    """
    parts = 3 ** jnp.arange(8)
    ends = jnp.cumsum(parts) / jnp.sum(parts)
    rates = learning_rate * jnp.array([10, 7.2, 5.2, 3.7, 2.7, 1.9, 1.4, 1]) / 10

    def schedule(step):
        stage = jnp.minimum(jnp.sum(step >= ends * total), 7)
        return rates[stage] * (jnp.minimum(step / warmup, 1) if warmup else 1)

    return schedule


LEARNING_RATES = {
    "constant": constant,
    "cosine": cosine,
    "iwae": iwae,
}
