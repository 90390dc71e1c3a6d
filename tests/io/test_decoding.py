"""Images of every kind that users have, and the broken ones."""

import io
import pathlib
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.io.decoding import decode_image, overview, read_image, to_rgb8

HEIGHT, WIDTH = 40, 50


def _random(shape: tuple[int, ...], dtype: type, high: float = 65535) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, min(high, 255) if dtype == np.uint8 else high, shape).astype(dtype)


def _tiff(image: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def _opencv(extension: str, image: np.ndarray, flags: tuple[int, ...] = ()) -> bytes:
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    return cv2.imencode(extension, image, flags)[1].tobytes()


def _png(width: int, height: int, depth: int, colour: int, pixels: bytes, *before: tuple[bytes, bytes]) -> bytes:
    """A PNG made by hand, for the kinds that OpenCV does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 3), (HEIGHT, WIDTH, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_and_tiff_keep_pixels_and_dtype(tmp_path: pathlib.Path, shape: tuple[int, ...], dtype: type) -> None:
    image = _random(shape, dtype)
    for name, data in [("a.png", _opencv(".png", image)), ("a.tif", _tiff(image)), ("b.tif", _opencv(".tif", image))]:
        (tmp_path / name).write_bytes(data)
        read = read_image(tmp_path / name)
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, image)


def test_jpeg() -> None:
    ramp = np.repeat(np.linspace(0, 255, 64, dtype=np.uint8)[None], 48, axis=0)
    image = np.stack([ramp, ramp[:, ::-1], np.full_like(ramp, 128)], axis=2)
    read = decode_image(_opencv(".jpg", image), "a.jpg")
    assert read.shape == (48, 64, 3)
    assert np.abs(read.astype(int) - image).mean() < 4  # red is red, so the channels are in order
    assert decode_image(_opencv(".jpg", ramp), "a.jpg").shape == (48, 64)


@pytest.mark.parametrize(
    ("image", "options", "expected_shape"),
    [
        (_random((HEIGHT, WIDTH), np.float32), {}, (HEIGHT, WIDTH)),
        (_random((HEIGHT, WIDTH), np.float64), {"compression": "zlib"}, (HEIGHT, WIDTH)),
        (_random((HEIGHT, WIDTH), np.int16, 30000), {}, (HEIGHT, WIDTH)),
        (_random((3, HEIGHT, WIDTH), np.uint8), {"photometric": "rgb", "planarconfig": "separate"}, (HEIGHT, WIDTH, 3)),
        (_random((3, HEIGHT, WIDTH), np.uint16), {"imagej": True, "metadata": {"axes": "CYX"}}, (HEIGHT, WIDTH, 3)),
        (_random((1, HEIGHT, WIDTH), np.uint16), {"photometric": "minisblack"}, (HEIGHT, WIDTH)),
        (_random((HEIGHT, 1), np.uint8), {}, (HEIGHT, 1)),
        (_random((HEIGHT, WIDTH), np.uint8) > 99, {}, (HEIGHT, WIDTH)),
    ],
)
def test_tiff_kinds(image: np.ndarray, options: dict, expected_shape: tuple[int, ...]) -> None:
    read = decode_image(_tiff(image, **options), "a.tif")
    assert read.shape == expected_shape
    expected = np.moveaxis(image, 0, -1) if len(expected_shape) == 3 else image.reshape(expected_shape)
    np.testing.assert_array_equal(read, expected.astype(np.uint8) * 255 if image.dtype == bool else expected)


def test_tiff_of_other_writers() -> None:
    image = _random((HEIGHT, WIDTH, 3), np.uint8)
    lzw = _opencv(".tif", image, (cv2.IMWRITE_TIFF_COMPRESSION, 5))
    np.testing.assert_array_equal(decode_image(lzw, "lzw.tif"), image)
    grey = image[..., 0]
    np.testing.assert_array_equal(decode_image(_tiff(grey, photometric="miniswhite"), "white.tif"), 255 - grey)
    with_alpha = _tiff(image[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(decode_image(with_alpha, "ga.tif"), grey)
    table = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * 257
    palette = decode_image(_tiff(grey, photometric="palette", colormap=table), "palette.tif")
    np.testing.assert_array_equal(palette, (table >> 8).T[grey])


def test_png_kinds() -> None:
    grey_alpha = _png(3, 1, 8, 4, bytes([0, 10, 255, 20, 255, 30, 0]))
    np.testing.assert_array_equal(decode_image(grey_alpha, "ga.png"), [[10, 20, 30]])
    np.testing.assert_array_equal(decode_image(_png(8, 1, 1, 0, b"\0\xf0"), "bits.png"), [[255] * 4 + [0] * 4])
    palette = _png(2, 1, 8, 3, bytes([0, 1, 0]), (b"PLTE", bytes([9, 8, 7, 1, 2, 3])))
    np.testing.assert_array_equal(decode_image(palette, "palette.png"), [[[1, 2, 3], [9, 8, 7]]])
    greys = _png(2, 1, 8, 3, bytes([0, 1, 0]), (b"PLTE", bytes([9, 9, 9, 200, 200, 200])))
    np.testing.assert_array_equal(decode_image(greys, "greys.png"), [[200, 9]])


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "zlib.tif", "lzw.tif"])
@pytest.mark.parametrize("kept", [0.97, 0.5, 0.05])
def test_truncated_files_are_errors(tmp_path: pathlib.Path, kind: str, kept: float) -> None:
    image = _random((200, 150), np.uint8)
    data = {
        "png": lambda: _opencv(".png", image),
        "jpg": lambda: _opencv(".jpg", image),
        "tif": lambda: _tiff(image),
        "zlib.tif": lambda: _tiff(image, compression="zlib"),
        "lzw.tif": lambda: _opencv(".tif", image, (cv2.IMWRITE_TIFF_COMPRESSION, 5)),
    }[kind]()
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(FsisError, match=rf"cut\.{kind}: (truncated|damaged)") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_png_losing_its_last_byte_or_a_bit_is_an_error() -> None:
    data = _opencv(".png", _random((64, 64), np.uint8))
    with pytest.raises(FsisError, match=r"a\.png: truncated PNG"):
        decode_image(data[:-1], "a.png")
    with pytest.raises(FsisError, match=r"a\.png: damaged PNG \(checksum of the chunk at byte 33\)"):
        decode_image(data[:2000] + bytes([data[2000] ^ 1]) + data[2001:], "a.png")
    assert decode_image(data + b"trailing bytes", "a.png").shape == (64, 64)


def test_jpeg_with_a_thumbnail_is_still_found_truncated() -> None:
    data = _opencv(".jpg", _random((64, 64), np.uint8))
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(data)) + data
    whole = data[:2] + thumbnail + data[2:]
    assert decode_image(whole, "a.jpg").shape == (64, 64)
    with pytest.raises(FsisError, match=r"a\.jpg: truncated JPEG"):
        decode_image(whole[:-300], "a.jpg")


def test_other_errors_name_file_and_remedy(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FsisError, match=r"none\.png: no such file: check the path"):
        read_image(tmp_path / "none.png")
    with pytest.raises(FsisError, match=r"cannot be read .*: give a readable image file"):
        read_image(tmp_path)
    with pytest.raises(FsisError, match="empty: the file is empty: save"):
        decode_image(b"", "empty")
    with pytest.raises(FsisError, match=r"a\.txt: not a PNG, JPEG or TIFF file: save"):
        decode_image(b"not an image", "a.txt")
    stack = _tiff(_random((5, 40, 50), np.uint8), photometric="minisblack")
    told = r"s\.tif: a stack of shape \(5, 40, 50\), axes QYX: save one plane of it, grey or RGB"
    with pytest.raises(FsisError, match=told):
        decode_image(stack, "s.tif")
    with pytest.raises(FsisError, match=r"c\.tif: pixels of type complex64: save"):
        decode_image(_tiff(np.zeros((4, 4), np.complex64)), "c.tif")


def test_to_rgb8_leaves_uint8_unless_told() -> None:
    image = np.array([[10, 20], [30, 40]], np.uint8)
    np.testing.assert_array_equal(to_rgb8(image), np.repeat(image[..., None], 3, axis=2))
    colour = _random((4, 5, 4), np.uint8)
    np.testing.assert_array_equal(to_rgb8(colour), colour[..., :3])
    np.testing.assert_array_equal(to_rgb8(image[..., None]), to_rgb8(image))
    stretched = to_rgb8(image, stretch=True, percentiles=(0, 100))
    np.testing.assert_array_equal(stretched[..., 0], [[0, 85], [170, 255]])


def test_stretch_is_common_to_the_channels() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[..., 0], image[..., 1] = 100, 50
    np.testing.assert_array_equal(to_rgb8(image, stretch=True, percentiles=(0, 100))[0, 0], [255, 128, 0])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_stretch_equals_numpy_percentiles(dtype: type) -> None:
    image = (np.random.default_rng(1).gamma(2.0, 900.0, (61, 47)) + 300).astype(dtype)
    low, high = np.percentile(image, (1.0, 99.8))
    expected = np.clip((image.astype(float) - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(to_rgb8(image)[..., 0], expected, atol=0.5001)


def test_stretch_of_odd_images() -> None:
    assert to_rgb8(np.full((3, 3), 7, np.uint16)).max() == 0
    assert to_rgb8(np.full((3, 3), 200, np.uint8), stretch=True).max() == 0
    assert to_rgb8(np.full((3, 3), np.nan, np.float32)).max() == 0
    sparse = np.zeros((100, 100), np.uint16)
    sparse[3, 4] = 900  # under 0.2% of the pixels: both percentiles are 0
    assert to_rgb8(sparse)[3, 4].tolist() == [255, 255, 255]
    holes = np.array([[np.nan, 0.0, 1.0], [np.inf, 0.5, -np.inf]], np.float32)
    np.testing.assert_array_equal(to_rgb8(holes, percentiles=(0, 100))[..., 0], [[0, 0, 255], [0, 128, 0]])
    huge = np.array([[-1.7e308, 0.0, 1.7e308]])
    np.testing.assert_array_equal(to_rgb8(huge, percentiles=(0, 100))[0, :, 0], [0, 128, 255])


@pytest.mark.parametrize("shape", [(4,), (4, 5, 2), (4, 5, 5), (0, 5), (2, 4, 5, 3)])
def test_to_rgb8_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(FsisError, match="an image of shape"):
        to_rgb8(np.zeros(shape, np.uint8))


def test_an_overview_is_shrunk_by_a_whole_factor() -> None:
    image = _random((700, 1003), np.uint16)
    picture, scale = overview(image)
    assert scale == 1
    np.testing.assert_array_equal(picture, to_rgb8(image))
    picture, scale = overview(image, longest=400)
    assert scale == 1 / 3
    assert picture.shape == (233, 334, 3)
    whole = to_rgb8(image)[:699, :1002].reshape(233, 3, 334, 3, 3).mean((1, 3))
    np.testing.assert_allclose(picture, whole, atol=0.51)
