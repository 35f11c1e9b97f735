"""What the mathematics of a VAE looks like: every picture and number of docs/theory.md, anew.

    python -m experiments.theory

Writes kl_gaussian, acceptance, mean_field, gradient_variance, ring, evidence and noise_and_weight
as PNG, and theory.json with the numbers that it prints. All of it is exact or sampled in float64
from fixed keys, so that the files are the same each time. Under a minute on two CPU cores.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.theory import analytic_vae, figures, worlds
from experiments.theory.evidence import evidence
from vae_jax import files, plots
from vae_jax.distributions.continuous import Normal
from vae_jax.objectives import gradients
from vae_jax.settings import UserError, setting, validate

Numbers = dict[str, float]
GLYPH = (".###.", "#...#", "....#", "...#.", "..#..", ".#...", "#####")
FLIP = 0.1
SPECTRUM = (4.0, 2.0, 1.0, 0.25)


@dataclasses.dataclass(frozen=True)
class OutputConfig:
    """Where it goes."""

    out_dir: str = setting("docs/figures", "folder for the pictures and theory.json")

    def __post_init__(self) -> None:
        validate(self)
        if not self.out_dir:
            raise UserError("out_dir must be a folder, such as . for this one; got ''")


@dataclasses.dataclass(frozen=True)
class Config:
    output: OutputConfig = OutputConfig()


def gaussian_kl(scale: Any, mean: float = 0.0) -> Any:
    """KL(N(mean, scale²)‖N(0, 1)) in nats."""
    standard = Normal(jnp.zeros(1), jnp.zeros(1))
    return worlds.closed_form_kl(Normal(jnp.full(1, mean), jnp.log(scale)[None]), standard)


def kl_gaussian() -> tuple[Figure, Numbers]:
    """−log σ + σ²/2 − ½ over linspace(0.5, 2, 100), and which of its terms decides."""
    scale = jnp.linspace(0.5, 2, 100)
    total, slope = jax.vmap(jax.value_and_grad(gaussian_kl))(scale)
    logarithm = -jnp.log(scale)
    figure = figures.kl_gaussian(*map(np.asarray, (scale, logarithm, total - logarithm, slope)))
    numbers = {
        "KL at σ = 0.5, nats": float(total[0]),
        "KL at σ = 2, nats": float(total[-1]),
    }
    return figure, numbers


def glyph(pixels: int) -> worlds.Glyph:
    """The figure 2 on 7 × 5 pixels, cut or repeated to a number of pixels."""
    image = np.array([[c == "#" for c in row] for row in GLYPH], float)
    return worlds.Glyph(jnp.asarray(np.resize(image, pixels)), FLIP)


@jax.jit
def accepted_counts(pixels: Any) -> Any:
    """[images, 785]: the probability that a random image of so many pixels has h flipped ones and
    is accepted, h = 0..784.
    """
    h = jnp.arange(785.0)
    return jnp.exp(jax.vmap(lambda d: worlds.glyph_log_accepted(h, d, FLIP))(pixels))


def acceptance() -> tuple[Figure, Numbers]:
    """Random images until p(z|X) accepts one, against drawing from p(X|z)."""
    pixels, measured, n = np.array([*range(1, 61), 784]), np.array([7, 14, 21, 28, 35]), 10
    counts = np.asarray(accepted_counts(pixels))
    expected = 1 / counts.sum(axis=1)
    keys = jax.random.split(jax.random.key(0), 100_000)
    proposals = [jax.jit(jax.vmap(glyph(d).propose))(keys) for d in measured.tolist()]
    draws = [len(keys) / int(accepted.sum()) for _, accepted in proposals]
    x, accepted = proposals[-1]  # of 35 pixels
    generated = np.asarray(jax.vmap(glyph(35).generate)(keys[:n])).reshape(n, 7, 5, 1)
    passed = np.asarray(x)[np.flatnonzero(accepted)[:n]].reshape(n, 7, 5, 1)
    h, law = np.arange(36), counts[34, :36] * expected[34]
    binomial = np.array([math.comb(35, k) * FLIP**k * (1 - FLIP) ** (35 - k) for k in h])
    figure = figures.acceptance(
        generated,
        passed,
        (pixels[:60], measured),
        (expected[:60], np.array(draws)),
        (binomial, law),
    )
    numbers = {
        "random images for one wanted, 35 pixels, exact": expected[34],
        "random images for one wanted, 35 pixels, counted": draws[-1],
        "random images for one wanted, 784 pixels, log₁₀": math.log10(expected[-1]),
        "flipped pixels of 35, generated": 35 * FLIP,
        "flipped pixels of 35, accepted": law @ h,
    }
    return figure, numbers


def mean_field() -> tuple[Figure, Numbers]:
    """The best diagonal posterior for two correlated latents, and what it costs."""
    rho, rhos = 0.8, np.linspace(0, 0.995, 200)
    turn = np.linspace(0, 2.02 * np.pi, 200)  # a bit too far: no gap where it closes
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    posterior = worlds.correlated(jnp.asarray(rho))
    ellipses = {
        "posterior": circle @ np.asarray(posterior.scale_tril).T,
        "mean field": circle * math.sqrt(1 - rho**2),
    }

    @jax.vmap
    def cost(rho: Any) -> Any:
        q = Normal(jnp.zeros(2), jnp.full(2, 0.5 * jnp.log(1 - rho**2)))
        return worlds.closed_form_kl(q, worlds.correlated(rho))

    figure = figures.mean_field(rho, ellipses, rhos, np.asarray(cost(rhos)))
    price = float(cost(jnp.asarray([rho]))[0])
    return figure, {"cost of mean field at ρ = 0.8, nats": price}


def square(params: Any, z: Any) -> Any:
    return jnp.sum(z**2)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradients(d: int, num_samples: int, mean: Any, scale: Any) -> dict[str, Any]:
    """One-sample estimates [samples] of ∂E‖z‖²/∂μ₁."""
    q = Normal(jnp.full(d, mean), jnp.full(d, jnp.log(scale)))
    keys = jax.random.split(jax.random.key(0), num_samples)
    value = d * (mean**2 + scale**2)
    identity = lambda q: q  # noqa: E731
    score, path = gradients.score_function, gradients.pathwise
    return {
        "score": jax.vmap(lambda k: score(square, identity, q, k).mean[0])(keys),
        "baseline": jax.vmap(lambda k: score(square, identity, q, k, value).mean[0])(keys),
        "pathwise": jax.vmap(lambda k: path(square, identity, q, k).mean[0])(keys),
    }


def gradient_variance() -> tuple[Figure, Numbers]:
    """Pathwise and score-function estimates of the same gradient."""
    mean, scale = 1.0, 1.0
    names = {"score": "score function", "baseline": "… with baseline", "pathwise": "pathwise"}
    dims, measured = np.arange(1, 65), np.array([1, 4, 16])
    found = [_gradients(int(d), 50_000, mean, scale) for d in measured]
    exact = [worlds.square_gradient_variance(int(d), mean, scale) for d in dims]
    estimates = {names[k]: np.asarray(found[-1][k]) for k in names}
    variances = {
        names[k]: (np.array([e[k] for e in exact]), np.array([np.var(f[k]) for f in found]))
        for k in names
    }
    figure = figures.gradient_variance(estimates, 2 * mean, (dims, measured), variances)
    numbers = {"gradient, exact": 2 * mean}
    for k, name in names.items():
        numbers[f"16 latents, {name}: mean"] = float(np.mean(found[-1][k]))
        numbers[f"16 latents, {name}: variance"] = float(np.var(found[-1][k]))
        numbers[f"16 latents, {name}: exact variance"] = exact[15][k]
    return figure, numbers


def ring() -> tuple[Figure, Numbers]:
    """A Gaussian through g(z) = z/10 + z/‖z‖."""
    z = jax.random.normal(jax.random.key(0), (4000, 2))
    x = np.asarray(jax.vmap(worlds.ring)(z))
    radius = np.linspace(0.98, 1.4, 211)
    along = jax.vmap(lambda r: worlds.ring_log_prob(jnp.stack([r, jnp.zeros_like(r)])))
    density = 2 * np.pi * radius * np.exp(along(jnp.asarray(radius)))
    figure = figures.ring(np.asarray(z), x, radius, density)
    norms = np.linalg.norm(x, axis=1)
    return figure, {"ring: least ‖x‖": norms.min(), "ring: mean ‖x‖": norms.mean()}


def noise_and_weight() -> tuple[Figure, Numbers]:
    """Linear VAEs with noise σ² and β = 1, and with noise 1 and β = σ²: exact, and trained."""
    spectrum = np.array(SPECTRUM)
    data = analytic_vae.data_with_spectrum(jax.random.key(0), jnp.asarray(spectrum), 50)
    variance, at = np.geomspace(0.07, 6, 200), np.geomspace(0.15, 5, 11)

    def summary(vae: Any) -> tuple[Any, Any]:
        return vae.rates(data), vae.squared_error(data)

    @jax.vmap
    def best(v: Any) -> tuple[Any, Any]:
        return summary(analytic_vae.best_linear_vae(data, len(spectrum), 0.5 * jnp.log(v)))

    @jax.jit
    @jax.vmap
    def train(noise: Any, beta: Any) -> tuple[Any, Any]:
        start = analytic_vae.random_linear_vae(
            jax.random.key(1), len(spectrum), len(spectrum), 0.5 * jnp.log(noise)
        )
        vae = analytic_vae.train_linear_vae(start, data, beta)
        rates, error = summary(vae)
        return jnp.sort(rates)[::-1], error

    ones = np.ones_like(at)
    trained = {"noise σ², β = 1": train(at, ones), "noise 1, β = σ²": train(ones, at)}
    trained = {name: (np.asarray(r), np.asarray(e)) for name, (r, e) in trained.items()}
    rates, error = map(np.asarray, best(variance))
    figure = figures.noise_and_weight(variance, rates, error, at, trained, spectrum)
    exact = np.asarray(best(at)[0])
    numbers = {
        f"{name}: nats from a trained rate to the exact one, at most": float(
            f"{np.abs(values[0] - exact).max():.0e}"
        )
        for name, values in trained.items()
    }
    return figure, numbers


# name of the picture -> function that draws it, and the numbers beside it
FIGURES = {
    "kl_gaussian": kl_gaussian,
    "acceptance": acceptance,
    "mean_field": mean_field,
    "gradient_variance": gradient_variance,
    "ring": ring,
    "evidence": evidence,
    "noise_and_weight": noise_and_weight,
}


def with_bits(numbers: Numbers) -> Numbers:
    """After each number in nats the same in bits; all to four digits."""
    found = {}
    for text, value in numbers.items():
        found[text] = value
        if text.endswith(", nats"):
            found[text.removesuffix("nats") + "bits"] = value / math.log(2)
    return {text: float(f"{value:.4g}") for text, value in found.items()}


def table(name: str, numbers: Numbers) -> str:
    """One picture's numbers for a terminal."""
    return "\n".join([name, *(f"  {text:<76}{value:>12.4g}" for text, value in numbers.items())])


def main(config: Config) -> int:
    folder = Path(config.output.out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out_dir must be a folder that can be written; {error}") from None
    found = {}
    with jax.enable_x64(True):
        for name, make in FIGURES.items():
            figure, numbers = make()
            plots.save(figure, folder / f"{name}.png")
            found[name] = with_bits(numbers)
            print(table(name, found[name]), flush=True)
    files.write_json(folder / "theory.json", found)
    print(f"pictures   {len(found)} in {folder}")
    return 0
