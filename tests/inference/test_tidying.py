"""From candidates to the cells that count."""

import numpy as np
import pytest

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.inference.tidying import Tidying

SIZE = (40, 60)


def instances(*masks, scores=None):
    """Of (y, x, mask)."""
    crops = tuple(CroppedMask(y, x, np.asarray(mask, bool)) for y, x, mask in masks)
    boxes = np.array([crop.extent for crop in crops], np.float32)
    scores = np.linspace(0.9, 0.6, len(crops)) if scores is None else np.asarray(scores)
    return Instances(boxes, scores.astype(np.float32), crops, SIZE, min_score=0.5)


def ring(side, width=2):
    mask = np.ones((side, side), bool)
    mask[width:-width, width:-width] = False
    return mask


def test_holes_are_filled_and_one_piece_is_kept():
    pieces = np.zeros((10, 10), bool)
    pieces[:6, :6] = ring(6)
    pieces[8:, 8:] = True
    found = instances((5, 5, pieces))
    (whole,) = Tidying()(found).masks
    expected = np.zeros((10, 10), bool)
    expected[:6, :6] = True
    np.testing.assert_array_equal(whole.mask, expected)
    np.testing.assert_array_equal(Tidying(whole=False)(found).masks[0].mask, pieces)
    # A bay that opens at a corner only is outside.
    bay = np.ones((5, 5), bool)
    bay[2, 2] = bay[3, 3] = bay[4, 4] = False
    np.testing.assert_array_equal(Tidying()(instances((5, 5, bay))).masks[0].mask, bay)


def test_a_cell_in_the_hole_of_another_keeps_its_pixels():
    """The inner one scores more, so that it is placed first; the hole around it is filled up to it."""
    inner, outer = (14, 14, np.ones((4, 4))), (10, 10, ring(12))
    found = Tidying()(instances(inner, outer))
    assert found.areas().tolist() == [16, 144 - 16]
    labels = found.labels()
    assert (labels[14:18, 14:18] == 1).all()
    assert np.count_nonzero(labels) == 144


def test_areas_and_edges():
    found = instances(
        (0, 5, np.ones((4, 4))),
        (10, 10, np.ones((3, 3))),
        (20, 20, np.ones((10, 10))),
        (36, 50, np.ones((4, 4))),
        # The window reaches the left border, the mask does not.
        (20, 0, np.pad(np.ones((5, 5)), ((0, 0), (1, 0)))),
    )
    assert Tidying()(found).areas().tolist() == [16, 9, 100, 16, 25]
    assert Tidying(exclude_edges=True)(found).areas().tolist() == [9, 100, 25]
    assert Tidying(min_area=16)(found).areas().tolist() == [16, 100, 16, 25]
    assert Tidying(min_area=10, max_area=25)(found).areas().tolist() == [16, 16, 25]


def test_scores():
    found = instances((5, 5, np.ones((4, 4))), (20, 20, np.ones((4, 4))), scores=(0.8, 0.3))
    assert len(Tidying()(found)) == 1
    assert len(Tidying()(found, 0.0)) == 2


def test_of_two_masks_in_one_place_the_worse_is_a_repeat():
    """Half of a mask may lie in better ones, and no more; masks stay whole."""
    found = instances((5, 5, np.ones((8, 8))), (5, 9, np.ones((8, 8))), (5, 7, np.ones((8, 6))))
    assert found.without_repeats(0.5).areas().tolist() == [64, 64]
    assert found.without_repeats(0.4).areas().tolist() == [64]
    assert found.without_repeats(1.0).areas().tolist() == [64, 64, 48]


@pytest.mark.parametrize("areas", [(-1, 5), (5, 4), (float("nan"), 5)])
def test_areas_that_make_no_sense(areas):
    with pytest.raises(FsisError, match="give 0 or more, the least first"):
        Tidying(min_area=areas[0], max_area=areas[1])
