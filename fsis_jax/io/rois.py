"""ImageJ ROIs: instances for Fiji's ROI Manager, and boxes of cells that were drawn there.

A point (x, y) of an area ROI is a corner of a pixel, as in `outlines`: a ROI is exactly the mask. Coordinates are
16-bit integers or float32, and whole numbers up to 2^24 are exact there. The bounds in the header, which ImageJ does
not read of such ROIs, end at 60535. The format is that of ImageJ's RoiDecoder.
"""

import contextlib
import os
import zipfile
from typing import Any

import numpy as np
from roifile import ROI_TYPE, ImagejRoi

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import atomic_write, open_file
from fsis_jax.io.damage import damage_in
from fsis_jax.io.kinds import kind_colour, kind_rows
from fsis_jax.io.outlines import Box, Polygon, box_around, outlines
from fsis_jax.io.writers import Result

_LARGEST = 16 << 20
"""Bytes of one ROI: a million corners."""
_LAST = 60_535
"""Largest coordinate of 16 bits: what lies above stands for -5000 to -1."""
_EXPORT = "save the ROIs in ImageJ again"
_ARGUMENTS = {0: 2, 1: 2, 2: 4, 3: 6, 4: 0}
"""Numbers that follow each command of a composite's path: move, line, quadratic and cubic curve, close."""


def write_rois(path: str | os.PathLike[str], result: Result) -> None:
    """A zip with one ROI per instance: a polygon, or a composite where a mask has holes or several parts.

    Names are number-y-x, as ImageJ makes them of a ROI's centre; the numbers count from 1 in the order of `result`
    (ids of `Instances.labels`, if these are `Instances.without_overlaps`). The property "score" holds the score, and
    "category" the kind, or of a closed-set detector the category. Kinds are groups, numbered from 1 in the order of
    `result.names`, with the colour of the kind as that of the stroke (`kinds.py`; ImageJ shows groups in colours of its
    own). An empty mask has no ROI.

    Raises:
        FsisError: the file cannot be written.
    """
    digits = max(len(str(len(result.masks))), 4)
    named, kinds = result.classes is not None, kind_rows(result)
    found = zip(result.masks, result.scores.tolist(), result.categories, strict=True)
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for number, (mask, score, category) in enumerate(found, start=1):
            polygons = outlines(mask.mask, mask.y, mask.x)
            if polygons:
                properties = {"score": round(score, 6)} | ({"category": category} if named else {})
                roi = _roi(polygons, f"{number:0{digits}}", properties)
                if kinds is not None:
                    kind = int(kinds[number - 1])
                    roi.group, roi.stroke_color = kind + 1, bytes((255, *kind_colour(kind)))
                entry = zipfile.ZipInfo(f"{roi.name}.roi")  # its time is 1980: the same ROIs are the same file
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, roi.tobytes(), zipfile.ZIP_DEFLATED)


def read_roi_boxes(path: str | os.PathLike[str]) -> list[tuple[Box, str]]:
    """The bounds of every ROI of a .zip, in its order, or of a single .roi, and its group, "" of ImageJ's group 0.

    A group is named as `write_rois` does in the ROI's properties, else "group N".

    Raises:
        FsisError: no such file, neither of the two, damaged, no ROIs, or a ROI that has no extent in x and in y.
    """
    name = os.fspath(path)
    with _read_errors(name), open_file(path) as file:
        if file.read(2) != b"PK":
            file.seek(0)
            return [_box(file.read(_LARGEST), name)]
        with zipfile.ZipFile(file) as archive:
            boxes = [_entry_box(archive, entry, name) for entry in archive.infolist() if not entry.is_dir()]
    if not boxes:
        raise FsisError(f"{name}: no ROIs in the zip: {_EXPORT}")
    return boxes


def _roi(polygons: list[Polygon], number: str, properties: dict[str, Any]) -> ImagejRoi:
    rings = [ring for polygon in polygons for ring in (polygon.shell, *polygon.holes)]
    points = np.concatenate(rings)
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    name = f"{number}-{(top + bottom) // 2:04}-{(left + right) // 2:04}"
    if len(rings) == 1:
        roi = ImagejRoi.frompoints(points, name=name)  # as float32 where 16 bits are too few
        roi.roitype = ROI_TYPE.POLYGON
    else:
        # Per point a command, move or line, and its coordinates; the command to close ends the ring.
        steps = [np.insert(ring, 0, np.arange(len(ring)) > 0, axis=1) for ring in rings]
        path = np.concatenate([np.append(step, 4) for step in steps]).astype(np.float32)
        roi = ImagejRoi(roitype=ROI_TYPE.RECT, name=name, shape_roi_size=len(path), multi_coordinates=path)
    roi.left, roi.top, roi.right, roi.bottom = (min(side, _LAST) for side in (left, top, right, bottom))
    roi.properties = properties
    return roi


def _read_errors(where: str) -> contextlib.AbstractContextManager[None]:
    return damage_in(where, "not ImageJ ROIs, or damaged", _EXPORT, "ROI")


def _entry_box(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> tuple[Box, str]:
    where = f"{name}: {entry.filename!r}"
    if entry.file_size > _LARGEST:
        raise FsisError(f"{where}: {entry.file_size} bytes, more than a ROI has: take it out of the zip")
    with _read_errors(where), archive.open(entry) as file:
        return _box(file.read(_LARGEST), where)  # no more than so many bytes, whatever its compressed data give


def _box(data: bytes, where: str) -> tuple[Box, str]:
    roi = ImagejRoi.frombytes(data)
    if roi.roitype == ROI_TYPE.POINT:
        raise FsisError(f"{where}: points have no extent: outline a cell")
    named = str((roi.properties or {}).get("category", f"group {roi.group}"))
    return box_around(_points(roi), where), named if roi.group else ""


def _points(roi: ImagejRoi) -> np.ndarray:
    """(n, 2) points whose bounds are those of the ROI."""
    if roi.multi_coordinates is not None:
        return _path_points(roi.multi_coordinates.tolist())
    if roi.subpixelrect:
        return np.array([(roi.xd, roi.yd), (roi.xd + roi.widthd, roi.yd + roi.heightd)])
    if roi.roitype in (ROI_TYPE.RECT, ROI_TYPE.OVAL):
        return np.array([(roi.left, roi.top), (roi.right, roi.bottom)])
    return np.asarray(roi.coordinates())


def _path_points(numbers: list[float]) -> np.ndarray:
    """The points of a composite's path; control points of curves count (those of ovals lie on their bounds)."""
    points: list[float] = []
    place = 0
    while place < len(numbers):
        count = _ARGUMENTS[int(numbers[place])]
        points += numbers[place + 1 : place + 1 + count]
        place += 1 + count
    return np.array(points).reshape(-1, 2)
