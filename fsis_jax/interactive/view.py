"""Looking at an image of any size: of the part that is seen no more pixels are read than a screen has, or few more.

The intensities are stretched once for the whole image, so that nothing changes its brightness when it is moved.
"""

import math

import cv2
import numpy as np

from fsis_jax.io.decoding import to_rgb8
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.intensity import Image, coarsest, find_stretch
from fsis_jax.io.outlines import Box
from fsis_jax.preprocess.cropped_mask import CroppedMask

_OVERVIEW = 2048
"""Pixels of the longer side of the picture of the whole image, which is kept."""
_BAND = 1 << 22
"""Pixels that are read at once."""
_COARSE = 1.5
"""Pixels of the screen that a pixel of the overview may cover, before finer ones are read."""
_SMOOTH = 0.6
"""Pixels that the corners of an outline may be away from it."""


class View:
    """An open image, as it is looked at; what is read of it needs a few dozen megabytes."""

    def __init__(self, image: ImageFile) -> None:
        self.image = image
        height, width = image.shape[:2]
        self.size = (height, width)
        level = coarsest(image, max(self.size) / _OVERVIEW)
        self._stretch = find_stretch(level)
        step = -(-max(level.shape[:2]) // _OVERVIEW)
        self._overview = self._read(level, (0, 0, level.shape[1], level.shape[0]), step)

    def picture(self, window: Box, width: int) -> tuple[np.ndarray, Box]:
        """What a window shows, for a screen that shows it with so many pixels across.

        Args:
            window: in pixels of the image; what lies outside of it is left out.

        Returns:
            (h, w, 3) uint8, and where it lies in the image: the window, rounded to whole pixels of what was read. An
            empty picture where nothing of the image is in the window.
        """
        pixel = (window[2] - window[0]) / max(width, 1)  # of the screen, in pixels of the image
        if self.size[1] / self._overview.shape[1] <= _COARSE * pixel:
            overview, place = _cut(self._overview, self.size, window)
            x1, y1, x2, y2 = place
            return self._overview[y1:y2, x1:x2], overview
        level = coarsest(self.image, max(pixel, 1.0))
        covered, place = _cut(level, self.size, window)
        if place[0] >= place[2] or place[1] >= place[3]:
            return np.zeros((0, 0, 3), np.uint8), covered
        step = max(math.floor(pixel * level.shape[1] / self.size[1]), 1)
        return self._read(level, place, step), covered

    def _read(self, level: Image, place: tuple[int, int, int, int], step: int) -> np.ndarray:
        """A part of a level, shrunk by a whole number, from bands of rows."""
        x1, y1, x2, y2 = place
        rows, columns = -(-(y2 - y1) // step), -(-(x2 - x1) // step)
        picture = np.empty((rows, columns, 3), np.uint8)
        height = max(_BAND // max(x2 - x1, 1) // step, 1)
        for top in range(0, rows, height):
            bottom = min(top + height, rows)
            band = np.asarray(level[y1 + top * step : min(y1 + bottom * step, y2), x1:x2])
            pixels = to_rgb8(band, stretch=self._stretch)
            size = (columns, bottom - top)
            picture[top:bottom] = pixels if step == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        return picture


def _cut(level: Image, size: tuple[int, int], window: Box) -> tuple[Box, tuple[int, int, int, int]]:
    """A window in whole pixels of a level, x1, y1, x2, y2: in pixels of the image, and in those of the level."""
    across, down = size[1] / level.shape[1], size[0] / level.shape[0]
    x1, x2 = (min(max(value / across, 0), level.shape[1]) for value in window[::2])
    y1, y2 = (min(max(value / down, 0), level.shape[0]) for value in window[1::2])
    place = math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)
    return (place[0] * across, place[1] * down, place[2] * across, place[3] * down), place


def outline(crop: CroppedMask) -> tuple[list[float], list[float]]:
    """x and y of a polygon around a mask, for the eye: without the stairs of its pixels."""
    contours = cv2.findContours(crop.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    longest = max(contours, key=len, default=np.zeros((0, 1, 2), np.int32))
    points = cv2.approxPolyDP(longest, _SMOOTH, True).reshape(-1, 2) if len(longest) else longest.reshape(-1, 2)
    if len(points) < 3:
        x1, y1, x2, y2 = (float(value) for value in crop.extent)
        return [x1, x2, x2, x1], [y1, y1, y2, y2]
    return (points[:, 0] + crop.x + 0.5).tolist(), (points[:, 1] + crop.y + 0.5).tolist()
