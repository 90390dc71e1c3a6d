"""Boxes and masks that a person draws or points at."""

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.outlines import Box
from fsis_jax.preprocess.cropped_mask import CroppedMask, Size

_LEAST_SIDE = 2
"""Pixels of a box."""


def whole_pixels(box: Box, size: Size) -> Box:
    """A box in whole pixels, cut off at the borders of its image.

    Raises:
        FsisError: nearly nothing is left.
    """
    height, width = size
    x1, x2 = sorted(min(max(round(x), 0), width) for x in box[::2])
    y1, y2 = sorted(min(max(round(y), 0), height) for y in box[1::2])
    if min(x2 - x1, y2 - y1) < _LEAST_SIDE:
        raise FsisError(f"a box of {x2 - x1}x{y2 - y1} pixels: drag one around a whole cell")
    return float(x1), float(y1), float(x2), float(y2)


def ellipse(box: Box) -> CroppedMask:
    """The mask of a cell of which only the box is known: the ellipse that fills it."""
    x1, y1, x2, y2 = (int(value) for value in box)
    across = (np.arange(x1, x2) + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2)
    down = (np.arange(y1, y2) + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2)
    return CroppedMask(y1, x1, down[:, None] ** 2 + across[None] ** 2 <= 1)


def holds(crop: CroppedMask, x: float, y: float) -> bool:
    """Whether a mask has the pixel with a point."""
    x1, y1, x2, y2 = crop.extent
    return x1 <= x < x2 and y1 <= y < y2 and bool(crop.mask[int(y) - y1, int(x) - x1])
