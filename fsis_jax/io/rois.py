"""ImageJ ROIs: instances for Fiji's ROI Manager, and boxes or outlines of cells that were drawn there.

A point (x, y) of an area ROI is a corner of a pixel, as in `outlines`: a ROI is exactly the mask. Coordinates are
16-bit integers or float32, and whole numbers up to 2^24 are exact there. The bounds in the header, which ImageJ does
not read of such ROIs, end at 60535. The format is that of ImageJ's RoiDecoder.
"""

import collections
import contextlib
import math
import os
import zipfile
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from roifile import ROI_TYPE, ImagejRoi

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import atomic_write, open_file
from fsis_jax.io.damage import damage_in
from fsis_jax.io.kinds import kind_colour, kind_rows
from fsis_jax.io.outlines import Box, Figure, Plane, Polygon, box_around, check_one_plane, outlines
from fsis_jax.io.writers import Result

_LARGEST = 16 << 20
"""Bytes of one ROI: a million corners."""
_LAST = 60_535
"""Largest coordinate of 16 bits: what lies above stands for -5000 to -1."""
_EXPORT = "save the ROIs in ImageJ again"
_ARGUMENTS = {0: 2, 1: 2, 2: 4, 3: 6, 4: 0}
"""Numbers that follow each command of a composite's path: move, line, quadratic and cubic curve, close."""
_AREAS = (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED)
_STEPS = 32
"""Sides of the polygon that a curve becomes, and of a quarter of an oval."""
_T = TypeVar("_T")


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
    """The bounds of every ROI of a .zip, in its order, or of a single .roi, and the name of its group.

    A group is named by the property "category" that most of its ROIs have, as `write_rois` gives it, unless another
    group has more ROIs of that name: else "group N". So a ROI that was moved to another group has that one's name. In
    ImageJ's group 0, which is none, each ROI has that of its own property, else "".

    Raises:
        FsisError: no such file, neither of the two, damaged, no ROIs, ROIs of several slices of a stack, or one that
            has no extent in x and in y.
    """
    boxes = _read(path, lambda roi, where: box_around(_points(roi), where))
    if not boxes:
        raise FsisError(f"{os.fspath(path)}: no ROIs in the zip: {_EXPORT}")
    return boxes


def read_roi_figures(path: str | os.PathLike[str]) -> list[tuple[list[Figure], str]]:
    """What is inside of every ROI, for `outlines.fill`, and its group, as `read_roi_boxes`. There may be none.

    Raises:
        FsisError: as there, or a ROI that has no area, such as a line.
    """
    return _read(path, lambda roi, where: [_rings(roi, where)])


def _read(path: str | os.PathLike[str], convert: Callable[[ImagejRoi, str], _T]) -> list[tuple[_T, str]]:
    """What `convert` makes of each ROI and its name for messages, and the name of the ROI's group."""
    name = os.fspath(path)
    with _read_errors(name), open_file(path) as file:
        if file.read(2) != b"PK":
            file.seek(0)
            found = [_converted(file.read(_LARGEST), name, convert)]
        else:
            with zipfile.ZipFile(file) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
                found = [_entry(archive, entry, name, convert) for entry in entries]
    check_one_plane(name, [plane for _, _, _, plane in found])
    groups = _group_names([(group, category) for _, group, category, _ in found])
    return [(value, groups[group] if group else category) for value, group, category, _ in found]


def _group_names(rois: list[tuple[int, str]]) -> dict[int, str]:
    """Group -> its name, of the group and the category of each ROI."""
    names: dict[int, str] = {}
    for (group, category), _ in collections.Counter(rois).most_common():
        if category and group not in names and category not in names.values():
            names[group] = category
    return {group: names.get(group, f"group {group}") for group, _ in rois}


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


def _entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, convert: Callable[[ImagejRoi, str], _T]
) -> tuple[_T, int, str, Plane]:
    where = f"{name}: {entry.filename!r}"
    if entry.file_size > _LARGEST:
        raise FsisError(f"{where}: {entry.file_size} bytes, more than a ROI has: take it out of the zip")
    with _read_errors(where), archive.open(entry) as file:
        # No more than so many bytes, whatever its compressed data give.
        return _converted(file.read(_LARGEST), where, convert)


def _converted(data: bytes, where: str, convert: Callable[[ImagejRoi, str], _T]) -> tuple[_T, int, str, Plane]:
    """What is made of a ROI, its group, its category, and the slice that it is on."""
    roi = ImagejRoi.frombytes(data)
    if roi.roitype == ROI_TYPE.POINT:
        raise FsisError(f"{where}: points have no extent: outline a cell")
    # Of a stack one number, of one with several axes a number for each; 0 where it is on all slices.
    plane = tuple(axis for axis in (("slice", roi.position), ("Z", roi.z_position), ("T", roi.t_position)) if axis[1])
    return convert(roi, where), roi.group, str((roi.properties or {}).get("category", "")), plane


def _points(roi: ImagejRoi) -> np.ndarray:
    """(n, 2) points whose bounds are those of the ROI."""
    if roi.multi_coordinates is not None:
        return _path_points(roi.multi_coordinates.tolist())
    if roi.subpixelrect:
        return np.array([(roi.xd, roi.yd), (roi.xd + roi.widthd, roi.yd + roi.heightd)])
    if roi.roitype in (ROI_TYPE.RECT, ROI_TYPE.OVAL):
        return np.array([(roi.left, roi.top), (roi.right, roi.bottom)])
    return np.asarray(roi.coordinates())


def _rings(roi: ImagejRoi, where: str) -> Figure:
    """The rings of a ROI of an area."""
    box_around(points := _points(roi), where)
    if roi.multi_coordinates is not None:
        return _path_rings(roi.multi_coordinates.tolist())
    if roi.roitype in (ROI_TYPE.RECT, ROI_TYPE.OVAL):
        (x1, y1), (x2, y2) = points.tolist()
        if roi.roitype == ROI_TYPE.RECT:
            return [np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])]
        angles = np.arange(4 * _STEPS) * (np.pi / 2 / _STEPS)
        around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return [np.array([x1 + x2, y1 + y2]) / 2 + around * np.array([x2 - x1, y2 - y1]) / 2]
    if roi.roitype not in _AREAS:
        raise FsisError(f"{where}: a {roi.roitype.name.lower()} has no area: outline the cell by a polygon")
    return [points]


def _path_rings(numbers: list[float]) -> list[np.ndarray]:
    """The rings of a composite's path, curves as polygons."""
    rings: list[list[np.ndarray]] = []
    place = 0
    while place < len(numbers):
        command, start = int(numbers[place]), place + 1
        place = start + _ARGUMENTS[command]
        points = np.array(numbers[start:place], np.float64).reshape(-1, 2)
        if command == 0:
            rings.append([points])
        elif command in (1, 2, 3):
            rings[-1].append(_curve(np.concatenate([rings[-1][-1][-1:], points])))
    return [np.concatenate(ring) for ring in rings]


def _curve(points: np.ndarray) -> np.ndarray:
    """(n, 2) points of a Bezier curve after its first one, of its control points (2 to 4, 2); of a line its end."""
    if len(points) == 2:
        return points[1:]
    degree = len(points) - 1
    t = np.linspace(0, 1, _STEPS + 1)[1:, None]
    powers = np.arange(degree + 1)
    weights = [math.comb(degree, power) for power in powers.tolist()] * t**powers * (1 - t) ** (degree - powers)
    return np.asarray(weights @ points)


def _path_points(numbers: list[float]) -> np.ndarray:
    """The points of a composite's path; control points of curves count (those of ovals lie on their bounds)."""
    points: list[float] = []
    place = 0
    while place < len(numbers):
        count = _ARGUMENTS[int(numbers[place])]
        points += numbers[place + 1 : place + 1 + count]
        place += 1 + count
    return np.array(points).reshape(-1, 2)
