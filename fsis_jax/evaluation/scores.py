"""From predictions to numbers, of three families that are never mixed under one name.

COCO's average precision ranks all instances by score. The measures of the bioimage papers (AP@t = TP / (TP + FP + FN),
F1@t; 2018 Data Science Bowl, StarDist, Cellpose) and of histology (AJI, PQ) look at one result: the instances of at
least the model's `min_score`, without overlaps.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pycocotools.mask
from ml_collections import ConfigDict

from fsis_jax.evaluation import keypoint_ap
from fsis_jax.evaluation.coco_ap import coco_evaluate
from fsis_jax.evaluation.instance_metrics import aggregated_jaccard, match, matched_pairs, total
from fsis_jax.evaluation.predictions import Prediction
from fsis_jax.inference.instances import Instances
from fsis_jax.preprocess.records import Source

COCO = {"mask": "segm", "box": "bbox", "mask_box": "mask_bbox", "keypoints": "keypoints"}
"""Our names of what is compared by COCO's measure, and those of `coco_ap.coco_evaluate`."""
OF_MASKS = ("mask", "box", "mask_box", "bioimage", "histology", "touching")
"""Families of measures of a model that gives masks."""
CELL_AREAS = (16**2, 64**2)
"""Bounds of medium cells, pixels: those of the PyTorch project."""
COCO_AREAS = (32**2, 96**2)
"""Bounds of medium instances, pixels: COCO's, which closed-set detectors are known by."""
TOUCHING = (0.2, 0.35)
"""IoU of a cell's box with that of its nearest neighbour, where the two touch or nearly do."""
THRESHOLDS = (0.5, 0.75)
"""IoU of AP@t and F1@t. PQ is taken at 0.5."""


def families_of(model: ConfigDict) -> tuple[str, ...]:
    """The families of measures of a model with this `config.model`: of masks and keypoints if it gives them."""
    families = OF_MASKS if model.mask_head.kind != "none" else ("box",)
    return (*families, "keypoints") if model.keypoint_head.kind != "none" else families


def score(
    targets: Source,
    predictions: Sequence[Prediction],
    categories: Sequence[int],
    *,
    families: Sequence[str] = OF_MASKS,
    area_splits: tuple[float, float] = CELL_AREAS,
) -> dict[str, Any]:
    """Every measure of one pass over the targets.

    Args:
        families: as `families_of`.
        area_splits: as for `coco_ap.coco_evaluate`; keypoints have bounds of their own.

    Returns:
        COCO's families "mask", "box", "mask_box" and "keypoints" {"AP", "AP50", "AP75", "AP_small", ..., "AR@500"};
        "bioimage" {"AP@0.5", "AP@0.75", "F1@0.5", "F1@0.75"}, from the counts of all images of a category together;
        "histology" {"AJI", "PQ"}: AJI is the mean over images, PQ from the counts; "touching" {"recall@0.5", "cells"}:
        the share that is found of cells that touch another of their category, and their number. Each is the mean over
        the categories, and has the same for each of `categories` by its name under "categories". What does not exist
        is NaN.
    """
    detections = predictions_to_coco(predictions)
    images = {prediction.image_id for prediction in predictions}
    result: dict[str, Any] = {}
    for name in (family for family in families if family in COCO):
        options: dict[str, Any] = {"area_splits": area_splits}
        if name == "keypoints":
            options = {"area_splits": keypoint_ap.AREA_SPLITS, "max_dets": keypoint_ap.MAX_DETS}
        options |= {"iou_type": COCO[name], "images": images, "categories": categories}
        scores = coco_evaluate(targets.annotations, detections, **options)
        by_id = scores.pop("categories")
        result[name] = {**scores, "categories": {targets.categories[key]: value for key, value in by_id.items()}}
    others = [family for family in families if family not in COCO]
    if not others:
        return result
    of_each: dict[int, list[tuple[Instances, Instances]]] = {category: [] for category in categories}
    for prediction in predictions:
        if prediction.category in of_each:
            of_each[prediction.category].append(counted(targets, prediction))
    counts = {targets.categories[category]: _count(pairs) for category, pairs in of_each.items()}
    for family in others:
        rows = {name: families[family] for name, families in counts.items()}
        names = next(iter(rows.values()), {})
        result[family] = {name: _mean([row[name] for row in rows.values()]) for name in names} | {"categories": rows}
    return result


def predictions_to_coco(predictions: Sequence[Prediction]) -> list[Any]:
    """COCO's results format."""
    return [row for p in predictions for row in p.instances.to_coco(p.image_id, p.category)]


def summarise(repeats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{"repeats": as given, "mean": ..., "sd": ...}, number by number; repeats are of the same structure."""
    return {"repeats": list(repeats), "mean": _across(repeats, np.mean), "sd": _across(repeats, np.std)}


def counted(targets: Source, prediction: Prediction) -> tuple[Instances, Instances]:
    """The cells of the prediction's category, and what counts of the prediction.

    Crowds are neither cells nor false: what lies by more than half where only they are does not count.
    """
    annotations = targets.annotations[prediction.target]
    size, found = prediction.instances.size, prediction.instances.without_overlaps()
    rows = np.flatnonzero((annotations.classes == prediction.category) & ~annotations.crowd)
    truth = Instances.from_rles([annotations.rles[row] for row in rows], size)
    if annotations.crowd.any():
        unlabelled = np.zeros(size, bool)
        for crowd in (True, False):  # a cell takes its pixels back, so that what matches one stays
            of_these = [annotations.rles[row] for row in np.flatnonzero(annotations.crowd == crowd)]
            for crop in Instances.from_rles(of_these, size).masks:
                unlabelled[crop.slices][crop.mask] = crowd
        outside = [2 * np.count_nonzero(crop.mask & unlabelled[crop.slices]) <= crop.mask.sum() for crop in found.masks]
        found = found.select(np.array(outside, bool))
    return truth, found


def _count(pairs: Sequence[tuple[Instances, Instances]]) -> dict[str, dict[str, float]]:
    matched = {t: total(match(true, found, iou_threshold=t) for true, found in pairs) for t in THRESHOLDS}
    return {
        "bioimage": {f"AP@{t}": m.ap for t, m in matched.items()} | {f"F1@{t}": m.f1 for t, m in matched.items()},
        "histology": {
            "AJI": _mean([aggregated_jaccard(true, found) for true, found in pairs]),
            "PQ": matched[THRESHOLDS[0]].panoptic_quality,
        },
        "touching": _touching(pairs),
    }


def _touching(pairs: Sequence[tuple[Instances, Instances]]) -> dict[str, float]:
    there = found = 0
    for true, predicted in pairs:
        touching = _touches(true.boxes)
        there += int(touching.sum())
        found += int(touching[matched_pairs(true, predicted, iou_threshold=THRESHOLDS[0])[0]].sum())
    return {"recall@0.5": found / there if there else float("nan"), "cells": float(there)}


def _touches(boxes: np.ndarray) -> np.ndarray:
    """(n,) bool, whether the largest IoU of a box (n, 4) with another one is within `TOUCHING`."""
    if not len(boxes):
        return np.zeros(0, bool)
    corners = boxes.astype(np.float64)
    measured = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)  # COCO's x, y, width, height
    iou = np.array(pycocotools.mask.iou(measured, measured, [False] * len(boxes)))
    np.fill_diagonal(iou, 0)
    nearest = iou.max(1, initial=0)
    return np.asarray((nearest >= TOUCHING[0]) & (nearest <= TOUCHING[1]))


def _mean(values: Sequence[float]) -> float:
    defined = np.array(values)[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _across(results: Sequence[dict[str, Any]], function: Callable[[list[float]], Any]) -> dict[str, Any]:
    return {
        key: _across([result[key] for result in results], function)
        if isinstance(value, dict)
        else float(function([result[key] for result in results]))
        for key, value in results[0].items()
    }
