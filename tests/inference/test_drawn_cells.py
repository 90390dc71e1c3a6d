"""Cells that were drawn or corrected: the masks of GeoJSON, ROIs and label images."""

import json

import numpy as np
import pytest
import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.inference.drawn_cells import read_cells
from fsis_jax.inference.instances import Instances
from fsis_jax.io.geojson import write_geojson
from fsis_jax.io.rois import write_rois
from fsis_jax.io.source import open_image
from fsis_jax.io.writers import write_labels

SIZE = (40, 50)


@pytest.fixture
def labels():
    """Cells that touch, one with a hole, one in two parts, one of a pixel."""
    image = np.zeros(SIZE, np.int32)
    image[2:12, 3:20], image[5:8, 6:9] = 1, 0
    image[12:20, 3:20] = 2
    image[30:38, 40:50], image[25:28, 44:47] = 3, 3
    image[39, 0] = 4
    return image


def _image(cells):
    image = np.zeros(cells.size, np.int32)
    for number, crop in enumerate(cells.masks, start=1):
        image[crop.slices][crop.mask] = number
        assert crop.extent == crop.bounds
    return image


@pytest.mark.parametrize(
    ("name", "write"), [("a.geojson", write_geojson), ("a.zip", write_rois), ("a-labels.tif", write_labels)]
)
def test_what_is_written_comes_back(labels, tmp_path, name, write):
    write(tmp_path / name, Instances.from_labels(labels))
    cells = read_cells(tmp_path / name, SIZE, open_image)
    np.testing.assert_array_equal(_image(cells), labels)
    assert cells.names == (("cell",) if name == "a.geojson" else ())
    none = Instances.none(SIZE)
    write(tmp_path / f"none-{name}", none)
    assert len(read_cells(tmp_path / f"none-{name}", SIZE, open_image)) == 0


def _features(*rings_and_classes):
    return [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"classification": {"name": kind}} if kind else {},
        }
        for ring, kind in rings_and_classes
    ]


SQUARE = [[1, 1], [5, 1], [5, 5], [1, 5], [1, 1]]


def test_classes_are_names_and_a_new_outline_is_of_the_only_one(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(_features((SQUARE, "living"), (SQUARE, ""))))
    assert read_cells(file, SIZE, open_image).categories == ("living", "living")
    file.write_text(json.dumps(_features((SQUARE, "living"), (SQUARE, "dead"))))
    cells = read_cells(file, SIZE, open_image)
    assert (cells.categories, cells.names) == (("living", "dead"), ("dead", "living"))
    file.write_text(json.dumps(_features((SQUARE, "living"), (SQUARE, ""), (SQUARE, "dead"))))
    with pytest.raises(FsisError, match=r"a\.json: cell 2 has no class, others have \(dead, living\): give each"):
        read_cells(file, SIZE, open_image)


def test_outlines_end_at_the_border_and_may_not_lie_outside(tmp_path):
    file = tmp_path / "a.geojson"
    over = [[45, -3], [60, -3], [60, 4], [45, 4]]
    file.write_text(json.dumps(_features((over, ""))))
    np.testing.assert_array_equal(read_cells(file, SIZE, open_image).boxes, [[45, 0, 50, 4]])
    for wrong in ([[60, 60], [70, 60], [70, 70]], [[1.6, 1.6], [1.9, 1.6], [1.9, 1.9]]):
        file.write_text(json.dumps(_features((over, ""), (wrong, ""))))
        with pytest.raises(FsisError, match=r"a\.geojson: cell 2: no pixel of the image of 50x40 lies in it: draw it"):
            read_cells(file, SIZE, open_image)


def test_labels_of_another_image_or_of_none(labels, tmp_path):
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, labels[:30])
    with pytest.raises(FsisError, match=r"a\.tif: a label image of shape \(30, 50\) for an image with \(40, 50\)"):
        read_cells(file, SIZE, open_image)
    tifffile.imwrite(file, labels.astype(np.float32))
    with pytest.raises(FsisError, match=r"a\.tif: labels of type float32: save whole numbers"):
        read_cells(file, SIZE, open_image)
    tifffile.imwrite(file, (labels > 0).astype(np.uint8))
    with pytest.raises(FsisError, match=r"a\.tif: one label in 4 separate parts: give each cell a number"):
        read_cells(file, SIZE, open_image)
