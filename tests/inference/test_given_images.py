"""What a Python user gives to the Segmenter and to `write_outputs`: the size of its pixels goes with an image."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from fsis_jax.errors import FsisError
from fsis_jax.io.outputs import write_outputs
from fsis_jax.io.source import open_image

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def pixels():
    rows, columns = np.mgrid[:60, :80]
    pixels = np.random.default_rng(0).integers(0, 60, (60, 80))
    for y, x in ((15, 20), (40, 30), (30, 60)):
        pixels[(rows - y) ** 2 + (columns - x) ** 2 < 100] += 190
    return pixels.astype(np.uint8)


def test_the_pixel_size_of_an_image_is_used(segmenter, pixels, tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, pixels, metadata={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5})
    references = segmenter.encode_references([pixels[5:26, 10:31]], sides=np.array([[42, 42]]), pixel_size=0.25)
    expected = segmenter.plan(pixels, references, pixel_size=0.5).scale
    assert expected != segmenter.plan(pixels, references).scale
    with open_image(path) as image:
        assert segmenter.plan(image, references).scale == expected
        assert segmenter.plan(image, references, pixel_size=0.25).scale != expected
        found = segmenter.segment(image, references)
        files = write_outputs(tmp_path / "out", "a", image, found, ("table",))
    assert segmenter.plan(str(path), references).scale == expected
    with open(files["table"]) as table:
        assert "area_um2" in table.readline()
    files = write_outputs(tmp_path / "out", "b", path, found, ("table", "overlay"))
    with open(files["table"]) as table:
        assert "area_um2" in table.readline()


def test_any_image_gives_the_same(segmenter, pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    crop = pixels[5:26, 10:31]
    expected = segmenter.segment(pixels, [crop])
    for image, shown in ((Image.fromarray(pixels), Image.fromarray(crop)), (tmp_path / "a.png", crop.copy())):
        np.testing.assert_array_equal(segmenter.segment(image, [shown]).scores, expected.scores)


def test_what_is_no_image_is_told(segmenter, pixels):
    references = segmenter.encode_references([pixels[5:26, 10:31]])
    with pytest.raises(FsisError, match="the image: NoneType: give an array"):
        segmenter.segment(None, references)
    with pytest.raises(FsisError, match="give a list of crops"):
        segmenter.segment(pixels, "cells.refs")
    for size in 0, float("nan"):
        with pytest.raises(FsisError, match="give micrometres per pixel"):
            segmenter.segment(pixels, references, pixel_size=size)
        with pytest.raises(FsisError, match="give micrometres per pixel"):
            segmenter.encode_references([pixels], pixel_size=size)
        with pytest.raises(FsisError, match="give micrometres per pixel"):
            write_outputs("out", "a", pixels, None, pixel_size=size)
