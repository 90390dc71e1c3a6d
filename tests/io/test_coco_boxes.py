"""Boxes of COCO files as references: which image, which category, and what is wrong with some."""

import json

import numpy as np
import pytest

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.io.coco_boxes import is_coco, read_coco_boxes
from fsis_jax.io.writers import write_coco

SIZE = (50, 60)


@pytest.fixture
def write(tmp_path):
    """Writes a COCO file of two images and three cells, changed as a test needs; gives its path."""

    def written(change=lambda content: None):
        content = {
            "images": [{"id": 7, "file_name": "sub/a.png", "height": 50, "width": 60}, {"id": 8, "file_name": "b.png"}],
            "annotations": [
                {"id": 1, "image_id": 7, "category_id": 2, "bbox": [3, 4, 10, 12.5]},
                {"id": 2, "image_id": 8, "category_id": 2, "bbox": [0, 0, 5, 5]},
                {"id": 3, "image_id": 7, "category_id": 5, "bbox": [20, 4, 10, 12], "iscrowd": 0},
                {"id": 4, "image_id": 7, "category_id": 5, "bbox": [0, 0, 60, 50], "iscrowd": 1},
            ],
            "categories": [{"id": 2, "name": "dead"}, {"id": 5, "name": "living"}],
        }
        change(content)
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        return str(path)

    return written


def test_boxes_and_categories_of_the_image_of_a_name(write):
    path = write()
    assert is_coco(path)
    assert read_coco_boxes(path, "elsewhere/a.png", SIZE) == [((3, 4, 13, 16.5), "dead"), ((20, 4, 30, 16), "living")]
    assert read_coco_boxes(path, "b.png", SIZE) == [((0, 0, 5, 5), "dead")]


def test_the_only_image_needs_no_name(write):
    def only(content):
        del content["images"][1]

    assert len(read_coco_boxes(write(only), "other.tif", SIZE)) == 2


def test_what_we_write_is_read(tmp_path):
    masks = (CroppedMask(5, 10, np.ones((8, 9), bool)), CroppedMask(30, 20, np.ones((6, 7), bool)))
    boxes = np.array([crop.extent for crop in masks], np.float32)
    found = Instances(
        boxes, np.ones(2, np.float32), masks, SIZE, classes=np.array([1, 0], np.int32), names=("living", "dead")
    )
    write_coco(tmp_path / "a.json", {"a.png": found})
    expected = [((10, 5, 19, 13), "dead"), ((20, 30, 27, 36), "living")]
    assert read_coco_boxes(tmp_path / "a.json", "a.png", SIZE) == expected


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.update(images={}), "no list of objects under 'images'"),
        (lambda c: c["images"][0].update(file_name="c.png"), "no image a.png among its 2: name one that it has"),
        (lambda c: c["images"][1].update(file_name="a.png"), "2 images are called a.png"),
        (lambda c: c["images"][0].update(width=61), "61x50 pixels of sub/a.png, and a.png has 60x50"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "annotation 1: no bbox of four numbers"),
        (
            lambda c: c["annotations"][0].update(bbox=[1, 2, 3, -4]),
            "annotation 1: .* is 3 wide and -4 high",
        ),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, 0]), "annotation 1: no extent"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, int("9" * 400)]), "annotation 1: a number that is not"),
        (lambda c: c["annotations"][0].update(category_id=9), "annotation 1: category 9 is none of the file's"),
        (lambda c: c.update(annotations=[]), "no annotation of a.png"),
    ],
)
def test_what_is_no_such_file(write, change, problem):
    with pytest.raises(FsisError, match=problem):
        read_coco_boxes(write(change), "a.png", SIZE)


def test_geojson_is_no_coco(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    assert not is_coco(path)
