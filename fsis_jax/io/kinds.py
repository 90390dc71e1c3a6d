"""How files tell the kinds of instances: the colour of each, the same in every file, and the names of probabilities."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

NOTHING = "none"
"""What tables call the probability that it is none of the kinds."""

# A circle of hues, of about equal lightness.
PALETTE = np.array(
    [
        (255, 99, 99),
        (255, 156, 61),
        (255, 221, 74),
        (178, 232, 82),
        (74, 222, 128),
        (64, 224, 222),
        (92, 176, 255),
        (156, 146, 255),
        (226, 130, 255),
        (255, 128, 196),
    ],
    np.uint8,
)
_APART = (6, 1, 4, 8, 2, 0, 5, 7, 3, 9)
"""Rows of the palette, so that the first kinds are easily told apart: blue and orange also without red and green."""
_SHADES = (1.0, 0.7, 0.5)
"""Lightness of the first ten kinds, of the second ten and of the third."""


class Named(Protocol):
    """What tells the kinds, or a closed-set detector's categories, of `fsis_jax.inference.instances.Instances`."""

    @property
    def scores(self) -> np.ndarray: ...
    @property
    def classes(self) -> np.ndarray | None: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def unwanted(self) -> Sequence[str]: ...
    @property
    def kind_scores(self) -> np.ndarray | None: ...


def kind_colour(row: int) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a row of `Named.names`; those of the first thirty differ."""
    round_, place = divmod(row, len(PALETTE))
    red, green, blue = (PALETTE[_APART[place]] * _SHADES[round_ % len(_SHADES)]).astype(int).tolist()
    return red, green, blue


def kind_rows(result: Named) -> np.ndarray | None:
    """(N,) of each instance the row of its kind in `names`; None without kinds, also of a closed-set detector."""
    return None if result.kind_scores is None else result.classes


def probability_names(result: Named) -> list[str]:
    """The columns of `kind_scores`: "p_KIND" of every kind and "p_none"; [] where there are no kinds."""
    return [] if result.kind_scores is None else [f"p_{name}" for name in (*result.names, NOTHING)]


def probabilities(result: Named) -> list[dict[str, float]]:
    """Of each instance the value of each of `probability_names`."""
    names = probability_names(result)
    if result.kind_scores is None:
        return [{}] * len(result.scores)
    return [dict(zip(names, row, strict=True)) for row in result.kind_scores.tolist()]


def counts(result: Named) -> dict[str, int]:
    """How many instances there are of each kind that is wanted, in their order, also 0.

    Other names, of kinds that are not wanted and of the categories of a closed-set detector, are there as far as
    instances have them.
    """
    numbers = np.bincount(() if result.classes is None else result.classes, minlength=len(result.names)).tolist()
    kept = () if result.kind_scores is None else {*result.names} - {*result.unwanted}
    return {name: count for name, count in zip(result.names, numbers, strict=True) if count or name in kept}
