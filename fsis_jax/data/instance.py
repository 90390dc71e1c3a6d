"""One COCO annotation, read and checked: its box, its mask and whether it is a crowd."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from fsis_jax.preprocess.segmentation import InvalidAnnotationError, compressed_counts, is_coordinate, polygon_excess

_EXCESS = 1.0
"""Pixels by which a box or polygon may reach outside its image: some tools count from 1."""
_BOX_AGREEMENT = 2.0
"""Pixels between the sides of an annotation's box and of its mask; a box that is farther off is not believed."""


@dataclasses.dataclass(frozen=True)
class Instance:
    """A usable annotation."""

    annotation_id: int
    category: int
    box: np.ndarray
    """(4,) float32 (x1, y1, x2, y2) in pixels of the image, inside it."""
    crowd: bool
    area: int
    """Pixels of the mask."""
    counts: bytes
    """Compressed COCO run-length counts over the whole image."""
    keypoints: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 3), np.float32))
    """(P, 3) float32, see `keypoints.py`."""


def read_instance(row: Mapping[str, Any], height: int, width: int) -> tuple[Instance, InvalidAnnotationError | None]:
    """An annotation with known id and category, and the correction without which it would be wrong.

    The box is the annotation's own, clipped to the image, where it agrees with the mask to 2 pixels, and the mask's
    tight box elsewhere or where there is none (null). `"ignore": 1` counts as a crowd: neither right nor wrong.

    Raises:
        InvalidAnnotationError: a degenerate box, a box or mask outside the image, or a damaged mask.
    """
    for key in ("iscrowd", "ignore"):
        if row.get(key) not in (None, 0, 1):
            raise InvalidAnnotationError(f"{key} {row[key]!r} is neither 0 nor 1", "correct it")
    given = None if row.get("bbox") in (None, []) else _box(row["bbox"], height, width)
    counts = compressed_counts(row.get("segmentation"), height, width)
    rle = {"size": [height, width], "counts": counts}
    area = int(coco_mask.area(rle))
    excess = polygon_excess(row["segmentation"], height, width)
    if area == 0:
        what = "a polygon outside its image" if excess > 0 else "an empty mask"
        raise InvalidAnnotationError(what, "draw the instance again or delete the annotation")
    x, y, w, h = coco_mask.toBbox(rle)
    tight = np.array((x, y, x + w, y + h), np.float32)
    correction = None
    if excess > _EXCESS:
        correction = InvalidAnnotationError(
            f"a polygon that reaches {excess:.1f} px outside its image of {width}x{height}",
            "cut off at the border; correct its coordinates",
        )
    box = tight
    if given is not None:
        clipped = np.clip(given, 0, (width, height, width, height)).astype(np.float32)
        if np.abs(clipped - tight).max() <= _BOX_AGREEMENT:
            box = clipped
        elif correction is None:
            correction = InvalidAnnotationError(
                f"bbox {row['bbox']} is not that of its mask, {[float(v) for v in (x, y, w, h)]}",
                "the box of the mask is used; correct bbox",
            )
    crowd = row.get("iscrowd") == 1 or row.get("ignore") == 1
    return Instance(row["id"], row["category_id"], box, crowd, area, counts), correction


def _box(bbox: object, height: int, width: int) -> np.ndarray:
    """(4,) float64 (x1, y1, x2, y2), at least 1 pixel wide and high and at most `_EXCESS` outside the image."""
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(is_coordinate(value) for value in bbox)):
        raise InvalidAnnotationError(f"bbox {bbox!r} is not four numbers", "give [x, y, width, height]")
    x, y, w, h = bbox
    if w < 1 or h < 1:
        raise InvalidAnnotationError(
            f"bbox {bbox} is less than 1 px wide or high", "correct it or delete the annotation"
        )
    box = np.array((x, y, x + w, y + h), np.float64)
    if box[:2].min() < -_EXCESS or box[2] > width + _EXCESS or box[3] > height + _EXCESS:
        raise InvalidAnnotationError(f"bbox {bbox} reaches outside its image of {width}x{height}", "correct it")
    return box
