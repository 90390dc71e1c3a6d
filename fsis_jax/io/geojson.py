"""GeoJSON (RFC 7946): instances for QuPath, and boxes or outlines of cells that were drawn there.

QuPath (v0.4 and later) imports each feature as an object. Coordinates are pixels of the full-resolution image, as
`outlines` gives them: exactly the mask.
"""

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import atomic_write, open_file, read_failure
from fsis_jax.io.kinds import kind_colour, probabilities
from fsis_jax.io.outlines import Box, Figure, Plane, box_around, check_one_plane, outlines
from fsis_jax.io.writers import Result

_COLOUR = (74, 222, 128)
_EXPORT = "export the objects as GeoJSON again"


def write_geojson(path: str | os.PathLike[str], result: Result) -> None:
    """A FeatureCollection with one detection per instance: outline, class, number as its name, score as measurement.

    The class is the kind or category, with its colour (`kinds.py`); of kinds the probabilities are measurements too.

    The numbers count from 1 in the order of `result` (ids of `Instances.labels`, if these are
    `Instances.without_overlaps`). An empty mask has no feature. The ids follow from the file's name and the number.

    Raises:
        FsisError: the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(b'{"type":"FeatureCollection","features":[')
        name = os.fsencode(os.path.basename(path)).decode(errors="backslashreplace")
        for row, feature in enumerate(_features(name, result)):
            file.write(b",\n" if row else b"\n")
            file.write(json.dumps(feature, separators=(",", ":")).encode())
        file.write(b"\n]}\n")


def read_geojson_boxes(path: str | os.PathLike[str]) -> list[tuple[Box, str]]:
    """The bounds of each feature's geometry and the name of its class, "" without one, in the order of the file.

    Args:
        path: a FeatureCollection, a list of features or a single one, in UTF-8. Other than points, all geometries will
            do: they must have an extent in x and in y.

    Raises:
        FsisError: no such file, not GeoJSON, no features, or a feature (counted from 1) that has no box.
    """
    boxes = [(box_around(_points(geometry, where), where), kind) for geometry, kind, where in _geometries(path)]
    if not boxes:
        raise FsisError(f"{os.fspath(path)}: an empty list of features: outline at least one cell")
    return boxes


def read_geojson_figures(path: str | os.PathLike[str]) -> list[tuple[list[Figure], str]]:
    """The polygons of each feature, for `outlines.fill`, and the name of its class, as `read_geojson_boxes`.

    There may be none.

    Raises:
        FsisError: as there, or a geometry that is no polygon, nor of polygons.
    """
    return [(_figures(geometry, where), kind) for geometry, kind, where in _geometries(path)]


def _geometries(path: str | os.PathLike[str]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """The geometry of each feature, its class, and where it is."""
    name = os.fspath(path)
    content = read_json(name)
    if isinstance(content, dict):
        content = content.get("features") if content.get("type") == "FeatureCollection" else [content]
    if not isinstance(content, list):
        raise FsisError(f"{name}: no GeoJSON features: {_EXPORT}")
    planes: list[Plane] = []
    for number, feature in enumerate(content, 1):
        where = f"{name}: feature {number}"
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            raise FsisError(f"{where}: not a GeoJSON feature: {_EXPORT}")
        geometry = feature.get("geometry")
        if not isinstance(geometry, dict):
            raise FsisError(f"{where}: no geometry: outline a cell")
        plane = geometry.get("plane")  # QuPath's, which counts from 0
        axes = plane if isinstance(plane, dict) else {}
        planes.append(tuple((axis.upper(), axes[axis]) for axis in ("z", "t") if isinstance(axes.get(axis), int)))
        check_one_plane(name, planes)
        yield geometry, _class_of(feature), where


def _features(file_name: str, result: Result) -> Iterator[dict[str, Any]]:
    found = zip(result.masks, result.scores.tolist(), result.categories, probabilities(result), strict=True)
    for number, (mask, score, category, shares) in enumerate(found, start=1):
        polygons = [
            [ring.tolist() + ring[:1].tolist() for ring in (polygon.shell, *polygon.holes)]
            for polygon in outlines(mask.mask, mask.y, mask.x)
        ]
        if not polygons:
            continue
        geometry = (
            {"type": "Polygon", "coordinates": polygons[0]}
            if len(polygons) == 1
            else {"type": "MultiPolygon", "coordinates": polygons}
        )
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{file_name}#{number}")),
            "geometry": geometry,
            "properties": {
                "objectType": "detection",
                "name": str(number),
                "classification": {"name": category or "cell", "color": _colour(result, number - 1)},
                "measurements": {name: round(value, 6) for name, value in {"Score": score, **shares}.items()},
            },
        }


def _colour(result: Result, row: int) -> Sequence[int]:
    """One for each kind or category, where there are several."""
    return _COLOUR if result.classes is None else kind_colour(int(result.classes[row]))


def read_json(name: str) -> Any:
    """What a JSON file holds.

    Raises:
        FsisError: no such file, or no JSON.
    """
    try:
        with open_file(name) as file:
            data = file.read()
    except OSError as error:
        raise read_failure(name, error, "GeoJSON") from error
    if data.startswith(b"\x1f\x8b"):
        raise FsisError(f"{name}: compressed by gzip: unpack it")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise FsisError(f"{name}: not UTF-8 (byte {error.start}): {_EXPORT}") from error
    except (ValueError, RecursionError) as error:
        raise FsisError(f"{name}: not JSON ({error}): {_EXPORT}") from error


def _figures(geometry: dict[str, Any], where: str) -> list[Figure]:
    """The polygons of a geometry, each with its holes."""
    figures: list[Figure] = []
    left: list[Any] = [geometry]
    while left:
        item = left.pop()
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "GeometryCollection":
            left += _list({"coordinates": item.get("geometries")}, where)
        elif kind == "MultiPolygon":
            left += [{"type": "Polygon", "coordinates": rings} for rings in _list(item, where)]
        elif kind == "Polygon":
            figures.append([_points({"coordinates": ring}, where) for ring in _list(item, where)])
        else:
            raise FsisError(f"{where}: a geometry of type {kind!r} has no area: outline the cell by a polygon")
    rings = [ring for figure in figures for ring in figure]
    box_around(np.concatenate(rings or [np.zeros((0, 2))]), where)
    if min(map(len, rings)) < 3:
        raise FsisError(f"{where}: a ring of less than three points: {_EXPORT}")
    return figures


def _list(geometry: dict[str, Any], where: str) -> list[Any]:
    """The parts of a polygon, or of several."""
    parts = geometry.get("coordinates")
    if not isinstance(parts, list):
        raise FsisError(f"{where}: coordinates that are no points (x, y): {_EXPORT}")
    return parts


def _class_of(feature: dict[str, Any]) -> str:
    """QuPath's class of a feature, in either of the forms that its versions write; "" where it has none."""
    properties = feature.get("properties")
    told = properties.get("classification") if isinstance(properties, dict) else None
    names = [told.get("name"), *_strings(told.get("names"))] if isinstance(told, dict) else [told]
    return next((name for name in names if isinstance(name, str) and name), "")


def _strings(names: Any) -> list[str]:
    return [": ".join(map(str, names))] if isinstance(names, list) and names else []


def _points(geometry: dict[str, Any], where: str) -> np.ndarray:
    """(n, 2) float64, all points of a geometry."""
    points: list[Sequence[float]] = []
    left: list[Any] = [geometry]
    while left:
        item = left.pop()
        if isinstance(item, dict) and item.get("type") in ("Point", "MultiPoint"):
            raise FsisError(f"{where}: a {item['type']} has no extent: outline a cell")
        if isinstance(item, dict):
            left += [item.get("geometries", item.get("coordinates"))]
        elif isinstance(item, list) and all(isinstance(part, list | dict) for part in item):
            left += item
        elif isinstance(item, list) and len(item) >= 2 and all(type(part) in (int, float) for part in item[:2]):
            points.append(item[:2])
        else:
            raise FsisError(f"{where}: coordinates that are no points (x, y): {_EXPORT}")
    try:
        return np.array(points, np.float64).reshape(-1, 2)
    except OverflowError as error:
        raise FsisError(f"{where}: a coordinate is not finite: draw it again") from error
