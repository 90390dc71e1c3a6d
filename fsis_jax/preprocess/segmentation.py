"""COCO segmentations of any form to one: compressed run-length counts over the whole image.

COCO knows polygons, uncompressed run lengths (a list of integers) and compressed ones (a string). pycocotools
reads past the end of its buffers when given counts that do not fill the image, so they are checked here first.
"""

import numpy as np
from pycocotools import mask as coco_mask

_FARTHEST = 1e12
"""Pixels."""


class InvalidAnnotationError(ValueError):
    """An annotation that cannot be used: what is wrong, and what its author can do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def compressed_counts(segmentation: object, height: int, width: int) -> bytes:
    """The mask of a COCO `segmentation` field as compressed counts over (height, width).

    Several polygons are one mask, their union. Parts outside the image are cut off. The mask may be empty.

    Raises:
        InvalidAnnotationError: no segmentation, a wrong size, damaged counts, or polygons without an area.
    """
    if isinstance(segmentation, list) and segmentation:
        return _from_polygons(segmentation, height, width)
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, height, width)
    raise InvalidAnnotationError("no segmentation", "give polygons or run-length counts")


def is_coordinate(value: object) -> bool:
    """A number that may be one of pixels."""
    return type(value) in (int, float) and -_FARTHEST < value < _FARTHEST  # type: ignore[operator]


def polygon_excess(segmentation: object, height: int, width: int) -> float:
    """How many pixels polygons reach outside the image; 0 for run lengths, which cannot."""
    if not isinstance(segmentation, list):
        return 0.0
    points = np.concatenate([np.asarray(polygon, np.float64) for polygon in segmentation]).reshape(-1, 2)
    return float(max(0.0, (-points).max(), (points - (width, height)).max()))


def decode_counts(counts: bytes) -> list[int]:
    """Run lengths of compressed counts: background first, column by column.

    Raises:
        ValueError: the bytes are not such a code, or a run is negative.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for byte in counts:
        chunk = byte - 48
        if not 0 <= chunk < 64:
            raise ValueError(f"character {chr(byte)!r}")
        value |= (chunk & 31) << shift
        shift += 5
        if chunk & 32:
            continue
        if chunk & 16:
            value -= 1 << shift
        if len(runs) > 2:  # from the fourth on, a run is stored as the difference to the one before the last
            value += runs[-2]
        if value < 0:
            raise ValueError("a negative run")
        runs.append(value)
        value, shift = 0, 0
    if shift:
        raise ValueError("a cut-off run")
    return runs


def _from_runs(segmentation: dict[str, object], height: int, width: int) -> bytes:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise InvalidAnnotationError(
            f"run lengths for size {size} in an image of [{height}, {width}]", "encode the mask of the whole image"
        )
    if isinstance(counts, list):
        if not all(type(run) is int and run >= 0 for run in counts):
            raise InvalidAnnotationError("run lengths that are not whole numbers", "encode the mask again")
        runs = counts
    elif isinstance(counts, str):
        try:
            runs = decode_counts(counts.encode())
        except ValueError as error:
            raise InvalidAnnotationError(f"damaged run-length counts ({error})", "encode the mask again") from error
    else:
        raise InvalidAnnotationError("run lengths without counts", "give counts as a list or a string")
    if sum(runs) != height * width:
        raise InvalidAnnotationError(
            f"run lengths that cover {sum(runs)} of {height * width} pixels", "encode the mask of the whole image"
        )
    if isinstance(counts, str):
        return counts.encode()
    return bytes(coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"])


def _from_polygons(polygons: list[object], height: int, width: int) -> bytes:
    for polygon in polygons:
        if not (isinstance(polygon, list) and len(polygon) % 2 == 0 and all(is_coordinate(value) for value in polygon)):
            raise InvalidAnnotationError(
                "a polygon that is not a list of x, y numbers", "give [x1, y1, x2, y2, x3, y3 ...]"
            )
    usable = [polygon for polygon in polygons if isinstance(polygon, list) and len(polygon) >= 6]
    if not usable:
        raise InvalidAnnotationError("polygons of fewer than 3 points", "give at least 3 points")
    # pycocotools walks along every edge pixel by pixel: a coordinate of 1e12 would take all the memory there is.
    excess = polygon_excess(usable, height, width)
    if excess > max(height, width):
        raise InvalidAnnotationError(
            f"a polygon that reaches {excess:.0f} px outside the image of {width}x{height}", "correct its coordinates"
        )
    parts = coco_mask.frPyObjects(usable, height, width)
    return bytes(coco_mask.merge(parts)["counts"])
