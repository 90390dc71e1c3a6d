"""COCO average precision and recall of detections, from memory to a dict of numbers.

The measure is that of pycocotools' COCOeval with the true IoU of masks or boxes, or with the similarity of keypoints
that takes its place (`keypoint_ap.py`). (The PyTorch project's "segm" AP is
computed from the IoU of the masks' boxes, since its evaluator asks a flag that is never set: our "mask_bbox".) What
differs from COCOeval is how it is driven: nothing is printed, up to 500 detections count per image and category, and
the matching looks only at pairs that overlap enough, which is many times faster where an image holds hundreds of cells.
An image that is segmented in tiles may have more than 500: those of least score then do not count, which is logged.
"""

import contextlib
import functools
import io
import itertools
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask
from pycocotools.cocoeval import COCOeval

from fsis_jax.evaluation import keypoint_ap
from fsis_jax.preprocess.keypoints import keypoints_to_coco
from fsis_jax.preprocess.records import Annotations

AREAS = ("all", "small", "medium", "large")

Detection = Mapping[str, Any]
"""One entry of COCO's results format, as `Instances.to_coco` gives them: image_id, category_id, score, bbox
(x, y, width, height), segmentation (compressed run lengths), keypoints (x, y, score, x, y, score ...)."""


def coco_evaluate(
    ground_truth: Sequence[Annotations],
    detections: Sequence[Detection],
    *,
    iou_type: str = "segm",
    max_dets: Sequence[int] = (1, 10, 100, 200, 500),
    area_splits: tuple[float, float] = (16**2, 64**2),
    images: Collection[int] | None = None,
    categories: Collection[int] | None = None,
    ignore: Sequence[np.ndarray] | None = None,
) -> dict[str, Any]:
    """AP and AR of detections, per category and as the mean over categories.

    Crowds are ignored with COCO's rule for crowds (any number of detections may lie in one); an ignored instance is
    neither missed nor is the detection that matches it wrong.

    Args:
        ground_truth: the annotated images.
        detections: of these images; those on other images or of other categories do not count.
        iou_type: "segm" (masks), "bbox", or "mask_bbox": the tight boxes of the detected masks, with the boxes of the
            instances; what the PyTorch project reports as "segm". "keypoints": by their similarity; instances without
            a labelled keypoint are ignored (COCO's `max_dets` and `area_splits` for them are in `keypoint_ap.py`).
        max_dets: how many detections per image and category, by descending score, count for each AR; the largest one
            holds for AP, and a warning is logged once if there are more.
        area_splits: instances of at most the first are small, from the second on large (pixels).
        images: ids of the images that count; None: all of `ground_truth`.
        categories: ids of the categories that count; None: all that `ground_truth` has on those images.
        ignore: per entry of `ground_truth`, (N,) bool of instances to ignore besides crowds.

    Returns:
        AP, AP50, AP75, AP_small, AP_medium, AP_large, AR@n for each n of `max_dets`, AR_small, AR_medium, AR_large as
        floats in 0..1, each the mean over the categories that have such instances (NaN where none has); and under
        "categories" the same per category id.
    """
    evaluator = _Evaluator(ground_truth, detections, iou_type, images, categories, ignore)
    small, large = area_splits
    limits = [(0, np.inf), (0, small), (small, large), (large, np.inf)]
    evaluator.run(limits, sorted(max_dets), evaluator.params.iouThrs)
    # Axes: IoU threshold, recall, category, area, max_dets. -1 where a category has no such instance.
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]

    def numbers(k: int) -> dict[str, float]:
        result = {"AP": _mean(precision[:, :, k, 0, -1])}
        for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
            result[name] = _mean(precision[np.isclose(evaluator.params.iouThrs, threshold), :, k, 0, -1])
        for a, area in enumerate(AREAS[1:], start=1):
            result[f"AP_{area}"] = _mean(precision[:, :, k, a, -1])
        for m, count in enumerate(evaluator.params.maxDets):
            result[f"AR@{count}"] = _mean(recall[:, k, 0, m])
        for a, area in enumerate(AREAS[1:], start=1):
            result[f"AR_{area}"] = _mean(recall[:, k, a, -1])
        return result

    per_category = {int(category): numbers(k) for k, category in enumerate(evaluator.params.catIds)}
    names = numbers(0) if per_category else {}
    summary = {name: _mean(np.array([row[name] for row in per_category.values()])) for name in names}
    return {**summary, "categories": per_category}


def best_f1_score(
    ground_truth: Sequence[Annotations],
    detections: Sequence[Detection],
    *,
    iou_threshold: float = 0.5,
    iou_type: str = "segm",
    max_dets: int = 500,
    images: Collection[int] | None = None,
    categories: Collection[int] | None = None,
    ignore: Sequence[np.ndarray] | None = None,
) -> tuple[float, float]:
    """The score threshold with the best F1 = 2 TP / (2 TP + FP + FN) over all images together, and that F1.

    Within an image and category, detections take instances greedily by descending score, so that the matches of those
    above a threshold do not depend on those below it. The threshold lies half-way between the last score that counts
    and the next. (0.5, 0.0) if there is no true positive at all. `max_dets` detections per image and category count, by
    descending score; a warning is logged once if there are more.
    """
    evaluator = _Evaluator(ground_truth, detections, iou_type, images, categories, ignore)
    evaluator.run([(0, np.inf)], [max_dets], np.array([iou_threshold]))
    results = [result for result in evaluator.evalImgs if result is not None]
    if not results:
        return 0.5, 0.0
    scores = np.concatenate([result["dtScores"] for result in results])
    matched = np.concatenate([result["dtMatches"][0] > 0 for result in results])
    counted = ~np.concatenate([result["dtIgnore"][0] for result in results])
    positives = sum(np.count_nonzero(result["gtIgnore"] == 0) for result in results)
    scores, matched = scores[counted], matched[counted]
    order = np.argsort(-scores, kind="stable")
    scores, true_positives = scores[order], np.cumsum(matched[order])
    if not len(scores) or not true_positives[-1]:
        return 0.5, 0.0
    f1 = 2 * true_positives / (np.arange(1, len(scores) + 1) + positives)
    # A threshold cannot part equal scores: only the last of them may be the last that counts.
    last_of_its_score = np.append(scores[1:] < scores[:-1], True)
    best = int(np.argmax(np.where(last_of_its_score, f1, -1)))
    below = scores[best + 1] if best + 1 < len(scores) else scores[best]
    return float((scores[best] + below) / 2), float(f1[best])


def _mean(values: np.ndarray) -> float:
    """Mean of the values that are defined: neither -1 (COCOeval's mark) nor NaN."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else float("nan")


@functools.cache
def _warn_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)


class _Evaluator(COCOeval):
    """COCOeval on records in memory."""

    def __init__(
        self,
        ground_truth: Sequence[Annotations],
        detections: Sequence[Detection],
        iou_type: str,
        images: Collection[int] | None,
        categories: Collection[int] | None,
        ignore: Sequence[np.ndarray] | None,
    ) -> None:
        super().__init__(iouType=iou_type if iou_type in ("segm", "keypoints") else "bbox")
        self._mask_boxes = iou_type == "mask_bbox"
        if images is not None:
            chosen = set(images)
            rows = [row for row, record in enumerate(ground_truth) if record.image_id in chosen]
        else:
            rows = list(range(len(ground_truth)))
        self._records = [ground_truth[row] for row in rows]
        if iou_type == "keypoints":
            self.params.kpt_oks_sigmas = keypoint_ap.sigmas(self._records)
        self._ignored = [
            record.crowd if ignore is None else ignore[row] for row, record in zip(rows, self._records, strict=True)
        ]
        self._detections = detections
        if categories is None:
            categories = {category for record in self._records for category in record.classes.tolist()}
        # Numbers of our own: COCOeval puts ids into arrays, which do not hold all whole numbers.
        self.params.imgIds = list(range(len(self._records)))
        self.params.catIds = sorted(categories)

    def run(self, areas: list[tuple[float, float]], max_dets: list[int], iou_thresholds: np.ndarray) -> None:
        """Fill `evalImgs` and `eval`."""
        self.params.areaRng = areas
        self.params.maxDets = max_dets
        self.params.iouThrs = iou_thresholds
        with contextlib.redirect_stdout(io.StringIO()):
            self.evaluate()
            self.accumulate()
        counted = itertools.product(self.params.imgIds, self.params.catIds)
        # Of keypoints COCO counts 20, and a network gives more: nothing to tell.
        if self.params.iouType != "keypoints" and any(len(self._dts[key]) > max_dets[-1] for key in counted):
            _warn_once(
                f"an image has more than {max_dets[-1]} detections of a category: AP, AR and F1 count those of the "
                "highest scores; cut large images into parts to count all"
            )

    def _prepare(self) -> None:
        """COCOeval's hook that lists the instances and detections of each (image, category)."""
        masks, keypoints = self.params.iouType == "segm", self.params.iouType == "keypoints"
        self._gts: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
        self._dts: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
        numbers = {record.image_id: number for number, record in enumerate(self._records)}
        for number, (record, ignored) in enumerate(zip(self._records, self._ignored, strict=True)):
            size = [record.height, record.width]
            for row, category in enumerate(record.classes.tolist()):
                x1, y1, x2, y2 = record.boxes[row].tolist()
                hopeless = keypoints and not record.keypoints[row, :, 2].any()
                self._gts[number, category].append(
                    {
                        "segmentation": {"size": size, "counts": record.rles[row]} if masks else None,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "keypoints": keypoints_to_coco(record.keypoints[row : row + 1])[0] if keypoints else None,
                        "area": float(record.areas[row]),
                        "iscrowd": bool(record.crowd[row]),
                        "ignore": bool(record.crowd[row] or ignored[row] or hopeless),
                    }
                )
        for detection in self._detections:
            if detection["image_id"] not in numbers:
                continue
            box = detection["bbox"]
            if self._mask_boxes:
                box = pycocotools.mask.toBbox(detection["segmentation"]).tolist()
            elif keypoints:
                box = keypoint_ap.extent(detection["keypoints"])
            by_mask = masks or self._mask_boxes
            area = pycocotools.mask.area(detection["segmentation"]) if by_mask else box[2] * box[3]
            found = {**detection, "bbox": box, "area": float(area)}
            self._dts[numbers[detection["image_id"]], detection["category_id"]].append(found)

    def evaluateImg(
        self, image: int, category: int, area_range: tuple[float, float], max_dets: int
    ) -> dict[str, Any] | None:
        """COCOeval's hook that matches the detections of one category on one image at every IoU threshold.

        By descending score, each takes the free instance with the highest IoU of at least the threshold; failing that,
        an ignored one, of which crowds are always free. Ties go to the later instance. All as COCOeval does, which
        however compares every detection with every instance.
        """
        truths, found = self._gts[image, category], self._dts[image, category]
        if not truths and not found:
            return None
        low, high = area_range
        areas = np.array([truth["area"] for truth in truths])
        ignored = np.array([truth["ignore"] for truth in truths], bool) | (areas < low) | (areas > high)
        crowd = [truth["iscrowd"] for truth in truths]
        scores = np.array([detection["score"] for detection in found])
        order = np.argsort(-scores, kind="stable")[:max_dets]
        thresholds = np.minimum(self.params.iouThrs, 1 - 1e-10)
        matches = np.zeros((len(thresholds), len(order)), np.int64)  # 1 + row of the instance
        if truths and found:
            ious = np.asarray(self.ious[image, category])
            rows, columns = np.nonzero(ious >= thresholds.min())
            best_first = np.lexsort((-columns, -ious[rows, columns], ignored[columns], rows))
            pairs = [rows[best_first].tolist(), columns[best_first].tolist(), ious[rows, columns][best_first].tolist()]
            for t, threshold in enumerate(thresholds.tolist()):
                free = [True] * len(truths)
                for row, column, iou in zip(*pairs, strict=True):
                    if iou >= threshold and free[column] and not matches[t, row]:
                        matches[t, row] = column + 1
                        free[column] = crowd[column]
        outside = np.array([not low <= found[row]["area"] <= high for row in order], bool)
        # Row 0 stands for "no instance": such a detection is ignored only if its own area is out of range.
        match_ignored = np.append(False, ignored)[matches]
        return {
            "dtScores": scores[order],
            "dtMatches": matches,
            "dtIgnore": match_ignored | ((matches == 0) & outside),
            "gtIgnore": ignored,
        }
