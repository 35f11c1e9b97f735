"""What changes with the step: learning rates (optax's schedules)."""

import optax


def constant(learning_rate: float, warmup: int, total: int) -> optax.Schedule:
    """A linear rise over `warmup` steps, then the same value to the end."""
    rise = optax.linear_schedule(0.0, learning_rate, warmup)
    return rise if warmup else optax.constant_schedule(learning_rate)


def cosine(learning_rate: float, warmup: int, total: int) -> optax.Schedule:
    """A linear rise over `warmup` steps, then half a cosine down to 0 at step `total`."""
    return optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, max(total, warmup + 1))


LEARNING_RATES = {
    "constant": constant,
    "cosine": cosine,
}
