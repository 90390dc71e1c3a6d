"""Colour maps: whether the numbers that they colour are what was measured, or only stand for colours.

A viewer's look-up table (the blue that Fiji saves with a picture of DAPI) runs smoothly from one end to the other: the
numbers are the measured ones. The map of a program that reduces a picture to few colours has its entries in any order:
the numbers mean nothing, the colours all. In a PNG, which says nothing of how it came about, the colours count.
"""

import numpy as np

_BEND = 12
"""Levels, of 256, by which the step from one entry of a smooth map to the next may differ from the step before."""
_BENDS = 0.02
"""Share of the entries that may do so: the ends, where some maps mark what is saturated."""
MOST_COLOURS = 256
"""No program reduces a picture to more."""


def table_to_8bit(table: np.ndarray) -> np.ndarray:
    """(n, 3) uint8, of a TIFF's (3, n): of 16 bits, but some writers use only the lower 8."""
    return np.ascontiguousarray((table >> 8 if table.max(initial=0) > 255 else table).T.astype(np.uint8))


def is_for_display(table: np.ndarray) -> bool:
    """Whether a map (n, 3) uint8 is one of a viewer, which colours measured numbers."""
    bends = np.abs(np.diff(table.astype(int), n=2, axis=0)).max(axis=1)
    return bool(np.mean(bends > _BEND) <= _BENDS) if len(bends) else False


def is_grey(table: np.ndarray) -> bool:
    """Whether all colours of a map (n, 3) are greys."""
    return bool((table == table[:, :1]).all())
