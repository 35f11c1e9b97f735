"""The figures of a run, drawn from its model and its data.

Which of them a run can have, which it draws by itself, and what draws each: FIGURES, at the foot.
"""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.cli.config import numbers
from experiments.figures import priors
from experiments.figures.context import SIDE, Scene, columns, names, pictures
from vae_jax import distributions, evaluation, models, plots
from vae_jax.data import batches, fixed_draws
from vae_jax.data.dataset import Dataset, noun
from vae_jax.evaluation import latent_space
from vae_jax.plots import points
from vae_jax.runs.run import Run
from vae_jax.settings import UserError

NUM_RECONSTRUCTIONS = 32
NUM_ENCODINGS, NUM_DRAWS, NUM_MEANS = 5, 50, 2000
PLACE = (1.0, 2.0)  # z of the one that is decoded alone, as in oduerr/dl_tutorial
SWEEP = np.linspace(-2, 2, 20)  # z of the decoder in the plane
STEPS = 11  # of an interpolation or a traversal
IN_A_ROW = 10
MOST_LEVELS = 10  # of the rows that show them


def draw(run: Run, dataset: Dataset, folder: Path) -> list[Path]:
    """Draws every figure that a run of its kind has; returns their paths."""
    folder.mkdir(exist_ok=True)
    settings = run.config["settings"]
    own, seed = settings["run"], settings["data"]["data_seed"]
    at = numbers(own["decode_at"]) or (PLACE if own["figures"] == "all" else ())
    scene = Scene(run, lambda: dataset, own["manifold_grid"], seed=seed, at=at)
    paths = []
    for name, entry in FIGURES.items():
        if entry.own(scene) and not entry.lacks(scene):
            path = folder / f"{name}.{own['figure_format']}"
            try:
                plots.save(entry.draw(scene), path)
            except Exception as error:  # whatever a figure raises, the run is there without it
                reason = next(iter(str(error).splitlines()), "") or type(error).__name__
                warnings.warn(f"the figure {name} could not be drawn: {reason}", stacklevel=2)
            else:
                paths.append(path)
    return paths


# What they need -----------------------------------------------------------------------------------


def needs(latents: int = 0, kind: str = "image") -> Callable[[Scene], str]:
    """What a scene lacks of so many latents and this kind of examples, or ""."""

    def lacks(s: Scene) -> str:
        if noun(s.run.x_shape) != kind:
            return f"is of {kind}s; the run is of {noun(s.run.x_shape)}s"
        if latents and s.layers > 1:
            return f"needs z to be one vector; the run's is of {s.layers} layers"
        if s.latent_dim < latents:
            return f"needs {latents} latent{'s' * (latents > 1)}; the run has {s.latent_dim}"
        short = latents == 2 and len(s.axes) == 1
        return "needs two axes, such as --axes=1,2; got one" if short else ""

    return lacks


def lacks_z(s: Scene) -> str:
    """For what the decoder makes of one z."""
    if len(s.at) != s.latent_dim or not s.at:
        return f"needs --decode_at, a z of latent_dim = {s.latent_dim} numbers; got {len(s.at)}"
    return needs()(s)


def lacks_plane(s: Scene) -> str:
    return "" if s.run.x_shape == (2,) else "needs data of points in the plane; this run has images"


def lacks_line(s: Scene) -> str:
    """For points in the plane from one latent, each with a mean and two standard deviations."""
    model = s.settings["model"]
    gaussian = model["likelihood"] == "gaussian" and model["likelihood_scale"] != "optimal"
    fits = s.latent_dim == 1 and gaussian
    return lacks_plane(s) or ("" if fits else "needs one latent and a Gaussian likelihood")


def lacks_noise(s: Scene) -> str:
    """For what differs by z alone, whatever z is."""
    return needs()(s) or ("" if s.layers else "needs a latent; the run has none")


def lacks_groups(s: Scene) -> str:
    return "" if s.layers > 1 else "needs a hierarchy; the run's z is one array"


def lacks_levels(s: Scene) -> str:
    """For a prior whose groups are each given those above it."""
    lacks = lacks_groups(s) or needs()(s)
    if not lacks:
        p = s.run.vae.prior(s.run.params, np.zeros(s.run.condition.c_shape, np.float32))
        lacks = "" if hasattr(p, "redrawn") else "needs a prior of groups, each given those above"
    return lacks


def lacks_latents(s: Scene) -> str:
    return needs(1, noun(s.run.x_shape))(s)


def lacks_gaussian(s: Scene) -> str:
    """For a posterior that is drawn as ellipses."""
    known = s.settings["model"]["posterior"] in ("diagonal", "full")
    return needs(2)(s) or "needs a Gaussian posterior" * (not known)


def whole(s: Scene) -> bool:
    """Two latents and nothing given: not one plane of many."""
    return s.latent_dim == 2 and s.free


def more(s: Scene) -> bool:
    return s.settings["run"]["figures"] == "all"


# What draws them ----------------------------------------------------------------------------------


def manifold(s: Scene, note: str = "") -> Figure:
    plane = plots.manifold_latents(s.n, s.kind, s.high)
    units = s.units(2)
    z = np.zeros((len(plane), s.latent_dim))
    z[:, units] = plane
    return plots.manifold(s.decode(z), s.kind, note=note, high=s.high, names=names(units))


def samples(s: Scene) -> Figure:
    c = s.given_samples()
    images = pictures(s.run, s.run.sample(s.key, len(c), c), c)
    if s.settings["model"]["condition"] != "label":
        return plots.samples(images)
    rows = images.reshape(-1, SIDE, *images.shape[1:])
    return plots.rows(dict(zip(s.run.classes, rows, strict=False)))


def reconstructions(s: Scene) -> Figure:
    x, c = s.some(NUM_RECONSTRUCTIONS)
    originals, decoded = batches.unit_interval(x), s.run.reconstruct(x, c)
    return plots.reconstructions(pictures(s.run, originals, c), pictures(s.run, decoded, c))


def latents(s: Scene) -> Figure:
    return posterior_means(s, s.means, s.labels)


def training_latents(s: Scene) -> Figure:
    """Of the training set, binarised once where it is anew at each use."""
    x, y, _ = s.dataset.train
    seed = s.settings["data"]["data_seed"]
    x = fixed_draws.draw_once(x, seed, "train") if s.dataset.binarisation == "dynamic" else x
    batch = s.run.split(x, s.named(y), jax.random.key(seed))
    means = evaluation.posterior_means(s.run.vae, s.run.params, batch)
    return posterior_means(s, means, s.named(y))


def posterior_means(s: Scene, means: np.ndarray, labels: np.ndarray) -> Figure:
    units = s.units(2)
    how: dict[str, Any] = {"kind": s.kind, "high": s.high, "names": names(units)}
    return plots.latents(means[:, units], labels, **how)


def encodings(s: Scene) -> Figure:
    (x, c), units = s.some(NUM_ENCODINGS), s.units(2)
    q = s.run.encode(x, c)
    keys = jax.random.split(s.key, (len(x), NUM_DRAWS))
    z = np.asarray(jax.vmap(lambda q, keys: jax.vmap(q.sample)(keys))(q, keys))[..., units]
    originals, back = batches.unit_interval(x), s.run.reconstruct(x, c)
    shown = pictures(s.run, originals, c), z, pictures(s.run, back, c)
    how: dict[str, Any] = {"kind": s.kind, "high": s.high, "names": names(units)}
    return plots.encodings(*shown, s.means[:NUM_MEANS, units], **how)


def decoded(s: Scene) -> Figure:
    return plots.decoded(s.decode(np.array([s.at]))[0], s.at)


def curves(s: Scene) -> Figure:
    return plots.curves(columns(s.run.history), noun(s.run.x_shape))


def data(s: Scene) -> Figure:
    return points.points(s.test.x)


def reconstructed(s: Scene) -> Figure:
    return points.reconstructed(s.test.x, np.asarray(s.run.reconstruct(s.test.x)))


def decoder(s: Scene) -> Figure:
    p = jax.vmap(lambda z: s.run.vae.likelihood(s.run.params, z, np.zeros(0)))(SWEEP[:, None])
    return points.decoder(s.test.x, SWEEP, np.asarray(p.mean), np.exp(p.log_scale))


def interpolation(s: Scene) -> Figure:
    """Between the posterior means of two images, straight and along the sphere."""
    x, c = s.some(2)
    if len(x) != 2:
        raise UserError(f"interpolation is between two images; got {len(x)}")
    ends = np.asarray(s.run.latents(x, c))
    ways: dict[str, Any] = {"linear": latent_space.linear, "spherical": latent_space.spherical}
    rows = {name: s.decode(way(*ends, STEPS)) for name, way in ways.items()}
    ticks = [f"{t:g}" for t in np.linspace(0, 1, STEPS)]
    return plots.rows(rows, ticks, "share of the way from the first image to the second")


def traversals(s: Scene) -> Figure:
    """Each active unit (or each of `axes`), the others where an image is, or at 0."""
    active = s.axes or np.flatnonzero(evaluation.active_units(s.means)).tolist()
    units = active or s.units(2)  # where none is active, those that come nearest to it
    z = np.zeros(s.latent_dim)
    if s.images:
        z = np.asarray(s.run.latents(*s.some(1)))[0]
    values = np.linspace(-s.high, s.high, STEPS)
    ticks = [f"{value:g}".replace("-", "−") for value in values]
    paths = [s.decode(latent_space.traversal(z, unit, values)) for unit in units]
    return plots.rows(dict(zip(names(units), paths, strict=True)), ticks, "value of that latent")


def temperatures(s: Scene) -> Figure:
    """The same draws from the prior, nearer to its mean and further away."""
    c = s.given(IN_A_ROW)

    def at(temperature: float) -> np.ndarray:
        return pictures(s.run, s.run.sample(s.key, IN_A_ROW, c, temperature), c)

    return plots.rows({f"T = {t:g}": at(t) for t in s.temperatures})


def rates(s: Scene) -> Figure:
    """Of each group, over the first test images."""
    run, batch = s.run, jax.tree.map(lambda a: a[:NUM_MEANS], s.test)
    measured = evaluation.elbo(run.vae, run.params, batch, s.key)["rates"]
    z = models.latents(run.vae, run.condition.x_shape, run.condition.c_shape)
    return plots.group_rates(measured, [leaf.shape for leaf in jax.tree.leaves(z)])


def levels(s: Scene) -> Figure:
    """A test image's z above each level, those below drawn anew; the top row keeps none."""
    (x, c), run = s.some(1), s.run
    z = jax.tree.map(lambda a: np.asarray(a)[0], run.latents(x, c))
    keys, given = jax.random.split(s.key, IN_A_ROW), np.repeat(c, IN_A_ROW, axis=0)
    p = run.vae.prior(run.params, c[0])
    again = jax.jit(jax.vmap(lambda key, kept: distributions.redrawn(p, key, z, kept), (0, None)))
    kept = np.unique(np.linspace(0, s.layers, min(s.layers, MOST_LEVELS) + 1).astype(int))
    drawn = {f"{k} of {s.layers} kept": run.decode(again(keys, k), given) for k in kept.tolist()}
    whole = {name: pictures(run, x, given) for name, x in drawn.items()}
    return plots.rows(whole)


def posterior(s: Scene) -> Figure:
    """q(z|x) of a chosen image, or of the one whose neighbours' labels disagree most."""
    if not s.images and not len(s.split.y):
        raise UserError("posterior looks for an ambiguous image by its labels; give --images=N")
    doubt = latent_space.disagreement(s.means, s.split.y) if not s.images else ()
    at = s.images[0] if s.images else int(np.argmax(doubt))
    x, c = dataclasses.replace(s, images=(at,)).some(1)
    q, units = s.run.encode(x, c), s.units(2)
    z = jax.vmap(jax.tree.map(lambda leaf: leaf[0], q).sample)(jax.random.split(s.key, IN_A_ROW))
    every = np.repeat(c, IN_A_ROW, axis=0)
    shown = {
        f"test image {at}": pictures(s.run, batches.unit_interval(x), c),
        "decoded draws from its q(z|x)": pictures(s.run, s.run.decode(z, every), every),
    }
    covariance = np.asarray(jax.vmap(lambda q: q.covariance)(q)[0])[np.ix_(units, units)]
    mean = np.asarray(q.mean)[0, units]
    how: dict[str, Any] = {"kind": s.kind, "high": s.high, "names": names(units)}
    return plots.posterior(s.means[:, units], s.labels, mean, covariance, shown, **how)


class Entry(NamedTuple):
    """lacks: why a scene cannot have the figure, or ""; own: whether a run draws it by itself."""

    lacks: Callable[[Scene], str]
    own: Callable[[Scene], bool]
    draw: Callable[[Scene], Figure]


def always(s: Scene) -> bool:
    return True


def asked(s: Scene) -> bool:
    """On request alone."""
    return False


FIGURES: dict[str, Entry] = {
    "manifold": Entry(needs(2), whole, manifold),
    "samples": Entry(needs(), always, samples),
    "reconstructions": Entry(needs(), always, reconstructions),
    "latents": Entry(lacks_latents, always, latents),
    "training_latents": Entry(lacks_latents, more, training_latents),
    "encodings": Entry(needs(2), lambda s: whole(s) and more(s), encodings),
    "decoded": Entry(lacks_z, always, decoded),
    "data": Entry(lacks_plane, always, data),
    "reconstructed": Entry(lacks_plane, always, reconstructed),
    "decoder": Entry(lacks_line, always, decoder),
    "prior": Entry(priors.lacks_plane, lambda s: whole(s) and priors.is_learned(s), priors.prior),
    "components": Entry(priors.lacks_mixture, priors.is_learned, priors.components),
    "pseudo_inputs": Entry(priors.lacks_pseudo_inputs, always, priors.pseudo_inputs),
    "curves": Entry(lambda s: "", always, curves),
    "interpolation": Entry(needs(1), asked, interpolation),
    "traversals": Entry(needs(1), lambda s: s.latent_dim > 2 and s.free, traversals),
    "temperatures": Entry(lacks_noise, asked, temperatures),
    "posterior": Entry(lacks_gaussian, asked, posterior),
    "rates": Entry(lacks_groups, always, rates),
    "levels": Entry(lacks_levels, always, levels),
}
