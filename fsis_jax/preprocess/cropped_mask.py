"""The mask of one instance, kept cropped: pasted from a detector's output, written as run lengths.

Pixel (row y, column x) covers [x, x + 1] x [y, y + 1] of the continuous coordinates that boxes are given in.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import pycocotools.mask

Size = tuple[int, int]
"""(height, width) in pixels."""


class CroppedMask(NamedTuple):
    """A mask (h, w) bool whose first pixel is pixel (y, x) of the image; it lies inside the image."""

    y: int
    x: int
    mask: np.ndarray

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where the mask lies: `image[crop.slices]` has the shape of `mask`."""
        height, width = self.mask.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    @property
    def extent(self) -> tuple[int, int, int, int]:
        """(x1, y1, x2, y2) of the cropped part."""
        height, width = self.mask.shape
        return self.x, self.y, self.x + width, self.y + height

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """(x1, y1, x2, y2) around the pixels of the mask, of which there is one at least."""
        ys, xs = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return self.x + int(xs[0]), self.y + int(ys[0]), self.x + int(xs[-1]) + 1, self.y + int(ys[-1]) + 1

    def shared(self, other: "CroppedMask") -> tuple[np.ndarray, np.ndarray] | None:
        """Views of the two masks where both lie; None where their extents do not meet."""
        y1, y2 = max(self.y, other.y), min(self.y + self.mask.shape[0], other.y + other.mask.shape[0])
        x1, x2 = max(self.x, other.x), min(self.x + self.mask.shape[1], other.x + other.mask.shape[1])
        if y1 >= y2 or x1 >= x2:
            return None
        return (
            self.mask[y1 - self.y : y2 - self.y, x1 - self.x : x2 - self.x],
            other.mask[y1 - other.y : y2 - other.y, x1 - other.x : x2 - other.x],
        )


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The 4-connected part of a mask with the most pixels."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    if count <= 2:
        return mask
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel(), minlength=count)[1:]))


def paste(probabilities: np.ndarray, box: Sequence[float], size: Size, threshold: float, offset: int) -> CroppedMask:
    """The mask of one instance: (M, M) probabilities laid over a box in image pixels."""
    x1, y1, x2, y2 = box
    x, across = _sampling(x1, x2 + offset, size[1], probabilities.shape[1])
    y, down = _sampling(y1, y2 + offset, size[0], probabilities.shape[0])
    return CroppedMask(y, x, down @ probabilities @ across.T > threshold)


def paste_whole_pixels(probabilities: np.ndarray, box: Sequence[float], size: Size, threshold: float) -> CroppedMask:
    """As `segm_results` of the PyTorch project: a border of zeros, the box grown alike and truncated, resized."""
    x1, y1, x2, y2 = np.asarray(box, np.float32)
    grow = np.float32((probabilities.shape[0] + 2) / probabilities.shape[0])
    half_width, half_height = (x2 - x1) * np.float32(0.5) * grow, (y2 - y1) * np.float32(0.5) * grow
    centre_x, centre_y = (x2 + x1) * np.float32(0.5), (y2 + y1) * np.float32(0.5)
    left, right = int(centre_x - half_width), int(centre_x + half_width)
    top, bottom = int(centre_y - half_height), int(centre_y + half_height)
    shape = (max(right - left + 1, 1), max(bottom - top + 1, 1))
    mask = cv2.resize(np.pad(probabilities, 1), shape, interpolation=cv2.INTER_LINEAR) > threshold
    y, x = (min(max(low, 0), limit) for low, limit in zip((top, left), size, strict=True))
    inside = mask[y - top : max(size[0] - top, 0), x - left : max(size[1] - left, 0)]
    return CroppedMask(y, x, inside)


def _sampling(low: float, high: float, limit: int, cells: int) -> tuple[int, np.ndarray]:
    """The first of the p pixels of 0..limit-1 with their centre in [low, high], and their weights (p, cells).

    Row i holds the bilinear weights of the cells laid over [low, high] at the centre of pixel i; beyond the centres
    of the outermost cells those count in full.
    """
    first = min(max(int(np.ceil(low - 0.5)), 0), limit)
    last = max(min(int(np.floor(high - 0.5)), limit - 1), first - 1)
    centres = np.arange(first, last + 1, dtype=np.float32) + np.float32(0.5)
    positions = (centres - np.float32(low)) * np.float32(cells / max(high - low, 1e-6)) - np.float32(0.5)
    positions = np.clip(positions, 0, cells - 1)
    return first, np.maximum(1 - np.abs(positions[:, None] - np.arange(cells, dtype=np.float32)), 0)


def encode(crop: CroppedMask, size: Size) -> dict[str, Any]:
    """COCO's run lengths (down the columns, background first), from the cropped mask alone."""
    height, width = size
    edges = np.diff(np.pad(crop.mask.T, ((0, 0), (1, 1))).view(np.int8), axis=1)
    columns, rows = np.nonzero(edges)  # in turn the first pixel of a run and the one after its last
    positions = (columns + crop.x) * height + rows + crop.y
    # A run that reaches the bottom and goes on at the top of the next column is one run.
    joined = np.flatnonzero(positions[1:-1:2] == positions[2::2]) * 2 + 1
    positions = np.delete(positions, np.concatenate([joined, joined + 1]))
    counts = np.diff(positions, prepend=0, append=height * width).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    rle = pycocotools.mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def masks_of_labels(labels: np.ndarray) -> tuple[np.ndarray, list[CroppedMask]]:
    """The bounds (N, 4) and the masks of the ids of a label image (H, W), 0 = background, by ascending id."""
    rows, columns = np.nonzero(labels)
    ids = labels[rows, columns]
    order = np.argsort(ids, kind="stable")
    rows, columns, ids = rows[order], columns[order], ids[order]
    starts = np.flatnonzero(np.diff(ids, prepend=0))
    if not len(starts):
        return np.zeros((0, 4)), []
    # Rows ascend within an id, since np.nonzero lists them so and the sort is stable.
    top, bottom = rows[starts], rows[np.append(starts[1:], len(rows)) - 1] + 1
    left, right = np.minimum.reduceat(columns, starts), np.maximum.reduceat(columns, starts) + 1
    bounds = zip(top.tolist(), bottom.tolist(), left.tolist(), right.tolist(), ids[starts], strict=True)
    crops = [CroppedMask(y1, x1, labels[y1:y2, x1:x2] == value) for y1, y2, x1, x2, value in bounds]
    return np.stack([left, top, right, bottom], axis=1), crops
