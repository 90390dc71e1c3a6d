"""Targets of closed-set detectors (`config.model.classes`): all instances of the named categories, and no references.

The network counts its classes from 1 on, in the order of the names; data sets number their categories as they like.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fsis_jax.data.episodes import Episode
from fsis_jax.errors import FsisError


def class_ids(categories: Mapping[int, str], names: Sequence[str]) -> tuple[int, ...]:
    """Ids of the categories of these names, in their order.

    Args:
        categories: id -> name.

    Raises:
        FsisError: a name that the data set does not have, or has twice.
    """
    known = list(categories.values())
    for name in names:
        if name not in known:
            raise FsisError(
                f"config.model.classes has {name!r}, but the data set no such category; it has: {', '.join(known)}"
            )
        if known.count(name) > 1:
            raise FsisError(
                f"config.model.classes has {name!r}: {known.count(name)} categories of that name; rename them"
            )
    ids = {name: category for category, name in categories.items()}
    return tuple(ids[name] for name in names)


def class_numbers(classes: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Category ids (n,) as (n,) int32 class numbers: 1 for ids[0], 2 for ids[1] ..., 0 for any other."""
    same = classes[:, None] == np.asarray(ids)
    return np.where(same.any(axis=1), 1 + same.argmax(axis=1), 0).astype(np.int32)


class ClosedSetSampler:
    """Takes the place of `EpisodeSampler`: every episode is a target without references.

    Args:
        targets: positions of the records to train on.
    """

    def __init__(self, targets: Sequence[int]) -> None:
        if not targets:
            raise FsisError("no target image to train on: the split is empty; check the data root and the split")
        self.targets = tuple(int(target) for target in targets)

    def episode(self, index: int, target: int) -> Episode:
        """Episode `index` with a given target."""
        return Episode(target, "plain", None, ())
