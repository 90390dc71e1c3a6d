"""Annotation files as tools write them: their ids, their categories, and what lies beside them."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from coco_folder import annotation, content, square, write_folder, write_json

from fsis_jax.config import base_config
from fsis_jax.data import prepared
from fsis_jax.data.check import check
from fsis_jax.data.coco import CocoSource
from fsis_jax.data.coco_files import annotation_files, check_same_categories, distinct_names, stated_names
from fsis_jax.data.from_config import open_split, open_splits, training_batches
from fsis_jax.data.opening import open_source
from fsis_jax.errors import FsisError
from fsis_jax.recipes import compact_config
from fsis_jax.synthetic.generate import generate


def change(root: pathlib.Path, split: str, **changes: object) -> None:
    path = root / f"annotations/{split}.json"
    write_json(path, json.loads(path.read_text()) | changes)


def renumber(root: pathlib.Path, *, image: int = 0, category: int = 0, annotation: int = 0) -> None:
    """Add to all ids of a kind."""
    for path in (root / "annotations").glob("*.json"):
        data = json.loads(path.read_text())
        for row in data["images"]:
            row["id"] += image
        for row in data["categories"]:
            row["id"] += category
        for row in data["annotations"]:
            row["id"] += annotation
            row["image_id"] += image
            row["category_id"] += category
        write_json(path, data)
    (root / "folds.json").unlink()


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    other = annotation(2, image_id=2, category_id=2, bbox=[16, 2, 8, 8], segmentation=square(16, 2, 8))
    return write_folder(tmp_path / "data", [annotation(1), other])


def batches(root: pathlib.Path) -> list[dict[str, np.ndarray]]:
    config = compact_config()
    config.data.root = str(root)
    config.data.workers = 0
    config.data.contrast = True
    config.training.batch_size = 2
    with training_batches(config, open_splits(config), 4) as made:
        return [vars(batch) for batch in made]


# -- ids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shift",
    [
        {"image": 20260101123456, "annotation": 1 << 33},
        {"image": 1 << 63, "annotation": 1 << 63, "category": (1 << 63) - 4},
        {"image": -5, "annotation": -7, "category": -1},
        {"category": 1 << 33},
    ],
)
def test_ids_of_any_size_train_as_small_ones_do(root, tmp_path, shift):
    shutil.copytree(root, tmp_path / "small")
    (tmp_path / "small/folds.json").unlink()
    renumber(root, **shift)
    assert check(root).problems == ()
    source = CocoSource(root, "train")
    assert [one.image_id for one in source.annotations] == [1 + shift.get("image", 0), 2 + shift.get("image", 0)]
    assert source.annotations[1].annotation_ids.tolist() == [2 + shift.get("annotation", 0)]
    assert sorted(source.categories) == [1 + shift.get("category", 0), 2 + shift.get("category", 0)]
    for found, expected in zip(batches(root), batches(tmp_path / "small"), strict=True):
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
            assert found[name].dtype == values.dtype
    stored = open_source(prepared.prepare(root, tmp_path / "prepared"), "train")
    for one, other in zip(stored.annotations, source.annotations, strict=True):
        assert one.image_id == other.image_id
        assert one.annotation_ids.tolist() == other.annotation_ids.tolist()
        assert one.classes.tolist() == other.classes.tolist()
    assert check(tmp_path / "prepared").problems == ()


def test_a_category_has_an_id_that_can_be_one(root):
    for wrong in (-1, 1 << 63, 1.0, "1", True, None):
        change(root, "train", categories=[{"id": wrong, "name": "round"}])
        for read in (check, lambda folder: CocoSource(folder, "train")):
            with pytest.raises(FsisError, match=r"train.json: a category has the id .*: give each one of its own"):
                read(root)


def test_a_heading_that_no_annotation_uses(root):
    heading = {"id": 0, "name": "round", "supercategory": "none"}
    for split in ("train", "test"):
        change(root, split, categories=[heading, *content([])["categories"]])
    report = check(root)
    assert report.problems == ()
    assert [(row.category, row.name) for row in report.rows] == [(0, "round (0)"), (1, "round (1)"), (2, "long")]
    assert len(batches(root)) == 4


# -- categories of the splits -------------------------------------------------------------------------------------


def test_splits_that_mean_different_categories_are_refused(root, tmp_path):
    config = compact_config()
    config.data.root = str(root)
    swapped = [{"id": 1, "name": "long"}, {"id": 2, "name": "round"}]
    moved = [{"id": 1, "name": "flat"}, {"id": 3, "name": "long"}]
    for categories, message in (
        (swapped, r"category id 1 is '\w+', and in .*\.json '\w+': give a category the same id and name in all"),
        (moved, r"category id 1 is "),
        (
            [{"id": 3, "name": "long"}, {"id": 1, "name": "round"}],
            r"category 'long' has the id [23], and in .* [23]: ",
        ),
    ):
        change(root, "test", categories=categories)
        for split in ("train", "test"):
            with pytest.raises(FsisError, match=message):
                open_split(config, split)
        with pytest.raises(FsisError, match=message):
            check(root)
        with pytest.raises(FsisError, match=message):
            prepared.prepare(root, tmp_path / "prepared")


def test_names_that_say_the_same(root):
    change(root, "test", categories=[{"id": 1, "name": " Round"}, {"id": 7, "name": "other"}])
    assert check(root).problems == ()
    change(root, "test", categories=[{"id": 1}])
    assert check(root).problems == ()
    check_same_categories({"a": {1: "h\u00e4ma"}, "b": {1: "ha\u0308ma"}})


def test_distinct_names():
    stated = {0: "cells", 1: "cells", 2: None, 3: "yeast"}
    assert distinct_names(stated) == {0: "cells (0)", 1: "cells (1)", 2: "2", 3: "yeast"}
    assert stated_names(distinct_names(stated)) == stated


# -- what lies beside ---------------------------------------------------------------------------------------------


def test_other_files_are_passed_over_with_a_word(root, caplog):
    folder = root / "annotations"
    (folder / "._train.json").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (folder / ".test.json").write_text("{}")
    (folder / "labelme.json").write_text('{"version": "5.0", "shapes": []}')
    (folder / "captions.json").write_text('{"images": [], "annotations": []}')
    (folder / "notes.json").write_text("not yet")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "gone.json").symlink_to(root / "nowhere")
    (folder / "folder.json").mkdir()
    assert list(annotation_files(root)) == ["train", "test"]
    warned = list(caplog.messages)
    told = [message.removeprefix(f"{folder}/") for message in warned]
    assert [message.partition(":")[0] for message in told] == [
        *("._train.json", ".test.json", "captions.json", "deep.json", "folder.json", "gone.json", "labelme.json"),
        "notes.json",
    ]
    assert told[0] == "._train.json: passed over: a hidden file"
    assert told[2] == "captions.json: passed over: no list of objects under 'categories'"
    assert check(root).problems == ()
    assert len(batches(root)) == 4
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == warned  # once


def test_a_file_of_a_split_is_no_other_file(root):
    (root / "annotations/test.json").write_text("{}")
    for read in (check, lambda folder: CocoSource(folder, "train")):
        with pytest.raises(FsisError, match=r"test.json: no list of objects under 'images': give a COCO instance file"):
            read(root)


# -- names, boxes, cells ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["images\\{}", ".\\{}", "more\\{}"])
def test_file_names_as_windows_writes_them(root, name):
    (root / "images/more").mkdir()
    for split in ("train", "test"):
        rows = json.loads((root / f"annotations/{split}.json").read_text())["images"]
        for row in rows:
            if "more" in name:
                shutil.move(root / "images" / row["file_name"], root / "images/more")
            row["file_name"] = name.format(row["file_name"])
        change(root, split, images=rows)
    assert check(root).problems == ()
    assert len(batches(root)) == 4


def test_a_backslash_that_is_part_of_a_name(root):
    shutil.move(root / "images/1.png", root / "images/a\\1.png")
    rows = json.loads((root / "annotations/train.json").read_text())["images"]
    rows[0]["file_name"] = "a\\1.png"
    change(root, "train", images=rows)
    assert check(root).problems == ()


@pytest.mark.parametrize("box", [None, []])
def test_a_box_that_is_not_there_is_that_of_the_mask(tmp_path, box):
    source = CocoSource(write_folder(tmp_path / "data", [annotation(1, bbox=box)]), "train")
    assert source.problems == ()
    assert source.annotations[0].boxes.tolist() == [[4, 8, 10, 14]]


@pytest.mark.parametrize(
    "changes",
    [
        {"iscrowd": "1"},
        {"ignore": "yes"},
        {"iscrowd": []},
        {"bbox": [10**400, 1, 5, 5]},
        {"bbox": [float("nan")] * 4},
        {"segmentation": [[10**400, 1, 5, 5, 7, 1]]},
    ],
)
def test_values_that_mean_nothing_are_problems(tmp_path, changes):
    root = write_folder(tmp_path / "data", [annotation(1), annotation(2, **changes)])
    (problem,) = check(root).problems
    assert problem.annotation_id == 2
    assert CocoSource(root, "train").annotations[0].annotation_ids.tolist() == [1]


@pytest.mark.parametrize("name", ["a\0b.png", "\ud800.png", ""])
def test_a_name_that_no_file_has(root, name):
    change(root, "train", images=[{"id": 1, "file_name": name, "width": 32, "height": 24}], annotations=[])
    for read in (check, lambda folder: CocoSource(folder, "train")):
        with pytest.raises(FsisError, match=r"train.json: image 1 has the file_name .*: give the name of its file"):
            read(root)


@pytest.mark.parametrize("name", ["x" * 5000, "."])
def test_a_name_of_a_file_that_is_not_there(root, name):
    rows = json.loads((root / "annotations/train.json").read_text())["images"]
    rows[0]["file_name"] = name
    change(root, "train", images=rows)
    assert len(check(root).problems) == 1
    with pytest.raises(FsisError, match="no such image: restore it or remove it"):
        CocoSource(root, "train")


@pytest.mark.parametrize(
    ("cell", "what"),
    [
        (None, "no cell in the split 'train'"),
        ({"iscrowd": 1}, "no cell in the split 'train'"),
        ({"bbox": [4, 8, 4, 4], "segmentation": square(4, 8, 4)}, "no cell in the split 'train' that is 2 pixels wide"),
        ({"bbox": [4, 1, 1, 22], "segmentation": [[4, 1, 5, 1, 5, 23, 4, 23]]}, "no cell in the split 'train' that is"),
    ],
)
def test_a_folder_without_a_cell_is_a_problem(tmp_path, cell, what):
    root = write_folder(tmp_path / "data", [] if cell is None else [annotation(1, **cell)])
    (root / "folds.json").unlink()
    (problem,) = check(root).problems
    assert problem.what.startswith(what)
    with pytest.raises(FsisError, match="no usable reference"):
        batches(root)


def test_an_old_prepared_data_set_has_numbers_as_ids(root, tmp_path):
    record = CocoSource(root, "train").annotations[0]
    example = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    example |= {"file_name": b"1.png", "annotation_ids": np.array([1]), "classes": np.array([1], np.int32)}
    found = prepared._annotations(example, ())
    assert (found.image_id, found.annotation_ids.tolist(), found.classes.dtype) == (1, [1], np.int64)


def test_the_folder_is_found_under_the_name_that_the_pytorch_project_gives_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(tmp_path / "data/fss_cell", layout="fis_cell", images_per_category=3, two_category_images=0)
    monkeypatch.chdir(tmp_path)
    config = base_config()
    assert config.data.root == "data/fis_cell"
    found = open_split(config, "test")
    assert len(found) == len(CocoSource("data/fss_cell", "test")) > 0
    generate(tmp_path / "data/fis_cell", layout="fis_cell", images_per_category=4, two_category_images=0)
    assert len(open_split(config, "test")) == len(CocoSource("data/fis_cell", "test"))
    config.data.root = "data/other"
    with pytest.raises(FsisError, match="no such data folder"):
        open_split(config, "test")
