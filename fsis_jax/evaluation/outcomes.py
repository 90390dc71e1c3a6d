"""What became of each cell in a test: hit, missed, or found where there is none; as counts, files and pictures.

Detections go into files of COCO's results format, one for each kind that pycocotools compares:

    truth = COCO("annotations/test.json")
    evaluator = COCOeval(truth, truth.loadRes("detections-bbox.json"), "bbox")
"""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fsis_jax.evaluation.closed_set import EVERY, by_category
from fsis_jax.evaluation.instance_metrics import matched_pairs
from fsis_jax.evaluation.predictions import Prediction, read_target
from fsis_jax.evaluation.scores import counted, predictions_to_coco
from fsis_jax.inference.instances import Instances
from fsis_jax.io.atomic import atomic_write
from fsis_jax.io.decoding import to_rgb8
from fsis_jax.io.overlay import Judged, Judgement
from fsis_jax.io.writers import write_overlay
from fsis_jax.preprocess.cropped_mask import CroppedMask
from fsis_jax.preprocess.records import Source

IOU = 0.5
"""Of masks (of boxes, where the model gives no masks), from which a cell is hit."""
_FIELDS = {"box": ("bbox", "bbox"), "mask": ("segm", "segmentation"), "keypoints": ("keypoints", "keypoints")}
"""Family of measures -> pycocotools' name of it, and the field of a detection that it compares."""
_COLUMNS = ("file", "image_id", "category", "cells", "found", "hit", "missed", "false")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of one target, of what counts of a prediction (`scores.counted`)."""

    found: Instances
    hit: np.ndarray
    """(N,) bool, which of them are cells; the others are false."""
    missed: Instances

    @property
    def counts(self) -> dict[str, int]:
        """By the names of the columns of the file."""
        hit = int(self.hit.sum())
        return {
            "cells": hit + len(self.missed),
            "found": len(self.found),
            "hit": hit,
            "missed": len(self.missed),
            "false": len(self.found) - hit,
        }


def outcome(targets: Source, prediction: Prediction) -> Outcome:
    """What became of the cells of a prediction's category."""
    truth, found = counted(targets, prediction)
    if found.boxes_only:
        truth = _boxes(truth)
    rows, columns = matched_pairs(truth, found, iou_threshold=IOU)
    missed = np.ones(len(truth), bool)
    missed[rows] = False
    hit = np.zeros(len(found), bool)
    hit[columns] = True
    return Outcome(found, hit, truth.select(missed))


def _boxes(instances: Instances) -> Instances:
    """With the boxes for masks."""
    height, width = instances.size
    edges = np.round(instances.boxes).astype(int).clip(0, [width, height, width, height])
    masks = [CroppedMask(y1, x1, np.ones((y2 - y1, x2 - x1), bool)) for x1, y1, x2, y2 in edges.tolist()]
    return dataclasses.replace(instances, masks=tuple(masks))


def write_detections(
    folder: pathlib.Path, targets: Source, predictions: Sequence[Prediction], families: Iterable[str]
) -> None:
    """`detections-bbox.json`, `-segm.json` and `-keypoints.json`, as far as the model gives them, and `images.csv`.

    Args:
        folder: of the files.
        targets: of the predictions.
        predictions: each of one category.
        families: of measures, as `scores.families_of`.
    """
    rows = predictions_to_coco(predictions)
    for family in families:
        if family in _FIELDS:
            kind, field = _FIELDS[family]
            kept = ("image_id", "category_id", field, "score")
            content = [{name: row[name] for name in kept} for row in rows]
            with atomic_write(folder / f"detections-{kind}.json") as file:
                file.write(json.dumps(content).encode())
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(_COLUMNS)
    for prediction in predictions:
        counts: Mapping[str, int] = outcome(targets, prediction).counts
        name, category = targets.annotations[prediction.target].file_name, targets.categories[prediction.category]
        table.writerow([name, prediction.image_id, category, *(counts[column] for column in _COLUMNS[3:])])
    with atomic_write(folder / "images.csv") as file:
        file.write(text.getvalue().encode())


def save_overlays(
    folder: pathlib.Path, targets: Source, predictions: Sequence[Prediction], categories: Sequence[int], count: int
) -> None:
    """Write `count` of the predictions, evenly spread, as pictures of what is hit, missed and false.

    Args:
        categories: those that count, of predictions of `EVERY` category.
    """
    for row in np.unique(np.linspace(0, len(predictions) - 1, min(count, len(predictions))).astype(int)):
        prediction = predictions[row]
        every = prediction.category == EVERY
        parts = by_category(targets, [prediction], categories) if every else [prediction]
        path = pathlib.PureWindowsPath(targets.annotations[prediction.target].file_name)  # knows both separators
        name = "-".join(part for part in path.with_suffix("").parts if part != path.anchor)
        write_overlay(
            folder / f"{name}{'' if every else f'-{prediction.category}'}.png",
            to_rgb8(read_target(targets, prediction.target), stretch=True),
            _judged([outcome(targets, part) for part in parts], prediction.instances),
            references=list(prediction.references),
            text="score",
        )


def _judged(outcomes: Sequence[Outcome], of: Instances) -> Judged:
    """Of several categories together; an image without any has those of `of`'s kind, and none of them."""
    found = [(one.found, row) for one in outcomes for row in range(len(one.found))]
    missed = [mask for one in outcomes for mask in one.missed.masks]
    keypoints = [one.keypoints[row] for one, row in found if one.keypoints is not None]
    judgements: list[Judgement] = ["hit" if hit else "false" for one in outcomes for hit in one.hit.tolist()]
    judgements += ["missed"] * len(missed)
    return Judged(
        masks=(*(one.masks[row] for one, row in found), *missed),
        scores=np.array([one.scores[row] for one, row in found] + [0.0] * len(missed), np.float32),
        judgements=judgements,
        names=[category or "" for one in outcomes for category in one.found.categories] if of.names else [],
        keypoints=np.stack(keypoints) if keypoints else None,
        skeleton=of.skeleton,
    )
