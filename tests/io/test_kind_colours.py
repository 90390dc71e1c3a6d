"""Kinds in files: every one is read back by an independent reader, with the same kinds, numbers and colours."""

import csv
import dataclasses
import json
import pathlib
from typing import Any

import cv2
import geojson_pydantic
import numpy as np
import pytest
import roifile
from pycocotools.coco import COCO

from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.io.kinds import counts, kind_colour, probability_names
from fsis_jax.io.names import FILES
from fsis_jax.io.outputs import write_outputs
from fsis_jax.io.overlay import draw_overlay
from fsis_jax.io.writers import write_coco

SIZE = (90, 120)
DISC = np.hypot(*np.mgrid[-9:10, -9:10]) < 9.5
KINDS = ("living", "-dead ø", "rare", "dust")
ROWS = [1, 0, 0, 3, 1, 0]


def _found(rows: list[int] = ROWS) -> Instances:
    """Discs in a row, each of a kind; "rare" has none, and "dust" is not wanted."""
    masks = tuple(CroppedMask(5 + 40 * (i % 2), 2 + 19 * i, DISC) for i in range(len(rows)))
    boxes = np.array([[m.x, m.y, m.x + 19, m.y + 19] for m in masks], np.float32).reshape(-1, 4)
    shares = np.full((len(rows), len(KINDS) + 1), 0.05, np.float32)
    shares[np.arange(len(rows)), rows] = 0.8 - np.arange(len(rows)) / 32
    shares[:, -1] = 1 - shares[:, :-1].sum(1)
    return Instances(
        boxes,
        1 - shares[:, -1],
        masks,
        SIZE,
        classes=np.array(rows, np.int32),
        names=KINDS,
        kind_scores=shares,
        unwanted=("dust",),
    )


@pytest.fixture
def files(tmp_path: pathlib.Path) -> dict[str, pathlib.Path]:
    grey = np.full(SIZE, 60, np.uint8)
    paths = write_outputs(tmp_path, "a", grey, _found(), list(FILES), pixel_size=0.5)
    return {kind: pathlib.Path(path) for kind, path in paths.items()}


EXPECTED = [KINDS[row] for row in ROWS]


def test_the_table(files: dict[str, pathlib.Path]) -> None:
    with open(files["table"], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = ["p_living", "p_-dead ø", "p_rare", "p_dust", "p_none"]
    assert list(rows[0])[:9] == ["label", "kind", "score", *names, "x1"]
    assert "category" not in rows[0]
    # A name that a spreadsheet would take for a formula is written after '.
    assert [row["kind"].removeprefix("'") for row in rows] == EXPECTED
    shares = np.array([[float(row[name]) for name in names] for row in rows])
    np.testing.assert_allclose(shares, _found().kind_scores, atol=5.1e-5)
    np.testing.assert_allclose(shares[:, -1], [1 - float(row["score"]) for row in rows], atol=1.1e-4)


def test_the_table_in_pandas(files: dict[str, pathlib.Path]) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(files["table"])
    assert table["kind"].str.removeprefix("'").tolist() == EXPECTED
    assert table.filter(regex="^p_").shape == (6, 5)
    assert table["perimeter_um"].notna().all()


def test_geojson(files: dict[str, pathlib.Path]) -> None:
    content = json.loads(files["geojson"].read_bytes())
    geojson_pydantic.FeatureCollection.model_validate(content)
    told = [feature["properties"] for feature in content["features"]]
    assert [row["classification"]["name"] for row in told] == EXPECTED
    assert [row["classification"]["color"] for row in told] == [list(kind_colour(row)) for row in ROWS]
    names = ["Score", *probability_names(_found())]
    for row, score, shares in zip(told, _found().scores, _found().kind_scores, strict=True):  # type: ignore[arg-type]
        assert list(row["measurements"]) == names
        np.testing.assert_allclose(list(row["measurements"].values()), [score, *shares], atol=1e-6)


def test_rois(files: dict[str, pathlib.Path]) -> None:
    rois: Any = roifile.roiread(files["rois"])
    assert [roi.group for roi in rois] == [row + 1 for row in ROWS]
    assert [roi.properties["category"] for roi in rois] == EXPECTED
    assert [tuple(roi.stroke_color) for roi in rois] == [(255, *kind_colour(row)) for row in ROWS]


def test_coco(files: dict[str, pathlib.Path]) -> None:
    coco = COCO(files["coco"])
    names = {row["id"]: row["name"] for row in coco.loadCats(coco.getCatIds())}
    assert [names[row["category_id"]] for row in coco.loadAnns(coco.getAnnIds())] == EXPECTED
    assert len(coco.getAnnIds(catIds=coco.getCatIds(catNms=["living"]))) == 3


def test_categories_of_coco_do_not_depend_on_what_an_image_shows(tmp_path: pathlib.Path) -> None:
    write_coco(tmp_path / "a.json", {"a.png": _found([2]), "b.png": _found([1, 0])})
    write_coco(tmp_path / "b.json", {"b.png": _found([])})
    for name in ("a.json", "b.json"):
        categories = json.loads((tmp_path / name).read_text())["categories"]
        assert [(row["id"], row["name"]) for row in categories] == [(1, "living"), (2, "-dead ø"), (3, "rare")]


def _colours(picture: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, picture.reshape(-1, 3).tolist()))


def test_the_overlay_has_the_colours_of_the_kinds_and_a_legend(files: dict[str, pathlib.Path]) -> None:
    picture = cv2.cvtColor(cv2.imread(str(files["overlay"])), cv2.COLOR_BGR2RGB)
    factor = 7  # of an image of 120 pixels
    strip = picture.shape[1] - factor * SIZE[1]
    assert strip > 100
    shown, beside = picture[:, strip:], picture[:, :strip]
    for crop, row in zip(_found().masks, ROWS, strict=True):
        cell = shown[
            factor * (crop.y - 1) : factor * (crop.y + 20), factor * max(crop.x - 1, 0) : factor * (crop.x + 20)
        ]
        assert kind_colour(row) in _colours(cell)
    assert {kind_colour(row) for row in range(4)} <= _colours(beside)  # also of the kind of which there is none
    assert kind_colour(2) not in _colours(shown)
    without = draw_overlay(np.zeros((*SIZE, 3), np.uint8), _found([0, 1]))
    assert kind_colour(3) not in _colours(without)  # what is not wanted is told only where it is there


def test_a_long_name_has_room_in_the_legend() -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    long = dataclasses.replace(_found(), names=("x" * 300, *KINDS[1:]))
    short, shortened = (draw_overlay(image, found, text=None) for found in (_found(), long))
    assert shortened.shape == short.shape
    strip = short.shape[1] - 7 * SIZE[1]
    np.testing.assert_array_equal(shortened[:, strip:], short[:, strip:])
    changed = np.flatnonzero((shortened[:, :strip] != short[:, :strip]).any(axis=(0, 2)))
    assert changed.min() > 0
    assert changed.max() < strip - 12


def test_counts() -> None:
    assert counts(_found()) == {"living": 3, "-dead ø": 2, "rare": 0, "dust": 1}
    assert counts(_found([1])) == {"living": 0, "-dead ø": 1, "rare": 0}
    closed = dataclasses.replace(_found([1]), kind_scores=None, unwanted=())
    assert counts(closed) == {"-dead ø": 1}
    assert probability_names(closed) == []
    assert counts(Instances.none(SIZE)) == {}


def test_thirty_kinds_have_colours_of_their_own() -> None:
    assert len({kind_colour(row) for row in range(30)}) == 30
    assert all(0 <= part <= 255 for row in range(100) for part in kind_colour(row))
