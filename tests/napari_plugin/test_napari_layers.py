"""What layers of napari and a session have in common, without a viewer; the manifest and the files that it names."""

import importlib
import pathlib
import types

import cv2
import numpy as np
import pytest
import tifffile
import yaml

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.interactive.shapes import ellipse
from fsis_jax.interactive.state import Added, Filters, Result
from fsis_jax.io.outputs import write_outputs
from fsis_jax.napari import layers
from fsis_jax.napari.reader import reader
from fsis_jax.napari.samples import cells

MANIFEST = pathlib.Path(layers.__file__).with_name("napari.yaml")


@pytest.fixture
def result():
    crops = (ellipse((2.0, 3.0, 12.0, 13.0)), ellipse((20.0, 10.0, 34.0, 24.0)))
    boxes = np.array([crop.extent for crop in crops], np.float32)
    found = Instances(boxes, np.array([0.9, 0.4], np.float32), crops, (30, 40))
    return Result(found, (), added=(Added(ellipse((14.0, 0.0, 20.0, 6.0))),))


def test_boxes_are_shapes_and_back():
    box = (2.0, 3.0, 12.0, 13.0)
    corners = layers.rectangle(box)
    np.testing.assert_array_equal(corners.min(axis=0), [2.5, 1.5])  # y, x; a pixel's centre is a whole number
    assert layers.boxes([corners, corners[::-1]]) == [box, box]


def test_labels_and_their_table(result):
    labels = layers.label_image(result, Filters(0.5))
    assert sorted(np.unique(labels).tolist()) == [0, 1, 3]
    np.testing.assert_array_equal(labels[3:13, 2:12] == 1, result.found.masks[0].mask)
    table = layers.features(result, Filters(0.0), ("",), None)
    assert table["index"] == [1, 2, 3]
    assert table["said"] == ["", "", "added"]
    assert table["area"] == [
        int(np.count_nonzero(layers.label_image(result, Filters(0.0)) == label)) for label in (1, 2, 3)
    ]
    assert table["score"] == [0.9, 0.4, 1.0]


def test_a_plane_is_what_an_image_is():
    assert layers.plane(np.zeros((4, 5, 3)), True).shape == (4, 5, 3)
    assert layers.plane([np.zeros((4, 5)), np.zeros((2, 2))], False).shape == (4, 5)
    with pytest.raises(FsisError, match="choose one plane"):
        layers.plane(np.zeros((2, 4, 5)), False)


def test_the_file_of_a_layer_has_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (300, 40), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    two = str(tmp_path / "two.ome.tif")
    tifffile.imwrite(two, np.stack([pixels, pixels]), photometric="minisblack", metadata={"axes": "CYX"})
    (tmp_path / "foreign.dv").write_bytes(b"abc")

    def file_of(data, path, name="a b"):
        layer = types.SimpleNamespace(data=data, rgb=False, name=name, source=types.SimpleNamespace(path=path))
        return layers.file_of(layer, tmp_path / "uploads")

    assert file_of(pixels, str(tmp_path / "a.png")) == str(tmp_path / "a.png")
    kept = file_of(pixels, None)
    np.testing.assert_array_equal(tifffile.imread(kept), pixels)
    for path in (two, str(tmp_path / "foreign.dv"), str(tmp_path / "gone.png")):
        assert file_of(pixels, path) == kept
    changed = pixels.copy()
    changed[299, 39] ^= 1
    others = {
        file_of(changed, str(tmp_path / "a.png")),
        file_of(pixels[:200], None),
        file_of(pixels.view(np.int8), None),
    }
    assert len(others - {kept}) == 3
    assert file_of(changed, None, "a_b") in others
    assert file_of(pixels, None, "細" * 200).endswith(".tif")
    np.testing.assert_array_equal(tifffile.imread(kept), pixels)


def test_of_large_images_bands_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "_COMPARED", 300 * 40 // 2)
    pixels = np.random.default_rng(0).integers(0, 255, (300, 40), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    assert layers._shows(str(tmp_path / "a.png"), pixels)
    assert not layers._shows(str(tmp_path / "a.png"), pixels[::-1])
    assert not layers._shows(str(tmp_path / "a.png"), pixels[:200])


def test_label_images_are_read_with_their_table(result, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8)
    files = write_outputs(tmp_path, "a", image, result.found, ["labels", "table", "overlay"])
    ((data, options, kind),) = reader(files["labels"])(files["labels"])
    assert (kind, options["name"]) == ("labels", "a cells")
    assert data.max() == 2
    assert options["features"]["index"] == [1, 2]
    assert options["features"]["score"] == [0.9, 0.4]
    assert reader(files["overlay"]) is None
    pathlib.Path(files["table"]).unlink()
    ((_, options, _),) = reader([files["labels"]])([files["labels"]])
    assert "features" not in options


def test_the_sample_is_an_image_of_cells():
    ((pixels, _, kind),) = cells()
    assert (pixels.shape, pixels.dtype, kind) == ((480, 640, 3), np.uint8, "image")
    assert pixels.std() > 5


def test_the_manifest_names_what_is_there():
    content = yaml.safe_load(MANIFEST.read_text())
    named = {command["id"]: command["python_name"] for command in content["contributions"]["commands"]}
    used = [
        each["command"]
        for kind, each_kind in content["contributions"].items()
        if kind != "commands"
        for each in each_kind
    ]
    assert sorted(used) == sorted(named)
    for name in named.values():
        module, _, member = name.partition(":")
        if module.endswith("dock"):  # it needs magicgui
            assert f"class {member}(" in MANIFEST.with_name("dock.py").read_text()
        else:
            assert hasattr(importlib.import_module(module), member)
