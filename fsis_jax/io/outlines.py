"""Outlines: masks to polygons that follow the sides of their pixels, and back; and the boxes around outlines.

Pixel (row y, column x) covers [x, x + 1] x [y, y + 1]; points are (x, y). Foreground is 4-connected: pixels that only
meet in a corner belong to different polygons. The polygons are simple features (OGC 06-103r4, 6.1.11): rings are
simple, and a hole may touch its shell or another hole in a point. Shells turn from +x to +y (a positive shoelace sum,
as in RFC 7946), holes the other way, so that the foreground always lies on the same side.

Not the contour is traced, which takes a step per pixel: corners of the figure, in order along a row, are in turn the
first and the last point of its horizontal sides, and in order along a column those of its vertical ones. Where two
foreground pixels meet in a corner only, that corner is there twice, once for each of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from fsis_jax.errors import FsisError

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2)."""
Figure = Sequence[np.ndarray]
"""Rings (n, 2) of points (x, y); inside is what an odd number of them goes around."""
Plane = tuple[tuple[str, int], ...]
"""The slice of a stack that an outline was drawn on: axes and numbers, () where it does not say."""


def check_one_plane(name: str, planes: Iterable[Plane]) -> None:
    """Raise FsisError if outlines of a file lie on several slices: they are all taken for one image.

    Args:
        name: of the file.
        planes: of its outlines.
    """
    said = sorted({plane for plane in planes if plane})
    if len(said) > 1:
        first, second = (" ".join(f"{axis} {number}" for axis, number in plane) for plane in said[:2])
        raise FsisError(
            f"{name}: outlines of several slices of a stack ({first}, {second} ...), which would all be taken for one: "
            "save those of each slice in a file of their own"
        )


class Polygon(NamedTuple):
    """Rings (n, 2) int64 of corner points (x, y), no three of them in line, the first not repeated at the end."""

    shell: np.ndarray
    holes: list[np.ndarray]


def outlines(mask: np.ndarray, y: int = 0, x: int = 0) -> list[Polygon]:
    """One polygon per 4-connected part of a mask (h, w) bool whose first pixel is pixel (y, x)."""
    mask = np.asarray(mask, bool)
    height, width = mask.shape
    cover = np.zeros((height + 2, width + 2), bool)
    cover[1:-1, 1:-1] = mask
    across = cover[:-1] ^ cover[1:]  # (height + 1, width + 2), is there a side between a pixel and the one below
    saddle = across[:, :-1] & across[:, 1:] & (cover[:-1, :-1] ^ cover[:-1, 1:])
    rows, columns = np.nonzero((across[:, :-1] ^ across[:, 1:]) | saddle)
    twice = saddle[rows, columns]
    corner = np.arange(len(rows))
    tie = np.zeros(len(rows), np.int64)
    if twice.any():
        corner = np.repeat(corner, 1 + twice)
        rows, columns, twice = rows[corner], columns[corner], twice[corner]
        # The copies of a corner, in order along the row; along the column they change places unless the foreground
        # is above on the left and below on the right.
        second = np.diff(corner, prepend=-1) == 0
        tie = np.where(twice, second ^ ~cover[rows, columns], 0)
    down = np.lexsort((tie, rows, columns))
    vertical = np.empty(len(down), np.int64)  # the other end of the vertical side of each corner
    vertical[down[::2]], vertical[down[1::2]] = down[1::2], down[::2]
    # Horizontal side i joins corners 2 i and 2 i + 1. It runs to the right if the foreground is below.
    below = cover[rows[::2] + 1, columns[::2] + 1]
    starts = np.arange(0, len(rows), 2) + ~below
    points = np.stack([columns, rows], axis=1)
    rings = []
    for sides in _cycles((vertical[starts ^ 1] >> 1).tolist()):
        first = starts[sides]
        ring = np.stack([first, first ^ 1], axis=1).ravel()
        rings += [points[loop] for loop in (_simple(ring, corner) if twice[ring].any() else [ring])]
    return _polygons(mask, rings, np.array([x, y]))


def box_around(points: np.ndarray, where: str) -> Box:
    """The bounds of points (n, 2).

    Raises:
        FsisError: there are none, one is not finite, or they have no extent in x or in y. `where` opens the message.
    """
    if not np.isfinite(points).all():
        raise FsisError(f"{where}: a coordinate is not finite: draw it again")
    if not len(points):
        raise FsisError(f"{where}: an empty shape: outline a cell")
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    if not (x1 < x2 and y1 < y2):
        raise FsisError(f"{where}: no extent in x or in y ({x1:g}, {y1:g} to {x2:g}, {y2:g}): outline a cell")
    return float(x1), float(y1), float(x2), float(y2)


def fill(figures: Sequence[Figure], size: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    """The mask of what lies inside of any of some figures: of those of `outlines` the mask that they are of.

    A pixel is inside if its centre is; a centre on a side is if the figure lies right of the side, or below it.

    Args:
        figures: with one point at least.
        size: height and width of the image, at whose border figures are cut off.

    Returns:
        (h, w) bool, which may be empty, and the row and the column of its first pixel.
    """
    points = np.concatenate([np.asarray(ring, np.float64) for figure in figures for ring in figure])
    limits = size[1], size[0]
    x1, y1 = np.clip(np.floor(points.min(axis=0)), 0, limits).astype(int).tolist()
    x2, y2 = np.clip(np.ceil(points.max(axis=0)), 0, limits).astype(int).tolist()
    mask = np.zeros((y2 - y1, x2 - x1), bool)
    if mask.size:
        for figure in figures:
            mask |= _inside([np.asarray(ring, np.float64) - (x1, y1) for ring in figure], mask.shape)
    return mask, y1, x1


def _inside(rings: Figure, shape: tuple[int, ...]) -> np.ndarray:
    """(h, w) bool, the pixels with their centre inside."""
    height, width = shape
    flips = np.zeros((height, width + 1), np.uint8)  # how often inside and outside change places before a pixel
    for ring in rings:
        (x, y), (to_x, to_y) = ring.T, np.roll(ring, -1, axis=0).T
        # Rows with their centre between the ends of each side, of which the upper one counts as between.
        first = np.clip(np.ceil(np.minimum(y, to_y) - 0.5), 0, height).astype(np.int64)
        last = np.clip(np.ceil(np.maximum(y, to_y) - 0.5), 0, height).astype(np.int64)
        counts = last - first
        side = np.repeat(np.arange(len(ring)), counts)
        row = np.arange(len(side)) - np.repeat(np.cumsum(counts) - counts - first, counts)
        share = (row + 0.5 - y[side]) / (to_y - y)[side]
        crossing = x[side] + share * (to_x - x)[side]
        column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
        np.bitwise_xor.at(flips, (row, column), np.uint8(1))
    return np.bitwise_xor.accumulate(flips, axis=1)[:, :-1].astype(bool)


def _cycles(following: list[int]) -> Iterator[list[int]]:
    """The cycles of a permutation."""
    left = bytearray(b"\1" * len(following))
    for first in range(len(following)):
        cycle, item = [], first
        while left[item]:
            left[item] = 0
            cycle.append(item)
            item = following[item]
        if cycle:
            yield cycle


def _simple(ring: np.ndarray, corner: np.ndarray) -> Iterator[list[int]]:
    """A ring cut where it comes back to a corner; its points with the same number in `corner` are one corner."""
    path: list[int] = []
    places: dict[int, int] = {}  # of the corners in `path`, in its order
    for point, number in zip(ring.tolist(), corner[ring].tolist(), strict=True):
        if number in places:
            start = places[number]
            yield path[start:]
            del path[start:]
            while len(places) > start:
                places.popitem()
        places[number] = len(path)
        path.append(point)
    yield path


def _polygons(mask: np.ndarray, rings: list[np.ndarray], offset: np.ndarray) -> list[Polygon]:
    """The rings of a mask, each hole with the shell around it, moved by `offset` (x, y)."""
    if len(rings) <= 1:
        return [Polygon(ring + offset, []) for ring in rings]
    parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[1]
    shells: dict[int, np.ndarray] = {}
    holes: dict[int, list[np.ndarray]] = {}
    for ring in rings:
        dx, dy = np.sign(ring[1] - ring[0])
        column, row = ring[0] + ((dx - dy - 1) // 2, (dx + dy - 1) // 2)  # of the foreground pixel at the first side
        part = int(parts[row, column])
        x, y = ring.T
        if np.dot(x, np.roll(y, -1)) > np.dot(y, np.roll(x, -1)):
            shells[part] = ring + offset
        else:
            holes.setdefault(part, []).append(ring + offset)
    return [Polygon(shell, holes.get(part, [])) for part, shell in shells.items()]
