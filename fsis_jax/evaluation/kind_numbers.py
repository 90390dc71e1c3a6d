"""Numbers of how kinds are told apart, of what was found in images of which every cell's kind is known.

Instances and cells are paired one to one, by descending score, and an instance takes a cell of its own kind if it can.
By *boxes* a cell is one whose box has an IoU of at least 0.5 with that of the instance, the most alike first. By
*centres* it is one in whose mask the centre of the instance's box lies, the nearest to the centre of its own box first:
that is what counting asks, also where only a cell's core is outlined. An instance is right if the cell is of its kind.
What lies on a cell that nobody labelled (crowd), and on no other one, does not count.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pycocotools.mask

from fsis_jax.evaluation.coco_ap import coco_evaluate
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.references import References
from fsis_jax.preprocess.cropped_mask import CroppedMask
from fsis_jax.preprocess.records import Source

By = Literal["boxes", "centres"]
_IOU = 0.5
_BINS = 5


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found in an image, and the cells that are there."""

    target: int
    candidates: Instances
    references: References
    boxes: np.ndarray
    """(G, 4), of the cells."""
    truth: np.ndarray
    """(G,), the row of each cell's kind; -1 of a crowd or of another kind."""
    masks: Sequence[CroppedMask]
    """G, of the cells."""

    def matched(self, counted: Instances, kinds: Sequence[int], by: By = "boxes") -> np.ndarray:
        """(N,) of each instance the cell that it is taken for; -1 none, -2 a crowd."""
        result = np.full(len(counted), -1)
        if not len(self.boxes):
            return result
        alike = self._ious(counted) if by == "boxes" else self._centred(counted)
        taken = np.zeros(len(self.boxes), bool)
        for row, kind in enumerate(kinds):
            near = alike[row] > 0
            for fits in (near & (self.truth == kind) & ~taken, near & (self.truth >= 0) & ~taken):
                if fits.any():
                    result[row] = int(np.where(fits, alike[row], 0).argmax())
                    taken[result[row]] = True
                    break
            else:
                if (near & (self.truth < 0)).any():
                    result[row] = -2
        return result

    def _ious(self, counted: Instances) -> np.ndarray:
        """(N, G) of boxes; 0 for less than `_IOU`."""
        overlap = pycocotools.mask.iou(_xywh(counted.boxes), _xywh(self.boxes), [0] * len(self.boxes))
        overlap = np.asarray(overlap).reshape(len(counted), len(self.boxes))
        return np.where(overlap >= _IOU, overlap, 0)

    def _centred(self, counted: Instances) -> np.ndarray:
        """(N, G) from 1 on down with the distance of the centres; 0 where the instance's lies outside of the mask."""
        centres = (counted.boxes[:, :2] + counted.boxes[:, 2:]) / 2
        result = np.zeros((len(counted), len(self.boxes)))
        for cell, (crop, (x1, y1, x2, y2)) in enumerate(zip(self.masks, self.boxes.tolist(), strict=True)):
            rows, columns = (np.floor(centres[:, 1 - axis]).astype(int) - crop[axis] for axis in (0, 1))
            height, width = crop.mask.shape
            inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            inside[inside] = crop.mask[rows[inside], columns[inside]]
            away = np.hypot(centres[:, 0] - (x1 + x2) / 2, centres[:, 1] - (y1 + y2) / 2)
            result[inside, cell] = 1 / (1 + away[inside])
        return result


def _xywh(boxes: np.ndarray) -> np.ndarray:
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def counted_kinds(found: Found) -> tuple[Instances, list[int]]:
    """What counts of an image's candidates, and the kind of each."""
    counted = found.candidates.without_overlaps()
    assert counted.classes is not None
    return counted, counted.classes.tolist()


def scores(found: Sequence[Found], kind: int, by: By = "boxes") -> dict[str, float]:
    """F1 of a kind, the share of what is found as it that is a cell of another kind, and the number of its cells."""
    right = wrong = cells = other = 0
    for image in found:
        counted, kinds = counted_kinds(image)
        cells += int((image.truth == kind).sum())
        for cell, own in zip(image.matched(counted, kinds, by).tolist(), kinds, strict=True):
            if own != kind or cell == -2:
                continue
            hit = cell >= 0 and image.truth[cell] == kind
            right, wrong = right + hit, wrong + (not hit)
            other += cell >= 0 and not hit
    return {
        "F1": 2 * right / (right + wrong + cells) if cells else np.nan,
        "on other": other / (right + wrong) if right + wrong else np.nan,
        "cells": float(cells),
    }


def told(found: Found) -> Instances:
    """The candidates with the kinds of the cells that they lie on."""
    counted, kinds = counted_kinds(found)
    cells = found.matched(counted, kinds)
    told = np.where(cells >= 0, found.truth[np.maximum(cells, 0)] if len(found.truth) else 0, kinds)
    return dataclasses.replace(counted, classes=told.astype(np.int32))


def ap50(targets: Source, found: Sequence[Found], group: Sequence[int]) -> list[float]:
    """Box AP50 of each kind, every candidate with its probability of that kind."""
    rows = []
    for image in found:
        image_id = targets.annotations[image.target].image_id
        kinds = image.candidates.kind_scores
        assert kinds is not None
        for kind, category in enumerate(group):
            told = image.candidates.by_scores(kinds[:, kind])
            rows += told.to_coco(image_id, category)
    images = {targets.annotations[image.target].image_id for image in found}
    each = coco_evaluate(targets.annotations, rows, iou_type="bbox", images=images, categories=group)
    return [each["categories"][category]["AP50"] for category in group]


def reliability(found: Sequence[Found], kind: int) -> dict[str, dict[str, float]]:
    """Whether the probabilities of a kind are the shares that are right, among what is counted as it.

    Returns:
        Of each of `_BINS` equal bins, "0.0-0.2" and so on: "instances", their mean "probability", and the share that is
        "right"; NaN where there are none.
    """
    told, right = [], []
    for image in found:
        counted, kinds = counted_kinds(image)
        assert counted.kind_scores is not None
        for row, cell in enumerate(image.matched(counted, kinds).tolist()):
            if kinds[row] == kind and cell != -2:
                told.append(float(counted.kind_scores[row, kind]))
                right.append(cell >= 0 and image.truth[cell] == kind)
    bins = np.minimum((np.array(told) * _BINS).astype(int), _BINS - 1)
    table = {}
    for number in range(_BINS):
        chosen = bins == number
        some = bool(chosen.any())
        table[f"{number / _BINS:.1f}-{(number + 1) / _BINS:.1f}"] = {
            "instances": float(chosen.sum()),
            "probability": float(np.array(told)[chosen].mean()) if some else np.nan,
            "right": float(np.array(right)[chosen].mean()) if some else np.nan,
        }
    return table


def calibration(table: Mapping[str, Mapping[str, float]]) -> float:
    """Expected calibration error of a table of `reliability`; NaN of one without instances."""
    filled = [row for row in table.values() if row["instances"]]
    total = sum(row["instances"] for row in filled)
    return sum(row["instances"] * abs(row["probability"] - row["right"]) for row in filled) / total if total else np.nan


def confusion(found: Sequence[Found], kinds: int) -> np.ndarray:
    """(K + 1, K + 1) counts: rows cells of each kind, then what is no cell; columns found as each, then missed."""
    table = np.zeros((kinds + 1, kinds + 1), int)
    for image in found:
        counted, own = counted_kinds(image)
        cells = image.matched(counted, own).tolist()
        for kind, cell in zip(own, cells, strict=True):
            if cell != -2:
                table[image.truth[cell] if cell >= 0 else kinds, kind] += 1
        for cell, kind in enumerate(image.truth.tolist()):
            if kind >= 0 and cell not in cells:
                table[kind, kinds] += 1
    return table
