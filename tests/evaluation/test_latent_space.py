"""Ways through latent space: end points, norms, angles, and neighbours by brute force."""

import numpy as np
import pytest

from vae_jax.evaluation import latent_space

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 20))
SHIFT = np.array([1.0, 0.0])


@pytest.mark.parametrize("way", [latent_space.linear, latent_space.spherical])
@pytest.mark.parametrize("dim", [1, 2, 20])
def test_ends_are_ends(way, dim):
    path = way(A[:dim], B[:dim], 7)
    assert path.shape == (7, dim)
    np.testing.assert_allclose(path[[0, -1]], [A[:dim], B[:dim]], rtol=1e-12)


def test_linear_is_even():
    steps = np.diff(latent_space.linear(A, B, 9), axis=0)
    np.testing.assert_allclose(steps, np.tile((B - A) / 8, (8, 1)), rtol=1e-12)


def test_spherical_turns_evenly_at_norms_in_between():
    path = latent_space.spherical(A, 3 * B, 9)
    norms = np.linalg.norm(path, axis=1)
    np.testing.assert_allclose(norms, np.linspace(norms[0], norms[-1], 9), rtol=1e-12)
    directions = path / norms[:, None]
    cosines = np.sum(directions[1:] * directions[:-1], axis=1)
    whole = np.arccos(directions[0] @ directions[-1])
    np.testing.assert_allclose(np.arccos(cosines), whole / 8, rtol=1e-10)
    plane = np.linalg.matrix_rank(path, tol=1e-10)
    assert plane == 2  # a great circle


def test_spherical_of_a_quarter_turn():
    path = latent_space.spherical(np.array([2.0, 0.0]), np.array([0.0, 2.0]), 3)
    np.testing.assert_allclose(path[1], np.sqrt([2, 2]), rtol=1e-12)


@pytest.mark.parametrize("end", [A, 2 * A, -A, 0 * A, A * (1 + 1e-9)])
def test_without_one_way_to_turn_it_is_straight(end):
    for ends in ((A, end), (end, A)):
        expected = latent_space.linear(*ends, 5)
        np.testing.assert_allclose(latent_space.spherical(*ends, 5), expected, atol=1e-7)


def test_a_traversal_moves_one_unit():
    values = np.linspace(-3, 3, 5)
    path = latent_space.traversal(A, 4, values)
    np.testing.assert_array_equal(path[:, 4], values)
    np.testing.assert_array_equal(np.delete(path, 4, 1), np.tile(np.delete(A, 4), (5, 1)))


def test_neighbours_by_brute_force():
    points = RNG.normal(size=(700, 3))
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    expected = np.argsort(distance, axis=1)[:, 1:5]  # the nearest of all is the point itself
    np.testing.assert_array_equal(
        np.sort(latent_space.neighbours(points, 4)), np.sort(expected, axis=1)
    )


def test_disagreement_is_the_entropy_of_the_neighbours():
    """Two clusters of one label each, one point with half of its neighbours in either."""
    left, right = RNG.normal(size=(2, 30, 2)) / 100
    points = np.concatenate([left - SHIFT, right + SHIFT, [[0.0, 0.0]]])
    labels = np.array([0] * 30 + [1] * 30 + [1])
    found = latent_space.disagreement(points, labels, k=60)
    assert found[-1] == pytest.approx(np.log(2))
    assert np.argmax(latent_space.disagreement(points, labels, k=20)) == 60
    assert latent_space.disagreement(points, labels, k=5)[:30].max() == 0
    assert latent_space.disagreement(points, np.arange(61), k=4) == pytest.approx(np.log(4))
