"""Which of many rectangles lie near each other, without looking at all pairs: squares of the plane list theirs.

And how much of one rectangle each of some others shares.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np


class Neighbours:
    """Rectangles that are added one after the other, and asked for by place.

    Args:
        extents: (n, 4) int (x1, y1, x2, y2) of every rectangle there is.
    """

    def __init__(self, extents: np.ndarray) -> None:
        self._extents = extents.tolist()
        longest = (extents[:, 2:] - extents[:, :2]).max(axis=1) if len(extents) else np.zeros(1)
        self._side = max(2 * int(np.median(longest)), 16)
        self._squares: dict[tuple[int, int], list[int]] = {}

    def add(self, row: int) -> None:
        """From now on `near` knows of rectangle `row`."""
        for square in self._touched(row):
            self._squares.setdefault(square, []).append(row)

    def near(self, row: int) -> list[int]:
        """The rows added so far, ascending, whose rectangles share a square with that of `row`, added or not."""
        found = [self._squares[square] for square in self._touched(row) if square in self._squares]
        return sorted(set().union(*found))

    def _touched(self, row: int) -> Iterator[tuple[int, int]]:
        x1, y1, x2, y2 = self._extents[row]
        side = self._side
        return itertools.product(range(y1 // side, y2 // side + 1), range(x1 // side, x2 // side + 1))


def box_ious(box: Sequence[float], boxes: np.ndarray) -> np.ndarray:
    """(n,) float64: intersection over union of one box (x1, y1, x2, y2) with each of (n, 4)."""
    one, others = np.asarray(box, np.float64), np.asarray(boxes, np.float64)
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (one[2:] - one[:2]).prod()
    return np.asarray(shared / np.maximum(areas - shared, 1e-9))
