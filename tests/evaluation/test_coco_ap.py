"""COCO numbers: by hand, against COCOeval itself, and against the PyTorch project's evaluation."""

import contextlib
import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fsis_jax.evaluation.coco_ap import best_f1_score, coco_evaluate
from fsis_jax.preprocess.records import Annotations

SIZE = (100, 120)
Box = tuple[int, int, int, int]


def _rle(box: Box, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    image = np.zeros(size, np.uint8, order="F")
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 1
    return pycocotools.mask.encode(image)


def _truth(image_id: int, boxes: Sequence[Box], classes: Sequence[int], crowd: Sequence[bool] = ()) -> Annotations:
    rles = [_rle(box) for box in boxes]
    return Annotations(
        image_id=image_id,
        file_name=f"{image_id}.png",
        height=SIZE[0],
        width=SIZE[1],
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.array(classes, np.int32),
        crowd=np.array(crowd or [False] * len(boxes), bool),
        areas=np.array([pycocotools.mask.area(rle) for rle in rles], np.float32),
        annotation_ids=np.arange(len(boxes), dtype=np.int64),
        rles=tuple(rle["counts"] for rle in rles),
    )


def _found(image_id: int, category: int, box: Box, score: float) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    bbox = [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]
    return {
        "image_id": image_id,
        "category_id": category,
        "bbox": bbox,
        "score": score,
        "segmentation": _rle(box),
    }


def _random_scene(seed: int, crowds: bool) -> tuple[list[Annotations], list[dict[str, Any]]]:
    """Images of up to 25 boxes of two categories; detections near them with coarse scores, so that some are equal."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for image_id in (3, 5, 8):
        boxes = []
        for _ in range(rng.integers(0, 25)):
            x, y = rng.integers(0, 80, 2)
            boxes.append((x, y, x + rng.integers(3, 40), min(y + rng.integers(3, 40), SIZE[0])))
        classes = rng.integers(1, 3, len(boxes))
        truths.append(_truth(image_id, boxes, classes, [bool(crowds and rng.random() < 0.2) for _ in boxes]))
        for box, category in zip(boxes, classes.tolist(), strict=True):
            for _ in range(rng.integers(0, 4)):
                moved = np.array(box) + rng.integers(-3, 4, 4)
                x1, y1 = np.maximum(moved[:2], 0)
                x2, y2 = max(moved[2], x1 + 1), max(min(moved[3], SIZE[0]), y1 + 1)
                guess = category if rng.random() < 0.9 else 3 - category
                found.append(_found(image_id, guess, (x1, y1, x2, y2), float(rng.integers(1, 12) / 12)))
    return truths, found


def _official(
    truths: list[Annotations], found: list[dict[str, Any]], iou_type: str, areas: list, max_dets: list[int]
) -> COCOeval:
    """COCOeval itself on the same data. Its annotation ids must not be 0: it takes 0 for no match."""
    truth, result = COCO(), COCO()
    images = [{"id": record.image_id, "height": SIZE[0], "width": SIZE[1]} for record in truths]
    categories = [{"id": 1}, {"id": 2}]
    annotations: list[dict[str, Any]] = []
    for record in truths:
        for row, rle in enumerate(record.rles):
            x1, y1, x2, y2 = record.boxes[row].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": int(record.classes[row]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(record.areas[row]),
                    "iscrowd": int(record.crowd[row]),
                    "segmentation": {"size": list(SIZE), "counts": rle},
                }
            )
    results = [
        {**detection, "id": number, "area": float(pycocotools.mask.area(detection["segmentation"]))}
        for number, detection in enumerate(found, start=1)
    ]
    truth.dataset = {"images": images, "categories": categories, "annotations": annotations}
    result.dataset = {"images": images, "categories": categories, "annotations": results}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        result.createIndex()
        evaluator = COCOeval(truth, result, iou_type)
        evaluator.params.areaRng, evaluator.params.maxDets = areas, max_dets
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_equals_cocoeval(seed: int, crowds: bool, iou_type: str) -> None:
    truths, found = _random_scene(seed, crowds)
    ours = coco_evaluate(truths, found, iou_type=iou_type, max_dets=(1, 3, 15), categories=(1, 2))
    official = _official(truths, found, iou_type, [[0, 1e10], [0, 256], [256, 4096], [4096, 1e10]], [1, 3, 15])
    precision, recall = official.eval["precision"], official.eval["recall"]
    for k, category in enumerate((1, 2)):
        row = ours["categories"][category]
        expected = {
            "AP": precision[:, :, k, 0, 2],
            "AP50": precision[0, :, k, 0, 2],
            "AP75": precision[5, :, k, 0, 2],
            "AP_small": precision[:, :, k, 1, 2],
            "AP_medium": precision[:, :, k, 2, 2],
            "AP_large": precision[:, :, k, 3, 2],
            "AR@1": recall[:, k, 0, 0],
            "AR@3": recall[:, k, 0, 1],
            "AR@15": recall[:, k, 0, 2],
            "AR_small": recall[:, k, 1, 2],
            "AR_medium": recall[:, k, 2, 2],
            "AR_large": recall[:, k, 3, 2],
        }
        assert row.keys() == expected.keys()
        for name, values in expected.items():
            assert row[name] == pytest.approx(np.nan if values.min() < 0 else values.mean(), nan_ok=True), name


def test_by_hand() -> None:
    """Two cells; by score: one found exactly, a false one, the other at IoU 0.6 = 60 / 100."""
    truths = [_truth(1, [(0, 0, 10, 10), (50, 50, 60, 60)], [4, 4])]
    found = [
        _found(1, 4, (0, 0, 10, 10), 0.9),
        _found(1, 4, (80, 80, 90, 90), 0.8),
        _found(1, 4, (50, 50, 60, 56), 0.7),
    ]
    result = coco_evaluate(truths, found)
    # At 0.5: precision 1 up to recall 0.5 (51 of 101 points), 2/3 beyond. From IoU 0.65 on, only the first 51 count.
    assert result["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert result["AP75"] == pytest.approx(51 / 101)
    assert result["AP"] == pytest.approx((3 * (51 + 50 * 2 / 3) + 7 * 51) / 1010)  # 0.6 counts as at least 0.6
    assert result["AR@1"] == pytest.approx(0.5)
    assert result["AR@500"] == pytest.approx(0.5 + 0.5 * 0.3)
    assert result["AP_small"] == pytest.approx(result["AP"])
    assert math.isnan(result["AP_large"])
    assert result["categories"][4]["AP"] == result["AP"]


def test_ap_counts_as_many_detections_as_the_largest_max_dets() -> None:
    boxes = [(x, y, x + 6, y + 6) for x in range(0, 112, 8) for y in range(0, 92, 8)]
    truths = [_truth(1, boxes, [1] * len(boxes))]
    found = [_found(1, 1, box, 0.5) for box in boxes]
    assert len(boxes) > 100
    assert coco_evaluate(truths, found)["AP"] == pytest.approx(1.0)
    assert coco_evaluate(truths, found)["AR@100"] == pytest.approx(100 / len(boxes))
    assert coco_evaluate(truths, found, max_dets=(100,))["AP"] < 0.7


def test_detections_that_do_not_count_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    truth = [_truth(1, [(0, 0, 10, 10)], [1])]
    found = [_found(1, 1, (0, 0, 10, 10), 0.9 - i / 10) for i in range(8)]
    coco_evaluate(truth, found, max_dets=(1, 8))
    coco_evaluate(
        truth, [*found, _found(2, 1, (0, 0, 10, 10), 0.1)], max_dets=(1, 8)
    )  # of an image that does not count
    assert not caplog.messages
    coco_evaluate(truth, found, max_dets=(1, 7))
    best_f1_score(truth, found, max_dets=7)
    (message,) = caplog.messages
    assert message.startswith(
        "an image has more than 7 detections of a category: AP, AR and F1 count those of the highest"
    )


def test_masks_and_boxes_are_measured_by_their_own_iou() -> None:
    truths = [_truth(1, [(0, 0, 20, 20)], [1])]
    hollow = _found(1, 1, (0, 0, 20, 20), 0.9)
    hollow["segmentation"] = _rle((0, 0, 20, 8))  # the box is right, the mask is 40% of it
    assert coco_evaluate(truths, [hollow], iou_type="bbox")["AP"] == pytest.approx(1.0)
    assert coco_evaluate(truths, [hollow])["AP"] == 0.0


def test_mean_over_categories_and_choice_of_them() -> None:
    truths = [_truth(1, [(0, 0, 9, 9)], [1]), _truth(2, [(0, 0, 9, 9)], [2]), _truth(3, [], [])]
    found = [_found(1, 1, (0, 0, 9, 9), 0.9), _found(3, 2, (0, 0, 9, 9), 0.9), _found(3, 7, (0, 0, 9, 9), 0.9)]
    result = coco_evaluate(truths, found)
    assert {category: row["AP"] for category, row in result["categories"].items()} == pytest.approx({1: 1.0, 2: 0.0})
    assert result["AP"] == pytest.approx(0.5)
    assert coco_evaluate(truths, found, categories=[1])["AP"] == pytest.approx(1.0)
    assert coco_evaluate(truths, found, images=[1])["categories"].keys() == {1}
    only_seen = coco_evaluate(truths, found, categories=[1, 9])
    assert only_seen["AP"] == pytest.approx(1.0)
    assert math.isnan(only_seen["categories"][9]["AP"])


def test_crowds_and_ignored_instances() -> None:
    crowd = [_truth(1, [(0, 0, 10, 10), (30, 30, 70, 70)], [1, 1], [False, True])]
    found = [_found(1, 1, (0, 0, 10, 10), 0.5)]
    inside = [_found(1, 1, (x, 40, x + 10, 50), 0.9) for x in (32, 44, 56)]
    assert coco_evaluate(crowd, found + inside)["AP"] == pytest.approx(1.0)
    plain = [_truth(1, [(0, 0, 10, 10), (30, 30, 70, 70)], [1, 1])]
    ignore = [np.array([False, True])]
    exact = _found(1, 1, (30, 30, 70, 70), 0.9)
    assert coco_evaluate(plain, [*found, exact], ignore=ignore)["AP"] == pytest.approx(1.0)
    assert coco_evaluate(plain, found, ignore=ignore)["AP"] == pytest.approx(1.0)
    assert coco_evaluate(plain, found)["AP"] == pytest.approx(51 / 101)
    # Unlike a crowd, it takes one detection, and only one that overlaps it as an instance must.
    assert coco_evaluate(plain, [*found, exact, exact], ignore=ignore)["AP"] < 0.6
    assert coco_evaluate(plain, found + inside, ignore=ignore)["AP"] < 0.3
    # The flags follow their images when only some of those count.
    two = [_truth(9, [(0, 0, 5, 5)], [1]), *plain]
    assert coco_evaluate(two, found, ignore=[np.array([False]), *ignore], images=[1])["AP"] == pytest.approx(1.0)


def test_nothing_to_find_and_nothing_found(capfd: pytest.CaptureFixture[str]) -> None:
    truths = [_truth(1, [(0, 0, 10, 10)], [1])]
    nothing_found = coco_evaluate(truths, [])
    assert nothing_found["AP"] == nothing_found["AR@500"] == 0.0
    found = [_found(1, 1, (0, 0, 10, 10), 0.9)]
    nothing_to_find = coco_evaluate([_truth(1, [], [])], found, categories=[1])
    assert math.isnan(nothing_to_find["AP"])
    assert coco_evaluate([_truth(1, [], [])], found)["categories"] == {}
    assert math.isnan(coco_evaluate([], [], categories=[1])["AP50"])
    assert best_f1_score(truths, []) == best_f1_score([], []) == (0.5, 0.0)
    assert best_f1_score([_truth(1, [], [])], found, categories=[1]) == (0.5, 0.0)
    assert capfd.readouterr() == ("", "")


def test_best_f1_score() -> None:
    boxes: list[Box] = [(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)]
    truths = [_truth(1, boxes, [1] * 3), _truth(2, boxes[:1], [1])]
    wrong: Box = (80, 80, 90, 90)
    scored = [
        (1, boxes[0], 0.9),
        (2, boxes[0], 0.8),
        (1, wrong, 0.7),
        (1, boxes[1], 0.6),
        (1, wrong, 0.4),
        (2, wrong, 0.3),
    ]
    found = [_found(image, 1, box, score) for image, box, score in scored]
    # F1 after each: 2/5, 4/6, 4/7, 6/8, 6/9, 6/10.
    min_score, f1 = best_f1_score(truths, found)
    assert f1 == pytest.approx(0.75)
    assert min_score == pytest.approx(0.5)
    assert best_f1_score(truths, found[:4])[0] == pytest.approx(0.6)
    # Equal scores stand or fall together.
    level = [{**detection, "score": 0.6} for detection in found]
    assert best_f1_score(truths, level) == (pytest.approx(0.6), pytest.approx(0.6))
    # A duplicate does not count as found.
    assert best_f1_score(truths[1:], [_found(2, 1, boxes[0], 0.9)] * 2)[1] == pytest.approx(2 / 3)
    assert best_f1_score(truths, found, iou_threshold=0.5, images=[2])[1] == pytest.approx(1.0)


@pytest.mark.parametrize("shift", [-4, 1 << 33, (1 << 63) - 5, 1 << 63, 1 << 200])
def test_ids_of_any_size_count_as_small_ones_do(shift: int) -> None:
    truths, found = _random_scene(3, False)
    expected = coco_evaluate(truths, found, iou_type="bbox", images=[3, 8])
    category = min(max(shift, 0), (1 << 63) - 5)
    moved = [
        dataclasses.replace(one, image_id=one.image_id + shift, classes=one.classes.astype(np.int64) + category)
        for one in truths
    ]
    rows = [{**one, "image_id": one["image_id"] + shift, "category_id": one["category_id"] + category} for one in found]
    for limits in ([3 + shift, 8 + shift], [8 + shift, 3 + shift]):
        result = coco_evaluate(moved, rows, iou_type="bbox", images=limits)
        assert list(result.pop("categories")) == [1 + category, 2 + category]
        assert result == pytest.approx({name: expected[name] for name in result}, nan_ok=True)
