"""Metrics of single segmentations: on shifted discs, whose overlap is known, and on the docstring's example."""

import doctest
import math

import numpy as np
import pytest

from fsis_jax.evaluation import instance_metrics
from fsis_jax.evaluation.instance_metrics import Matching, aggregated_jaccard, match, matched_pairs, total
from fsis_jax.inference.instances import CroppedMask, Instances

SIZE = (120, 130)


def _discs(centres: list[tuple[int, int]], radius: float, ids: list[int] | None = None) -> np.ndarray:
    """Label image of discs; later ones lie on top."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    labels = np.zeros(SIZE, np.int32)
    for number, (cy, cx) in zip(ids or range(1, len(centres) + 1), centres, strict=True):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return labels


def _lens_iou(radius: float, distance: float) -> float:
    """IoU of two discs of one radius: the lens that they share over their union."""
    half = distance / 2
    lens = 2 * radius**2 * math.acos(half / radius) - distance * math.sqrt(radius**2 - half**2)
    return lens / (2 * math.pi * radius**2 - lens)


GRID = [(20, 20), (20, 60), (20, 100), (60, 20), (60, 60), (60, 100)]


def test_docstring() -> None:
    assert doctest.testmod(instance_metrics).failed == 0
    assert doctest.testmod(instance_metrics).attempted >= 8


def test_perfect_whatever_the_ids() -> None:
    true, predicted = _discs(GRID, 9), _discs(GRID, 9, ids=[60, 5, 400, 33, 2, 1])
    for threshold in (0.1, 0.5, 1.0):
        result = match(true, predicted, iou_threshold=threshold)
        assert result == Matching(6, 0, 0, 6.0)
        assert result.ap == result.precision == result.recall == result.f1 == result.panoptic_quality == 1.0
    assert aggregated_jaccard(true, predicted) == 1.0


@pytest.mark.parametrize("shift", [1, 3, 5, 8])
def test_shifted_discs(shift: int) -> None:
    radius = 15.0
    centres = [(20, 20), (20, 80), (90, 40)]
    true, predicted = _discs(centres, radius), _discs([(y, x + shift) for y, x in centres], radius)
    iou = match(true, predicted, iou_threshold=0.01).mean_iou
    assert iou == pytest.approx(_lens_iou(radius, shift), abs=0.01)
    assert match(true, predicted, iou_threshold=iou - 1e-6).ap == 1.0
    above = match(true, predicted, iou_threshold=iou + 1e-6)
    assert (above.true_positives, above.false_positives, above.false_negatives) == (0, 3, 3)
    assert above.ap == above.f1 == above.panoptic_quality == 0.0
    assert match(true, predicted, iou_threshold=0.2).panoptic_quality == pytest.approx(iou)
    assert aggregated_jaccard(true, predicted) == pytest.approx(iou)


def test_missed_and_extra_discs() -> None:
    true, predicted = _discs(GRID[:4], 9), _discs(GRID[1:6], 9)
    result = match(true, predicted)
    assert (result.true_positives, result.false_positives, result.false_negatives) == (3, 2, 1)
    assert result.ap == pytest.approx(3 / 6)
    assert result.precision == pytest.approx(3 / 5)
    assert result.recall == pytest.approx(3 / 4)
    assert result.f1 == pytest.approx(6 / 9)
    assert result.panoptic_quality == pytest.approx(6 / 9)
    assert aggregated_jaccard(true, predicted) == pytest.approx(3 / 6)


def test_a_merged_pair_is_one_prediction() -> None:
    """Two cells under one object: AJI lets both take it, the matching only one."""
    true = np.zeros((10, 20), np.int32)
    true[:, :10], true[:, 10:] = 1, 2
    merged = np.ones_like(true)
    result = match(true, merged)  # IoU 0.5 with either
    assert (result.true_positives, result.false_positives, result.false_negatives) == (1, 0, 1)
    assert aggregated_jaccard(true, merged) == pytest.approx(200 / 400)
    assert aggregated_jaccard(merged, true) == pytest.approx(100 / 300)


def test_the_best_pair_is_matched_first() -> None:
    true = np.array([[1, 1, 1, 1, 2, 2]])
    predicted = np.array([[3, 3, 4, 4, 4, 4]])  # IoU: 1-3 2/4, 1-4 2/6, 2-4 2/4
    assert match(true, predicted, iou_threshold=0.3) == Matching(2, 0, 0, 1.0)


def test_the_pairs_are_those_that_are_counted() -> None:
    true = np.array([[0, 1, 1, 1, 1, 0, 7, 7, 0, 9]])
    predicted = np.array([[0, 3, 3, 3, 0, 2, 5, 5, 5, 0]])
    for side in (true, Instances.from_labels(true)):
        rows, columns = matched_pairs(side, predicted, iou_threshold=0.6)
        assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (1, 2)]  # by ids: 1-3, 7-5
    rows, columns = matched_pairs(true, np.zeros_like(true))
    assert rows.shape == columns.shape == (0,)


@pytest.mark.parametrize("seed", range(3))
def test_instances_and_label_images_give_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = _discs(rng.integers(5, 115, (20, 2)).tolist(), 9)
    predicted = _discs(rng.integers(5, 115, (20, 2)).tolist(), 11)
    sides = [(true, predicted), (Instances.from_labels(true), predicted), (true, Instances.from_labels(predicted))]
    results = [match(*side, iou_threshold=0.2) for side in sides]
    assert results[0].true_positives > 0
    for side, result in zip(sides, results, strict=True):
        assert result.summed_iou == pytest.approx(results[0].summed_iou)
        assert (result.ap, result.recall) == (results[0].ap, results[0].recall)
        assert aggregated_jaccard(*side) == pytest.approx(aggregated_jaccard(true, predicted))


def test_overlapping_instances_count_in_full() -> None:
    square = np.ones((10, 10), bool)
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    twice = Instances(boxes, np.ones(2, np.float32), (CroppedMask(0, 0, square), CroppedMask(0, 0, square)), SIZE)
    true = np.zeros(SIZE, np.uint8)
    true[:10, :10] = 255
    result = match(true, twice)
    assert (result.true_positives, result.false_positives, result.false_negatives) == (1, 1, 0)
    assert aggregated_jaccard(true, twice) == pytest.approx(100 / 200)


def test_empty_sides() -> None:
    none, some = np.zeros(SIZE, np.int32), _discs(GRID, 9)
    assert match(none, some) == Matching(0, 6, 0, 0.0)
    assert match(some, none) == Matching(0, 0, 6, 0.0)
    assert match(some, none).f1 == aggregated_jaccard(some, none) == aggregated_jaccard(none, some) == 0.0
    nothing = match(none, none)
    assert nothing == Matching(0, 0, 0, 0.0)
    assert all(math.isnan(v) for v in (nothing.ap, nothing.f1, nothing.mean_iou, aggregated_jaccard(none, none)))
    assert match(Instances.from_labels(none), some) == Matching(0, 6, 0, 0.0)
    full = np.full(SIZE, 4, np.int32)
    assert match(full, full) == Matching(1, 0, 0, 1.0)


def test_total_sums_counts() -> None:
    first, second = Matching(2, 1, 0, 1.5), Matching(1, 0, 3, 0.5)
    assert total([first, second]) == Matching(3, 1, 3, 2.0)
    assert total([first, second]).panoptic_quality == pytest.approx(2.0 / (3 + 0.5 + 1.5))
    assert total([]) == Matching(0, 0, 0, 0.0)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="different sizes"):
        match(np.zeros((3, 4), int), np.zeros((4, 3), int))
    with pytest.raises(ValueError, match="iou_threshold=0"):
        match(np.zeros((3, 4), int), np.zeros((3, 4), int), iou_threshold=0)
