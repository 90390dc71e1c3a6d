"""COCO and FIS-Cell folders: what is read, what is reported, what stops."""

import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest
from coco_folder import HEIGHT, WIDTH, annotation, content, square, write_folder, write_json
from pycocotools import mask as coco_mask

from fsis_jax import fis_cell
from fsis_jax.data.coco import CocoSource
from fsis_jax.data.opening import open_source
from fsis_jax.errors import FsisError


def test_records(tmp_path: pathlib.Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[2:5, 20:28] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    rows = [
        annotation(11),
        annotation(
            5, category_id=2, iscrowd=1, bbox=[20, 2, 8, 3],
            segmentation={"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()},
        ),
    ]  # fmt: skip
    root = write_folder(tmp_path / "data", rows)
    source = CocoSource(root, "train")
    assert len(source) == 2
    assert source.categories == {1: "round", 2: "long"}
    assert source.folds == {1: (1,), 2: (2,)}
    assert source.problems == ()
    first, empty = source.annotations
    assert (first.image_id, first.file_name, first.height, first.width) == (1, "1.png", HEIGHT, WIDTH)
    np.testing.assert_array_equal(first.boxes, np.array([[4, 8, 10, 14], [20, 2, 28, 5]], np.float32))
    assert first.boxes.dtype == np.float32
    assert first.classes.tolist() == [1, 2]
    assert first.crowd.tolist() == [False, True]
    assert first.areas.tolist() == [36, 24]
    assert first.annotation_ids.tolist() == [11, 5]
    assert first.rles[1] == rle["counts"]
    assert empty.boxes.shape == (0, 4)
    assert empty.rles == ()
    assert source[0].encoded == (root / "images/1.png").read_bytes()
    assert source[0].annotations is first
    with pytest.raises(IndexError):
        source[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [4, 8, 0.5, 6]}, "less than 1 px wide"),
        ({"bbox": [4, 8, 6, -1]}, "less than 1 px wide"),
        ({"bbox": [4, 8, 6]}, "not four numbers"),
        ({"bbox": [40, 8, 6, 6]}, "outside its image of 32x24"),
        ({"bbox": [4, 20, 6, 6]}, "outside its image"),
        ({"segmentation": square(100, 8, 6)}, "outside"),
        ({"segmentation": square(33, 8, 6)}, "a polygon outside its image"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}}, "run lengths for size"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}}, "an empty mask"),
        ({"segmentation": [[4, 8, 4, 8, 4, 8]]}, "an empty mask"),
        ({"segmentation": None}, "no segmentation"),
        ({"image_id": 77}, "unknown image id 77"),
        ({"image_id": [1]}, "unknown image id"),
        ({"category_id": None}, "unknown category id None"),
        ({"id": 1}, "annotation number 2 of the file has the id 1"),
        ({"id": None}, "has the id None"),
    ],
)
def test_invalid_annotation_is_skipped_and_reported(
    tmp_path: pathlib.Path, changes: dict[str, object], message: str
) -> None:
    root = write_folder(tmp_path / "data", [annotation(1), annotation(2) | changes])
    source = CocoSource(root, "train")
    assert source.annotations[0].annotation_ids.tolist() == [1]
    (problem,) = source.problems
    assert message in problem.what
    assert problem.skipped
    assert problem.annotation_id == (2 if "id" not in changes else None)
    text = str(problem)
    assert str(root / "annotations/train.json") in text
    assert "\n" not in text
    assert "id" in changes or "annotation 2" in text


def test_box_that_disagrees_gives_way_to_the_mask(tmp_path: pathlib.Path) -> None:
    rows = [
        annotation(1, bbox=[4.3, 8.2, 5.9, 5.5]),  # within a pixel: kept as it is
        annotation(2, bbox=[8, 8, 12, 6]),
        annotation(3, bbox=[-0.5, 8, 10.5, 6], segmentation=[[0, 8, 10, 8, 10, 14, 0, 14]]),  # clipped
        {key: value for key, value in annotation(4).items() if key != "bbox"},
        annotation(5, bbox=[29, 8, 3, 6], segmentation=[[29, 8, 38, 8, 38, 14, 29, 14]]),
    ]
    source = CocoSource(write_folder(tmp_path / "data", rows), "train")
    expected = [[4.3, 8.2, 10.2, 13.7], [4, 8, 10, 14], [0, 8, 10, 14], [4, 8, 10, 14], [29, 8, 32, 14]]
    np.testing.assert_allclose(source.annotations[0].boxes, expected, rtol=1e-6)
    assert [(problem.annotation_id, problem.skipped) for problem in source.problems] == [(2, False), (5, False)]
    assert "is not that of its mask" in source.problems[0].what
    assert "6.0 px outside its image" in source.problems[1].what


def test_ignored_annotation_counts_as_crowd(tmp_path: pathlib.Path) -> None:
    source = CocoSource(write_folder(tmp_path / "data", [annotation(1, ignore=1)]), "train")
    assert source.annotations[0].crowd.tolist() == [True]


def test_without_folds_everything_is_learnt(tmp_path: pathlib.Path) -> None:
    root = write_folder(tmp_path / "data", [annotation(1)])
    (root / "folds.json").unlink()
    assert CocoSource(root, "train").folds == {1: ()}


def test_coco_as_it_comes(tmp_path: pathlib.Path) -> None:
    """train2017/ and val2017/ beside their annotations; those of persons with keypoints lie in the same folder."""
    root = tmp_path / "coco"
    ours = write_folder(tmp_path / "data", [annotation(1)])
    (root / "annotations").mkdir(parents=True)
    for split, theirs, images in (("train", "train2017", (1, 2)), ("test", "val2017", (3,))):
        (root / theirs).mkdir()
        for image in images:
            (ours / "images" / f"{image}.png").rename(root / theirs / f"{image}.png")
        for kind in ("instances", "person_keypoints"):
            content = json.loads((ours / f"annotations/{split}.json").read_text())
            if kind == "person_keypoints":
                content["categories"][0]["keypoints"] = ["nose"]
                content["annotations"][0] |= {"keypoints": [5, 9, 2], "num_keypoints": 1}
            write_json(root / f"annotations/{kind}_{theirs}.json", content)
    assert [len(open_source(root, split)) for split in ("train", "test")] == [2, 1]
    assert open_source(root, "train")[1].encoded == (root / "train2017/2.png").read_bytes()
    assert open_source(root, "train").annotations[0].keypoint_names == ()
    assert open_source(root, "test", keypoints=True).annotations[0].keypoint_names == ("nose",)


def _error(root: pathlib.Path, split: str = "train") -> str:
    with pytest.raises(FsisError) as caught:
        open_source(root, split)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_category_without_fold(tmp_path: pathlib.Path) -> None:
    root = write_folder(tmp_path / "data", [annotation(1), annotation(2, category_id=2), annotation(3, category_id=99)])
    message = _error(root)
    assert "annotation 3 has the category id 99, which no fold names" in message
    assert "folds.json" in message
    write_json(root / "annotations/train.json", content([annotation(1)]))
    write_json(root / "folds.json", {"1": [1]})
    assert CocoSource(root, "train").folds == {1: (1,)}  # nothing is of category 2


def test_missing_folder_says_how_to_get_data(tmp_path: pathlib.Path) -> None:
    message = _error(tmp_path / "nowhere")
    for part in (str(tmp_path / "nowhere"), "--config configs/quickstart.py", "fsis data synthetic"):
        assert part in message
    assert "neither annotations/train.json nor" in _error(tmp_path)
    (tmp_path / "file").write_text("x")
    assert "is a file, not a data folder" in _error(tmp_path / "file")


def test_missing_files(tmp_path: pathlib.Path) -> None:
    root = write_folder(tmp_path / "data", [annotation(1)])
    (root / "images/2.png").unlink()
    assert f"{root / 'images/2.png'}: no such image" in _error(root)
    source = CocoSource(root, "test")
    (root / "images/3.png").unlink()
    with pytest.raises(FsisError, match=r"3\.png: cannot be read .*: restore the image"):
        source[0]
    (root / "annotations/test.json").unlink()
    assert "no annotations of a split 'test', only of: train" in _error(root, "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("\0\xff", "not valid JSON"),
        ("[]", "no list of objects under 'images'"),
        ('{"images": [], "annotations": [3], "categories": []}', "under 'annotations'"),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [], "categories": []}',
            "image a has the width None",
        ),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "image 1 has the file_name None"),
        ('{"images": [{"id": "1", "file_name": "a"}], "annotations": [], "categories": []}', "a has the id '1'"),
        ('{"images": [], "annotations": [], "categories": [{"id": -1}]}', "a category has the id -1"),
    ],
)
def test_malformed_annotation_file(tmp_path: pathlib.Path, text: str, message: str) -> None:
    root = write_folder(tmp_path / "data", [])
    (root / "annotations/train.json").write_text(text)
    found = _error(root)
    assert message in found
    assert str(root / "annotations/train.json") in found


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": [1]}', '{"1": 3}'])
def test_malformed_folds(tmp_path: pathlib.Path, text: str) -> None:
    root = write_folder(tmp_path / "data", [])
    (root / "folds.json").write_text(text)
    assert str(root / "folds.json") in _error(root)


def test_fis_cell_layout(tmp_path: pathlib.Path) -> None:
    write_folder(tmp_path / "coco", [annotation(1)])
    root = tmp_path / "fis_cell"
    root.mkdir()
    data = content([annotation(1, category_id=13)])
    data["categories"] = [{"id": i, "name": name} for i, name in fis_cell.CATEGORIES.items()]
    data["images"][0]["file_name"] = "set_a/1.png"  # relative to the root, as in the PyTorch project
    (root / "set_a").mkdir()
    shutil.copy(tmp_path / "coco/images/1.png", root / "set_a/1.png")
    (root / "images").mkdir()
    shutil.copy(tmp_path / "coco/images/2.png", root / "images/2.png")
    for split in ("train_val", "test"):
        write_json(root / f"instances_fss_cell_poly_{split}.json", data)
    source = open_source(root, "train")
    assert isinstance(source, CocoSource)
    assert source.file.name == "instances_fss_cell_poly_train_val.json"
    assert source.folds == {1: (1, 2), 2: (3, 4, 5), 3: (6, 7, 8), 4: (9, 10), 5: (11, 12, 13, 14)}
    assert source.categories[14] == "Hela"
    assert source.annotations[0].classes.tolist() == [13]
    assert source[0].encoded == (root / "set_a/1.png").read_bytes()
    assert source[1].encoded == (root / "images/2.png").read_bytes()


def test_real_images(cells_tiny: pathlib.Path) -> None:
    for split in ("train", "test"):
        source = CocoSource(cells_tiny, split)
        assert source.problems == ()
        rows = {
            row["id"]: row for row in json.loads((cells_tiny / f"annotations/{split}.json").read_text())["annotations"]
        }
        assert sum(len(item.classes) for item in source.annotations) == len(rows)
        for record in source:
            item = record.annotations
            image = cv2.imdecode(np.frombuffer(record.encoded, np.uint8), cv2.IMREAD_UNCHANGED)
            assert image.shape[:2] == (item.height, item.width)
            for i, annotation_id in enumerate(item.annotation_ids.tolist()):
                assert item.areas[i] == rows[annotation_id]["area"]
                x, y, w, h = rows[annotation_id]["bbox"]
                assert item.boxes[i].tolist() == [x, y, x + w, y + h]
