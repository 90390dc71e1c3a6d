"""The check of a folder: its table, and every problem with file and annotation id."""

import pathlib

import cv2
import numpy as np
import pytest
import tifffile
from coco_folder import HEIGHT, WIDTH, annotation, content, square, write_folder, write_json

from fsis_jax.data.check import check, format_report
from fsis_jax.data.coco import CocoSource
from fsis_jax.data.examples import ImageCache
from fsis_jax.data.prepared import prepare
from fsis_jax.errors import FsisError
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.synthetic.generate import generate


def test_table(tmp_path: pathlib.Path) -> None:
    rows = [
        annotation(1),
        annotation(2, bbox=[16, 2, 8, 8], segmentation=square(16, 2, 8)),
        annotation(3, category_id=2, bbox=[12, 12, 4, 4], segmentation=square(12, 12, 4)),
    ]
    report = check(write_folder(tmp_path / "data", rows))
    assert report.problems == ()
    first, second = report.rows
    assert (first.category, first.name) == (1, "round")
    assert first.images == {"train": 1, "test": 1}
    assert first.instances == {"train": 2, "test": 1}
    assert first.median_area == 36
    assert first.median_side == 6
    assert second.images == {"train": 1, "test": 0}
    assert second.median_side == 4
    assert report.images == {"train": 2, "test": 1}
    assert report.empty == {"train": 1, "test": 0}
    text = format_report(report)
    assert [line.split()[:4] for line in text.splitlines()[1:3]] == [
        ["1", "round", "1/1", "(2)"],
        ["2", "long", "1/0", "(1)"],
    ]
    assert "2/1 (3)" in text.splitlines()[-2]
    assert text.endswith("no problems")


def test_every_problem_is_listed(tmp_path: pathlib.Path) -> None:
    rows = [annotation(1), annotation(2, bbox=[90, 8, 6, 6]), annotation(3, category_id=9), annotation(4, image_id=50)]
    root = write_folder(tmp_path / "data", rows)
    data = (root / "images/1.png").read_bytes()
    (root / "images/1.png").write_bytes(data[:-20])
    cv2.imwrite(str(root / "images/2.png"), np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    (root / "images/3.png").unlink()
    text = format_report(check(root)).splitlines()
    listed = text[next(i for i, line in enumerate(text) if "problem" in line) :]
    expected = (
        "7 problems",
        "train.json: annotation 2: bbox [90, 8, 6, 6] reaches outside its image of 32x24 (image 1.png)",
        "train.json: annotation 3: unknown category id 9",
        "train.json: annotation 4: unknown image id 50",
        "train.json: annotation 3: category id 9, which no fold names",
        "1.png: truncated PNG",
        f"2.png: the image is {WIDTH + 1}x{HEIGHT}, its annotations say {WIDTH}x{HEIGHT}",
        "3.png: no such image",
    )
    assert len(listed) == len(expected)
    for line, part in zip(listed, expected, strict=True):
        assert part in line


@pytest.mark.parametrize("kind", ["pages", "channels", "images"])
def test_an_image_that_is_no_plane_is_told_without_options_that_only_others_have(tmp_path, kind):
    """Nothing can be chosen here: `fsis data` and `fsis train` have no --page, --channel or --series."""
    root = write_folder(tmp_path / "data", [annotation(1)])
    (root / "images/1.png").unlink()
    plane = np.zeros((HEIGHT, WIDTH), np.uint8)
    with tifffile.TiffWriter(root / "images/1.png") as file:
        if kind == "images":
            file.write(plane, photometric="minisblack", metadata=None)
            file.write(plane[4:], photometric="minisblack", metadata=None)
        else:
            axes, count = {"pages": ("ZYX", 4), "channels": ("CYX", 5)}[kind]
            file.write(np.stack([plane] * count), photometric="minisblack", metadata={"axes": axes})
    (problem,) = check(root).problems
    assert problem.remedy.startswith("save ")
    assert "--" not in str(problem)
    cache = ImageCache(CocoSource(root, "train"), TransformConfig())
    with pytest.raises(FsisError, match=r": save .*") as error:
        cache.raw(0)
    assert "--" not in str(error.value)


def test_image_in_both_splits(tmp_path: pathlib.Path) -> None:
    root = write_folder(tmp_path / "data", [annotation(1)])
    write_json(root / "annotations/test.json", content([annotation(1, image_id=2)], first_image=2, images=1))
    (problem,) = check(root).problems
    assert "image 2.png is in the split 'train' too" in problem.what


def test_missing_split_and_folder(tmp_path: pathlib.Path) -> None:
    root = write_folder(tmp_path / "data", [annotation(1)])
    (root / "annotations/test.json").rename(tmp_path / "test.json")
    report = check(root)
    assert report.problems == ()
    assert format_report(report).endswith("to train on; no split 'test', which `fsis evaluate` needs")
    (root / "annotations/train.json").rename(root / "annotations/test.json")
    assert ["split 'train'" in problem.what for problem in check(root).problems] == [True]
    with pytest.raises(FsisError, match="no such data folder"):
        check(tmp_path / "nowhere")


def test_layouts_agree(tmp_path: pathlib.Path) -> None:
    folder = generate(tmp_path / "cells", layout="fis_cell", images_per_category=4, two_category_images=2)
    report = check(folder)
    assert report.problems == ()
    assert list(report.images) == ["train", "test"]
    again = check(prepare(folder, tmp_path / "prepared"))
    assert again.rows == report.rows
    assert again.images == report.images


def test_prepared_folder_without_test(tmp_path: pathlib.Path) -> None:
    """Of `fsis corrections` for one."""
    root = write_folder(tmp_path / "data", [annotation(1)])
    (root / "annotations/test.json").unlink()
    report = check(prepare(root, tmp_path / "prepared"))
    assert report.problems == ()
    assert report.images == {"train": 2}
    assert format_report(report).endswith("to train on; no split 'test', which `fsis evaluate` needs")
    (root / "annotations/train.json").rename(root / "annotations/test.json")
    (problem,) = check(prepare(root, tmp_path / "other")).problems
    assert "no annotations of a split 'train'" in str(problem)


def test_all_splits_of_a_prepared_folder(tmp_path: pathlib.Path) -> None:
    root = write_folder(tmp_path / "data", [annotation(1)])
    write_json(root / "annotations/third.json", content([annotation(1, image_id=9)], first_image=9, images=1))
    cv2.imwrite(str(root / "images/9.png"), np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    (problem,) = check(prepare(root, tmp_path / "prepared")).problems
    assert f"9.png: the image is {WIDTH + 1}x{HEIGHT}" in str(problem)
    assert check(tmp_path / "prepared").images == check(root).images == {"train": 2, "test": 1, "third": 1}


def test_parts_of_a_prepared_split_tell_each_problem_once(tmp_path: pathlib.Path) -> None:
    root = write_folder(tmp_path / "data", [annotation(1)])
    write_json(root / "annotations/val.json", content([annotation(1)], images=1))
    cv2.imwrite(str(root / "images/1.png"), np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    report = check(prepare(root, tmp_path / "prepared"))
    assert len(report.problems) == 1
    assert report.images == {"train": 2, "test": 1}


def test_a_fold_of_what_no_file_lists(tmp_path: pathlib.Path) -> None:
    root = write_folder(tmp_path / "data", [annotation(1)])
    write_json(root / "folds.json", {"1": [1], "2": [2, 22]})
    (problem,) = check(root).problems
    assert str(problem) == (
        f"{root / 'folds.json'}: fold 2 names the category id 22, which no file lists: correct it or take it out"
    )


def test_real_images(cells_tiny: pathlib.Path) -> None:
    report = check(cells_tiny)
    assert report.problems == ()
    assert [sum(row.images.values()) for row in report.rows] == [4, 4, 4]
    assert [sum(row.instances.values()) for row in report.rows] == [28, 30, 20]


def test_a_program_without_standard_error(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data", [annotation(1)])
    monkeypatch.setattr("sys.stderr", None)
    assert check(root).problems == ()
