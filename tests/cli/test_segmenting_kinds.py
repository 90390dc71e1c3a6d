"""`fsis segment --kind`: every output tells the same kinds, in each run the summary has all images."""

import csv
import json
import pathlib

import cv2
import numpy as np
import pytest
import roifile
import tifffile
from pycocotools.coco import COCO

pytestmark = pytest.mark.usefixtures("quick_compile", "read_once")
KINDS = ("--kind", "bright=bright.png", "--kind", "dim=dim.png", "--not", "dust.png")


@pytest.fixture
def segment(fsis, desk):
    """`fsis segment` of images with bright discs, dim ones and specks, on the desk; into `out`, of any score."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:60, :80]
    image = rng.integers(0, 40, (60, 80))
    for y, x, light, radius in ((15, 20, 200, 9), (40, 30, 90, 9), (30, 60, 200, 9), (48, 66, 90, 9), (8, 70, 120, 3)):
        image[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] += light
    image = image.astype(np.uint8)
    for name, picture in (("a.png", image), ("b.png", image[:, ::-1]), ("c.png", image[::-1])):
        cv2.imwrite(str(desk / name), picture)
    for name, (y, x), half in (("bright", (15, 20), 9), ("dim", (40, 30), 9), ("dust", (8, 70), 4)):
        cv2.imwrite(str(desk / f"{name}.png"), image[y - half : y + half, x - half : x + half])

    def call(*arguments, kinds=KINDS):
        options = ("--checkpoint", "W", "--output", "out", "--min-score", "0")
        outcome = fsis("segment", *arguments, *kinds, *options)
        assert outcome.status == 0, outcome.stderr
        return outcome

    return call


def _rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_output_tells_the_same_kinds(segment, desk):
    outcome = segment("a.png", "--save", "all", "--json", "--pixel-size", "0.5")
    told = json.loads(outcome.stdout)
    files = told["files"]
    rows = _rows(files["table"])
    kinds = [row["kind"] for row in rows]
    assert set(kinds) == {"bright", "dim"}
    assert told["kinds"] == {name: kinds.count(name) for name in ("bright", "dim")}
    assert told["cells"] == len(kinds) == tifffile.imread(files["labels"]).max()
    shares = np.array([[float(row[f"p_{name}"]) for name in ("bright", "dim", "not", "none")] for row in rows])
    np.testing.assert_allclose(shares.sum(1), 1, atol=3e-4)
    told_shares = shares[range(len(kinds)), [("bright", "dim").index(name) for name in kinds]]
    np.testing.assert_array_equal(told_shares, shares[:, :2].max(1))  # two may be equal: a table has four decimals
    features = json.loads(pathlib.Path(files["geojson"]).read_text())["features"]
    assert [feature["properties"]["classification"]["name"] for feature in features] == kinds
    probabilities = [list(feature["properties"]["measurements"].values())[1:] for feature in features]
    np.testing.assert_allclose(probabilities, shares, atol=6e-5)
    rois = roifile.roiread(files["rois"])
    assert [roi.properties["category"] for roi in rois] == kinds
    assert [roi.group for roi in rois] == [1 + ("bright", "dim").index(name) for name in kinds]
    coco = COCO(files["coco"])
    names = {row["id"]: row["name"] for row in coco.loadCats(coco.getCatIds())}
    assert list(names.values()) == ["bright", "dim"]
    assert [names[row["category_id"]] for row in coco.loadAnns(coco.getAnnIds())] == kinds
    summary = _rows(desk / "out" / "summary.csv")
    assert {row["kind"]: int(row["count"]) for row in summary} == told["kinds"]
    for row in summary:
        areas = [int(cell["area_px"]) for cell in rows if cell["kind"] == row["kind"]]
        assert float(row["median_area_px"]) == np.median(areas)
        assert float(row["median_area_um2"]) == pytest.approx(np.median(areas) / 4)
        assert float(row["density_per_mm2"]) == pytest.approx(len(areas) / (60 * 80 * 0.25e-6), rel=1e-5)


def test_the_summary_has_all_images_of_all_runs_once(segment, desk):
    first = segment("a.png", "b.png")
    segment("b.png", "c.png")
    (desk / "out" / "summary.csv").unlink()
    again = segment("a.png", "b.png")  # which are finished
    assert sorted(again.stdout.splitlines()) == sorted(first.stdout.splitlines())
    rows = _rows(desk / "out" / "summary.csv")
    assert [(row["image"], row["kind"]) for row in rows] == [
        (f"{name}.png", kind) for name in "abc" for kind in ("bright", "dim")
    ]
    counts = {(row["image"], row["kind"]): row["count"] for row in rows}
    for line in first.stdout.splitlines():
        name = line.partition(":")[0]
        assert line == f"{name}: {counts[name, 'bright']} bright, {counts[name, 'dim']} dim"
    segment("a.png", kinds=("--references", "bright.png", "--category", "disc"))
    rows = _rows(desk / "out" / "summary.csv")
    assert [(row["image"], row["kind"]) for row in rows][:3] == [
        ("a.png", "disc"),
        ("b.png", "bright"),
        ("b.png", "dim"),
    ]


def test_of_one_kind_that_is_wanted_the_cells_are_counted(segment, desk):
    outcome = segment("a.png", kinds=("--references", "bright.png", "--not", "dim.png", "--category", "disc"))
    (row,) = _rows(desk / "out" / "summary.csv")
    assert row["kind"] == "disc"
    assert outcome.stdout == f"a.png: {row['count']} cells\n"
