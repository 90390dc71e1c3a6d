"""AP of keypoints: against COCOeval itself, and by hand."""

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
from memory_source import annotate
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fsis_jax.errors import FsisError
from fsis_jax.evaluation.coco_ap import best_f1_score, coco_evaluate
from fsis_jax.evaluation.keypoint_ap import AREA_SPLITS, MAX_DETS, sigmas
from fsis_jax.preprocess.keypoints import keypoints_to_coco
from fsis_jax.preprocess.records import Annotations

SIZE = (200, 240)


def truth(image_id: int, boxes: list, keypoints: np.ndarray, crowd: list[bool] | None = None) -> Annotations:
    masks = []
    for x1, y1, x2, y2 in boxes:
        mask = np.zeros(SIZE, bool)
        mask[y1:y2, x1:x2] = True
        masks.append(mask)
    plain = annotate(masks, [1] * len(boxes), size=SIZE, crowd=crowd, image_id=image_id)
    names = tuple(f"joint {number}" for number in range(keypoints.shape[1]))
    return Annotations(**{**vars(plain), "keypoints": keypoints.astype(np.float32), "keypoint_names": names})


def detection(image_id: int, keypoints: np.ndarray, score: float) -> dict[str, Any]:
    (flat,) = keypoints_to_coco(keypoints[None])
    return {"image_id": image_id, "category_id": 1, "bbox": [0.0, 0.0, 9.0, 9.0], "score": score, "keypoints": flat}


def scene(seed: int) -> tuple[list[Annotations], list[dict[str, Any]]]:
    """Persons with 17 keypoints, some unlabelled, one of them without any, and crowds."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for image_id in (3, 7, 8):
        boxes, keypoints = [], []
        for _ in range(int(rng.integers(2, 7))):
            x, y = rng.integers(0, 120, 2)
            w, h = rng.integers(12, 110, 2)
            boxes.append((x, y, min(x + w, SIZE[1]), min(y + h, SIZE[0])))
            points = np.column_stack([x + w * rng.random(17), y + h * rng.random(17), rng.integers(0, 3, 17)])
            keypoints.append(points * (points[:, 2:] > 0) * (rng.random() < 0.8))
            for _ in range(int(rng.integers(0, 4))):
                moved = points[:, :2] + rng.normal(0, rng.choice([1, 4, 12]), (17, 2))
                score = float(rng.integers(1, 12) / 12)
                found.append(detection(image_id, np.column_stack([moved, np.ones(17)]), score))
        truths.append(truth(image_id, boxes, np.array(keypoints), [bool(rng.random() < 0.2) for _ in boxes]))
    return truths, found


def official(truths: list[Annotations], found: list[dict[str, Any]], max_dets: list[int]) -> COCOeval:
    """COCOeval itself, detections read by its own `loadRes`."""
    annotations: list[dict[str, Any]] = []
    for record in truths:
        for row, flat in enumerate(keypoints_to_coco(record.keypoints)):
            x1, y1, x2, y2 = record.boxes[row].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(record.areas[row]),
                    "iscrowd": int(record.crowd[row]),
                    "keypoints": flat,
                    "num_keypoints": int((record.keypoints[row, :, 2] > 0).sum()),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": record.image_id, "height": SIZE[0], "width": SIZE[1]} for record in truths],
            "categories": [{"id": 1}],
            "annotations": annotations,
        }
        coco.createIndex()
        # It takes what has a box for boxes, whatever else it has.
        results = coco.loadRes([{k: v for k, v in row.items() if k != "bbox"} for row in found])
        evaluator = COCOeval(coco, results, "keypoints")
        evaluator.params.maxDets = max_dets
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


@pytest.mark.parametrize("max_dets", [(20,), (1, 4)])
@pytest.mark.parametrize("seed", range(6))
def test_equals_cocoeval(seed: int, max_dets: tuple[int, ...]) -> None:
    truths, found = scene(seed)
    ours = coco_evaluate(truths, found, iou_type="keypoints", max_dets=max_dets, area_splits=AREA_SPLITS)
    theirs = official(truths, found, list(max_dets))
    precision, recall = theirs.eval["precision"], theirs.eval["recall"]
    last = len(max_dets) - 1
    expected = {
        "AP": precision[:, :, 0, 0, last],
        "AP50": precision[0, :, 0, 0, last],
        "AP75": precision[5, :, 0, 0, last],
        "AP_medium": precision[:, :, 0, 1, last],
        "AP_large": precision[:, :, 0, 2, last],
        **{f"AR@{count}": recall[:, 0, 0, m] for m, count in enumerate(max_dets)},
        "AR_medium": recall[:, 0, 1, last],
        "AR_large": recall[:, 0, 2, last],
    }
    assert MAX_DETS == (20,)
    for name, values in expected.items():
        assert ours[name] == pytest.approx(np.nan if values.min() < 0 else values.mean(), nan_ok=True), name


def test_sigmas() -> None:
    box = [(0, 0, 9, 9)]
    theirs = COCOeval(iouType="keypoints").params.kpt_oks_sigmas
    np.testing.assert_allclose(sigmas([truth(1, box, np.ones((1, 17, 3)))]), theirs)
    assert sigmas([truth(1, box, np.ones((1, 5, 3)))]).tolist() == [np.float32(0.1)] * 5
    assert len(sigmas([])) == 17
    with pytest.raises(FsisError, match="the annotations have no keypoints"):
        coco_evaluate([truth(1, box, np.ones((1, 0, 3)))], [], iou_type="keypoints")


def test_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    """Two labelled keypoints of an instance of 400 pixels; d^2 / (2 area (2 sigma)^2) = d^2 / 32 with sigma 0.1."""
    points = np.array([[[10, 10, 2], [20, 20, 1], [0, 0, 0]]], float)
    truths = [truth(1, [(5, 5, 25, 25)], points)]
    moved = points[0] + [[0, 0, 0], [0, 4, 0], [77, 77, 0]]  # of what is not labelled nobody knows the place
    similarity = (1 + math.exp(-16 / 32)) / 2  # 0.80
    found = [detection(1, moved, 0.9)] * 30
    result = coco_evaluate(truths, found, iou_type="keypoints", max_dets=MAX_DETS)
    assert 0.80 < similarity < 0.85
    assert result["AP50"] == result["AP75"] == pytest.approx(1.0)
    assert result["AR@20"] == pytest.approx(0.7)  # the thresholds from 0.5 to 0.8
    assert best_f1_score(truths, found[:1], iou_type="keypoints", iou_threshold=0.75)[1] == pytest.approx(1.0)
    assert best_f1_score(truths, found[:1], iou_type="keypoints", iou_threshold=0.85)[1] == 0.0
    assert not caplog.messages  # that over 20 detections do not count is COCO's rule


def test_instances_without_labelled_keypoints_are_ignored() -> None:
    points = np.array([[[10, 10, 2]], [[0, 0, 0]]], float)
    truths = [truth(1, [(5, 5, 25, 25), (100, 100, 140, 140)], points)]
    found = [detection(1, points[0], 0.8), detection(1, np.array([[120.0, 120, 1]]), 0.9)]
    assert coco_evaluate(truths, found, iou_type="keypoints")["AP"] == pytest.approx(1.0)
