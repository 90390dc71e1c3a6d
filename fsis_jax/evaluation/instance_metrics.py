"""How well a segmentation agrees with ground truth at a fixed threshold: AP@t, F1, AJI, PQ.

These are the measures of the bioimage papers (2018 Data Science Bowl, StarDist, Cellpose: AP@t; Kumar et al. 2017:
AJI; Kirillov et al. 2019: PQ). Unlike COCO's AP they look at one result, e.g. `Instances.labels(min_score)`, and not
at a ranking by score. Both sides may be label images (0 = background) or `Instances`, whose masks may overlap.

A worked example. Two true cells of 4 pixels each, side by side, and three predicted ones:

>>> import numpy as np
>>> true = np.array([[1, 1, 2, 2, 0, 0],
...                  [1, 1, 2, 2, 0, 0]])
>>> predicted = np.array([[5, 5, 5, 8, 0, 9],
...                       [5, 5, 0, 8, 0, 0]])

Cell 1 and object 5 share 4 pixels and cover 5 together: IoU 0.8. Cell 2 shares 1 of 8 pixels with object 5 and 2 of
4 pixels with object 8: IoU 0.5. Object 9 lies on background. At IoU 0.5 both cells are found and 9 is false: 2 true
positives, 1 false positive, 0 false negatives.

>>> result = match(true, predicted, iou_threshold=0.5)
>>> result.true_positives, result.false_positives, result.false_negatives
(2, 1, 0)
>>> round(result.ap, 3), round(result.precision, 3), result.recall, result.f1  # 2/3, 2/3, 2/2, 4/5
(0.667, 0.667, 1.0, 0.8)

Panoptic quality: the mean IoU of the matches, (0.8 + 0.5) / 2, times F1:

>>> round(result.panoptic_quality, 3)
0.52

At IoU 0.6 only cell 1 is found, so objects 8 and 9 are false and cell 2 is missed: AP = 1 / (1 + 2 + 1).

>>> match(true, predicted, iou_threshold=0.6).ap
0.25

AJI: common pixels 4 + 2 over the unions 5 + 4, to which the unused object 9 adds 1 pixel:

>>> aggregated_jaccard(true, predicted)
0.6
"""

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
import pycocotools.mask

from fsis_jax.inference.instances import Instances

Segmentation = np.ndarray | Instances


@dataclasses.dataclass(frozen=True)
class Matching:
    """Counts at one IoU threshold, of one image or of many. Ratios without a denominator are NaN."""

    true_positives: int
    false_positives: int
    false_negatives: int
    summed_iou: float
    """The sum over the true positives."""

    @property
    def ap(self) -> float:
        """AP@t of the bioimage papers, TP / (TP + FP + FN); also called accuracy or the Jaccard index of objects."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives + self.false_negatives)

    @property
    def precision(self) -> float:
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        return _ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)

    @property
    def mean_iou(self) -> float:
        """Segmentation quality: mean IoU of the true positives."""
        return _ratio(self.summed_iou, self.true_positives)

    @property
    def panoptic_quality(self) -> float:
        """PQ = mean_iou x f1. (The papers take it at IoU 0.5.)"""
        return _ratio(2 * self.summed_iou, 2 * self.true_positives + self.false_positives + self.false_negatives)


def match(true: Segmentation, predicted: Segmentation, *, iou_threshold: float = 0.5) -> Matching:
    """Pair true and predicted instances one to one, the highest IoU first, down to the threshold.

    From IoU 0.5 on and without overlaps within a side, this is the matching with the most pairs.

    Raises:
        ValueError: the two are of different sizes, or the threshold is not positive.
    """
    overlap = _Overlap.of(true, predicted)
    matched = overlap.matched(iou_threshold)
    return Matching(
        len(matched),
        len(overlap.predicted_areas) - len(matched),
        len(overlap.true_areas) - len(matched),
        float(overlap.ious[matched].sum()),
    )


def matched_pairs(
    true: Segmentation, predicted: Segmentation, *, iou_threshold: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that `match` counts: (n,) positions of the true instances and (n,) of the predicted ones.

    Positions in `Instances`, or in the ascending ids of a label image. Raises as `match`.
    """
    overlap = _Overlap.of(true, predicted)
    matched = overlap.matched(iou_threshold)
    return overlap.rows[matched], overlap.columns[matched]


def total(matchings: Iterable[Matching]) -> Matching:
    """The counts of several images together, for the measures of a whole data set."""
    rows = [dataclasses.astuple(matching) for matching in matchings]
    return Matching(*(sum(column) for column in zip(*rows, strict=True))) if rows else Matching(0, 0, 0, 0.0)


def aggregated_jaccard(true: Segmentation, predicted: Segmentation) -> float:
    """AJI (Kumar et al. 2017): common pixels of the best pairs over their unions and all unused predictions.

    Every true instance takes the prediction of highest IoU, even one that another has taken; an instance that nothing
    overlaps adds its own area to the denominator. NaN where both sides are empty.
    """
    overlap = _Overlap.of(true, predicted)
    order = np.lexsort((-overlap.ious, overlap.rows))
    best = order[np.flatnonzero(np.diff(overlap.rows[order], prepend=-1))]  # the first pair of each row
    common = overlap.common[best].sum()
    unused = np.ones(len(overlap.predicted_areas), bool)
    unused[overlap.columns[best]] = False
    union = (
        overlap.true_areas.sum()
        + overlap.predicted_areas[overlap.columns[best]].sum()
        - common
        + overlap.predicted_areas[unused].sum()
    )
    return _ratio(common, union)


@dataclasses.dataclass(frozen=True)
class _Overlap:
    """The pairs that share pixels; far fewer than all pairs, of which a slide image would have billions."""

    true_areas: np.ndarray
    """(G,) int64 pixels."""
    predicted_areas: np.ndarray
    """(P,) int64 pixels."""
    rows: np.ndarray
    """(E,) true instance of each pair."""
    columns: np.ndarray
    """(E,) predicted instance of each pair."""
    common: np.ndarray
    """(E,) int64 pixels that the two share, at least 1."""

    @classmethod
    def of(cls, true: Segmentation, predicted: Segmentation) -> "_Overlap":
        sizes = [side.size if isinstance(side, Instances) else side.shape for side in (true, predicted)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"images of different sizes: true {sizes[0]}, predicted {sizes[1]}")
        if isinstance(true, np.ndarray) and isinstance(predicted, np.ndarray):
            return cls._of_labels(true, predicted)
        return cls._of_instances(
            *(s if isinstance(s, Instances) else Instances.from_labels(s) for s in (true, predicted))
        )

    @classmethod
    def _of_labels(cls, true: np.ndarray, predicted: np.ndarray) -> "_Overlap":
        true_ids, rows = np.unique(true, return_inverse=True)
        predicted_ids, columns = np.unique(predicted, return_inverse=True)
        codes = rows.ravel().astype(np.int64) * len(predicted_ids) + columns.ravel()
        codes, common = np.unique(codes, return_counts=True)
        rows, columns = np.divmod(codes, len(predicted_ids))
        true_areas = np.bincount(rows, common, len(true_ids)).astype(np.int64)
        predicted_areas = np.bincount(columns, common, len(predicted_ids)).astype(np.int64)
        # Background, where there is any, is no instance: it is left out and the numbers move up.
        cells = (true_ids[rows] != 0) & (predicted_ids[columns] != 0)
        row_of, column_of = np.cumsum(true_ids != 0) - 1, np.cumsum(predicted_ids != 0) - 1
        return cls(
            true_areas[true_ids != 0],
            predicted_areas[predicted_ids != 0],
            row_of[rows[cells]],
            column_of[columns[cells]],
            common[cells],
        )

    @classmethod
    def _of_instances(cls, true: Instances, predicted: Instances) -> "_Overlap":
        true_areas, predicted_areas = true.areas(), predicted.areas()
        ious = np.zeros((len(true), len(predicted)))
        if ious.size:
            ious = np.asarray(pycocotools.mask.iou(true.rles(), predicted.rles(), [False] * len(predicted)))
        rows, columns = np.nonzero(ious)
        # IoU = common / (a + b - common), solved for common and rounded to the whole number that it is.
        iou, both = ious[rows, columns], true_areas[rows] + predicted_areas[columns]
        return cls(true_areas, predicted_areas, rows, columns, np.rint(iou * both / (1 + iou)).astype(np.int64))

    @functools.cached_property
    def ious(self) -> np.ndarray:
        """(E,) of each pair."""
        return self.common / (self.true_areas[self.rows] + self.predicted_areas[self.columns] - self.common)

    def matched(self, iou_threshold: float) -> list[int]:
        """Pairs, no instance in two of them: the highest IoU first, down to the threshold."""
        if iou_threshold <= 0:
            raise ValueError(f"iou_threshold={iou_threshold}: must be above 0")
        free_rows, free_columns = [True] * len(self.true_areas), [True] * len(self.predicted_areas)
        pairs = []
        for pair in np.argsort(-self.ious, kind="stable").tolist():
            row, column = self.rows[pair], self.columns[pair]
            if self.ious[pair] < iou_threshold:
                break
            if free_rows[row] and free_columns[column]:
                free_rows[row] = free_columns[column] = False
                pairs.append(pair)
        return pairs


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else float("nan")
