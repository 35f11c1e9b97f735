"""The drawing for `experiments.theory`: arrays in, a matplotlib figure out."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Real
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from vae_jax import plots

BLUE, ORANGE, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "#999999"
SMALL, NORMAL = 7, 8  # fonts, in points
KEY = {"fontsize": SMALL, "frameon": False, "handlelength": 1.6, "borderaxespad": 0.2}
DOTS = {"linestyle": "", "marker": "o", "markersize": 3, "markeredgewidth": 0}
RINGS = {"linestyle": "", "marker": "o", "markersize": 5, "markerfacecolor": "none"}
RINGS["markeredgewidth"] = 0.8
CROSSES = {"linestyle": "", "marker": "x", "markersize": 3, "markeredgewidth": 0.8}

Line = Real[np.ndarray, "_"]  # whole numbers or not, of any length


def label(axes: Axes, x: str, y: str, title: str = "") -> None:
    axes.set_xlabel(x, fontsize=NORMAL, labelpad=2)
    axes.set_ylabel(y, fontsize=NORMAL, labelpad=2)
    axes.set_title(title, fontsize=NORMAL, pad=4)


def in_bits(axes: Axes) -> None:
    """A second axis on the right: what is in nats on the left, in bits."""
    functions = (lambda nats: nats / math.log(2), lambda bits: bits * math.log(2))
    bits = axes.secondary_yaxis("right", functions=functions)
    bits.set_ylabel("bits", fontsize=NORMAL, labelpad=2)
    bits.tick_params(labelsize=SMALL, width=0.5, length=2, pad=2)
    bits.spines[:].set_linewidth(0.5)


def kl_gaussian(scale: Line, logarithm: Line, quadratic: Line, slope: Line) -> Figure:
    """KL(N(0, σ²)‖N(0, 1)) as the sum of its two terms, and its derivative by sign."""
    figure, (left, right) = plots.panels(2, 0.7, right=110)
    total = logarithm + quadratic
    left.axhline(0, color=GREY, linewidth=0.5)
    left.plot(scale, logarithm, color=BLUE, linewidth=1, label="−log σ")
    left.plot(scale, quadratic, color=ORANGE, linewidth=1, label="σ²/2 − ½")
    left.plot(scale, total, color=BLACK, linewidth=1.5, label="their sum, the KL")
    left.plot(1, 0, color=BLACK, **DOTS)
    left.set_xlim(scale[0], scale[-1])
    left.legend(loc="upper left", **KEY)
    label(left, "σ", "nats", "KL(N(0, σ²) ‖ N(0, 1))")
    in_bits(left)
    falls, rises = slope <= 0, slope >= 0
    right.axhline(0, color=GREY, linewidth=0.5)
    right.fill_between(scale, slope, where=falls, color=BLUE, alpha=0.25, linewidth=0)
    right.fill_between(scale, slope, where=rises, color=ORANGE, alpha=0.25, linewidth=0)
    right.plot(scale, slope, color=BLACK, linewidth=1.5)
    right.plot(1, 0, color=BLACK, **DOTS)
    place = {"fontsize": SMALL, "ha": "center", "va": "center"}
    right.text(1.12, -1.0, "σ < 1: −log σ\nis stronger", color=BLUE, **place)
    right.text(1.28, 1.05, "σ > 1: σ²/2\nis stronger", color=ORANGE, **place)
    right.set_xlim(scale[0], scale[-1])
    label(right, "σ", "nats per unit of σ", "its derivative, σ − 1/σ")
    return figure


def acceptance(
    generated: Float[np.ndarray, "n h w c"],
    accepted: Float[np.ndarray, "n h w c"],
    pixels: tuple[Line, Line],
    draws: tuple[Line, Line],
    counts: tuple[Line, Line],
) -> Figure:
    """Images of the wanted class both ways; random images needed for one; how noisy it is then.

    `pixels` and `draws` are (exact, measured); `counts` are the probabilities of 0, 1, 2, …
    flipped pixels among (generated, accepted) images.
    """
    figure, (images, needed, noise) = plots.panels(3, 1.0)
    rows = [plots.tile(x, 2, len(x) // 2, 1, 0.25)[..., 0] for x in (generated, accepted)]
    sheet = np.concatenate([rows[0], np.zeros_like(rows[0][:2]), rows[1]])
    images.imshow(sheet, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    h = len(sheet)
    images.set(xticks=[], yticks=[h / 4 - 1, 3 * h / 4])
    images.set_yticklabels(["generated", "accepted"], rotation=90, va="center", fontsize=NORMAL)
    images.tick_params(length=0)
    images.set_title("the wanted figure is a 2", fontsize=NORMAL, pad=4)
    images.spines[:].set_visible(False)
    needed.plot(pixels[0], draws[0], color=ORANGE, linewidth=1, label="draw until accepted")
    needed.plot(pixels[1], draws[1], color=ORANGE, **DOTS)
    needed.plot(pixels[0], np.ones_like(pixels[0]), color=BLUE, linewidth=1, label="generate")
    needed.set_yscale("log")
    needed.legend(loc="upper left", **KEY)
    label(needed, "pixels", "random images for one wanted", "exact; dots: counted")
    h = np.arange(len(counts[0]))
    for p, colour, name in zip(counts, (BLUE, ORANGE), ("generated", "accepted"), strict=True):
        noise.stairs(p, np.arange(len(p) + 1) - 0.5, fill=True, color=colour, alpha=0.5, label=name)
    noise.set_xlim(-0.5, h[np.cumsum(counts[1]) < 0.9999][-1] + 1.5)
    noise.set_ylim(0, 1.35 * max(map(np.max, counts)))
    noise.legend(loc="upper right", **KEY)
    label(noise, f"flipped pixels of {len(h) - 1}", "probability", "what is drawn")
    return figure


def mean_field(
    rho: float, ellipses: Mapping[str, Float[np.ndarray, "n 2"]], rhos: Line, cost: Line
) -> Figure:
    """A correlated posterior and its mean-field approximation, and the price in nats and bits."""
    figure, (plane, price) = plots.panels(2, 0.7, right=110)
    styles = (("-", BLACK), ("-", BLUE))
    for (name, line), (style, colour) in zip(ellipses.items(), styles, strict=True):
        for k in (1, 2):
            text = name if k == 1 else None
            plane.plot(*(k * line.T), linestyle=style, color=colour, linewidth=1.2, label=text)
    plane.set(xlim=(-3.6, 3.6), ylim=(-2.52, 2.52))
    plane.legend(loc="upper left", **KEY)
    label(plane, "z₁", "z₂", f"1 and 2 standard deviations, ρ = {rho:g}")
    price.plot(rhos, cost, color=BLACK, linewidth=1.5)
    price.plot(rho, np.interp(rho, rhos, cost), color=BLACK, **DOTS)
    price.set(xlim=(0, 1), ylim=(0, None))
    label(price, "correlation ρ of two latents", "nats", "cost: −½ log(1 − ρ²)")
    in_bits(price)
    return figure


def gradient_variance(
    estimates: Mapping[str, Line],
    exact: float,
    dims: tuple[Line, Line],
    variances: Mapping[str, tuple[Line, Line]],
) -> Figure:
    """One-sample gradients, and their variance over the number of latents: (exact, measured)."""
    figure, (left, right) = plots.panels(2, 0.7)
    colours = (ORANGE, GREEN, BLUE)
    low, high = np.percentile(estimates["score function"], [1, 99])
    edges = np.linspace(low, high, 141)
    for (name, values), colour in zip(estimates.items(), colours, strict=True):
        density = np.histogram(values, edges)[0] / len(values) / np.diff(edges)
        left.stairs(density, edges, color=colour, linewidth=1, label=name)
    left.axvline(exact, color=BLACK, linewidth=0.8, linestyle="--", label="the gradient")
    left.set_yscale("log")
    left.set_xlim(edges[1], edges[-2])
    left.legend(loc="upper right", **KEY)
    label(left, "estimate from one sample", "density", f"{dims[1][-1]:g} latents")
    for (name, (line, dots)), colour in zip(variances.items(), colours, strict=True):
        right.plot(dims[0], line, color=colour, linewidth=1, label=name)
        right.plot(dims[1], dots, color=colour, **DOTS)
    right.set(xscale="log", yscale="log", ylim=(1, None))
    right.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
    right.minorticks_off()
    right.legend(loc="upper left", **KEY)
    label(right, "latents", "variance of one estimate", "exact; dots: measured")
    return figure


def ring(
    z: Float[np.ndarray, "n 2"], x: Float[np.ndarray, "n 2"], radius: Line, density: Line
) -> Figure:
    """Gaussian points, coloured by their angle; where g takes them; the density of the radius."""
    figure, (before, after, radial) = plots.panels(3, 1.0)
    hue = np.arctan2(z[:, 1], z[:, 0]) / math.tau % 1
    colour = {"c": hsv_to_rgb(np.stack([hue, 0 * hue + 0.7, 0 * hue + 0.8], axis=1)), "s": 2}
    for axes, points, limit in ((before, z, 3.6), (after, x, 1.6)):
        axes.scatter(*points.T, linewidths=0, rasterized=True, **colour)
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit))
    label(before, "z₁", "z₂", "z ~ N(0, I)")
    label(after, "x₁", "x₂", "g(z) = z/10 + z/‖z‖")
    edges = np.linspace(radius[0], radius[-1], 41)
    norms = np.linalg.norm(x, axis=1)
    counts = np.histogram(norms, edges)[0] / len(x) / np.diff(edges)
    radial.stairs(counts, edges, fill=True, color=BLUE, alpha=0.4, label="points")
    radial.plot(radius, density, color=BLACK, linewidth=1, label="exact")
    radial.set(xlim=(radius[0], radius[-1]), ylim=(0, None))
    radial.legend(loc="upper right", **KEY)
    label(radial, "‖x‖", "density", "change of variables")
    return figure


def evidence(
    counts: Line,
    errors: Mapping[str, tuple[Line, float]],
    dims: Line,
    needed: Mapping[str, Float[np.ndarray, "quantiles n"]],
) -> Figure:
    """Error of log P(X) over the number of samples: measured, and by the delta method where that is
    below 1 nat; and the samples for a tenth of P(X), the median over images and 80 % of them.
    """
    figure, (left, right) = plots.panels(2, 0.7, right=110)
    colours = ("#F0B27A", "#E67E22", "#A04000", BLUE)
    for (name, (dots, variance)), colour in zip(errors.items(), colours, strict=True):
        theory = np.sqrt(variance / counts)
        left.plot(counts, np.where(theory < 1, theory, np.nan), color=colour, linewidth=1)
        left.plot(counts, dots, color=colour, label=name, **DOTS)
    left.set(xscale="log", yscale="log", ylim=(1e-4, None))  # the key's place is below
    left.legend(loc="lower left", **KEY)
    label(left, "samples of z", "error of log P(X), nats", "dots: measured; lines: √(variance/n)")
    in_bits(left)
    for (name, (low, median, high)), colour in zip(needed.items(), (ORANGE, BLUE), strict=True):
        right.fill_between(dims, low, high, color=colour, alpha=0.25, linewidth=0)
        right.plot(dims, median, color=colour, linewidth=1.2, label=name)
    right.set_yscale("log")
    right.set_xlim(dims[0], dims[-1])
    right.set_xticks([1, 5, 10, 15, 20])
    right.legend(loc="upper left", **KEY)
    label(right, "latents", "samples of z", "needed for P(X) within 10 %")
    return figure


def noise_and_weight(
    variance: Line,
    rates: Float[np.ndarray, "n latents"],
    error: Line,
    at: Line,
    trained: Mapping[str, tuple[Float[np.ndarray, "m latents"], Line]],
    spectrum: Line,
) -> Figure:
    """Each latent's rate over σ² = β; total rate over error. Lines are exact, marks are trained.

    `trained` is name -> (rates, squared error) at the variances `at`.
    """
    figure, (left, right) = plots.panels(2, 0.7, right=110)
    for j, colour in enumerate((BLACK, BLUE, ORANGE, GREEN)):
        left.plot(variance, rates[:, j], color=colour, linewidth=1)
        x = variance[3]
        at_x = (x, np.interp(x, variance, rates[:, j]) + 0.05)
        left.annotate(
            f"{'' if j else 'λ = '}{spectrum[j]:g}", at_x, color=colour, fontsize=SMALL, va="bottom"
        )
    right.plot(error, rates.sum(axis=1), color=BLACK, linewidth=1, label="Shannon's bound")
    for (name, (rate, square)), style in zip(trained.items(), (RINGS, CROSSES), strict=True):
        colour = BLACK if style is RINGS else ORANGE
        left.plot(at, rate, color=colour, **style)
        left.lines[-1].set_label(name)
        right.plot(square, rate.sum(axis=1), color=colour, label=name, **style)
    left.set_xscale("log")
    left.set(xlim=(variance[0], variance[-1]), ylim=(-0.1, 1.12 * rates.max()))
    left.set_xticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
    left.minorticks_off()
    left.legend(loc="upper right", **KEY)
    label(left, "σ² or β", "nats", "rate of each latent, ½ log λ/σ²")
    in_bits(left)
    right.legend(loc="upper right", **KEY)
    label(right, "squared error", "nats", "total rate")
    in_bits(right)
    return figure
