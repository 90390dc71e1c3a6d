"""What people have in Python as an image, and what is none."""

import math
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from fsis_jax.errors import FsisError
from fsis_jax.io.given import as_crops, as_image, known_pixel_size
from fsis_jax.io.source import open_image

GREY = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)


class Tensor:
    """As torch's: a dtype of its own, and an array only where it is on the host and without a gradient."""

    dtype = "torch.uint8"

    def __init__(self, pixels: np.ndarray, error: Exception | None = None) -> None:
        self.pixels, self.shape, self.error = pixels, pixels.shape, error

    def __getitem__(self, window: object) -> "Tensor":
        return Tensor(self.pixels[window])

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        if self.error is not None:
            raise self.error
        return self.pixels


@pytest.mark.parametrize("pixels", [GREY, COLOURS, GREY.astype(np.float32), GREY.astype(np.uint16)])
def test_arrays_of_all_kinds(pixels):
    for given in pixels, pixels.tolist(), tuple(pixels.tolist()), Tensor(pixels), jnp.asarray(pixels):
        image = as_image(given)
        np.testing.assert_array_equal(np.asarray(image[0:20, 0:30]), pixels)


def test_what_is_read_lazily_stays_so(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(20, 30), dtype="u2")
    assert as_image(array) is array
    assert as_image(GREY) is GREY
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    with open_image(tmp_path / "a.tif") as image:
        assert as_image(image) is image


def test_paths_are_opened(tmp_path):
    options = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", GREY, metadata=options)
    for path in tmp_path / "a.ome.tif", str(tmp_path / "a.ome.tif"):
        image = as_image(path)
        np.testing.assert_array_equal(np.asarray(image), GREY)
        assert known_pixel_size(image, None) == 0.5
        assert known_pixel_size(image, 0.25) == 0.25
    with pytest.raises(FsisError, match=r"none\.png: no such file"):
        as_image(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Image.fromarray(GREY), GREY),
        (Image.fromarray(COLOURS), COLOURS),
        (Image.fromarray(GREY.astype(np.uint16) * 200), GREY.astype(np.uint16) * 200),
        (Image.fromarray(GREY.astype(np.float32)), GREY),
        (Image.fromarray(GREY > 99), (GREY > 99) * 255),
        (Image.merge("LA", [Image.fromarray(GREY)] * 2), GREY),
        (Image.fromarray(COLOURS).convert("CMYK"), COLOURS),
        (Image.fromarray(COLOURS).quantize(9), np.asarray(Image.fromarray(COLOURS).quantize(9).convert("RGB"))),
    ],
)
def test_images_of_pil(given, expected):
    np.testing.assert_array_equal(np.asarray(as_image(given)), expected)


def test_bools_and_halves():
    assert np.array_equal(as_image(GREY > 99)[:, :], (GREY > 99) * np.uint8(255))
    assert as_image(GREY.astype(np.float16)).dtype == np.float32


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "the image: NoneType: give an array"),
        ([[1, 2], [3]], "the image: not an array"),
        ([["a", "b"]], "the image: pixels of type <U1"),
        ({1, 2}, "the image: set"),
        (b"\x89PNG", r"the image: pixels of type \|S4"),
        (GREY.astype(complex), "the image: pixels of type complex128"),
        (GREY.astype(object), "the image: ndarray: give an array"),
        ([], r"an image of shape \(0,\): give"),
        (np.zeros((3, 20, 30)), r"an image of shape \(3, 20, 30\): give \(H, W\)"),
        (
            Tensor(GREY, TypeError("can't convert cuda:0 device type tensor")),
            "the image: not an array .can't convert cuda",
        ),
        (Tensor(GREY, RuntimeError("Can't call numpy() on Tensor that requires grad")), "the image: not an array"),
    ],
)
def test_what_is_no_image(given, message):
    with pytest.raises(FsisError, match=message) as caught:
        as_image(given)
    assert "\n" not in str(caught.value)


def test_frames_of_pil_are_a_choice(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.tif") as opened, pytest.raises(FsisError, match="a PIL image of 2 frames: give one"):
        as_image(opened)
    whole = tmp_path / "b.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300)).astype(np.uint8)).save(whole)
    whole.write_bytes(whole.read_bytes()[:5000])
    with Image.open(whole) as cut, pytest.raises(FsisError, match="a PIL image that cannot be read"):
        as_image(cut)


def test_crops(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    for given in ([GREY], (GREY,), [GREY.tolist()], [tmp_path / "a.png"], np.stack([GREY]), iter([GREY])):
        _, (crop,) = as_crops(given)
        assert type(crop) is np.ndarray
        np.testing.assert_array_equal(crop, GREY)
    for single in GREY, COLOURS, Image.fromarray(GREY), str(tmp_path / "a.png"), pathlib.Path("a.refs"), 3:
        with pytest.raises(FsisError, match=r"references of type .*: give a list of crops, \[crop\]"):
            as_crops(single)
    with pytest.raises(FsisError, match="no reference given"):
        as_crops([])
    with pytest.raises(FsisError, match=r"^reference 2: NoneType: give an array"):
        as_crops([GREY, None])
    with pytest.raises(FsisError, match=r"^b: NoneType"):
        as_crops([GREY, None], names=["a", "b"])


@pytest.mark.parametrize("given", [0, 0.0, -1, math.nan, math.inf, -math.inf, "x", 1e9, [0.5], True + 1e-9j])
def test_pixel_sizes_that_are_none(given):
    with pytest.raises(FsisError, match=r"pixel_size=.*: give micrometres per pixel, from 0\.0001 to 10000, or None"):
        known_pixel_size(None, given)


def test_pixel_sizes():
    assert known_pixel_size(None, np.float32(0.5)) == 0.5
    assert known_pixel_size(None, None) is None
    assert known_pixel_size(GREY, None) is None
