"""What priors that are learned look like: their density, their components, their pseudo-inputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.figures.context import SIDE, Scene, names, pictures
from vae_jax import plots
from vae_jax.distributions import Mixture
from vae_jax.plots import densities

POINTS, POSTERIORS = 161, 1000  # along an axis of the plane; of the aggregate posterior
ROWS, IN_A_ROW = 8, 8


def is_learned(s: Scene) -> bool:
    return bool(jax.tree.leaves(s.run.params.get("prior", ()))) and s.free


def lacks_plane(s: Scene) -> str:
    if not (s.free and s.latent_dim == 2):
        return f"needs two latents, and nothing given; the run has {s.latent_dim}"
    return ""


def lacks_mixture(s: Scene) -> str:
    if not (s.free and isinstance(_prior(s), Mixture)):
        return "needs a prior that is a mixture, of a model where nothing is given"
    return ""


def lacks_pseudo_inputs(s: Scene) -> str:
    there = "pseudo_inputs" in _params(s)
    return "" if there else "needs --prior=vamp; this run has no pseudo-inputs"


def _params(s: Scene) -> Any:
    """The prior's; in a hierarchy, those of its top."""
    params = s.run.params.get("prior", {})
    return params.get("upper", params) if isinstance(params, dict) else {}


def _prior(s: Scene) -> Any:
    return s.run.vae.prior(s.run.params, jnp.zeros(s.run.condition.c_shape, jnp.float32))


def prior(s: Scene) -> Figure:
    """The density of p(z) beside the aggregate posterior's, (1/N) Σ_n q(z|x_n), of test images."""
    half = 1.05 * max(float(np.abs(s.means).max()), s.high)
    line = np.linspace(-half, half, POINTS)
    plane = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2).astype(np.float32)
    p, some = _prior(s), s.some(min(POSTERIORS, len(s.test.x)))
    q = s.run.encode(*some)

    @jax.jit
    def both(z: Any) -> Any:
        of_images = jax.vmap(lambda q: q.log_prob(z))(q)
        return p.log_prob(z), jax.nn.logsumexp(of_images) - jnp.log(len(of_images))

    log_p, log_q = jax.lax.map(both, plane, batch_size=POINTS)
    title = f"aggregate posterior of {len(some.x):,} test images"
    shape = (POINTS, POINTS)
    panels = {"prior p(z)": np.exp(log_p).reshape(shape), title: np.exp(log_q).reshape(shape)}
    first, second = names(range(2))
    return densities.densities(panels, half, (first, second))


def pseudo_inputs(s: Scene) -> Figure:
    """Those of the largest weights; as the encoder reads them, in [0, 1]."""
    params = _params(s)
    images = np.asarray(params["pseudo_inputs"])
    weights = np.asarray(params.get("log_weights", np.zeros(len(images))))
    some = np.clip(images[np.argsort(-weights, kind="stable")[: SIDE**2]], 0, 1)
    return plots.samples(pictures(s.run, some, s.given(len(some))))


def components(s: Scene) -> Figure:
    """A row of samples of each component of the prior, those of the largest weights."""
    mixture = _prior(s)
    weights = np.asarray(jax.nn.softmax(mixture.log_weights))
    order = np.argsort(-weights, kind="stable")[:ROWS]
    chosen = jax.tree.map(lambda leaf: leaf[order], mixture.components)
    keys = jax.random.split(s.key, (len(order), IN_A_ROW))
    z = jax.vmap(lambda p, keys: jax.vmap(p.sample)(keys))(chosen, keys)
    images = {f"{i + 1}, weight {weights[i]:.2g}": s.decode(np.asarray(z[n]))
              for n, i in enumerate(order)}  # fmt: skip
    return plots.rows(images)
