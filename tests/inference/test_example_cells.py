"""Example cells as people have them, and what is wrong with some."""

import functools
import json

import cv2
import numpy as np
import pytest
import roifile
import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.inference.example_cells import (
    box_example,
    crop_example,
    encode_examples,
    label_examples,
    outlined_examples,
)
from fsis_jax.io.source import open_image

OPENER = functools.partial(open_image, channel=None, page=None, where_there=True)
PIXELS = np.random.default_rng(0).integers(0, 60000, (50, 60), np.uint16)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a:b.tif"  # a colon in the name
    tifffile.imwrite(path, PIXELS, ome=True, metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5})
    return str(path)


def test_a_crop(image):
    example = crop_example(image, OPENER)
    np.testing.assert_array_equal(example.crop, PIXELS)
    assert (example.name, example.size, example.pixel_size) == (image, (50, 60), 0.5)


def test_a_box_in_an_image(image):
    example = box_example(f"{image}:10,5.5,30,20", OPENER)
    np.testing.assert_array_equal(example.crop, PIXELS[5:20, 10:30])
    assert example.size == (14.5, 20)
    assert example.pixel_size == 0.5
    assert box_example(f"{image}:0,0,60,50", OPENER).crop.shape == (50, 60)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("", "give IMAGE:x1,y1,x2,y2, like cells.tif:120,80,164,131"),
        (":1,2,3", "give IMAGE:x1,y1,x2,y2"),
        (":1,2,3,4,5", "give IMAGE:x1,y1,x2,y2"),
        (":1,2,x,4", "give IMAGE:x1,y1,x2,y2"),
        (":10,5,10,20", "a box without an area: give x1,y1,x2,y2 with x1 < x2"),
        (":30,20,10,5", "a box without an area"),
        (":nan,0,10,10", "a box without an area"),
        (":-1,0,10,10", "the box -1,0,10,10 is not inside the image of 60x50 pixels"),
        (":0,0,61,10", "the box 0,0,61,10 is not inside the image of 60x50 pixels"),
        (":0,0,inf,10", "the box 0,0,inf,10 is not inside the image"),
    ],
)
def test_boxes_that_are_none(image, box, message):
    with pytest.raises(FsisError) as caught:
        box_example(image + box, OPENER)
    assert message in str(caught.value)


def _labels(tmp_path, labels):
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, labels)
    return str(path)


def test_each_label_is_a_reference(image, tmp_path):
    labels = np.zeros((50, 60), np.int32)
    labels[40:48, 3:9] = 2
    labels[5:12, 30:50] = 700
    labels[30:33, 30:33] = 2  # in two parts
    found = label_examples(_labels(tmp_path, labels), image, OPENER)
    assert [example.size for example in found] == [(18, 30), (7, 20)]
    np.testing.assert_array_equal(found[0].crop, PIXELS[30:48, 3:33])
    np.testing.assert_array_equal(found[1].crop, PIXELS[5:12, 30:50])
    assert found[1].name.endswith("labels.tif: cell 2")


def test_labels_over_many_bands_of_rows(tmp_path):
    large = np.zeros((2500, 40), np.uint8)
    labels = np.zeros((2500, 40), np.uint16)
    labels[1000:1100, 5:15] = 1
    labels[5:2400, 20:30] = 2
    tifffile.imwrite(tmp_path / "large.tif", large)
    found = label_examples(_labels(tmp_path, labels), str(tmp_path / "large.tif"), OPENER)
    assert [example.size for example in found] == [(100, 10), (2395, 10)]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((50, 60), np.uint8), "no label: give a label image with 1 ... n in the example cells"),
        (np.ones((50, 61), np.uint8), r"a label image of shape \(50, 61\) for .*a:b.tif with \(50, 60\)"),
        (np.ones((50, 60, 3), np.uint8), r"a label image of shape \(50, 60, 3\)"),
        (np.ones((50, 60), np.float32), "labels of type float32: save whole numbers"),
        (np.uint8(PIXELS // 256), "labels scattered like grey values: give a label image"),
        (np.tile(np.uint8([0, 255, 255, 0]), (50, 15)), "one label in 15 separate parts: give each cell a number"),
    ],
)
def test_labels_that_are_none(image, tmp_path, labels, message):
    with pytest.raises(FsisError, match=f"labels.tif: {message}"):
        label_examples(_labels(tmp_path, labels), image, OPENER)


def _geojson(tmp_path, *rings):
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}}
        for ring in rings
    ]
    path = tmp_path / "cells.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


def test_outlines_of_qupath_and_imagej(image, tmp_path):
    ring = [(10, 5), (30, 8.5), (20, 20)]
    path = _geojson(tmp_path, ring, [(1, 1), (5, 1), (5, 9)])
    found = outlined_examples(path, image, OPENER)
    assert [example.size for example in found] == [(15, 20), (8, 4)]
    np.testing.assert_array_equal(found[0].crop, PIXELS[5:20, 10:30])
    rois = str(tmp_path / "RoiSet.zip")
    roifile.roiwrite(rois, [roifile.ImagejRoi.frompoints(np.array([(10, 5), (30, 5), (30, 20), (10, 20)]), name="a")])
    (example,) = outlined_examples(rois, image, OPENER)
    assert example.size == (15, 20)


def test_categories_of_coco_are_kinds(image, tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a:b.tif"}, {"id": 2, "file_name": "other.tif"}],
        "annotations": [
            {"image_id": image_id, "category_id": category, "bbox": [x, 5, 20, 15]}
            for image_id, category, x in ((1, 1, 10), (1, 2, 0), (2, 1, 30))
        ],
        "categories": [{"id": 1, "name": "living"}, {"id": 2, "name": "dead"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    found = outlined_examples(str(path), image, OPENER)
    assert [(example.kind, example.size) for example in found] == [("living", (15, 20)), ("dead", (15, 20))]
    np.testing.assert_array_equal(found[0].crop, PIXELS[5:20, 10:30])
    del content["annotations"][1]
    path.write_text(json.dumps(content))
    assert [example.kind for example in outlined_examples(str(path), image, OPENER)] == [""]  # of one kind, as ever


def test_an_outline_may_reach_over_the_border_by_a_pixel(image, tmp_path):
    (example,) = outlined_examples(_geojson(tmp_path, [(-0.5, 5), (30, -1), (60.5, 51)]), image, OPENER)
    assert example.size == (50, 60)
    with pytest.raises(FsisError, match=r"cells.geojson: cell 1: the box -2,0,30,20 is not inside the image of 60x50"):
        outlined_examples(_geojson(tmp_path, [(-2, 0), (30, 0), (30, 20)]), image, OPENER)


class Encoder:
    """Stands for a Segmenter; gives back what it was asked to encode."""

    compares_brightness = False

    def encode_references(self, crops, *, sides, pixel_size, names, stretches):
        assert stretches == [None] * len(crops)
        return len(crops), sides.tolist(), pixel_size, names


def test_examples_of_different_pixel_size_are_brought_to_one(image, tmp_path):
    fine = tmp_path / "fine.tif"
    tifffile.imwrite(fine, PIXELS, ome=True, metadata={"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25})
    cv2.imwrite(str(tmp_path / "plain.png"), PIXELS)
    one, two, none = (crop_example(str(p), OPENER) for p in (image, fine, tmp_path / "plain.png"))
    assert encode_examples(Encoder(), [one, two]) == (2, [[50, 60], [25, 30]], 0.5, [image, str(fine)])
    # Nothing is known of one of them: they are taken to be of one magnification.
    assert encode_examples(Encoder(), [one, none])[1:3] == ([[50, 60], [50, 60]], None)
