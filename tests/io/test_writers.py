"""Results on the disk: what other programs read back."""

import dataclasses
import errno
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import pycocotools.mask
import pytest
import tifffile
from pycocotools.coco import COCO
from skimage.measure import regionprops

from fsis_jax.coco_names import KEYPOINTS
from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.io import writers as exports
from fsis_jax.io.decoding import read_image
from fsis_jax.io.geojson import write_geojson
from fsis_jax.io.rois import write_rois
from fsis_jax.io.table import write_table
from fsis_jax.io.writers import write_coco, write_labels, write_overlay, write_png
from fsis_jax.preprocess.keypoints import read_names

SIZE = (60, 90)


def _instances(category: str | None = None) -> Instances:
    disc = np.hypot(*np.mgrid[-7:8, -7:8]) < 7.5
    masks = (CroppedMask(5, 10, disc), CroppedMask(30, 60, disc), CroppedMask(40, 2, disc[:, :9]))
    boxes = np.array([[m.x, m.y, m.x + m.mask.shape[1], m.y + m.mask.shape[0]] for m in masks], np.float32)
    return Instances(boxes, np.array([0.9, 0.7, 0.2], np.float32), masks, SIZE, category)


def test_labels(tmp_path: pathlib.Path) -> None:
    labels = _instances().labels()
    write_labels(tmp_path / "a.tif", _instances(), pixel_size=0.25)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages[0].dtype == np.int32
        assert tiff.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert not tiff.pages[0].is_tiled
        assert tiff.pages[0].get_resolution("micrometer") == (4, 4)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), labels)
    assert (tmp_path / "a.tif").stat().st_size < 2000
    measured = regionprops(labels)
    assert [region.label for region in measured] == [1, 2, 3]
    assert [region.area for region in measured] == _instances().areas().tolist()


@pytest.mark.parametrize("limit", [1 << 40, 0])
def test_a_large_label_image_is_painted_by_bands_into_tiles(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(exports, "_TILED_FROM", 1000)
    monkeypatch.setattr(exports, "_TILE", 16)
    monkeypatch.setattr(exports, "_TIFF_LIMIT", limit)
    write_labels(tmp_path / "a.tif", _instances())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages[0].is_tiled
        assert tiff.is_bigtiff == (limit == 0)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), _instances().labels())


def test_coco_loads_with_pycocotools(tmp_path: pathlib.Path) -> None:
    found, other = _instances("Hela"), _instances()
    write_coco(tmp_path / "a.json", {"one.png": found, "two.png": other, "three.png": other.select(np.zeros(3, bool))})
    coco = COCO(tmp_path / "a.json")
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["one.png", "two.png", "three.png"]
    assert (coco.loadImgs(1)[0]["height"], coco.loadImgs(1)[0]["width"]) == SIZE
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["Hela", "cell"]
    assert coco.getAnnIds() == [1, 2, 3, 4, 5, 6]
    assert coco.getAnnIds(imgIds=[3]) == []
    row: dict[str, Any] = coco.loadAnns(2)[0]
    assert (row["image_id"], row["category_id"], row["iscrowd"]) == (1, 1, 0)
    assert row["score"] == pytest.approx(0.7)
    assert row["bbox"] == [60.0, 30.0, 15.0, 15.0]
    assert row["area"] == pycocotools.mask.area(coco.annToRLE(row)) == found.areas()[1]
    again = Instances.from_rles([row["segmentation"]["counts"].encode() for row in coco.loadAnns([1, 2, 3])], SIZE)
    np.testing.assert_array_equal(again.labels(), found.labels())


@pytest.mark.parametrize(("count", "names"), [(17, KEYPOINTS), (3, ())])
def test_coco_names_the_keypoints_that_are_known(tmp_path: pathlib.Path, count: int, names: tuple[str, ...]) -> None:
    found = _instances("person")
    posed = dataclasses.replace(found, keypoints=np.zeros((3, count, 3), np.float32))
    write_coco(tmp_path / "a.json", {"a.png": posed})
    content = json.loads((tmp_path / "a.json").read_text())
    assert read_names(content["categories"])[0] == names
    assert [len(row["keypoints"]) for row in content["annotations"]] == [3 * count] * 3
    write_coco(tmp_path / "b.json", {"b.png": found})
    assert "keypoints" not in (tmp_path / "b.json").read_text()


@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 3), (*SIZE, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png(tmp_path: pathlib.Path, shape: tuple[int, ...], dtype: type) -> None:
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    write_png(tmp_path / "a.png", image)
    read = read_image(tmp_path / "a.png")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, image)


def test_overlay_file(tmp_path: pathlib.Path) -> None:
    image = np.full((*SIZE, 3), 20, np.uint8)
    write_overlay(tmp_path / "a.png", image, _instances(), [image[:20, :30]])
    read = read_image(tmp_path / "a.png")
    assert read.dtype == np.uint8
    assert read.shape[2] == 3


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_labels(path, _instances()),
        lambda path: write_coco(path, {"a.png": _instances()}),
        lambda path: write_overlay(path, np.zeros((*SIZE, 3), np.uint8), _instances()),
        lambda path: write_geojson(path, _instances()),
        lambda path: write_rois(path, _instances()),
        lambda path: write_table(path, _instances(), np.zeros(SIZE, np.uint8)),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[pathlib.Path], None]
) -> None:
    def full(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FsisError, match=r"out: cannot be written \(No space left on device\): free some space"):
        write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
