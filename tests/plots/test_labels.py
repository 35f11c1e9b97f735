"""Labels: none covers another or a point as long as there is room."""

import numpy as np
import pytest

from vae_jax.plots import labels

NOTHING = np.zeros((0, 4))
FRAME = np.array([0.0, 0.0, 400.0, 300.0])


def covered(centres, sizes, others=NOTHING):
    """How many of the labels overlap a later label or another box."""
    own = np.concatenate([labels.boxes(c[None], s) for c, s in zip(centres, sizes, strict=True)])
    later = [np.concatenate([own[i + 1 :], others]) for i in range(len(own))]
    return sum(labels._hits(box[None], rest)[0] > 0 for box, rest in zip(own, later, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_labels_keep_off_one_another_and_the_points(seed):
    points = np.random.default_rng(seed).uniform((40, 40), (360, 260), (9, 2))
    sizes = [(60.0, 18.0)] * len(points)
    solid = labels.boxes(points, (10, 10))
    spots = [labels.around(p[None], s) for p, s in zip(points, sizes, strict=True)]
    centres = labels.settle(spots, sizes, solid, NOTHING, FRAME)
    assert covered(centres, sizes, solid) == 0
    assert np.all(centres >= (30, 9)) and np.all(centres <= (370, 291))


def test_the_first_free_candidate_wins_and_lines_cost_a_little():
    spots = [np.array([[50.0, 50], [150, 50], [250, 50]])]
    sizes, line = [(40.0, 10.0)], labels.along(np.array([[0.0, 50], [60, 50]]))
    settle = labels.settle
    np.testing.assert_array_equal(settle(spots, sizes, NOTHING, NOTHING, FRAME), [[50, 50]])
    np.testing.assert_array_equal(settle(spots, sizes, NOTHING, line, FRAME), [[150, 50]])
    point = labels.boxes(np.array([[150.0, 50], [250, 50]]), (4, 4))
    np.testing.assert_array_equal(settle(spots, sizes, point, line, FRAME), [[50, 50]])


def test_a_label_beside_a_point_does_not_cover_it():
    point, size = np.array([[100.0, 100.0]]), (50.0, 20.0)
    spots = labels.around(point, size)
    assert not labels._hits(labels.boxes(spots, size), labels.boxes(point, (10, 10))).any()
    right = labels.around(point, size, (0,))
    assert np.all(right[:, 1] == 100) and np.all(right[:, 0] > 125)


def test_boxes_along_a_line_leave_no_gap():
    corners = np.array([[0.0, 0.0], [30.0, 40.0], [30.0, 0.0]])
    centres = labels.along(corners).reshape(-1, 2, 2).mean(axis=1)
    steps = np.hypot(*np.diff(centres, axis=0).T)
    assert steps.max() <= 5 and {(0, 0), (30, 40), (30, 0)} <= set(map(tuple, centres.round(9)))
