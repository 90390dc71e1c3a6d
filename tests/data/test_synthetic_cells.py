"""Synthetic cells: reproducible, exact masks, two categories, both layouts, all or nothing."""

import errno
import hashlib
import json
import pathlib

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from fsis_jax import fis_cell
from fsis_jax.data.coco import CocoSource
from fsis_jax.data.opening import open_source
from fsis_jax.errors import FsisError
from fsis_jax.synthetic.appearances import APPEARANCES, FIS_CELL_APPEARANCES, FOLDS
from fsis_jax.synthetic.drawing import MIN_VISIBLE, draw
from fsis_jax.synthetic.generate import generate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return generate(tmp_path_factory.mktemp("synthetic") / "cells", images_per_category=4, two_category_images=18)


def _digest(root: pathlib.Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_files(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    again = generate(tmp_path / "again", images_per_category=4, two_category_images=18)
    assert _digest(again) == _digest(folder)
    other = generate(tmp_path / "other", images_per_category=4, two_category_images=18, seed=1)
    assert _digest(other) != _digest(folder)


def test_coco_layout(folder: pathlib.Path) -> None:
    train, test = CocoSource(folder, "train"), CocoSource(folder, "test")
    assert train.problems == test.problems == ()
    assert tuple(train.categories.values()) == tuple(APPEARANCES)
    assert train.folds == FOLDS
    assert sorted(category for ids in FOLDS.values() for category in ids) == list(train.categories)
    assert len(train) + len(test) == 9 * 4 + 18
    names = {item.file_name for source in (train, test) for item in source.annotations}
    assert len(names) == len(train) + len(test)
    sizes = {(item.height, item.width) for item in train.annotations}
    assert any(h > w for h, w in sizes)
    assert any(h < w for h, w in sizes)
    assert any(h == w for h, w in sizes)
    for source in (train, test):
        counts = [len(set(item.classes.tolist())) for item in source.annotations]
        assert set(counts) == {1, 2}
        assert set().union(*(item.classes.tolist() for item in source.annotations)) == set(source.categories)


def test_pairs_share_a_background(folder: pathlib.Path) -> None:
    appearances = list(APPEARANCES.values())
    for item in CocoSource(folder, "train").annotations:
        assert len({appearances[category - 1].background for category in set(item.classes.tolist())}) == 1


@pytest.mark.parametrize("position", range(len(APPEARANCES)))
def test_masks_do_not_overlap_and_show_the_cell(position: int) -> None:
    appearances = list(APPEARANCES.values())
    partner = next(
        appearance
        for appearance in appearances
        if appearance.background == appearances[position].background and appearance != appearances[position]
    )
    drawing = draw(np.random.default_rng(position), [appearances[position], partner], 144, 160)
    assert drawing.pixels.shape == (144, 160, 3)
    assert drawing.pixels.dtype == np.uint8
    assert set(drawing.appearances) == {0, 1}
    together = np.sum(drawing.masks, axis=0)
    assert together.max() == 1
    assert min(mask.sum() for mask in drawing.masks) >= MIN_VISIBLE
    # The outline of a mask is where the image changes: the steepest pixels lie near outlines, not anywhere.
    grey = drawing.pixels.mean(axis=2).astype(np.float32)
    steep = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    outline = np.zeros(together.shape, np.uint8)
    for mask in drawing.masks:
        outline |= cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    assert steep[outline > 0].mean() > 2 * steep[outline == 0].mean()


def test_fis_cell_layout(tmp_path: pathlib.Path) -> None:
    root = generate(tmp_path / "fis_cell", layout="fis_cell", images_per_category=4, two_category_images=12)
    sources = {split: open_source(root, split) for split in fis_cell.ANNOTATION_FILES}
    assert sources["train"].categories == fis_cell.CATEGORIES
    assert sources["train"].folds == fis_cell.FOLDS
    for split in ("train", "test"):
        found = set().union(*(item.classes.tolist() for item in sources[split].annotations))
        assert found == set(fis_cell.CATEGORIES)
    ids = {split: {item.image_id for item in source.annotations} for split, source in sources.items()}
    assert ids["train_only"] | ids["val"] == ids["train"]
    assert ids["val"]
    assert not ids["train_only"] & ids["val"]
    assert not ids["train"] & ids["test"]
    assert all(isinstance(source, CocoSource) and not source.problems for source in sources.values())


def test_polygons_are_exact(tmp_path: pathlib.Path) -> None:
    root = generate(tmp_path / "fis_cell", layout="fis_cell", images_per_category=3, two_category_images=0)
    data = json.loads((root / fis_cell.ANNOTATION_FILES["train"]).read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    polygons = [row for row in data["annotations"] if isinstance(row["segmentation"], list)]
    assert len(polygons) > 0.95 * len(data["annotations"])
    for row in polygons:
        height, width = sizes[row["image_id"]]
        rle = coco_mask.merge(coco_mask.frPyObjects(row["segmentation"], height, width))
        assert coco_mask.area(rle) == row["area"]
        assert coco_mask.toBbox(rle).tolist() == row["bbox"]


def test_fis_cell_looks_differ() -> None:
    assert list(FIS_CELL_APPEARANCES) == list(fis_cell.CATEGORIES)
    assert len(set(FIS_CELL_APPEARANCES.values())) == 14


def test_bad_arguments(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(FsisError, match="exists already"):
        generate(folder)
    with pytest.raises(FsisError, match="layout 'voc'"):
        generate(tmp_path / "a", layout="voc")  # type: ignore[arg-type]
    with pytest.raises(FsisError, match="1 images per category"):
        generate(tmp_path / "a", images_per_category=1)
    with pytest.raises(FsisError, match="seed -1"):
        generate(tmp_path / "a", seed=-1)
    with pytest.raises(FsisError, match="at least 3"):
        generate(tmp_path / "a", layout="fis_cell", images_per_category=2)
    with pytest.raises(FsisError, match="image sides 128 to 64"):
        generate(tmp_path / "a", sides=(128, 64))
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: pathlib.Path, content: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("fsis_jax.synthetic.generate._write_json", full)
    with pytest.raises(FsisError, match="No space left on device") as caught:
        generate(tmp_path / "cells", images_per_category=2, two_category_images=0)
    assert str(tmp_path / "cells") in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_empty_folder_is_used(tmp_path: pathlib.Path) -> None:
    (tmp_path / "cells").mkdir()
    generate(tmp_path / "cells", images_per_category=2, two_category_images=0, sides=(64, 64))
    assert {(item.height, item.width) for item in CocoSource(tmp_path / "cells", "train").annotations} == {(64, 64)}


def test_random_categories_come_after_the_named_ones_and_depend_on_their_number_alone(tmp_path):
    """In pairs that are spread over all of them, also where there are more pairs than images."""
    many, few = (
        generate(tmp_path / f"{n}", images_per_category=2, two_category_images=5, sides=(64, 64), random_categories=n)
        for n in (12, 2)
    )
    content, fewer = (json.loads((folder / "annotations" / "train.json").read_text()) for folder in (many, few))
    names = [row["name"] for row in content["categories"]]
    assert len(names) == 21
    assert names[9:11] == ["random_001", "random_002"]
    assert [row["name"] for row in fewer["categories"]] == names[:11]
    folds = json.loads((many / "folds.json").read_text())
    assert sorted(i for ids in folds.values() for i in ids) == list(range(1, 22))
    files = sorted(path.name for path in (many / "images").iterdir())
    assert len(files) == 21 * 2 + 5
    shown = [name.rpartition("_")[0] for name in files]
    assert len({name for name in shown if name not in names}) == 5
    first = next(name for name in files if name.startswith("random_001_0"))
    assert (many / "images" / first).read_bytes() == (few / "images" / first).read_bytes()


def test_fis_cell_has_no_random_categories(tmp_path):
    with pytest.raises(FsisError, match="3 random categories: give 0 or more, of layout 'coco'"):
        generate(tmp_path / "cells", layout="fis_cell", random_categories=3)
