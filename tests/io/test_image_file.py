"""An open image as numpy takes it."""

import pathlib

import numpy as np
import pytest
import tifffile

from fsis_jax.io.image_file import ClosedError, ImageFile
from fsis_jax.io.source import open_image
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import reference_image


def _open(folder: pathlib.Path, pixels: np.ndarray) -> ImageFile:
    tifffile.imwrite(folder / "a.tif", pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
    return open_image(folder / "a.tif")


def _random(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_as_an_array(tmp_path: pathlib.Path, shape: tuple[int, ...], dtype: str) -> None:
    pixels = _random(shape, dtype)
    with _open(tmp_path, pixels) as image:
        assert image.ndim == pixels.ndim
        for array in np.asarray(image), np.array(image), np.asarray(image, copy=True), image[:]:
            assert array.dtype == pixels.dtype
            np.testing.assert_array_equal(array, pixels)
        assert np.asarray(image, np.float64).dtype == np.float64
        with pytest.raises(ValueError, match="no array to share: leave out copy=False"):
            np.asarray(image, copy=False)
        crop = reference_image(np.asarray(image), TransformConfig())
        np.testing.assert_array_equal(crop, reference_image(pixels, TransformConfig()))
    with pytest.raises(ClosedError):
        np.asarray(image)


def test_windows(tmp_path: pathlib.Path) -> None:
    pixels = _random((20, 30, 3), "u1")
    with _open(tmp_path, pixels) as image:
        for window in np.s_[5:10], np.s_[:], np.s_[15:99], np.s_[5:10, 2:4], np.s_[:, 25:]:
            np.testing.assert_array_equal(image[window], pixels[window])
        for odd in 5, (5, 6), np.s_[..., :3], np.s_[:, :, 0], np.s_[:, 3], None, (), [1, 2]:
            with pytest.raises(ValueError, match=r"image\[.*\]: slice rows and columns, image\[y0:y1, x0:x1\]"):
                image[odd]
        for odd in np.s_[::2], np.s_[-3:], np.s_[:, :-1]:
            with pytest.raises(ValueError, match=r"image\[.*\]: slice with limits from 0 on and step 1"):
                image[odd]
