"""Filters choose as `Tidying` does, and what a person says counts more than they."""

import dataclasses

import numpy as np
import pytest

from fsis_jax.inference.instances import Instances
from fsis_jax.inference.tidying import WHOLE_CELLS, Tidying
from fsis_jax.interactive.shapes import ellipse
from fsis_jax.interactive.state import Added, Filters, Reference, Result
from fsis_jax.preprocess.cropped_mask import CroppedMask


def candidates(count=60, size=(80, 100), seed=0):
    """Discs with holes and specks, many of which overlap."""
    rng = np.random.default_rng(seed)
    crops = []
    for _ in range(count):
        radius = int(rng.integers(3, 12))
        y, x = (int(rng.integers(0, side - 2 * radius)) for side in size)
        mask = ellipse((0.0, 0.0, 2.0 * radius, 2.0 * radius)).mask & (rng.random((2 * radius, 2 * radius)) < 0.9)
        crops.append(CroppedMask(y, x, mask))
    scores = np.sort(rng.random(count).astype(np.float32))[::-1]
    boxes = np.array([crop.extent for crop in crops], np.float32)
    return Instances(boxes, scores, tuple(crops), size)


@pytest.fixture
def result():
    return Result(WHOLE_CELLS(candidates(), 0.0), (Reference("a.png", (1, 2, 30, 40)),))


def same(first, second):
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    assert first.min_score == second.min_score
    for one, two in zip(first.masks, second.masks, strict=True):
        assert one[:2] == two[:2]
        np.testing.assert_array_equal(one.mask, two.mask)


@pytest.mark.parametrize("least", [0.0, 0.3, 0.5, 0.9, 1.5])
@pytest.mark.parametrize("areas", [(0.0, np.inf), (50.0, 200.0)])
def test_filters_give_what_tidying_gives_at_that_threshold(least, areas):
    found = candidates()
    kept = Result(WHOLE_CELLS(found, 0.0), ()).counted(Filters(least, *areas))
    expected = Tidying(min_area=areas[0], max_area=areas[1])(found, least)
    assert least > 1 or 0 < len(expected) < len(found)
    same(kept.without_overlaps(least), expected)
    same(kept.without_overlaps(), kept)  # as `write_outputs` counts


def test_verdicts_count_more_than_filters(result):
    filters = Filters(0.5)
    rows = np.flatnonzero(result.kept(filters)).tolist()
    low = len(result.found) - 1
    assert low not in rows
    said = Result(result.found, (), verdicts={rows[0]: "wrong", rows[1]: "deleted", low: "right"})
    assert np.flatnonzero(said.kept(filters)).tolist() == [*rows[2:], low]
    assert len(said.counted(filters).without_overlaps()) == len(rows) - 1


def test_added_cells_come_first_and_take_their_pixels(result):
    filters, added = Filters(0.0), ellipse((10.0, 10.0, 50.0, 60.0))
    counted = Result(result.found, (), added=(Added(added),)).counted(filters).without_overlaps()
    assert counted.scores[0] == 1
    np.testing.assert_array_equal(counted.masks[0].mask, added.mask)
    assert 1 < len(counted) < 1 + len(result.found)  # those that it covers are gone


def test_a_pixel_tells_its_instance_if_it_is_seen(result):
    row = 0
    crop = result.found.masks[row]
    ys, xs = np.nonzero(crop.mask)
    x, y = crop.x + xs[0] + 0.5, crop.y + ys[0] + 0.5
    assert result.instance_at(x, y, Filters(0.0)) == row
    assert result.instance_at(x, y, Filters(1.5)) is None
    assert Result(result.found, (), verdicts={row: "wrong"}).instance_at(x, y, Filters(1.5)) == row
    assert Result(result.found, (), verdicts={row: "deleted"}).instance_at(x, y, Filters(0.0)) is None
    assert result.instance_at(-1, -1, Filters(0.0)) is None


def test_what_was_said_is_taken_over_where_a_cell_is_found_again(result):
    first, last = 0, len(result.found) - 1
    added = ellipse((0.0, 0.0, 4.0, 4.0))
    earlier = Result(result.found, (), verdicts={first: "wrong", last: "right"}, added=(Added(added),))
    again = Result(result.found.select(np.arange(last)), ()).taken_over(earlier)
    assert again.verdicts == {first: "wrong"}
    assert again.added == (Added(added),)
    assert Result(result.found, ()).taken_over(None).verdicts == {}


def test_what_was_said_of_another_image_in_its_place_is_not_taken_over(result):
    said = {"verdicts": {0: "wrong"}, "added": (Added(ellipse((0.0, 0.0, 4.0, 4.0))),)}
    earlier = Result(result.found, (), image="one", **said)
    assert Result(result.found, (), image="one").taken_over(earlier).verdicts == {0: "wrong"}
    other = Result(result.found, (), image="other").taken_over(earlier)
    assert (other.verdicts, other.added) == ({}, ())
    smaller = dataclasses.replace(result.found.select(np.arange(0)), size=(40, 50))
    assert Result(smaller, ()).taken_over(Result(result.found, (), **said)).added == ()
    kept_before = Result(result.found, (), **said)  # of which is not known in which image
    assert Result(result.found, (), image="one").taken_over(kept_before).verdicts == {0: "wrong"}


def test_an_ellipse_fills_its_box():
    crop = ellipse((3.0, 5.0, 23.0, 15.0))
    assert crop.extent == (3, 5, 23, 15)
    assert crop.mask.any(axis=0).all()
    assert crop.mask.any(axis=1).all()
    assert abs(crop.mask.sum() / (np.pi * 10 * 5) - 1) < 0.05
