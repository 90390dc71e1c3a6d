"""Which training images validate."""

import json
import shutil

import cv2
import numpy as np
import pytest
import tiny

from fsis_jax.data.from_config import open_splits
from fsis_jax.data.opening import open_source
from fsis_jax.errors import FsisError


@pytest.fixture
def config(tiny_data):
    config = tiny.get_config()
    config.data.root = str(tiny_data)
    return config


def _ids(source):
    return [annotations.image_id for annotations in source.annotations]


def test_validation_images_are_a_seeded_share_of_the_training_images(config):
    config.data.validation_fraction = 0.25
    first, again = open_splits(config), open_splits(config)
    assert _ids(first.validation) == _ids(again.validation)
    assert not set(_ids(first.train)) & set(_ids(first.validation))
    assert len(first.validation) == round(0.25 * (len(first.train) + len(first.validation)))
    test = set(_ids(open_source(config.data.root, "test")))
    assert not test & set(_ids(first.train) + _ids(first.validation))
    config.seed = 1
    assert _ids(open_splits(config).validation) != _ids(first.validation)


def test_every_category_keeps_an_image_to_learn_and_to_take_references_from(config):
    config.data.validation_fraction = 0.95
    splits = open_splits(config)
    for category in splits.seen:
        assert any(category in annotations.classes for annotations in splits.train.annotations)
    assert len(splits.validation) > 5


def test_an_image_of_nothing_but_a_crowd_is_left_out(config, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(config.data.root, folder)
    path = folder / "annotations" / "train.json"
    content = json.loads(path.read_text())
    image = content["images"][0]["id"]
    for row in content["annotations"]:
        row["iscrowd"] = int(row["image_id"] == image)
    path.write_text(json.dumps(content))
    everything = len(open_source(config.data.root, "train"))
    config.data.root, config.data.fold = str(folder), 0
    splits = open_splits(config)
    assert image not in _ids(splits.train) + _ids(splits.validation)
    assert len(splits.train) + len(splits.validation) == everything - 1


def test_without_a_share_the_training_images_validate(config):
    config.data.validation_fraction = 0.0
    splits = open_splits(config)
    assert _ids(splits.train) == _ids(splits.validation)


@pytest.mark.parametrize(("images", "expected"), [(10, 3), (9, 3), (6, 2), (3, 1)])
def test_few_images_are_not_validated_on_one(images, expected, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    rows = [{"id": number, "file_name": f"{number}.png", "height": 9, "width": 9} for number in range(images)]
    for row in rows:
        cv2.imwrite(str(tmp_path / "images" / row["file_name"]), np.zeros((9, 9), np.uint8))
    cell = {"category_id": 1, "iscrowd": 0, "bbox": [1, 1, 6, 6], "segmentation": [[1, 1, 7, 1, 7, 7, 1, 7]]}
    cells = [{"id": row["id"], "image_id": row["id"], **cell} for row in rows]
    content = {"images": rows, "annotations": cells, "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "annotations/train.json").write_text(json.dumps(content))
    config = tiny.get_config()
    config.data.root = str(tmp_path)
    config.data.validation_fraction = 0.1
    splits = open_splits(config)
    assert len(splits.validation) == expected
    assert len(splits.train) == images - expected


def test_images_with_held_out_categories_only_are_left_out(config):
    splits = open_splits(config)
    for annotations in (*splits.train.annotations, *splits.validation.annotations):
        assert set(annotations.classes.tolist()) & set(splits.seen)


def test_an_unknown_fold_is_an_error(config):
    config.data.fold = 7
    with pytest.raises(FsisError, match=r"config.data.fold is 7; the data set has folds \[1, 2, 3\], and 0 for none"):
        open_splits(config)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
def test_a_quick_look_takes_a_few_of_each_and_their_categories(config, fraction):
    config.data.validation_fraction = fraction
    whole = open_splits(config)
    config.debug = True
    few = open_splits(config)
    assert len(few.train) == 8
    assert 1 <= len(few.validation) <= 4
    assert set(_ids(few.train)) <= set(_ids(whole.train))
    assert set(_ids(few.validation)) <= set(_ids(whole.validation))
    learnt = set().union(*(annotations.classes.tolist() for annotations in few.train.annotations))
    for annotations in few.validation.annotations:
        assert set(annotations.classes.tolist()) & set(few.seen) <= learnt
    assert (few.seen, few.unseen) == (whole.seen, whole.unseen)
