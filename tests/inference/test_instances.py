"""Instances: pasting, run lengths, label images."""

import dataclasses
import time

import numpy as np
import pycocotools.mask
import pytest

from fsis_jax import ops
from fsis_jax.inference.instances import CroppedMask, Instances

SIZE = (60, 80)


def _full(instances: Instances) -> np.ndarray:
    """(N, H, W) bool."""
    images = np.zeros((len(instances), *instances.size), bool)
    for image, crop in zip(images, instances.masks, strict=True):
        image[crop.slices] = crop.mask
    return images


def _random_output(count: int, size: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-8, [size[1], size[0]], (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.3, 30, (count, 2))], axis=1).astype(np.float32)
    masks = rng.uniform(0, 1, (count, 7, 7)).astype(np.float32)
    return boxes, rng.uniform(0, 1, count).astype(np.float32), rng.uniform(0, 1, count) < 0.8, masks


def _squares(*specs: tuple[int, int, int, float]) -> Instances:
    """Squares (y, x, side, score), given by descending score."""
    crops = tuple(CroppedMask(y, x, np.ones((side, side), bool)) for y, x, side, _ in specs)
    boxes = np.array([[x, y, x + side, y + side] for y, x, side, _ in specs], np.float32).reshape(-1, 4)
    return Instances(boxes, np.array([spec[3] for spec in specs], np.float32), crops, SIZE)


def test_from_padded_sorts_and_selects() -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 0, 0, 0], [10, 5, 20, 15], [50, 50, 75, 65]], np.float32)
    scores = np.array([0.2, 0.99, 0.9, 0.5], np.float32)
    found = Instances.from_padded(
        boxes, scores, np.array([True, False, True, True]), np.ones((4, 14, 14)), SIZE, category="Hela"
    )
    np.testing.assert_allclose(found.scores, [0.9, 0.5, 0.2])
    np.testing.assert_array_equal(found.boxes, [[10, 5, 20, 15], [50, 50, 75, 60], [0, 0, 4, 4]])
    np.testing.assert_array_equal(found.areas(), [100, 250, 16])
    assert found.category == "Hela"
    assert found.masks[0].slices == (slice(5, 15), slice(10, 20))


def test_inclusive_boxes_end_one_pixel_further() -> None:
    """The box of the result, and the mask, hold the last pixel; at the border there is none beyond."""
    boxes = np.array([[20, 10, 39, 19], [70, 50, 79, 59]], np.float32)
    masks, both = np.ones((2, 4, 4)), np.ones(2, bool)
    found = Instances.from_padded(boxes, np.ones(2), both, masks, SIZE, offset=1)
    np.testing.assert_array_equal(found.boxes, [[20, 10, 40, 20], [70, 50, 80, 60]])
    assert found.areas().tolist() == [200, 100]
    assert Instances.from_padded(boxes, np.ones(2), both, masks, SIZE).areas().tolist() == [171, 81]


def test_masks_are_read_bilinearly_at_pixel_centres() -> None:
    # Two cells over 8 pixels: probability 1 at x = 2, 0 at x = 6, so 0.5 is crossed at x = 4.
    mask = np.array([[[1.0, 0.0], [1.0, 0.0]]])
    found = Instances.from_padded(np.array([[0, 0, 8, 8]]), np.ones(1), np.ones(1, bool), mask, SIZE)
    np.testing.assert_array_equal(found.masks[0].mask[0], [True] * 4 + [False] * 4)
    # At threshold 0.8 it is crossed at x = 2.8: pixel 2, with its centre at 2.5, is the last one inside.
    found = Instances.from_padded(np.array([[0, 0, 8, 8]]), np.ones(1), np.ones(1, bool), mask, SIZE, 0.8)
    np.testing.assert_array_equal(found.masks[0].mask[0], [True] * 3 + [False] * 5)


def _legacy(*rows: tuple[float, float, float, float], cells: int = 2) -> Instances:
    """Full masks of `cells` x `cells` over these inclusive boxes, pasted as the PyTorch project does."""
    boxes, scores = np.array(rows, np.float32), np.arange(len(rows), 0, -1, dtype=np.float32)
    masks = np.ones((len(rows), cells, cells), np.float32)
    return Instances.from_padded(boxes, scores, scores > 0, masks, SIZE, offset=1, legacy=True)


def test_legacy_pasting_by_hand() -> None:
    """A mask of 2 x 2 ones gets a border of zeros and the box twice its size about its centre.

    The box (20, 10, 30, 20) becomes (15, 5, 35, 25), 21 pixels of which 4 cells take 5.25 each. The border's first cell
    has its centre at pixel 2.125 of them and the next one at 7.375: one half is crossed at 4.75, so that pixels 5 to 15
    of both axes are inside, in the middle of the other axis. In a corner the product of both must exceed one half.
    """
    (found,) = _legacy((20, 10, 30, 20)).masks
    full = np.zeros(SIZE, bool)
    full[found.slices] = found.mask
    profile = np.clip((np.arange(21) - 2.125) / 5.25, 0, 1)
    profile = np.minimum(profile, profile[::-1])
    expected = np.zeros(SIZE, bool)
    expected[5:26, 15:36] = np.outer(profile, profile) > 0.5
    np.testing.assert_array_equal(full, expected)
    assert full[15].nonzero()[0].tolist() == list(range(20, 31))
    assert not full[10, 20]


def test_legacy_pasting_truncates_towards_zero() -> None:
    """(20.4, 10.9, 30.4, 20.9) grows to (15.4, 5.9, 35.4, 25.9): the same whole pixels as (15, 5, 35, 25)."""
    whole, moved = _legacy((20, 10, 30, 20), (20.4, 10.9, 30.4, 20.9)).masks
    assert (moved.y, moved.x) == (whole.y, whole.x)
    np.testing.assert_array_equal(moved.mask, whole.mask)
    # (-1.4, -1.4, 2.6, 2.6) grows to (-3.4, -3.4, 4.6, 4.6), which begins at -3 and not at -4: 8 pixels, 2 a cell, of
    # which 2 to 5 are inside. They are -1 to 2 in the image.
    (outside,) = _legacy((-1.4, -1.4, 2.6, 2.6)).masks
    full = np.zeros(SIZE, bool)
    full[outside.slices] = outside.mask
    assert full[0].nonzero()[0].tolist() == full[:, 0].nonzero()[0].tolist() == [0, 1, 2]


def test_legacy_pasting_is_cut_at_the_image() -> None:
    """The part of a mask inside the image is that of the same mask on a larger image.

    The boxes grow to whole pixels: truncation towards zero would tell negative ones apart.
    """
    boxes = ((-5.0, -4, 11, 12), (70, 50, 86, 66), (-30, -30, -14, -14), (100, 20, 116, 36), (20, 70, 36, 86))
    moved = tuple(tuple(side + 40 for side in box) for box in boxes)
    masks = np.random.default_rng(0).uniform(0, 1, (5, 8, 8)).astype(np.float32)
    scores = np.arange(5.0, 0, -1)

    def paste(boxes: tuple[tuple[float, ...], ...], size: tuple[int, int]) -> np.ndarray:
        found = Instances.from_padded(np.array(boxes), scores, scores > 0, masks, size, offset=1, legacy=True)
        return _full(found)

    found = paste(boxes, SIZE)
    np.testing.assert_array_equal(found, paste(moved, (200, 250))[:, 40:100, 40:120])
    assert found.any((1, 2)).tolist() == [True, True, False, False, False]


def test_legacy_pasting_of_an_empty_box() -> None:
    """One of no extent is a pixel, on which the mask's own middle lies; one turned inside out is a pixel too."""
    found = _legacy((30, 20, 30, 20), (30, 20, 10, 5), cells=28)
    assert found.areas().tolist() == [1, 1]
    assert (found.masks[0].y, found.masks[0].x) == (20, 30)


def test_pasting_is_that_of_ops() -> None:
    boxes, scores, _, masks = _random_output(60, SIZE)
    order = np.argsort(-scores)
    found = Instances.from_padded(boxes, scores, np.ones(60, bool), masks, SIZE)
    expected = np.asarray(ops.paste_masks(masks, boxes, size=SIZE))[order]
    differing = np.count_nonzero(_full(found) != expected, axis=(1, 2))
    assert differing.max() <= 1  # rounding at probability 0.5
    assert differing.sum() <= 5


def test_masks_stay_inside_the_image() -> None:
    outside = np.array([[-20, -20, -5, -5], [90, 70, 99, 99], [-5, 55, 5, 70], [3.1, 3.1, 3.3, 3.3]], np.float32)
    found = Instances.from_padded(outside, np.arange(4.0, 0, -1), np.ones(4, bool), np.ones((4, 3, 3)), SIZE)
    assert found.areas().tolist() == [0, 0, 25, 0]
    np.testing.assert_array_equal(found.boxes[2], [0, 55, 5, 60])
    assert all(crop.mask.size <= 25 for crop in found.masks)
    np.testing.assert_array_equal(found.labels(), _full(found)[2].astype(int))


@pytest.mark.parametrize("seed", range(3))
def test_run_lengths_equal_those_of_pycocotools(seed: int) -> None:
    boxes, scores, valid, masks = _random_output(40, SIZE, seed)
    found = Instances.from_padded(boxes, scores, valid, masks, SIZE)
    for rle, image in zip(found.rles(), _full(found), strict=True):
        expected = pycocotools.mask.encode(np.asfortranarray(image))
        assert rle == {"size": list(SIZE), "counts": expected["counts"].decode()}
    again = Instances.from_rles(
        [rle["counts"].encode() for rle in found.rles()], SIZE, boxes=found.boxes, scores=found.scores
    )
    np.testing.assert_array_equal(_full(again), _full(found))
    np.testing.assert_array_equal(again.boxes, found.boxes)


@pytest.mark.parametrize(
    "rows_and_columns", [(0, 0, 60, 80), (0, 0, 60, 1), (0, 79, 60, 1), (59, 0, 1, 80), (0, 5, 60, 3)]
)
def test_run_lengths_of_masks_that_reach_the_border(rows_and_columns: tuple[int, int, int, int]) -> None:
    y, x, height, width = rows_and_columns
    found = Instances(
        np.zeros((1, 4), np.float32), np.ones(1, np.float32), (CroppedMask(y, x, np.ones((height, width), bool)),), SIZE
    )
    expected = pycocotools.mask.encode(np.asfortranarray(_full(found)[0]))
    assert found.rles()[0]["counts"] == expected["counts"].decode()


def test_from_rles_takes_the_extent_as_box() -> None:
    image = np.zeros(SIZE, bool)
    image[10:15, 20:40] = True
    found = Instances.from_rles([pycocotools.mask.encode(np.asfortranarray(image))["counts"]], SIZE)
    np.testing.assert_array_equal(found.boxes, [[20, 10, 40, 15]])
    assert found.scores.tolist() == [1.0]
    np.testing.assert_array_equal(_full(found)[0], image)


def test_a_pixel_goes_to_the_higher_score() -> None:
    labels = _squares((0, 0, 10, 0.9), (0, 6, 10, 0.8)).labels()
    assert labels.dtype == np.int32
    assert labels.shape == SIZE
    np.testing.assert_array_equal(np.unique(labels, return_counts=True), [[0, 1, 2], [4800 - 160, 100, 60]])
    assert labels[5, 8] == 1


def test_instances_that_lose_over_half_are_dropped_and_ids_stay_contiguous() -> None:
    found = _squares((0, 0, 10, 0.9), (0, 5, 10, 0.8), (20, 20, 10, 0.7), (20, 24, 10, 0.6), (40, 40, 10, 0.5))
    labels = found.labels()
    assert labels[0, 12] == 2  # lost exactly half: it stays
    assert labels[20, 33] == 0  # lost 60 of 100 pixels
    np.testing.assert_array_equal(np.unique(labels, return_counts=True)[1][1:], [100, 50, 100, 100])
    kept = found.without_overlaps()
    assert kept.scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.5])
    assert _full(kept).sum(axis=0).max() == 1


def test_a_dropped_instance_takes_nothing() -> None:
    labels = _squares((0, 0, 10, 0.9), (0, 3, 10, 0.8), (0, 10, 10, 0.7)).labels()
    np.testing.assert_array_equal(labels[0, :22], [1] * 10 + [2] * 10 + [0] * 2)


def test_min_score_includes_its_own_value() -> None:
    found = _squares((0, 0, 5, 0.75), (10, 10, 5, 0.5), (20, 20, 5, 0.25))
    assert found.labels(0.5).max() == 2
    assert found.labels(0.51).max() == 1
    assert found.labels(0.9).max() == 0
    assert found.labels().max() == 3
    assert dataclasses.replace(found, min_score=0.5).labels().max() == 2


def test_from_labels_and_back() -> None:
    labels = np.zeros(SIZE, np.uint16)
    labels[0:4, 0:6] = 7
    labels[50:60, 70:80] = 300
    labels[20, 20] = 300
    labels[30:33, 5:8] = 2
    found = Instances.from_labels(labels, scores=np.array([0.1, 0.3, 0.2]))
    assert found.areas().tolist() == [24, 101, 9]
    np.testing.assert_array_equal(found.boxes, [[0, 0, 6, 4], [20, 20, 80, 60], [5, 30, 8, 33]])
    np.testing.assert_array_equal(found.labels(), np.select([labels == 7, labels == 300, labels == 2], [1, 2, 3]))
    assert len(Instances.from_labels(np.zeros(SIZE, np.int32))) == 0


def test_select_and_coco_results() -> None:
    found = _squares((0, 0, 4, 0.75), (10, 12, 5, 0.5), (20, 20, 6, 0.25))
    kept = found.select(found.scores < 0.6)
    assert len(kept) == 2
    assert kept.to_coco(image_id=3, category_id=8)[0] == {
        "image_id": 3,
        "category_id": 8,
        "bbox": [12.0, 10.0, 5.0, 5.0],
        "score": 0.5,
        "area": 25,
        "segmentation": kept.rles()[0],
    }
    assert len(found.select(np.array([2]))) == 1


def test_no_instances() -> None:
    none = Instances.from_padded(np.zeros((5, 4)), np.zeros(5), np.zeros(5, bool), np.zeros((5, 7, 7)), SIZE)
    assert len(none) == 0
    assert none.labels().max() == 0
    assert none.rles() == none.to_coco(1, 1) == []
    assert len(none.select(np.zeros(0, bool))) == len(Instances.from_rles([], SIZE)) == 0


def test_what_does_not_fit_together_is_refused() -> None:
    crop = CroppedMask(0, 0, np.ones((1, 1), bool))
    with pytest.raises(ValueError, match="lengths differ"):
        Instances(np.zeros((2, 4)), np.ones(2), (crop,), SIZE)
    with pytest.raises(ValueError, match="descending"):
        Instances(np.zeros((2, 4)), np.array([0.1, 0.2]), (crop, crop), SIZE)


def test_the_time_of_pasting_does_not_grow_with_the_image() -> None:
    boxes, scores, _, _ = _random_output(500, (1000, 1000))
    boxes[:, 2:] = boxes[:, :2] + 60
    masks = np.random.default_rng(0).uniform(0, 1, (500, 28, 28)).astype(np.float32)

    def best(side: int) -> float:
        times = []
        for _ in range(5):
            start = time.process_time()
            Instances.from_padded(boxes, scores, np.ones(500, bool), masks, (side, side))
            times.append(time.process_time() - start)
        return min(times)

    assert best(30_000) < 3 * best(1000)


def test_boxes_and_classes_of_a_plain_detector_may_overlap() -> None:
    """A tie on a person is kept, a person on a person is not; boxes without masks are never cut."""
    boxes = np.array([[0, 0, 100, 100], [10, 10, 40, 40], [20, 20, 50, 50]], np.float32)
    told = {"classes": np.array([0, 1, 0]), "names": ("person", "tie")}
    scores, valid = np.array([0.9, 0.8, 0.7], np.float32), np.ones(3, bool)
    masks = np.ones((3, 7, 7), np.float32)
    found = Instances.from_padded(boxes, scores, valid, masks, (120, 120), **told)
    assert found.without_overlaps(0.5).categories == ("person", "tie")
    labels = found.labels(0.5)
    assert set(np.unique(labels)) == {0, 1}  # the better one is on top
    alone = Instances.from_padded(boxes, scores, valid, None, (120, 120), **told)
    assert len(alone.without_overlaps(0.75)) == 2
    np.testing.assert_array_equal(alone.without_overlaps(0.5).areas(), alone.areas())
