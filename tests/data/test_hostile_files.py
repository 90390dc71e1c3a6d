"""Annotation files of a stranger: numbers of any size, text that is no file's name, nesting without end."""

import json

import pytest
from coco_folder import annotation, write_folder

from fsis_jax.data.index import read_index
from fsis_jax.errors import FsisError
from fsis_jax.inference.finished_images import FinishedImages

_HUGE = 10**400


def _folder(tmp_path, **changes):
    folder = write_folder(tmp_path / "data", [annotation(1)])
    file = folder / "annotations" / "train.json"
    content = json.loads(file.read_text())
    for part, change in changes.items():
        content[part][0] |= change
    file.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": [_HUGE, 0, 5, 5]},
        {"bbox": [1e308, 0, 1e308, 5]},
        {"segmentation": [[_HUGE, 0, 5, 5, 6, 6]]},
        {"segmentation": {"size": [_HUGE, 4], "counts": [_HUGE]}},
        {"category_id": 1 << 70},
        {"iscrowd": _HUGE},
    ],
)
def test_an_annotation_that_is_none_is_a_problem_in_one_line(tmp_path, change):
    (problem,) = read_index(_folder(tmp_path, annotations=change), "train").problems
    assert problem.skipped
    assert "\n" not in str(problem)


def test_keypoints_of_any_size(tmp_path):
    changes = {"categories": {"keypoints": ["a"]}, "annotations": {"keypoints": [_HUGE, 1, 2]}}
    (problem,) = read_index(_folder(tmp_path, **changes), "train").problems
    assert "keypoints that are not x, y and 0, 1 or 2" in problem.what


def test_an_annotation_id_may_be_of_any_size(tmp_path):
    index = read_index(_folder(tmp_path, annotations={"id": 1 << 70}), "train")
    assert index.annotations[0].annotation_ids.tolist() == [1 << 70]


@pytest.mark.parametrize(
    "name",
    ["../1.png", "a/../../1.png", "/etc/passwd", "C:\\1.png", "..\\1.png", "\\\\host\\1.png", "\ud800.png", "a\0"],
)
def test_the_file_of_an_image_is_inside_of_the_folder(tmp_path, name):
    with pytest.raises(FsisError, match=r"image 1 has the file_name .*: give the name of its file, inside the folder$"):
        read_index(_folder(tmp_path, images={"file_name": name}), "train")


@pytest.mark.parametrize("name", ["a/1.png", "..1.png", "a..b/1.png", "\udcff.png"])
def test_names_of_files_that_are_inside(tmp_path, name):
    assert read_index(_folder(tmp_path, images={"file_name": name}), "train").annotations[0].file_name == name


@pytest.mark.parametrize("text", ['{"1": [Infinity]}', '{"1": [1e400]}', '{"1": [NaN]}', '{"1": 5}', "[1]"])
def test_folds_that_are_none(tmp_path, text):
    folder = _folder(tmp_path)
    (folder / "folds.json").write_text(text)
    with pytest.raises(FsisError, match=r"folds\.json: not folds: write"):
        read_index(folder, "train")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "9" * 5000])
def test_json_without_end(tmp_path, text):
    folder = _folder(tmp_path)
    (folder / "annotations" / "train.json").write_text(text)
    with pytest.raises(FsisError, match=r"train\.json: not valid JSON \("):
        read_index(folder, "train")


def test_lines_of_a_record_that_are_none_of_ours_are_passed_over(tmp_path):
    ours = {"name": "a", "path": "/a.png", "key": "k", "files": {}}
    wrong = [{"path": None}, {"name": ["a"]}, {"key": 3}, {"files": None}, {"files": {"x": None}}]
    lines = [json.dumps({**ours, **change}) for change in wrong]
    (tmp_path / "images.jsonl").write_text("\n".join([json.dumps(ours), *lines, "[" * 200_000, "9" * 5000, "null", ""]))
    assert FinishedImages(tmp_path).lines == {"a": ours}
