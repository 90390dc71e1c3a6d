"""Rectangles by place, compared with all pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsis_jax.inference.neighbours import Neighbours, box_ious


@given(st.integers(0, 60), st.integers(0, 2**32 - 1), st.sampled_from([20, 300]))
def test_every_pair_that_meets_is_found(count, seed, largest):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 500, (count, 2))
    extents = np.concatenate([corners, corners + rng.integers(0, largest, (count, 2))], axis=1)
    near = Neighbours(extents)
    for row, (x1, y1, x2, y2) in enumerate(extents):
        found = near.near(row)
        assert found == sorted(set(found))
        assert all(other < row for other in found)
        for other in range(row):
            a1, b1, a2, b2 = extents[other]
            if max(x1, a1) <= min(x2, a2) and max(y1, b1) <= min(y2, b2):
                assert other in found
        near.add(row)


def test_what_is_far_away_is_not_looked_at():
    extents = np.array([(i * 100, 0, i * 100 + 10, 10) for i in range(50)])
    near = Neighbours(extents)
    for row in range(50):
        near.add(row)
    assert near.near(20) == [20]


def test_what_a_box_shares_with_others():
    others = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [1, 1, 3, 3], [2, 0, 4, 2], [0, 0, 0, 0]], np.float32)
    assert box_ious((0, 0, 2, 2), others).tolist() == pytest.approx([1, 1 / 3, 1 / 7, 0, 0])
    assert box_ious((0, 0, 2, 2), np.zeros((0, 4))).shape == (0,)
