"""GeoJSON: valid, exactly the masks, and the boxes of what QuPath writes."""

import json
import pathlib
import uuid
from typing import Any

import geojson_pydantic
import numpy as np
import pytest
import shapely
import shapely.geometry

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.io.geojson import read_geojson_boxes, read_geojson_figures, write_geojson
from fsis_jax.io.outlines import fill

SIZE = (50_000, 60_000)
DISC = np.hypot(*np.mgrid[-7:8, -7:8]) < 7.5


def _instances(category: str | None = None) -> Instances:
    ring = DISC.copy()
    ring[5:9, 6:10] = False
    parts = np.zeros((9, 12), bool)
    parts[:4, :4] = parts[4:8, 4:8] = parts[2:5, 10:] = True
    masks = (
        CroppedMask(5, 10, DISC),
        CroppedMask(40_000, 50_000, ring),
        CroppedMask(0, 0, np.zeros((3, 4), bool)),
        CroppedMask(70, 200, parts),
    )
    boxes = np.array([[m.x, m.y, m.x + m.mask.shape[1], m.y + m.mask.shape[0]] for m in masks], np.float32)
    return Instances(boxes, np.array([0.9, 0.7, 0.6, 0.2], np.float32), masks, SIZE, category)


def _rasterise(geometry: shapely.Geometry, mask: CroppedMask) -> np.ndarray:
    ys, xs = np.indices(mask.mask.shape) + 0.5
    return shapely.contains_xy(geometry, xs + mask.x, ys + mask.y)


def test_the_masks_come_back(tmp_path: pathlib.Path) -> None:
    found = _instances()
    write_geojson(tmp_path / "a.geojson", found)
    content = json.loads((tmp_path / "a.geojson").read_bytes())
    features = geojson_pydantic.FeatureCollection.model_validate(content).features
    assert [feature.geometry.type for feature in features] == ["Polygon", "Polygon", "MultiPolygon"]
    for feature, row in zip(content["features"], (0, 1, 3), strict=True):
        geometry = shapely.geometry.shape(feature["geometry"])
        assert geometry.is_valid
        assert geometry.area == found.areas()[row]
        np.testing.assert_array_equal(_rasterise(geometry, found.masks[row]), found.masks[row].mask)
        for polygon in getattr(geometry, "geoms", [geometry]):
            assert polygon.exterior.is_ccw
            assert not any(hole.is_ccw for hole in polygon.interiors)
    assert len(content["features"][1]["geometry"]["coordinates"]) == 2  # shell and hole


def test_a_label_image_comes_back_by_its_outlines(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 9, (12, 15)), np.ones((4, 3), int)) * (rng.random((48, 45)) < 0.9)
    write_geojson(tmp_path / "a.geojson", Instances.from_labels(labels))
    again = np.zeros_like(labels)
    for label, (figures, kind) in enumerate(read_geojson_figures(tmp_path / "a.geojson"), start=1):
        assert kind == "cell"
        mask, y, x = fill(figures, labels.shape)
        again[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = label
    np.testing.assert_array_equal(again, labels)


def test_what_qupath_reads(tmp_path: pathlib.Path) -> None:
    write_geojson(tmp_path / "a.geojson", _instances('Größe 大 "quoted"'))
    content = json.loads((tmp_path / "a.geojson").read_bytes())
    assert [feature["properties"]["name"] for feature in content["features"]] == ["1", "2", "4"]
    properties = content["features"][0]["properties"]
    assert properties["objectType"] == "detection"
    assert properties["classification"]["name"] == 'Größe 大 "quoted"'
    assert len(properties["classification"]["color"]) == 3
    assert properties["measurements"] == {"Score": 0.9}
    assert len({uuid.UUID(feature["id"]) for feature in content["features"]}) == 3


def test_the_same_result_is_the_same_file(tmp_path: pathlib.Path) -> None:
    for folder in ("a", "b"):
        write_geojson(tmp_path / folder / "x.geojson", _instances())
    assert (tmp_path / "a/x.geojson").read_bytes() == (tmp_path / "b/x.geojson").read_bytes()
    write_geojson(tmp_path / "y.geojson", _instances())
    ids = [
        json.loads(path.read_bytes())["features"][0]["id"]
        for path in (tmp_path / "a/x.geojson", tmp_path / "y.geojson")
    ]
    assert ids[0] != ids[1]


def test_no_instances(tmp_path: pathlib.Path) -> None:
    write_geojson(tmp_path / "a.geojson", _instances().select(np.zeros(4, bool)))
    assert json.loads((tmp_path / "a.geojson").read_bytes()) == {"type": "FeatureCollection", "features": []}


def _feature(geometry: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation"}}


SQUARE = {"type": "Polygon", "coordinates": [[[1, 2.5], [4, 2.5], [4, 6], [1, 6], [1, 2.5]]]}
OTHER = {"type": "LineString", "coordinates": [[7, 8, 0], [9, 10, 0]]}
BOXES = [(1.0, 2.5, 4.0, 6.0), (7.0, 8.0, 9.0, 10.0)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    ("content", "boxes"),
    [
        ({"type": "FeatureCollection", "features": [_feature(SQUARE), _feature(OTHER)]}, BOXES),
        ([_feature(SQUARE), _feature(OTHER)], BOXES),
        (_feature(SQUARE), BOXES[:1]),
        (
            _feature({"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"], [[[8, 0], [9, 0], [9, 3]]]]}),
            [(1, 0, 9, 6)],
        ),
        (_feature({"type": "GeometryCollection", "geometries": [SQUARE, OTHER]}), [(1, 2.5, 9, 10)]),
    ],
)
def test_boxes(tmp_path: pathlib.Path, content: Any, boxes: list[Any], encoding: str) -> None:
    path = tmp_path / "ä.geojson"
    path.write_text(json.dumps(content), encoding)
    assert [box for box, _ in read_geojson_boxes(str(path))] == boxes


def test_boxes_of_what_is_written(tmp_path: pathlib.Path) -> None:
    write_geojson(tmp_path / "a.geojson", _instances())
    expected = [(10, 5, 25, 20), (50_000, 40_000, 50_015, 40_015), (200, 70, 212, 78)]
    assert [box for box, _ in read_geojson_boxes(tmp_path / "a.geojson")] == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON "),
        (b"{", "not JSON "),
        (b"[" * 100_000, "not JSON "),
        (b"[" + b"1" * 5000 + b"]", "not JSON "),
        (json.dumps([_feature(SQUARE)]).encode("utf-16"), "not UTF-8 "),
        (b"\x1f\x8b\x08\x00", "compressed by gzip: unpack it"),
        (b"3", "no GeoJSON features: "),
        (b'{"type": "FeatureCollection"}', "no GeoJSON features: "),
        (b'{"type": "FeatureCollection", "features": {}}', "no GeoJSON features: "),
        (b"[]", "an empty list of features: "),
        (json.dumps(SQUARE).encode(), "feature 1: not a GeoJSON feature: "),
        (b"[null]", "feature 1: not a GeoJSON feature: "),
    ],
)
def test_a_file_that_has_no_features_is_one_line(tmp_path: pathlib.Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.geojson"
    path.write_bytes(data)
    with pytest.raises(FsisError) as caught:
        read_geojson_boxes(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (None, "no geometry: "),
        ({"type": "Point", "coordinates": [1, 2]}, "a Point has no extent: "),
        ({"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}, "a MultiPoint has no extent: "),
        ({"type": "LineString", "coordinates": [[1, 2], [1, 4]]}, "no extent in x or in y (1, 2 to 1, 4): "),
        ({"type": "Polygon", "coordinates": []}, "an empty shape: "),
        ({"type": "Polygon"}, "coordinates that are no points (x, y): "),
        ({"type": "Polygon", "coordinates": [[[1], [2]]]}, "coordinates that are no points (x, y): "),
        ({"type": "Polygon", "coordinates": [[["1", "2"]]]}, "coordinates that are no points (x, y): "),
        ({"type": "Polygon", "coordinates": [[[0, 0], [float("nan"), 2], [3, 3]]]}, "a coordinate is not finite: "),
        ({"type": "Polygon", "coordinates": [[[0, 0], [float("inf"), 2], [3, 3]]]}, "a coordinate is not finite: "),
        ({"type": "Polygon", "coordinates": [[[0, 0], [10**400, 2], [3, 3]]]}, "a coordinate is not finite: "),
    ],
)
def test_a_feature_without_a_box_is_named(tmp_path: pathlib.Path, geometry: Any, message: str) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps([_feature(SQUARE), _feature(geometry)]))
    with pytest.raises(FsisError) as caught:
        read_geojson_boxes(path)
    assert str(caught.value).startswith(f"{path}: feature 2: {message}")


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (OTHER, "a geometry of type 'LineString' has no area: "),
        (
            {"type": "GeometryCollection", "geometries": [SQUARE, OTHER]},
            "a geometry of type 'LineString' has no area: ",
        ),
        ({"type": "GeometryCollection", "geometries": []}, "an empty shape: "),
        ({"type": "GeometryCollection"}, "coordinates that are no points (x, y): "),
        ({"type": "Polygon"}, "coordinates that are no points (x, y): "),
        ({"type": "Polygon", "coordinates": [1, 2]}, "coordinates that are no points (x, y): "),
        ({"type": "MultiPolygon", "coordinates": SQUARE["coordinates"]}, "a ring of less than three points: "),
        ({"type": "MultiPolygon", "coordinates": [[]]}, "an empty shape: "),
        ({"type": "Polygon", "coordinates": [[[0, 0], [float("nan"), 2], [3, 3]]]}, "a coordinate is not finite: "),
        ({}, "a geometry of type None has no area: "),
    ],
)
def test_a_feature_without_an_area_is_named(tmp_path: pathlib.Path, geometry: Any, message: str) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps([_feature(SQUARE), _feature(geometry)]))
    with pytest.raises(FsisError) as caught:
        read_geojson_figures(path)
    assert str(caught.value).startswith(f"{path}: feature 2: {message}")


def test_no_cell_is_left(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    assert read_geojson_figures(tmp_path / "a.geojson") == []


def test_no_such_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FsisError, match=r"none\.geojson: no such file: check the path"):
        read_geojson_boxes(tmp_path / "none.geojson")
    with pytest.raises(FsisError, match=r"cannot be read \(Is a directory\): "):
        read_geojson_boxes(tmp_path)


def test_outlines_of_several_planes_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "cells.geojson"

    def planes(*of: dict[str, int]) -> None:
        path.write_text(json.dumps([_feature(SQUARE), *(_feature({**SQUARE, "plane": plane}) for plane in of)]))

    planes({"c": 0, "z": 1, "t": 0}, {"c": 1, "z": 1, "t": 0})
    assert len(read_geojson_boxes(path)) == 3
    planes({"c": -1, "z": 0, "t": 0}, {"c": -1, "z": 4, "t": 0})
    with pytest.raises(FsisError, match=r"outlines of several slices of a stack \(Z 0 T 0, Z 4 T 0 \.\.\.\)"):
        read_geojson_boxes(path)
