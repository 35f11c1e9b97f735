"""How well single latents stand for single factors, where the factors of the data are known.

Functions of codes [n, latents], such as posterior means, and factors [n, factors], whole numbers;
each score is in [0, 1], 1 best. Pure NumPy and scikit-learn: no model is seen.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vae_jax.settings import UserError

Codes = Float[np.ndarray, "n latents"]
Factors = np.ndarray  # whole numbers [n, factors]


def check_factors(factors: np.ndarray, num_examples: int) -> Factors:
    """The factors as whole numbers [n, factors]; UserError where there are none that vary."""
    factors = np.asarray(factors)
    if factors.ndim != 2 or len(factors) != num_examples or factors.shape[1] == 0:
        raise UserError(
            f"factors must be whole numbers of shape ({num_examples}, number of factors), a row "
            f"for each image; got shape {factors.shape}"
        )
    if factors.dtype.kind not in "biuf" or not np.all(factors == np.rint(factors)):
        raise UserError("factors must be whole numbers: number the values of each factor")
    factors = factors.astype(np.int64)
    if np.any(factors.min(axis=0) == factors.max(axis=0)):
        raise UserError("every factor must take at least two values among the images")
    return factors


def _discretise(codes: Codes, bins: int) -> Int[np.ndarray, "n latents"]:
    """Equal-width bins over each latent's range."""
    edges = [np.linspace(c.min(), c.max(), bins + 1)[1:-1] for c in codes.T]
    columns = [np.digitize(c, e) for c, e in zip(codes.T, edges, strict=True)]
    return np.stack(columns, axis=1)


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-np.sum(p * np.log(p)))


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """I(a; b) in nats of two sequences of whole numbers, from their counts."""
    _, a = np.unique(a, return_inverse=True)
    _, b = np.unique(b, return_inverse=True)
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    return _entropy(table.sum(1)) + _entropy(table.sum(0)) - _entropy(table.ravel())


def mig(codes: Codes, factors: Factors, bins: int = 20) -> float:
    """Mutual information gap (Chen et al. 2018): the mean over factors v_k of

        [I(z_(1); v_k) − I(z_(2); v_k)] / H(v_k),

    z_(1) and z_(2) the two latents that know most about v_k. The information is that of counts in
    `bins` equal bins of each latent.
    """
    factors = check_factors(factors, len(codes))
    binned = _discretise(codes, bins)
    gaps = []
    for v in factors.T:
        known = sorted(mutual_information(z, v) for z in binned.T)
        second = known[-2] if len(known) > 1 else 0.0
        gaps.append((known[-1] - second) / _entropy(np.unique(v, return_counts=True)[1]))
    return float(np.mean(gaps))


class DCI(NamedTuple):
    """disentanglement: each latent knows one factor; completeness: each factor is known by one
    latent; informativeness: how well the codes predict the factors, R² on held-out data.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def dci(codes: Codes, factors: Factors, seed: int = 0) -> DCI:
    """Eastwood & Williams (2018), §2, with random forests for the importances R_dk.

    D = Σ_d ρ_d [1 − H_K(P_d·)], P_dk = R_dk/Σ_k R_dk, entropies to the base of the number of
    choices, ρ_d latent d's share of all importance; completeness averages over factors likewise.
    Informativeness here is the mean R², cut at 0, on a quarter held out (the paper: an error).
    """
    from sklearn.ensemble import RandomForestRegressor

    factors = check_factors(factors, len(codes))
    order = np.random.default_rng(seed).permutation(len(codes))
    train, test = np.split(order, [max(1, len(order) * 3 // 4)])
    columns, scores = [], []
    for v in factors.T:
        forest = RandomForestRegressor(n_estimators=20, max_depth=10, random_state=seed)
        forest.fit(codes[train], v[train])
        columns.append(forest.feature_importances_)
        scores.append(max(float(forest.score(codes[test], v[test])), 0.0))
    importance = np.stack(columns, axis=1)
    return DCI(_concentration(importance), _concentration(importance.T), float(np.mean(scores)))


def _concentration(importance: np.ndarray) -> float:
    """Rows' mean of 1 − entropy, weighted by the rows' share of the total."""
    totals = importance.sum(axis=1)
    base = np.log(importance.shape[1]) if importance.shape[1] > 1 else 1.0
    rows = [1 - _entropy(row) / base if total > 0 else 0.0
            for row, total in zip(importance, totals, strict=True)]  # fmt: skip
    return float(np.average(rows, weights=totals)) if totals.sum() > 0 else 0.0


def factor_vae_score(
    codes: Codes, factors: Factors, votes: int = 800, examples: int = 64, seed: int = 0
) -> float:
    """Kim & Mnih (2018), §4: the accuracy of a majority vote.

    One vote: hold one factor fixed, take `examples` images that share its value, and point at the
    latent whose variance, relative to that over all images, is least. The classifier says which
    factor was fixed from the latent alone. It is scored on votes that it was not made of (half of
    them; the paper counts the votes themselves). Latents that hardly vary are left out.
    """
    factors = check_factors(factors, len(codes))
    rng = np.random.default_rng(seed)
    scale = codes.std(axis=0)
    used = scale > 0.05 * scale.max()
    if not scale.max() > 0:
        return 0.0
    z = codes[:, used] / scale[used]
    table = np.zeros((2, z.shape[1], factors.shape[1]))
    for i in range(votes):
        k = rng.integers(factors.shape[1])
        value = factors[rng.integers(len(factors)), k]
        chosen = rng.choice(np.flatnonzero(factors[:, k] == value), examples)
        table[i % 2, np.argmin(z[chosen].var(axis=0)), k] += 1
    guess = table[0].argmax(axis=1)
    return float(table[1][np.arange(len(guess)), guess].sum() / table[1].sum())
