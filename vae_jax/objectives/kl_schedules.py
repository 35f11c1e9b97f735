"""How the KL weight β is reached. Functions of (beta, warmup, cycles).

None depends on the length of the training, so that a longer run starts as the shorter one did.
"""

import jax.numpy as jnp
import optax

from vae_jax.types import Rate

# KL weights: functions of (beta, warmup, cycles). None depends on the length of the training, so
# that a longer run starts as the shorter one did.


def kl_linear(beta: Rate, warmup: int) -> optax.Schedule:
    """From 0 at step 0 to beta at step `warmup`, then beta (Bowman et al. 2016, §3.1)."""
    return optax.linear_schedule(0.0, beta, warmup)


def kl_cosine(beta: Rate, warmup: int) -> optax.Schedule:
    """As `kl_linear`, rising by half a cosine: flat at both ends."""
    fall = optax.cosine_decay_schedule(1.0, warmup)
    return lambda step: beta * (1 - fall(step))


def kl_cyclical(beta: Rate, warmup: int, cycles: int) -> optax.Schedule:
    """`cycles` times: a linear rise from 0 over `warmup` steps, then as many at beta; then beta.

    Fu et al. (2019), with half of each cycle spent rising, R = 0.5.
    """
    rise = optax.linear_schedule(0.0, beta, warmup)

    def schedule(step):
        return jnp.where(step < cycles * 2 * warmup, rise(step % (2 * warmup)), beta)

    return schedule


KL_SCHEDULES = {
    "constant": lambda beta, warmup, cycles: optax.constant_schedule(beta),
    "linear": lambda beta, warmup, cycles: kl_linear(beta, warmup),
    "cosine": lambda beta, warmup, cycles: kl_cosine(beta, warmup),
    "cyclical": kl_cyclical,
}
