"""What a person says of cells, as `Instances` have it: there is no other evidence for it."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fsis_jax.inference.instances import Instances
from fsis_jax.preprocess.cropped_mask import CroppedMask


def of_one_kind(found: Instances) -> np.ndarray:
    """(N, 2) float32, rows of `kind_scores` where there is no other kind."""
    return np.stack([found.scores, 1 - found.scores], axis=1)


def named(found: Instances, name: str) -> Instances:
    """Instances without kinds, as the ones of a kind."""
    classes = np.zeros(len(found), np.int32)
    return dataclasses.replace(found, names=(name,), classes=classes, kind_scores=of_one_kind(found))


def as_said(found: Instances, said: Mapping[int, str], others: Iterable[str]) -> Instances:
    """Instances of kinds, of which that of some rows was said: all their score is for it.

    Args:
        others: kinds that are to be among the names, too.
    """
    if found.kind_scores is None or found.classes is None:
        return found
    names = tuple(dict.fromkeys([*found.names, *said.values(), *others]))
    kinds = np.zeros((len(found), len(names) + 1), np.float32)
    kinds[:, : len(found.names)], kinds[:, -1] = found.kind_scores[:, :-1], found.kind_scores[:, -1]
    classes = found.classes.copy()
    for row, kind in said.items():
        classes[row] = names.index(kind)
        kinds[row, :-1] = np.eye(len(names))[classes[row]] * found.scores[row]
    return dataclasses.replace(found, names=names, classes=classes, kind_scores=kinds)


def with_cells(found: Instances, masks: Sequence[CroppedMask], kinds: Sequence[str]) -> Instances:
    """Instances behind others with a score of 1, whose kinds are among their names if they have any."""
    told: dict[str, Any] = {}
    if found.classes is not None and found.kind_scores is not None:
        classes = np.array([found.names.index(kind) for kind in kinds], np.int32)
        sure = np.eye(len(found.names) + 1, dtype=np.float32)[classes]
        told["classes"] = np.concatenate([classes, found.classes])
        told["kind_scores"] = np.concatenate([sure, found.kind_scores])
    return dataclasses.replace(
        found,
        boxes=np.concatenate([np.array([mask.extent for mask in masks], np.float32).reshape(-1, 4), found.boxes]),
        scores=np.concatenate([np.ones(len(masks), np.float32), found.scores]),
        masks=(*masks, *found.masks),
        **told,
    )
