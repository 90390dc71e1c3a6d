"""A drawn slide of any size: a compressed pyramid, written tile by tile, a share of it covered by cells."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import tifffile

BLOCK = 2000
"""Side of the squares that are covered or not; that of a slide is a multiple."""
FIRST_CELL = (28, 28, 52, 52)
"""Box of a cell of every covered square, x1, y1, x2, y2; the one at the top left of a slide is covered."""
_TILE = 512
_LEVELS = 5
_EMPTY = 12


def draw_slide(path: str | os.PathLike[str], side: int, covered: float, seed: int = 0) -> None:
    """Write an OME-TIFF of side x side pixels of 8 bits, of half a micrometre.

    Args:
        side: a multiple of `BLOCK`.
        covered: share of the squares that have cells.
    """
    rng = np.random.default_rng(seed)
    pyramids = [_pyramid(_tissue(rng)) for _ in range(3)]
    count = side // BLOCK
    places = np.full(count**2, -1)
    chosen = [0, *rng.permutation(np.arange(1, count**2))[: max(round(covered * count**2) - 1, 0)]]
    places[chosen] = rng.integers(0, len(pyramids), len(chosen))
    options: dict[str, Any] = {
        "tile": (_TILE, _TILE),
        "compression": "zlib",
        "compressionargs": {"level": 1},
        "dtype": np.uint8,
    }
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as tiff:
        for level in range(_LEVELS):
            squares = [pyramid[level] for pyramid in pyramids]
            first: dict[str, Any] = {
                "subifds": _LEVELS - 1,
                "metadata": {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
            }
            kind = first if level == 0 else {"subfiletype": 1}
            shape = (side // 2**level,) * 2
            tiff.write(
                _tiles(squares, places.reshape(count, count)), shape=shape, photometric="minisblack", **kind, **options
            )


def _tissue(rng: np.random.Generator) -> np.ndarray:
    """(BLOCK, BLOCK) uint8: ellipses of different brightness, and the first cell."""
    square = np.full((BLOCK, BLOCK), _EMPTY, np.uint8)
    for row in range(20, BLOCK - 40, 40):
        for column in range(20, BLOCK - 40, 40):
            centre = (column + 20 + int(rng.integers(-6, 7)), row + 20 + int(rng.integers(-6, 7)))
            axes = (int(rng.integers(9, 14)), int(rng.integers(7, 12)))
            if row == column == 20:
                centre, axes = (40, 40), (12, 12)
            elif rng.random() < 0.3:
                continue
            cv2.ellipse(square, centre, axes, int(rng.integers(180)), 0, 360, int(rng.integers(90, 200)), -1)
    return cv2.GaussianBlur(square, (5, 5), 0) + rng.integers(0, 4, square.shape, np.uint8)


def _pyramid(square: np.ndarray) -> list[np.ndarray]:
    levels = [square]
    for _ in range(_LEVELS - 1):
        half = len(levels[-1]) // 2
        levels.append(levels[-1].reshape(half, 2, half, 2).mean((1, 3)).astype(np.uint8))
    return levels


def _tiles(squares: Sequence[np.ndarray], places: np.ndarray) -> Iterator[np.ndarray]:
    """All tiles of a level, row by row, whose covered squares are some of `squares`."""
    width = len(squares[0])
    side = len(places) * width
    for top in range(0, side, _TILE):
        for left in range(0, side, _TILE):
            tile = np.full((_TILE, _TILE), _EMPTY, np.uint8)
            for row in range(top // width, min(-(-(top + _TILE) // width), len(places))):
                for column in range(left // width, min(-(-(left + _TILE) // width), len(places))):
                    if places[row, column] >= 0:
                        _paste(tile, squares[places[row, column]], row * width - top, column * width - left)
            yield tile


def _paste(tile: np.ndarray, square: np.ndarray, top: int, left: int) -> None:
    """Put what a square has in common with a tile there, which may begin outside of it."""
    inside = tile[max(top, 0) : max(top + len(square), 0), max(left, 0) : max(left + len(square), 0)]
    inside[:] = square[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]]
