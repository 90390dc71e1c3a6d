"""What is seen of an image is what is there, and no more of it is read than that."""

import cv2
import numpy as np
import pytest
import tifffile

from fsis_jax.interactive.shapes import ellipse
from fsis_jax.interactive.view import View, outline
from fsis_jax.io.source import open_image
from fsis_jax.preprocess.cropped_mask import CroppedMask


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A TIFF (5000, 6000) in tiles, without a pyramid, whose brightness rises to the right."""
    path = tmp_path_factory.mktemp("view") / "large.tif"
    pixels = np.tile(np.linspace(0, 60000, 6000).astype(np.uint16), (5000, 1))
    tifffile.imwrite(path, pixels, tile=(256, 256))
    return path


def test_a_window_shows_the_pixels_that_lie_there(large):
    with open_image(large) as image:
        view = View(image)
        picture, place = view.picture((1000.4, 2000.0, 1200.5, 2100.0), 400)
        assert place == (1000.0, 2000.0, 1201.0, 2100.0)
        assert picture.shape == (100, 201, 3)
        whole, place = view.picture((-100.0, -100.0, 6100.0, 5100.0), 1000)
        assert place == (0.0, 0.0, 6000.0, 5000.0)
        assert whole.shape == (1667, 2000, 3)
        # The same brightness at every zoom.
        assert abs(int(picture[50, 100, 0]) - int(whole[700, 1100 // 3, 0])) <= 2
        assert whole[0, 5, 0] < 5
        assert whole[0, -5, 0] > 250
        assert view.picture((7000.0, 0.0, 8000.0, 10.0), 100)[0].size == 0


def test_no_more_is_read_than_is_seen(large, monkeypatch):
    with open_image(large) as image:
        view = View(image)
        read = []
        plane = type(image._plane)
        slicing = plane.__getitem__
        monkeypatch.setattr(plane, "__getitem__", lambda self, window: read.append(window) or slicing(self, window))
        view.picture((0.0, 0.0, 6000.0, 5000.0), 1000)
        assert read == []
        view.picture((0.0, 0.0, 100.0, 100.0), 1000)
        assert read == [(slice(0, 100), slice(0, 100))]


def test_a_level_of_a_pyramid_is_taken_that_is_fine_enough(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4096, 8192), np.uint8)
    with tifffile.TiffWriter(tmp_path / "p.tif") as file:
        options = {"tile": (256, 256), "photometric": "minisblack"}
        file.write(pixels, subifds=2, **options)
        for step in (2, 4):
            file.write(cv2.resize(pixels, None, fx=1 / step, fy=1 / step), subfiletype=1, **options)
    with open_image(tmp_path / "p.tif") as image:
        assert len(image.coarser) == 2
        picture, place = View(image).picture((0.0, 0.0, 2048.0, 1024.0), 1000)
        assert place == (0.0, 0.0, 2048.0, 1024.0)
        assert picture.shape == (512, 1024, 3)


@pytest.mark.parametrize("window", [(100, 0, 110, 10), (-30, 0, -10, 10), (0, 70, 10, 80), (0, -9, 10, 0)])
@pytest.mark.parametrize("width", [1, 300])
def test_nothing_is_seen_beside_the_image(tmp_path, window, width):
    """Zoomed in or out."""
    cv2.imwrite(str(tmp_path / "a.png"), np.arange(60 * 80, dtype=np.uint8).reshape(60, 80))
    with open_image(tmp_path / "a.png") as image:
        assert View(image).picture(tuple(map(float, window)), width)[0].size == 0


def test_an_outline_goes_around_its_mask():
    crop = ellipse((10.0, 20.0, 50.0, 50.0))
    xs, ys = outline(crop)
    assert 8 < len(xs) == len(ys) < 60
    drawn = np.zeros((60, 60), np.uint8)
    cv2.fillPoly(drawn, [np.rint(np.column_stack([xs, ys]) - 0.5).astype(np.int32)], 1)
    mask = np.zeros((60, 60), bool)
    mask[crop.slices] = crop.mask
    assert np.count_nonzero((drawn > 0) ^ mask) < 0.05 * np.count_nonzero(mask)


@pytest.mark.parametrize("mask", [np.ones((1, 1), bool), np.ones((1, 5), bool), np.zeros((2, 3), bool)])
def test_a_mask_too_thin_for_an_outline_has_its_box(mask):
    height, width = mask.shape
    assert outline(CroppedMask(4, 7, mask)) == ([7, 7 + width, 7 + width, 7], [4, 4, 4 + height, 4 + height])
