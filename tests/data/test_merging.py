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


def test_without_folds_there_are_none(yeast, tmp_path):
    """What is merged of folders that can be trained on can be."""
    (yeast / "folds.json").unlink()
    other = folder(tmp_path / "other", {1: "hela"}, first_id=50, prefix="o")
    merged = merge_folders([yeast, other], tmp_path / "all")
    assert not (merged / "folds.json").exists()
    assert not check(merged).problems
    assert CocoSource(merged, "train").folds == {1: ()}


def test_folds_of_some_folders_must_name_what_the_others_show(yeast, tmp_path, caplog):
    same = folder(tmp_path / "same", {1: "Fission"}, first_id=50, prefix="s")
    _change(yeast, "folds.json", lambda folds: folds["2"].append(77))
    merged = merge_folders([yeast, same], tmp_path / "all")
    assert json.loads((merged / "folds.json").read_text()) == {"1": [1], "2": [2]}
    (message,) = caplog.messages
    assert message.endswith("folds.json: fold 2 names the category id 77, which no file lists: left out")
    other = folder(tmp_path / "other", {1: "hela"}, first_id=50, prefix="o")
    with pytest.raises(FsisError, match=r"'hela' is in no fold of .*yeast, .*other: say by --folds where it is"):
        merge_folders([yeast, other], tmp_path / "no")
    for split in ("train", "test"):  # a category that no annotation has needs no fold
        _change(other, f"annotations/{split}.json", lambda rows: rows.update(annotations=[]))
    assert CocoSource(merge_folders([yeast, other], tmp_path / "no"), "train").folds == {1: (1,), 2: (2,)}


def test_a_name_in_another_spelling_is_one_kind(yeast, tmp_path):
    other = folder(tmp_path / "other", {4: " Budding", 5: "hela"}, first_id=50, prefix="o")
    file = tmp_path / "f.json"
    file.write_text(json.dumps({"1": ["BUDDING"], "2": ["fission", "hela"]}))
    merged = merge_folders([yeast, other], tmp_path / "all", folds=file)
    for split in ("train", "test"):
        source = CocoSource(merged, split)
        assert source.categories == {1: "budding", 2: "fission", 5: "hela"}
        assert source.folds == {1: (1,), 2: (2, 5)}
    assert not check(merged).problems


def _change(root, name, change):
    rows = json.loads((root / name).read_text())
    change(rows)
    (root / name).write_text(json.dumps(rows))


def _as_coco_comes(root):
    for split, name in (("train", "train2017"), ("test", "val2017")):
        (root / name).mkdir()
        file = (root / "annotations" / f"{split}.json").rename(root / "annotations" / f"instances_{name}.json")
        _change(root, file, lambda rows: [row.update(file_name=row["file_name"][-5:]) for row in rows["images"]])
        for image in (root / "images").glob(f"*{split}*"):
            image.rename(root / name / image.name[-5:])


def _renamed(pattern):
    def change(root):
        for split in ("train", "test"):
            file = f"annotations/{split}.json"
            _change(root, file, lambda rows: [r.update(file_name=pattern(r["file_name"])) for r in rows["images"]])

    return change


def _below(root):
    (root / "images/sub").mkdir()
    for image in (root / "images").glob("*.png"):
        image.rename(root / "images/sub" / image.name)
    _renamed(lambda name: f"sub\\{name}")(root)


@pytest.mark.parametrize("change", [_as_coco_comes, _renamed(lambda name: f"images/{name}"), _below])
def test_images_are_taken_from_where_training_finds_them(yeast, tmp_path, change):
    other = folder(tmp_path / "other", {1: "hela", 2: "rbc"}, {"3": [1, 2]})
    change(other)
    assert not check(other).problems
    merged = merge_folders([yeast, other], tmp_path / "all")
    assert not check(merged).problems
    for split in ("train", "test"):
        source = CocoSource(merged, split)
        assert [source[row].encoded for row in range(4)] == [
            each[row].encoded for each in (CocoSource(yeast, split), CocoSource(other, split)) for row in range(2)
        ]
        assert not any(name.startswith("2/images") for name in (record.file_name for record in source.annotations))


def test_two_files_for_which_there_is_one_place(yeast, tmp_path):
    _as_coco_comes(yeast)
    shutil.move(yeast / "train2017/0.png", yeast / "more.png")
    shutil.move(yeast / "train2017/1.png", yeast / "images/more.png")
    names = iter(["images/more.png", "more.png"])
    file = "annotations/instances_train2017.json"
    _change(yeast, file, lambda rows: [row.update(file_name=next(names)) for row in rows["images"]])
    other = folder(tmp_path / "other", {3: "hela"}, {"3": [3]}, first_id=50, prefix="o")
    with pytest.raises(FsisError, match=r"yeast.more.png: would get the name of .*images.more.png: rename one of them"):
        merge_folders([yeast, other], tmp_path / "all")


def test_what_readers_accept(yeast, tmp_path):
    """Categories without a name, annotations without an id or of nothing, licences of any kind, a byte order mark."""
    other = folder(tmp_path / "other", {1: "hela", 2: None}, {"3": [1, 2, 9]}, first_id=50, prefix="o")

    def spoil(rows):
        rows["licenses"] = [{"name": "own"}, "text"]
        rows["categories"].append({"id": 3})
        del rows["annotations"][0]["id"]
        rows["annotations"][2] |= {"category_id": 9}
        rows["annotations"].append({**rows["annotations"][1]})

    _change(other, "annotations/train.json", spoil)
    _change(other, "annotations/test.json", lambda rows: rows.update(licenses=None))
    file = other / "annotations/test.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    merged = merge_folders([yeast, other], tmp_path / "all")
    assert not check(merged).problems
    source = CocoSource(merged, "train")
    assert sorted(source.categories.values()) == ["2/2", "2/3", "budding", "fission", "hela"]
    assert [len(record.classes) for record in source.annotations] == [2, 2, 1, 1]
    content = json.loads((merged / "annotations/train.json").read_text())
    assert [row.get("license") for row in content["images"]] == [7, 7, None, None]


def test_an_unreadable_image_is_blamed(yeast, tmp_path, monkeypatch):
    other = folder(tmp_path / "other", {3: "hela"}, {"3": [3]}, first_id=50, prefix="o")

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("fsis_jax.data.coco.open_file", refuse)
    with pytest.raises(FsisError, match=r"train0.png: cannot be read \(Permission denied\): restore the image"):
        merge_folders([yeast, other], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_what_cannot_be_merged(yeast, tmp_path):
    with pytest.raises(FsisError, match="give two different folders or more"):
        merge_folders([yeast, yeast], tmp_path / "all")
    half = shutil.copytree(yeast, tmp_path / "half")
    (half / "annotations" / "test.json").unlink()
    with pytest.raises(FsisError, match=r"half: splits train, but .*yeast has train, test: give"):
        merge_folders([yeast, half], tmp_path / "all")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").touch()
    with pytest.raises(FsisError, match="full: exists already"):
        merge_folders([yeast, half], tmp_path / "full")
