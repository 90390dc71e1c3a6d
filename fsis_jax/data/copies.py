"""Copies of cells pasted beside cells: images that have few touching cells teach to part them, too.

Copy-paste (Ghiasi et al. 2021), with two differences: a copy stays in its own image, whose light and stain it has, and
is moved towards another cell until the two just touch, so that no mask changes.
"""

import math

import cv2
import numpy as np

from fsis_jax.preprocess.cropped_mask import CroppedMask
from fsis_jax.preprocess.records import Annotations
from fsis_jax.preprocess.windows import VisibleInstances, Window, coverage, decode_columns


def paste_copies(
    rng: np.random.Generator,
    image: np.ndarray,
    annotations: Annotations,
    window: Window,
    shown: VisibleInstances,
    sources: np.ndarray,
    *,
    count: int,
    mask_size: int,
) -> tuple[np.ndarray, VisibleInstances]:
    """The window with `count` copies more, or as many as find a place; the arguments are not changed.

    Args:
        rng: what is copied, how it is turned, and beside which cell it is put.
        image: (h, w) or (h, w, 3) uint8, what the window shows.
        annotations: of the whole image.
        window: of the whole image.
        shown: what the window shows of the instances.
        sources: (n,) bool, those of `shown` that may be copied, unless the image's edge cuts them, or be a neighbour.
        count: copies.
        mask_size: side of the masks' grid.

    Returns:
        The image, and `shown` followed by the copies, each with the row of its source.
    """
    pieces = [_piece(annotations, row, window) for row in shown.rows.tolist()]
    occupied = np.zeros(window.size, bool)
    for piece in pieces:
        occupied[piece.slices] |= piece.mask
    image = image.copy()
    rows, boxes, masks = [], [], []
    size = (annotations.width, annotations.height)
    uncut = (shown.boxes[:, :2] >= 1).all(axis=1) & (shown.boxes[:, 2:] <= np.subtract(size, 1)).all(axis=1)
    neighbours, whole = np.flatnonzero(sources), np.flatnonzero(sources & uncut)
    for _ in range(count if len(whole) else 0):
        source, neighbour = rng.choice(whole), rng.choice(neighbours)
        turned = _turned(rng, image, pieces[source])
        place = _beside(rng, occupied, turned[1], pieces[neighbour])
        if place is None:
            continue
        copy = CroppedMask(*place, turned[1])
        _blend(image, turned[0], copy)
        occupied[copy.slices] |= copy.mask
        height, width = copy.mask.shape
        left, top = window.x0 + copy.x, window.y0 + copy.y
        boxes.append((left, top, left + width, top + height))
        masks.append(coverage(copy.mask, (left, top), boxes[-1], mask_size))
        rows.append(shown.rows[source])
    if not rows:
        return image, shown
    return image, VisibleInstances(
        rows=np.concatenate([shown.rows, rows]),
        boxes=np.concatenate([shown.boxes, np.array(boxes, np.float32)]),
        visible=np.concatenate([shown.visible, np.ones(len(rows), np.float32)]),
        masks=np.concatenate([shown.masks, masks]),
    )


def _piece(annotations: Annotations, row: int, window: Window) -> CroppedMask:
    """The part of an instance that a window shows, in pixels of the window."""
    x1, y1, x2, y2 = annotations.boxes[row]
    left, top = max(math.floor(x1), window.x0), max(math.floor(y1), window.y0)
    right, bottom = min(math.ceil(x2), window.x1), min(math.ceil(y2), window.y1)
    mask = decode_columns(annotations.rles[row], annotations.height, left, right)[top:bottom].astype(bool)
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    tight = mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] if len(ys) else mask[:0, :0]
    y, x = (ys[0], xs[0]) if len(ys) else (0, 0)
    return CroppedMask(top - window.y0 + int(y), left - window.x0 + int(x), tight)


def _turned(rng: np.random.Generator, image: np.ndarray, piece: CroppedMask) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and mask of a cell, flipped and turned at random."""
    turns, step = int(rng.integers(4)), int(rng.choice((-1, 1)))
    pixels, mask = (np.rot90(array, turns)[::step] for array in (image[piece.slices], piece.mask))
    return pixels, mask


def _beside(
    rng: np.random.Generator, occupied: np.ndarray, mask: np.ndarray, neighbour: CroppedMask
) -> tuple[int, int] | None:
    """First pixel (y, x) of a mask that leaves a neighbour in a random direction where it has just left all cells.

    It keeps a pixel from the window's border. None: there is no such place.
    """
    height, width = mask.shape
    angle = rng.uniform(0, 2 * math.pi)
    y = neighbour.y + (neighbour.mask.shape[0] - height) / 2
    x = neighbour.x + (neighbour.mask.shape[1] - width) / 2
    overlapped = False
    for distance in range(1 + sum(mask.shape) + sum(neighbour.mask.shape)):
        top, left = round(y + distance * math.sin(angle)), round(x + distance * math.cos(angle))
        inside = 1 <= top < occupied.shape[0] - height and 1 <= left < occupied.shape[1] - width
        overlaps = inside and bool((occupied[top : top + height, left : left + width] & mask).any())
        if inside and overlapped and not overlaps:
            return top, left
        overlapped = overlaps
    return None


def _blend(image: np.ndarray, pixels: np.ndarray, copy: CroppedMask) -> None:
    """Put a cell's pixels into the image, with an edge that is softened over a pixel."""
    colours = [(0, 0)] * (image.ndim - 2)
    wide = np.pad(pixels, [(1, 1), (1, 1), *colours], mode="edge")
    share = cv2.GaussianBlur(np.pad(copy.mask, 1).astype(np.float32), (3, 3), 0)
    height, width = wide.shape[:2]
    part = image[copy.y - 1 : copy.y - 1 + height, copy.x - 1 : copy.x - 1 + width]
    share = share.reshape(*share.shape, *[1] * (image.ndim - 2))
    part[:] = np.rint(share * wide + (1 - share) * part).astype(np.uint8)
