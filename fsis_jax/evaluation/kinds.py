"""Are kinds of one image told apart? Measured on images that show several, with references of all of them at once.

Each image is segmented once with a panel of its kinds' references (`References.of_kinds`), and for comparison once for
each kind by itself, as without a panel. `kind_numbers.py` says what is right. Corrections are drawn from what is found
on training images, as a person would make them there, and judged on test images.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fsis_jax.data.episodes import evaluation_references
from fsis_jax.errors import FsisError
from fsis_jax.evaluation.kind_numbers import (
    Found,
    ap50,
    calibration,
    confusion,
    counted_kinds,
    reliability,
    scores,
    told,
)
from fsis_jax.evaluation.predictions import Model, read_target, reference_of, shown, spread
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.references import References
from fsis_jax.preprocess.records import Source

CORRECTIONS = (5, 10, 20)
"""Corrections of each kind, and of what is none of them."""
_TRAINING_IMAGES = 16
"""That corrections are drawn from, at most, evenly spread."""
_STREAM = 31


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
        the share of what is found as this kind that is a cell of another; "F1 centres" and "on other centres" by
        centres instead of boxes (`kind_numbers.py`); "F1 told" with kinds told right on the same instances, which is
        the most that telling kinds apart can give; "ECE", how far the probabilities are from the shares that are right;
        "F1 after N" corrections of each kind; and "cells". Under "confusion" the counts of the cells of each kind, and
        of what is no cell, by what they are found as, or missed; under "reliability" the table of
        `kind_numbers.reliability` for each kind.

    Raises:
        FsisError: no target shows two of the categories.
    """
    result: dict[str, Any] = {"kinds": {}, "confusion": {}, "reliability": {}}
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
        rows = {name: scores(found, row) for row, name in enumerate(names)}
        for row, name in enumerate(names):
            centred = scores(found, row, "centres")
            rows[name] |= {"F1 centres": centred["F1"], "on other centres": centred["on other"]}
            single = scores(alone[row], row)
            rows[name] |= {"F1 alone": single["F1"], "on other alone": single["on other"]}
        truths = [dataclasses.replace(f, candidates=told(f)) for f in found]
        for row, name in enumerate(names):
            rows[name]["F1 told"] = scores(truths, row)["F1"]
        for count, order in [(count, rng.permutation(1 << 20)) for count in CORRECTIONS]:
            panel = _corrections(corrected, len(group), count, order)
            again = [dataclasses.replace(f, candidates=_refined(f, *panel).rescored(f.candidates)) for f in found]
            for row, name in enumerate(names):
                rows[name][f"F1 after {count}"] = scores(again, row)["F1"]
        for row, (name, ap) in enumerate(zip(names, ap50(targets, found, group), strict=True)):
            result["reliability"][name] = reliability(found, row)
            rows[name] |= {"AP50": ap, "ECE": calibration(result["reliability"][name])}
        result["kinds"] |= rows
        table = confusion(found, len(group))
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
) -> list[Found]:
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
        masks = Instances.from_rles(annotations.rles, candidates.size).masks
        found.append(Found(target, candidates, panel, annotations.boxes, kinds, masks))
    return found


def _corrections(found: Sequence[Found], kinds: int, count: int, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Traits and kinds (K: none of them) of `count` instances of each, drawn from what was found."""
    traits, labels = [], []
    for image in found:
        counted, own = counted_kinds(image)
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


def _refined(found: Found, traits: np.ndarray, kinds: np.ndarray) -> References:
    names = found.references.kinds
    right = {row: names[kind] for row, kind in enumerate(kinds.tolist()) if kind < len(names)}
    return found.references.refined(traits, right=right, wrong=np.flatnonzero(kinds == len(names)).tolist())
