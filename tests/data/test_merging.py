"""Several COCO folders made into one."""

import json
import shutil

import cv2
import numpy as np
import pytest

from fsis_jax.data.check import check
from fsis_jax.data.coco import CocoSource
from fsis_jax.data.merging import merge_folders
from fsis_jax.errors import FsisError


def folder(path, categories, folds=None, *, first_id=1, prefix="", licence=7):
    """A COCO folder with an image for each category in each split, on which it has two squares."""
    (path / "images").mkdir(parents=True)
    (path / "annotations").mkdir()
    for split in ("train", "test"):
        rows = {"images": [], "annotations": [], "licenses": [{"id": licence, "name": path.name}]}
        rows["categories"] = [{"id": number, "name": name} for number, name in categories.items()]
        for position, number in enumerate(categories):
            image_id = first_id + position + (100 if split == "test" else 0)
            name = f"{prefix}{split}{position}.png"
            cv2.imwrite(str(path / "images" / name), np.full((40, 50), 10 * number, np.uint8))
            rows["images"].append({"id": image_id, "file_name": name, "width": 50, "height": 40, "license": licence})
            for x in (5, 25):
                square = [[x, 5, x + 12, 5, x + 12, 17, x, 17]]
                rows["annotations"].append(
                    {
                        "id": len(rows["annotations"]) + first_id + (100 if split == "test" else 0),
                        "image_id": image_id,
                        "category_id": number,
                        "bbox": [x, 5, 12, 12],
                        "iscrowd": 0,
                        "segmentation": square,
                    }
                )
        (path / "annotations" / f"{split}.json").write_text(json.dumps(rows))
    if folds is not None:
        (path / "folds.json").write_text(json.dumps(folds))
    return path


@pytest.fixture
def yeast(tmp_path):
    return folder(tmp_path / "yeast", {1: "budding", 2: "fission"}, {"1": [1], "2": [2]})


def test_ids_that_do_not_collide_stay(yeast, tmp_path):
    nuclei = folder(tmp_path / "nuclei", {5: "hela"}, {"2": [5]}, first_id=1000, prefix="n", licence=9)
    merged = CocoSource(merge_folders([yeast, nuclei], tmp_path / "all"), "train")
    assert merged.categories == {1: "budding", 2: "fission", 5: "hela"}
    assert merged.folds == {1: (1,), 2: (2, 5)}
    assert [record.image_id for record in merged.annotations] == [1, 2, 1000]
    assert [record.file_name for record in merged.annotations] == ["train0.png", "train1.png", "ntrain0.png"]
    assert not check(tmp_path / "all").problems


def test_everything_collides(yeast, tmp_path):
    """Ids that mean different things are numbered anew, kinds of one name are one, and files of one name both stay."""
    other = folder(tmp_path / "other", {1: "hela", 2: "budding"})
    merge_folders([yeast, other], tmp_path / "all", folds=_folds(tmp_path))
    assert not check(tmp_path / "all").problems
    merged = CocoSource(tmp_path / "all", "train")
    names = merged.categories
    assert sorted(names.values()) == ["budding", "fission", "hela"]
    assert {number: [names[i] for i in ids] for number, ids in merged.folds.items()} == {
        1: ["budding", "hela"],
        2: ["fission"],
    }
    shown = {}
    for position, record in enumerate(merged.annotations):
        pixels = cv2.imdecode(np.frombuffer(merged[position].encoded, np.uint8), cv2.IMREAD_UNCHANGED)
        shown[record.file_name] = (int(pixels[0, 0]), {names[c] for c in record.classes.tolist()})
    assert shown == {
        "1/train0.png": (10, {"budding"}),
        "1/train1.png": (20, {"fission"}),
        "2/train0.png": (10, {"hela"}),
        "2/train1.png": (20, {"budding"}),
    }
    content = json.loads((tmp_path / "all" / "annotations" / "train.json").read_text())
    licences = {row["id"]: row["name"] for row in content["licenses"]}
    assert [licences[row["license"]] for row in content["images"]] == ["yeast", "yeast", "other", "other"]
    assert len({row["id"] for row in content["annotations"]}) == 8


def _folds(tmp_path):
    file = tmp_path / "folds.json"
    file.write_text(json.dumps({"1": ["budding", "hela"], "2": ["fission"]}))
    return file


@pytest.mark.parametrize(
    ("folds", "told"),
    [
        ({"1": ["budding"], "2": ["fission", "budding"]}, "'budding' stands in 2 folds: name each category once"),
        ({"1": ["budding"]}, "'fission' stands in 0 folds"),
        ({"1": ["budding", "fission", "hela", "rbc"]}, "'rbc' stands in 1 folds and is none of"),
        (["budding"], "no folds"),
    ],
)
def test_folds_that_do_not_fit(yeast, tmp_path, folds, told):
    other = folder(tmp_path / "other", {3: "hela"}, first_id=50, prefix="o")
    file = tmp_path / "f.json"
    file.write_text(json.dumps(folds))
    with pytest.raises(FsisError, match=told):
        merge_folders([yeast, other], tmp_path / "all", folds=file)
    assert not (tmp_path / "all").exists()


def test_one_kind_in_two_folds_needs_a_file(yeast, tmp_path):
    other = folder(tmp_path / "other", {1: "budding"}, {"2": [1]}, first_id=50, prefix="o")
    with pytest.raises(FsisError, match=r"'budding' is in different folds of .*: say by --folds where it is"):
        merge_folders([yeast, other], tmp_path / "all")


def test_what_cannot_be_merged(yeast, tmp_path):
    with pytest.raises(FsisError, match="give two different folders or more"):
        merge_folders([yeast, yeast], tmp_path / "all")
    half = shutil.copytree(yeast, tmp_path / "half")
    (half / "annotations" / "test.json").unlink()
    with pytest.raises(FsisError, match=r"half: splits train, but .*yeast has train, test"):
        merge_folders([yeast, half], tmp_path / "all")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").touch()
    with pytest.raises(FsisError, match="full: exists already"):
        merge_folders([yeast, half], tmp_path / "full")
