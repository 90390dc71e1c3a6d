"""Keypoints of instances: read from COCO annotations, then cut, scaled and turned with the image.

An instance has P keypoints (x, y, v): v is 2 (visible), 1 (hidden, its place known) or 0 (not labelled: x = y = 0).
COCO's coordinates name pixels, and here pixel 3 covers 3 to 4: COCO's 3 is 3.5. (Detectron reads them as they stand,
Detectron2 as here.)
"""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fsis_jax.preprocess.segmentation import InvalidAnnotationError, is_coordinate
from fsis_jax.preprocess.transforms import Orientation

HALF_PIXEL = 0.5
"""What is added to COCO's coordinates."""


def read_names(categories: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, ...], frozenset[int]]:
    """The names of the keypoints of a COCO file's categories, and the ids of the categories that have these.

    Those of the first category that names any; none, if none does.
    """
    named = {row["id"]: row["keypoints"] for row in categories if row.get("keypoints")}
    lists = {
        category: tuple(names)
        for category, names in named.items()
        if isinstance(names, list) and all(isinstance(name, str) for name in names)
    }
    first = next(iter(lists.values()), ())
    return first, frozenset(category for category, names in lists.items() if names == first)


def read_keypoints(value: object, count: int) -> np.ndarray:
    """(P, 3) float32 of an annotation's `keypoints`; without any, none is labelled.

    Raises:
        InvalidAnnotationError: not a list of x, y, v for each of the `count` names.
    """
    if value is None:
        return np.zeros((count, 3), np.float32)
    if not (
        isinstance(value, list)
        and len(value) == 3 * count
        and all(map(is_coordinate, value))
        and all(flag in (0, 1, 2) for flag in value[2::3])
    ):
        raise InvalidAnnotationError(
            f"keypoints that are not x, y and 0, 1 or 2 for each of {count} names", "not used; correct them"
        )
    keypoints = np.array(value, np.float64).reshape(count, 3)
    return scaled(keypoints, 1.0, (HALF_PIXEL, HALF_PIXEL))


def keypoints_to_coco(keypoints: np.ndarray) -> list[list[float]]:
    """(N, P, 3) as the flat lists x, y, v, x, y, v ... of COCO's files, where v may also be a score."""
    moved = np.asarray(keypoints, np.float64) - (HALF_PIXEL, HALF_PIXEL, 0)
    return [row.ravel().tolist() for row in moved]


def scaled(keypoints: np.ndarray, scale: float, shift: tuple[float, float]) -> np.ndarray:
    """(..., P, 3) float32: x and y times `scale` plus `shift`; 0 where not labelled."""
    moved = np.concatenate([keypoints[..., :2] * scale + shift, keypoints[..., 2:]], axis=-1)
    return np.where(keypoints[..., 2:] > 0, moved, 0).astype(np.float32)


def within(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., P, 3), those outside an image of `size` (height, width) no longer labelled."""
    x, y = keypoints[..., 0], keypoints[..., 1]
    inside = (x >= 0) & (y >= 0) & (x <= size[1]) & (y <= size[0])
    return np.where(inside[..., None], keypoints, np.float32(0))


def turned(
    keypoints: np.ndarray, orientation: Orientation, size: tuple[int, int], names: tuple[str, ...]
) -> np.ndarray:
    """(n, P, 3) in an image of `size` (height, width) before turning. A flip makes a left hand a right hand."""
    if not keypoints.size:
        return keypoints
    points = keypoints[..., :2].reshape(-1, 2)
    x, y = orientation.boxes(np.concatenate([points, points], axis=1), size)[:, :2].T
    moved = np.stack([x.reshape(keypoints.shape[:2]), y.reshape(keypoints.shape[:2]), keypoints[..., 2]], axis=-1)
    moved = np.where(keypoints[..., 2:] > 0, moved, 0).astype(np.float32)
    return moved[:, mirrored(names)] if orientation.flip else moved


@functools.lru_cache(maxsize=16)
def mirrored(names: tuple[str, ...]) -> np.ndarray:
    """(P,) int64: row of the keypoint whose name has "left" for "right" or "right" for "left"; its own if none has."""
    rows = {name: row for row, name in enumerate(names)}
    other = {"left": "right", "right": "left"}
    swapped = [re.sub("left|right", lambda found: other[found[0]], name) for name in names]
    return np.array([rows.get(name, row) for row, name in enumerate(swapped)], np.int64)
