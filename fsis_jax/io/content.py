"""Which squares of a large image show something: others, glass or dark medium, say nothing of the cells' intensities.

A square shows something if the means over small parts of it differ by at least a tenth of what they do in squares that
clearly stand out from the least eventful ones. Where none stands out, as in an image full of cells, all count.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from fsis_jax.io.intensity import Image, without_alpha

_PARTS = 16
"""Parts of a square along each side."""
_BAND = 1 << 18
"""Pixels that are read at once, or one square."""
_FEWEST = 64
"""Squares from which on an image is large enough to tell."""


class Content:
    """An image without its empty squares; `bands` gives what is left.

    Args:
        image: (H, W) or (H, W, C); read once here, and at each call of `bands`.
        grain: pixels of a part of a square, about a quarter of a cell.
    """

    def __init__(self, image: Image, grain: float) -> None:
        self._image = image
        height, width = image.shape[:2]
        side = max(_PARTS * grain, _PARTS)
        self._rows, self._columns = (
            np.linspace(0, length, max(int(length / side), 1) + 1).round().astype(int) for length in (height, width)
        )
        ranges = np.concatenate([self._ranges(*piece) for piece in self._pieces()])
        self.shows = np.ones(len(ranges), bool)
        """(n,) bool, of the squares, by rows."""
        clear = ranges[ranges > 3 * np.percentile(ranges, 10)]
        if ranges.size >= _FEWEST and clear.size:
            self.shows = ranges > np.percentile(clear, 90) / 10

    def bands(self) -> Iterator[np.ndarray]:
        """The pixels of squares of one row that show something: (h, w) or (h, w, 3)."""
        start = 0
        for pixels, widths in self._pieces():
            shows = self.shows[start : start + len(widths)]
            start += len(widths)
            if shows.any():
                yield pixels[:, np.repeat(shows, widths)]

    def _pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pixels of a few squares of one row, and the widths of these."""
        few = max(_BAND // (self._rows[1] - self._rows[0]) // (self._columns[1] - self._columns[0]), 1)
        for top, bottom in zip(self._rows[:-1], self._rows[1:], strict=True):
            for first in range(0, len(self._columns) - 1, few):
                sides = self._columns[first : first + few + 1]
                pixels = self._image[int(top) : int(bottom), int(sides[0]) : int(sides[-1])]
                yield without_alpha(np.asarray(pixels)), np.diff(sides)

    def _ranges(self, pixels: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """(n,) how far the means over the parts of each square differ, in the channel where they do most."""
        with np.errstate(over="ignore"):
            values = np.nan_to_num(pixels.astype(np.float32), posinf=0, neginf=0)
        means = cv2.resize(values, (len(widths) * _PARTS, _PARTS), interpolation=cv2.INTER_AREA)
        return np.asarray(np.ptp(means.reshape(_PARTS, len(widths), _PARTS, -1), axis=(0, 2)).max(axis=1))
