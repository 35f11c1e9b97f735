"""Points in the plane on an arc that widens: data with one latent behind it, and no pixels.

    t ~ U(0, 1),   x ~ N(√t (cos πt/4, sin πt/4), (t²/10)² I)

The toy example of oduerr/dl_tutorial (tensorflow/vae/vae_demo-2D.ipynb).
"""

import math

import numpy as np
from jaxtyping import Float

NOISE = 0.1  # standard deviation at t = 1


def curve(t: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
    """Where the points lie without noise."""
    angle = math.pi / 4 * t
    return np.sqrt(t)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def arc(uniform: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
    """Points, float32, of numbers uniform on [0, 1): t, and two for the noise by Box & Muller."""
    t, u, v = uniform.T
    radius, angle = np.sqrt(-2 * np.log1p(-u)), math.tau * v
    noise = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (curve(t) + NOISE * t[:, None] ** 2 * noise).astype(np.float32)
