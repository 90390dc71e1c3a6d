"""Cutting a window out of an image together with its instances.

A window is a rectangle of whole pixels of the stored image. Masks are never transformed at full size: the run-length
code of an instance is decoded on its own box only, and its coverage of an m x m grid laid over that box is computed
from there (area average where the grid is coarser than the pixels, bilinear where it is finer). That small array then
turns and flips with the image.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.preprocess.records import Annotations
from fsis_jax.preprocess.segmentation import decode_counts

_SMALLEST_WINDOW = 8
_REMEMBERED = 1 << 14
"""Instances of which a process keeps what it has decoded: training meets each of them again and again."""


@dataclasses.dataclass(frozen=True)
class Window:
    """Pixels x0 <= x < x1, y0 <= y < y1 of the stored image."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0


@dataclasses.dataclass(frozen=True)
class VisibleInstances:
    """The n instances of which a window shows at least one pixel."""

    rows: np.ndarray
    """(n,) int64, their rows in the annotations."""
    boxes: np.ndarray
    """(n, 4) float32, pixels of the stored image; where the window cuts an instance, tight around what is visible."""
    visible: np.ndarray
    """(n,) float32, visible share of the mask."""
    masks: np.ndarray
    """(n, m, m) uint8 in 0..255, coverage of the grid laid over the box."""


def touching(boxes: np.ndarray, window: Window) -> np.ndarray:
    """(N,) bool, which of `boxes` (N, 4) share area with the window."""
    low, high = (window.x0, window.y0), (window.x1, window.y1)
    return np.asarray(np.all((boxes[:, :2] < high) & (boxes[:, 2:] > low), axis=1))


def random_window(
    rng: np.random.Generator, size: tuple[int, int], extent: tuple[int, int], anchor: np.ndarray | None = None
) -> Window:
    """A window of `extent` (height, width) at random inside an image of `size`, which is at least as large.

    Where an `anchor` box (4,) is given, the window holds all of it, or lies inside it if the box is larger.
    """
    corner = []
    for axis in (0, 1):
        side = extent[1 - axis]
        low, high = 0, size[1 - axis] - side
        if anchor is not None:
            ends = sorted((math.ceil(anchor[2 + axis]) - side, math.floor(anchor[axis])))
            low, high = (min(max(end, 0), high) for end in ends)
        corner.append(int(rng.integers(low, high + 1)))
    return Window(corner[0], corner[1], corner[0] + extent[1], corner[1] + extent[0])


def limit_window(
    window: Window, boxes: np.ndarray, limit: int, *, anchor: np.ndarray | None = None, name: str = "image"
) -> Window:
    """The window, shrunk about the centre of `anchor` (default: its own) until at most `limit` boxes touch it.

    A batch holds a fixed number of instances. Leaving the others out would teach the network that they are background,
    so less of the image is shown instead.

    Raises:
        FsisError: more instances than the limit lie in one place.
    """
    while (count := int(touching(boxes, window).sum())) > limit:
        factor = max(0.5, 0.95 * math.sqrt(limit / count))
        height, width = (int(side * factor) for side in window.size)
        if min(height, width) < _SMALLEST_WINDOW:
            raise FsisError(f"{name}: over {limit} instances lie in one place; raise max_instances")
        if anchor is None:
            x, y = (window.x0 + window.x1) / 2, (window.y0 + window.y1) / 2
        else:
            x = min(max((anchor[0] + anchor[2]) / 2, window.x0), window.x1)
            y = min(max((anchor[1] + anchor[3]) / 2, window.y0), window.y1)
        x0, y0 = round(x - (x - window.x0) * factor), round(y - (y - window.y0) * factor)
        x0, y0 = min(x0, window.x1 - width), min(y0, window.y1 - height)
        window = Window(x0, y0, x0 + width, y0 + height)
    return window


def visible_instances(annotations: Annotations, window: Window, mask_size: int) -> VisibleInstances:
    """What the window shows of the instances, masks on a grid of `mask_size` cells a side."""
    rows, boxes, visible, masks = [], [], [], []
    limits = (annotations.width, annotations.height)
    for row in np.flatnonzero(touching(annotations.boxes, window)).tolist():
        box = annotations.boxes[row].astype(np.float64)
        x0, y0 = (max(0, math.floor(v)) for v in box[:2])
        x1, y1 = (min(limit, math.ceil(v)) for v, limit in zip(box[2:], limits, strict=True))
        share = 1.0
        if window.x0 <= x0 and window.y0 <= y0 and x1 <= window.x1 and y1 <= window.y1:
            grid = _whole(annotations.rles[row], annotations.height, (x0, y0, x1, y1), tuple(box.tolist()), mask_size)
        else:
            mask = decode_columns(annotations.rles[row], annotations.height, x0, x1)[y0:y1]
            left, top = max(x0, window.x0), max(y0, window.y0)
            part = mask[top - y0 : window.y1 - y0, left - x0 : window.x1 - x0]
            ys, xs = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
            if not len(ys):
                continue
            share = float(part.sum(dtype=np.int64) / mask.sum(dtype=np.int64))
            tight = (left + xs[0], top + ys[0], left + xs[-1] + 1, top + ys[-1] + 1)
            box = np.concatenate([np.maximum(box[:2], tight[:2]), np.minimum(box[2:], tight[2:])])
            grid = coverage(mask, (x0, y0), box.tolist(), mask_size)
        rows.append(row)
        boxes.append(box)
        visible.append(share)
        masks.append(grid)
    return VisibleInstances(
        rows=np.array(rows, np.int64),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        visible=np.array(visible, np.float32),
        masks=np.array(masks, np.uint8).reshape(-1, mask_size, mask_size),
    )


def decode_columns(counts: bytes, height: int, x0: int, x1: int) -> np.ndarray:
    """(height, x1 - x0) uint8 in 0..1: columns x0 <= x < x1 of compressed run-length counts, which go down columns.

    `pycocotools.mask.decode` would fill the whole image, once for each of hundreds of instances.
    """
    ends = _run_ends(counts)
    bounds = np.clip(ends - x0 * height, 0, (x1 - x0) * height)
    values = np.arange(len(ends), dtype=np.uint8) & 1
    return np.repeat(values, np.diff(bounds, prepend=0)).reshape(x1 - x0, height).T


@functools.lru_cache(maxsize=_REMEMBERED)
def _run_ends(counts: bytes) -> np.ndarray:
    """(n,) int64, where each run ends."""
    return np.cumsum(decode_counts(counts), dtype=np.int64)


@functools.lru_cache(maxsize=_REMEMBERED)
def _whole(
    counts: bytes, height: int, pixels: tuple[int, int, int, int], box: tuple[float, ...], cells: int
) -> np.ndarray:
    """`coverage` of an instance that no window cuts; its pixels lie in x0 <= x < x1, y0 <= y < y1."""
    x0, y0, x1, y1 = pixels
    return coverage(decode_columns(counts, height, x0, x1)[y0:y1], (x0, y0), box, cells)


def coverage(mask: np.ndarray, origin: tuple[int, int], box: Sequence[float], cells: int) -> np.ndarray:
    """(cells, cells) uint8: how far `mask`, whose first pixel is `origin` (x, y), covers a grid laid over `box`."""
    across = _weights(box[0], box[2], cells, origin[0], mask.shape[1])
    down = _weights(box[1], box[3], cells, origin[1], mask.shape[0])
    return np.rint(255 * (down @ mask.astype(np.float32) @ across.T)).astype(np.uint8)


def _weights(start: float, stop: float, cells: int, first: int, count: int) -> np.ndarray:
    """(cells, count) float32: share of each pixel in each cell of a 1-D grid.

    A cell narrower than a pixel looks at one pixel's width about its centre, which is linear interpolation.
    """
    step = (stop - start) / cells
    half = max(step, 1.0) / 2
    centres = start + step * (np.arange(cells, dtype=np.float32)[:, None] + 0.5)
    pixels = first + np.arange(count, dtype=np.float32)
    overlap = np.minimum(centres + half, pixels + 1) - np.maximum(centres - half, pixels)
    return (np.maximum(overlap, 0) / (2 * half)).astype(np.float32)
