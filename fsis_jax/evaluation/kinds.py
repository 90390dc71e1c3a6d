"""Are kinds of one image told apart? Measured on images that show several, with references of all of them at once.

Each image is segmented once with a panel of its kinds' references (`References.of_kinds`), and for comparison once for
each kind by itself, as without a panel. An instance is right if it is of the kind of a cell whose box it has (IoU 0.5,
one to one, by descending score); what lies on a cell that nobody labelled (crowd) does not count. Corrections are drawn
from what is found on training images, as a person would make them there, and judged on test images.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask

from fsis_jax.data.episodes import evaluation_references
from fsis_jax.errors import FsisError
from fsis_jax.evaluation.coco_ap import coco_evaluate
from fsis_jax.evaluation.predictions import Model, read_target, reference_of, shown, spread
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.references import References
from fsis_jax.preprocess.records import Source

CORRECTIONS = (5, 10, 20)
"""Corrections of each kind, and of what is none of them."""
_TRAINING_IMAGES = 16
"""That corrections are drawn from, at most, evenly spread."""
_IOU = 0.5
_BINS = 5
_STREAM = 31


@dataclasses.dataclass(frozen=True)
class _Found:
    """What was found in an image, and the cells that are there."""

    target: int
    candidates: Instances
    references: References
    boxes: np.ndarray
    """(G, 4), of the cells."""
    truth: np.ndarray
    """(G,), the row of each cell's kind; -1 of a crowd or of another kind."""

    def matched(self, counted: Instances, kinds: Sequence[int]) -> np.ndarray:
        """(N,) of each instance the cell that it is taken for, of those of its own kind first; -1 none, -2 a crowd."""
        result = np.full(len(counted), -1)
        if not len(self.boxes):
            return result
        overlap = pycocotools.mask.iou(_xywh(counted.boxes), _xywh(self.boxes), [0] * len(self.boxes))
        overlap = np.asarray(overlap).reshape(len(counted), len(self.boxes))
        taken = np.zeros(len(self.boxes), bool)
        for row, kind in enumerate(kinds):
            near = overlap[row] >= _IOU
            for fits in (near & (self.truth == kind) & ~taken, near & (self.truth >= 0) & ~taken):
                if fits.any():
                    result[row] = int(np.where(fits, overlap[row], 0).argmax())
                    taken[result[row]] = True
                    break
            else:
                if (near & (self.truth < 0)).any():
                    result[row] = -2
        return result


def measure_kinds(
    model: Model,
    targets: Source,
    train: Source,
    categories: Sequence[int],
    *,
    shots: int,
    repeat: int = 0,
    seed: int = 0,
    max_images: int = 0,
) -> dict[str, Any]:
    """Test a model on the targets that show two kinds or more that are labelled in the same images.

    Args:
        model: what is tested; instances count from its `min_score`.
        targets: test images.
        train: images that references and corrections come from.
        categories: ids that are looked at.
        shots: references of each kind.
        repeat: number of the repeat; another one draws other references and corrections.
        seed: of the draws.
        max_images: at most so many targets of each group of kinds, evenly spread; 0 takes all.

    Returns:
        Of each kind by its name: "F1" and "AP50" with competition, "F1 alone" and "on other alone" without; "on other",
        the share of what is found as this kind that is a cell of another; "F1 told" with kinds told right on the
        same instances, which is the most that telling kinds apart can give; "ECE", how far the probabilities are from
        the shares that are right; "F1 after N" corrections of each kind; and "cells". Under "confusion" the counts of
        the cells of each kind, and of what is no cell, by what they are found as, or missed.

    Raises:
        FsisError: no target shows two of the categories.
    """
    result: dict[str, Any] = {"kinds": {}, "confusion": {}}
    for group in kind_groups(targets, categories):
        several = [t for t in range(len(targets)) if len(shown(targets, t) & {*group}) > 1]
        chosen = spread(several, max_images)
        names = [targets.categories[kind] for kind in group]
        draws: dict[str, Any] = {"shots": shots, "repeat": repeat, "seed": seed}
        found = _segment(model, targets, train, chosen, group, names, **draws)
        alone = [_segment(model, targets, train, chosen, group, names, only=row, **draws) for row in range(len(group))]
        examples = spread([t for t in range(len(train)) if len(shown(train, t) & {*group}) > 1], _TRAINING_IMAGES)
        corrected = _segment(model, train, train, examples, group, names, **draws)
        rng = np.random.default_rng((seed, _STREAM, repeat))
        rows = {name: _scores(found, row) for row, name in enumerate(names)}
        for row, name in enumerate(names):
            single = _scores(alone[row], row)
            rows[name] |= {"F1 alone": single["F1"], "on other alone": single["on other"]}
        truths = [dataclasses.replace(f, candidates=_told(f)) for f in found]
        for row, name in enumerate(names):
            rows[name]["F1 told"] = _scores(truths, row)["F1"]
        for count, order in [(count, rng.permutation(1 << 20)) for count in CORRECTIONS]:
            panel = _corrections(corrected, len(group), count, order)
            again = [dataclasses.replace(f, candidates=_refined(f, *panel).rescored(f.candidates)) for f in found]
            for row, name in enumerate(names):
                rows[name][f"F1 after {count}"] = _scores(again, row)["F1"]
        for row, (name, ap) in enumerate(zip(names, _ap50(targets, found, group), strict=True)):
            rows[name] |= {"AP50": ap, "ECE": _calibration(found, row)}
        result["kinds"] |= rows
        table = _confusion(found, len(group))
        for row, name in enumerate([*names, f"nothing, of {' and '.join(names)}"]):
            result["confusion"][name] = dict(zip([*names, "missed"], table[row].tolist(), strict=True))
    return result


def kind_groups(source: Source, categories: Sequence[int]) -> list[list[int]]:
    """The categories that are shown together in some image, directly or by way of others, in groups of two or more.

    Raises:
        FsisError: there is no such group.
    """
    groups: list[set[int]] = []
    for position in range(len(source)):
        together = shown(source, position) & {*categories}
        if len(together) > 1:
            joined = [group for group in groups if group & together]
            groups = [group for group in groups if group not in joined] + [together.union(*joined)]
    if not groups:
        raise FsisError("no test image shows two of the kinds: set config.eval.kinds to False, or config.eval.mosaics")
    return sorted(sorted(group) for group in groups)


def _segment(
    model: Model,
    targets: Source,
    train: Source,
    chosen: Sequence[int],
    group: Sequence[int],
    names: Sequence[str],
    *,
    shots: int,
    repeat: int,
    seed: int,
    only: int | None = None,
) -> list[_Found]:
    """What is found in targets with references of all kinds of a group, or of one `only`."""
    rows = range(len(group)) if only is None else [only]
    panels, jobs = [], []
    for target in chosen:
        each = {}
        for row in rows:
            given = (targets.annotations, train.annotations)
            boxes = evaluation_references(*given, target, group[row], shots, repeat=repeat, seed=seed)
            crops, stretches = zip(*(reference_of(model, train, box) for box in boxes), strict=True)
            each[names[row]] = model.encode_references(crops, stretches=stretches, checked=False)
        panels.append(References.of_kinds(each) if only is None else each[names[only]])
        jobs.append(Job(read_target(targets, target), panels[-1]))
    found = []
    for target, panel, (_, candidates) in zip(chosen, panels, model.candidates(jobs), strict=True):
        annotations = targets.annotations[target]
        kinds = np.array([group.index(c) if c in group else -1 for c in annotations.classes.tolist()], np.int64)
        kinds[annotations.crowd] = -1
        if only is not None:
            classes = np.full(len(candidates), only, np.int32)
            candidates = dataclasses.replace(candidates, classes=classes, names=tuple(names))
        found.append(_Found(target, candidates, panel, annotations.boxes, kinds))
    return found


def _xywh(boxes: np.ndarray) -> np.ndarray:
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _counted(found: _Found) -> tuple[Instances, list[int]]:
    counted = found.candidates.without_overlaps()
    assert counted.classes is not None
    return counted, counted.classes.tolist()


def _scores(found: Sequence[_Found], kind: int) -> dict[str, float]:
    right = wrong = cells = other = 0
    for image in found:
        counted, kinds = _counted(image)
        cells += int((image.truth == kind).sum())
        for cell, own in zip(image.matched(counted, kinds).tolist(), kinds, strict=True):
            if own != kind or cell == -2:
                continue
            hit = cell >= 0 and image.truth[cell] == kind
            right, wrong = right + hit, wrong + (not hit)
            other += cell >= 0 and not hit
    return {
        "F1": 2 * right / max(right + wrong + cells, 1),
        "on other": other / max(right + wrong, 1),
        "cells": float(cells),
    }


def _told(found: _Found) -> Instances:
    """The candidates with the kinds of the cells that they lie on."""
    counted, kinds = _counted(found)
    cells = found.matched(counted, kinds)
    told = np.where(cells >= 0, found.truth[np.maximum(cells, 0)] if len(found.truth) else 0, kinds)
    return dataclasses.replace(counted, classes=told.astype(np.int32))


def _corrections(found: Sequence[_Found], kinds: int, count: int, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Traits and kinds (K: none of them) of `count` instances of each, drawn from what was found."""
    traits, labels = [], []
    for image in found:
        counted, own = _counted(image)
        assert counted.traits is not None
        for row, cell in enumerate(image.matched(counted, own).tolist()):
            if cell != -2:
                traits.append(counted.traits[row])
                labels.append(int(image.truth[cell]) if cell >= 0 else kinds)
    known = np.array(labels, int)
    ranks = order[: len(known)]
    rows = np.concatenate(
        [
            np.array(sorted(np.flatnonzero(known == kind), key=lambda row: ranks[row])[:count], int)
            for kind in range(kinds + 1)
        ]
    )
    return np.array(traits, np.float32)[rows], known[rows]


def _refined(found: _Found, traits: np.ndarray, kinds: np.ndarray) -> References:
    names = found.references.kinds
    right = {row: names[kind] for row, kind in enumerate(kinds.tolist()) if kind < len(names)}
    return found.references.refined(traits, right=right, wrong=np.flatnonzero(kinds == len(names)).tolist())


def _ap50(targets: Source, found: Sequence[_Found], group: Sequence[int]) -> list[float]:
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


def _calibration(found: Sequence[_Found], kind: int) -> float:
    """Expected calibration error of the probabilities of a kind among what is counted as it, in `_BINS` equal bins."""
    told, right = [], []
    for image in found:
        counted, kinds = _counted(image)
        assert counted.kind_scores is not None
        for row, cell in enumerate(image.matched(counted, kinds).tolist()):
            if kinds[row] == kind and cell != -2:
                told.append(float(counted.kind_scores[row, kind]))
                right.append(cell >= 0 and image.truth[cell] == kind)
    if not told:
        return float("nan")
    bins = np.minimum((np.array(told) * _BINS).astype(int), _BINS - 1)
    gap = 0.0
    for chosen in (bins == b for b in range(_BINS)):
        if chosen.any():
            gap += chosen.mean() * abs(np.array(told)[chosen].mean() - np.array(right)[chosen].mean())
    return gap


def _confusion(found: Sequence[_Found], kinds: int) -> np.ndarray:
    """(K + 1, K + 1) counts: rows cells of each kind, then what is no cell; columns found as each, then missed."""
    table = np.zeros((kinds + 1, kinds + 1), int)
    for image in found:
        counted, own = _counted(image)
        cells = image.matched(counted, own).tolist()
        for kind, cell in zip(own, cells, strict=True):
            if cell != -2:
                table[image.truth[cell] if cell >= 0 else kinds, kind] += 1
        for cell, kind in enumerate(image.truth.tolist()):
            if kind >= 0 and cell not in cells:
                table[kind, kinds] += 1
    return table
