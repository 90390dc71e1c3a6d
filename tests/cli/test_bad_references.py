"""References and options that `fsis segment` and `fsis references` refuse, before anything is written."""

import dataclasses
import json
import re
import shlex

import cv2
import numpy as np
import pytest
import roifile
import tifffile
from spoilt_images import encoded, png_of_size, tiff, zip_of

from fsis_jax.inference.references_file import load_references

pytestmark = pytest.mark.usefixtures("quick_compile", "read_once")


def _write(name, data):
    """Writes a file; text as UTF-8."""
    return lambda desk: (desk / name).write_bytes(data.encode() if isinstance(data, str) else data)


def _nothing(desk):
    """What there is will do."""


def _refs(change):
    """Writes x.refs, made from good.refs by a function on its bytes or on the references."""

    def make(desk):
        file = desk / "x.refs"
        changed = change(load_references(desk / "good.refs"))
        changed.save(file)

    return make


def _damaged_refs(change):
    return lambda desk: (desk / "x.refs").write_bytes(change((desk / "good.refs").read_bytes()))


def _labels(change, dtype=np.uint8):
    """Writes x.tif, labels of good.png changed by a function."""

    def make(desk):
        labels = np.zeros(cv2.imread(str(desk / "good.png"), cv2.IMREAD_GRAYSCALE).shape, dtype)
        changed = change(labels)
        tifffile.imwrite(desk / "x.tif", labels if changed is None else changed)

    return make


def _set(*boxes):
    def change(labels):
        for label, y1, y2, x1, x2 in boxes:
            labels[y1:y2, x1:x2] = label

    return change


def _geojson(*geometries):
    features = [{"type": "Feature", "properties": {}, "geometry": geometry} for geometry in geometries]
    return _write("x.geojson", json.dumps({"type": "FeatureCollection", "features": features}))


def _square(x, y, side=10):
    ring = [(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)]
    return {"type": "Polygon", "coordinates": [ring]}


def _roi(kind=roifile.ROI_TYPE.POLYGON, x=5, y=5):
    points = np.array([(x, y), (x + 10, y), (x + 10, y + 10)])
    roi = roifile.ImagejRoi.frompoints(points)
    roi.roitype = kind
    return roi.tobytes()


def _box(text):
    return f"--reference good.png:{text}"


MASK, DRAWN, ROIS = "--reference-mask x.tif", "--reference-outlines x.geojson", "--reference-outlines x.zip"
GIVE = "give IMAGE:x1,y1,x2,y2, like cells.tif:120,80,164,131"
AREA = "a box without an area: give x1,y1,x2,y2 with x1 < x2 and y1 < y2"
KIND = r"x.refs: no file of encoded references \(.+\): make one with `fsis references`"

# what is made, the references that are given, the message
REFERENCES = {
    "none": (_nothing, "", "no reference given: give --references CROP, --reference IMAGE:x1,y1,x2,y2"),
    "no value": (_nothing, "--references", "--references: expected at least one argument; `fsis"),
    "missing": (_nothing, "--references x.png", "x.png: no such file: check the path"),
    "missing beside a good one": (_nothing, "--references crop.png x.png", "x.png: no such file: check the path"),
    "pattern": (_nothing, "--references 'cells/*.png'", r"cells/\*.png: no such file: check the path"),
    "folder": (_nothing, "--references .", r"\.: a folder, and not an OME-Zarr image: give an image file"),
    "empty": (_write("x.png", b""), "--references x.png", "x.png: the file is empty: save the image as PNG"),
    "text": (_write("x.png", "cell"), "--references x.png", "x.png: not a PNG, JPEG or TIFF file: save"),
    "truncated": (_write("x.png", encoded(".png")[:-99]), "--references x.png", "x.png: truncated PNG .*: copy or"),
    "huge": (_write("x.png", png_of_size(99_999, 99_999)), "--references x.png", "x.png: declares 99999x99999 pixels:"),
    "one pixel": (
        _write("x.png", encoded(".png", np.ones((1, 1), np.uint8))),
        "--references x.png",
        "x.png: a reference of 1x1 pixels shows no cell; give a crop around one cell",
    ),
    "one row": (
        _write("x.tif", tiff(np.ones((1, 30), np.uint8))),
        "--references x.tif",
        "x.tif: a reference of 30x1 pixels shows no cell; give a crop",
    ),
    "stack": (
        _write("x.tif", tiff(np.ones((5, 30, 30), np.uint8), photometric="minisblack", metadata={"axes": "ZYX"})),
        "--references x.tif",
        "x.tif: a stack of .*choose one plane with --page 1..5",
    ),
    # boxes
    "box beyond": (_nothing, _box("10,10,5000,20"), "good.png:10,10,5000,20: the box .* is not inside the image of"),
    "box from a negative place": (_nothing, _box("-5,10,20,20"), "the box -5,10,20,20 is not inside the image of"),
    "infinite box": (_nothing, _box("0,0,inf,20"), "the box 0,0,inf,20 is not inside the image of"),
    "inverted box": (_nothing, _box("20,10,10,20"), f"good.png:20,10,10,20: {AREA}"),
    "empty box": (_nothing, _box("10,10,10,20"), f"good.png:10,10,10,20: {AREA}"),
    "nan box": (_nothing, _box("10,10,nan,20"), f"good.png:10,10,nan,20: {AREA}"),
    "tiny box": (_nothing, _box("9.999,9.999,10.001,10.001"), "good.png:9.999.*shows no cell"),
    "box of one pixel": (_nothing, _box("3,3,4,4"), "good.png:3,3,4,4: a box of 1x1 pixels shows no cell: give one"),
    "box of words": (_nothing, _box("a,b,c,d"), f"--reference good.png:a,b,c,d: {GIVE}"),
    "box of three": (_nothing, _box("1,2,3"), f"--reference good.png:1,2,3: {GIVE}"),
    "box of five": (_nothing, _box("1,2,3,4,5"), f"--reference good.png:1,2,3,4,5: {GIVE}"),
    "box of nothing": (_nothing, _box(""), f"--reference good.png:: {GIVE}"),
    "no box": (_nothing, "--reference good.png", f"--reference good.png: {GIVE}"),
    "no image": (_nothing, "--reference 1,2,30,40", f"--reference 1,2,30,40: {GIVE}"),
    "box with blanks": (_nothing, "--reference 'good.png:1 2 30 40'", f"--reference good.png:1 2 30 40: {GIVE}"),
    "box in a missing image": (_nothing, "--reference x.png:1,2,30,40", "x.png: no such file: check the path"),
    "box in a damaged image": (_write("x.png", encoded(".png")[:99]), "--reference x.png:1,2,9,9", "x.png: truncated"),
    # encoded references
    "missing refs": (_nothing, "--references x.refs", "x.refs: no such file: make it with `fsis references`"),
    "empty refs": (_write("x.refs", b""), "--references x.refs", KIND),
    "refs of text": (_write("x.refs", "cells"), "--references x.refs", KIND),
    "refs of a png": (_write("x.refs", encoded(".png")), "--references x.refs", KIND),
    "refs of a zip": (_write("x.refs", zip_of(a__txt=b"a")), "--references x.refs", KIND),
    "refs that are a folder": (
        lambda desk: (desk / "x.refs").mkdir(),
        "--references x.refs",
        r"x.refs: cannot be read \(Is a directory\)",
    ),
    "truncated refs": (_damaged_refs(lambda data: data[:-99]), "--references x.refs", KIND),
    "damaged refs": (
        _damaged_refs(lambda data: data[: len(data) // 2] + bytes(9) + data[len(data) // 2 + 9 :]),
        "--references x.refs",
        KIND,
    ),
    "refs of another model": (
        _refs(lambda good: dataclasses.replace(good, model="another")),
        "--references x.refs",
        "the references were encoded by another model: encode their crops again with this one",
    ),
    "refs and a crop": (_nothing, "--references good.refs crop.png", "good.refs: encoded references stand alone: give"),
    "two refs": (_nothing, "--references good.refs good.refs", "good.refs: encoded references stand alone: give no"),
    "refs and a box": (_nothing, f"--references good.refs {_box('1,2,30,40')}", "good.refs: encoded .* stand alone"),
    # label images
    "missing mask": (_nothing, f"{MASK} --reference-image good.png", "x.tif: no such file: check the path"),
    "mask of another size": (
        _labels(lambda labels: labels[1:]),
        f"{MASK} --reference-image good.png",
        r"x.tif: a label image of shape .* for good.png with \(.*: give labels of this very image, or name",
    ),
    "mask of floats": (
        _labels(lambda labels: labels + 0.5),
        f"{MASK} --reference-image good.png",
        "x.tif: labels of type float64: save whole numbers, 0 = background",
    ),
    "mask of a negative label": (
        _labels(lambda labels: labels.astype(np.int16) - 1),
        f"{MASK} --reference-image good.png",
        "x.tif: label -1: save whole numbers, 0 = background, 1 ... n the cells",
    ),
    "empty mask": (_labels(_set()), f"{MASK} --reference-image good.png", "x.tif: no label: give a label image with 1"),
    "binary mask of several cells": (
        _labels(_set((255, 5, 15, 5, 15), (255, 30, 40, 30, 40))),
        f"{MASK} --reference-image good.png",
        "x.tif: one label in 2 separate parts: give each cell a number of its own",
    ),
    "mask of a single pixel": (
        _labels(_set((1, 5, 15, 5, 15), (2, 30, 31, 30, 31))),
        f"{MASK} --reference-image good.png",
        "x.tif: cell 2: a box of 1x1 pixels shows no cell: give one around",
    ),
    "mask in colour": (
        _labels(lambda labels: np.repeat(labels[..., None], 3, axis=2)),
        f"{MASK} --reference-image good.png",
        r"x.tif: a label image of shape .*, 3\) for good.png",
    ),
    "mask that is an image": (_nothing, "--reference-mask crop.png --reference-image good.png", "crop.png: a label im"),
    "mask of a missing image": (
        _labels(_set((1, 5, 15, 5, 15))),
        f"{MASK} --reference-image x.png",
        "x.png: no such file: check the path",
    ),
    # outlines
    "missing outlines": (_nothing, f"{DRAWN} --reference-image good.png", "x.geojson: no such file: check the path"),
    "outlines that are a folder": (
        lambda desk: (desk / "x.geojson").mkdir(),
        f"{DRAWN} --reference-image good.png",
        r"x.geojson: cannot be read \(Is a directory\): give a readable GeoJSON file",
    ),
    "empty outlines": (
        _write("x.geojson", ""),
        f"{DRAWN} --reference-image good.png",
        "x.geojson: not JSON .*: export",
    ),
    "no json": (
        _write("x.geojson", "{'a': 1}"),
        f"{DRAWN} --reference-image good.png",
        "x.geojson: not JSON .*: export",
    ),
    "json but not geojson": (
        _write("x.geojson", '"a"'),
        f"{DRAWN} --reference-image good.png",
        "no GeoJSON features: ",
    ),
    "no features": (_geojson(), f"{DRAWN} --reference-image good.png", "x.geojson: an empty list of features: outline"),
    "no geometry": (_geojson(None), f"{DRAWN} --reference-image good.png", "x.geojson: feature 1: no geometry: outl"),
    "points": (
        _geojson(_square(5, 5), {"type": "Point", "coordinates": [1, 2]}),
        f"{DRAWN} --reference-image good.png",
        "x.geojson: feature 2: a Point has no extent: outline a cell",
    ),
    "outline outside": (
        _geojson(_square(5000, 5)),
        f"{DRAWN} --reference-image good.png",
        "x.geojson: cell 1: the box 5000,5,5010,15 is not inside the image of .*: give pixels of good.png",
    ),
    "outline in micrometres": (
        _geojson(_square(0.2, 0.2, 0.5)),
        f"{DRAWN} --reference-image good.png",
        "x.geojson: cell 1: a box of 0.5x0.5 pixels shows no cell: .* in pixels of good.png",
    ),
    "not utf-8": (
        _write("x.geojson", b'{"type": "Feature", "name": "caf\xe9"}'),
        f"{DRAWN} --reference-image good.png",
        r"x.geojson: not UTF-8 \(byte 32\): export",
    ),
    "rois of text": (_write("x.zip", "cells"), f"{ROIS} --reference-image good.png", "x.zip: not ImageJ ROIs, or dama"),
    "empty file of rois": (
        _write("x.zip", b""),
        f"{ROIS} --reference-image good.png",
        "x.zip: not ImageJ ROIs, or dam",
    ),
    "empty zip of rois": (_write("x.zip", zip_of()), f"{ROIS} --reference-image good.png", "x.zip: no(t ImageJ| ROIs)"),
    "zip of others": (
        _write("x.zip", zip_of(a__txt=b"cells")),
        f"{ROIS} --reference-image good.png",
        "x.zip: 'a.txt': not ImageJ ROIs, or damaged .*: save the ROIs in ImageJ again",
    ),
    "truncated zip": (
        _write("x.zip", zip_of(a__roi=_roi())[:-9]),
        f"{ROIS} --reference-image good.png",
        "x.zip: not Ima",
    ),
    "roi of points": (
        _write("x.zip", zip_of(a__roi=_roi(roifile.ROI_TYPE.POINT))),
        f"{ROIS} --reference-image good.png",
        "x.zip: 'a.roi': points have no extent: outline a cell",
    ),
    "roi outside": (
        _write("x.zip", zip_of(a__roi=_roi(x=900))),
        f"{ROIS} --reference-image good.png",
        "x.zip: cell 1: the box 900,5,910,15 is not inside the image of .*: give pixels of good.png",
    ),
}


@pytest.fixture(scope="module")
def refs(tiny_run, cell, tmp_path_factory):
    """A file of encoded references."""
    from fsis_jax.inference.segmenter import Segmenter

    grey, (x1, y1, x2, y2) = cell
    file = tmp_path_factory.mktemp("refs") / "good.refs"
    Segmenter.from_checkpoint(tiny_run.workdir).encode_references([grey[y1:y2, x1:x2]]).save(file)
    return file


@pytest.mark.parametrize(("make", "references", "message"), REFERENCES.values(), ids=REFERENCES)
def test_bad_references(fsis, desk, refs, make, references, message):
    (desk / "good.refs").symlink_to(refs)
    make(desk)
    before = sorted(desk.iterdir())
    outcome = fsis("segment", "good.png", *shlex.split(references), *["--checkpoint", "W", "--output", "out"])
    assert re.search(f"^fsis: error: .*{message}", outcome.error)
    assert outcome.stdout == ""
    assert sorted(desk.iterdir()) == before
    if ".refs" not in references:
        same = fsis("references", *shlex.split(references), *["--checkpoint", "W", "--output", "out.refs"])
        assert re.sub("`fsis references", "`fsis segment", same.error) == outcome.error
        assert sorted(desk.iterdir()) == before
