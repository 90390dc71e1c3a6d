"""Reading images: PNG, JPEG and TIFF to numpy arrays, and any array to 8-bit RGB.

Decoders return what they could read of a file that was cut off in a copy, so the structure of the file is
checked before its pixels are decoded: a half image would silently give half of the cells. Pixels come as they
are stored: an EXIF orientation is not applied, since annotations refer to stored pixels.
"""

import io
import os
import struct
import zlib

import cv2
import numpy as np
from PIL.PngImagePlugin import PngImageFile

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import open_file, read_failure
from fsis_jax.io.colour_maps import is_grey
from fsis_jax.io.content import Content
from fsis_jax.io.damage import CUT_OFF, damage_in
from fsis_jax.io.image_file import check_size
from fsis_jax.io.intensity import Image, Stretch, check_shape, coarsest, find_stretch, without_alpha
from fsis_jax.io.jpeg import decode_jpeg
from fsis_jax.io.planes import Wanted
from fsis_jax.io.tiff import TIFF_HEADS, open_tiff

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
WHOLE_HEADS = (_PNG, _JPEG)
"""First bytes of the formats that can only be decoded as a whole."""
_COLOUR_TYPE = 25
"""Byte of a PNG that tells whether it has a palette."""
_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
"""Colour types of PNG -> samples of a pixel when it is decoded."""
_MOST_PIXELS = 1 << 28
_MOST_BYTES = 1 << 30
_GRAIN = 8
"""As for `Content`, where the size of the cells is not known."""
_ROWS = 256
"""Rows of an image that are converted at once."""


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """A PNG, JPEG or TIFF file as (H, W), (H, W, 3) RGB or (H, W, 4) RGBA in its own dtype, all of it in memory.

    A PNG with a palette is what it shows: its colours, or grey where all of them are. Alpha beside grey is left out.

    Raises:
        FsisError: no such file, cut off or damaged data, a dtype or shape that is not an image's, or a stack.
    """
    name = os.fspath(path)
    if not read_head(name).startswith(TIFF_HEADS):
        return decode_image(_read(name), name)
    with open_tiff(path, name, Wanted(no_choice=True)) as image:
        return image[:, :]


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """The numbers of a label image, PNG or JPEG, as `read_image` reads an image.

    Of a PNG with a palette they are the numbers of its colours, as labelme, VOC's tools and QuPath write them.
    """
    name = os.fspath(path)
    data = _read(name)
    image = decode_image(data, name)
    if not _has_palette(data):
        return image
    with damage_in(name, "damaged PNG"):
        # Made by its class and not by PIL.Image.open, which warns of sizes that we allow.
        return np.asarray(PngImageFile(io.BytesIO(data)))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """`read_image` for the bytes of a file; `name` stands for the file in messages."""
    if data.startswith(TIFF_HEADS):
        with open_tiff(data, name, Wanted(no_choice=True)) as image:
            return image[:, :]
    if data.startswith(_JPEG):
        decoded = decode_jpeg(data, name, _MOST_PIXELS)
        return _decode_opencv(data, name) if decoded is None else decoded
    if not data.startswith(_PNG):
        what = "the file is empty" if not data else "not a PNG, JPEG or TIFF file"
        raise FsisError(f"{name}: {what}: save the image as PNG, JPEG or TIFF")
    _check_png(data, name)
    pixels = _decode_opencv(data, name)
    if pixels.ndim == 3 and _is_grey_png(data):
        return np.ascontiguousarray(pixels[..., 0])
    return pixels


def read_head(name: str) -> bytes:
    """The first bytes of a file, which tell its format.

    Raises:
        FsisError: no such file, or it cannot be read.
    """
    return _read(name, len(_PNG))


def _read(name: str, count: int = -1) -> bytes:
    try:
        with open_file(name) as file:
            return file.read(count)
    except OSError as error:
        raise read_failure(name, error, "image") from error


def to_rgb8(
    image: np.ndarray, *, stretch: bool | Stretch = False, percentiles: tuple[float, float] = (1.0, 99.8)
) -> np.ndarray:
    """An image of any dtype as (H, W, 3) uint8, which may be `image` itself: grey is repeated, alpha dropped.

    A stretch maps the two percentiles of all values, the channels together (colours stay what they are), to 0
    and 255. An image whose percentiles coincide is stretched between its extremes; a constant one becomes 0.
    Values that are not finite become 0 and do not count.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), any integer or float dtype.
        stretch: stretch uint8 images too. Other dtypes always are: their range says nothing about the image. Or the
            limits, where `image` is a part of another.
    """
    check_shape(image)
    if stretch is True or (stretch is False and image.dtype != np.uint8):
        stretch = find_stretch(image, percentiles)
    pixels = without_alpha(image)
    pixels8 = stretch(pixels) if isinstance(stretch, Stretch) else pixels
    if pixels8.ndim == 2:
        return np.repeat(pixels8[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels8)


def overview(image: Image, longest: int = 4096) -> tuple[np.ndarray, float]:
    """A stretched picture (h, w, 3) uint8 of an image, and its pixels per pixel of the image.

    An image with a longer side is shrunk by a whole factor, a few rows at a time: a large image is never copied. Of a
    pyramid a level is shown, and empty parts of an image do not count for the stretch.
    """
    full = image.shape[1]
    image = coarsest(image, max(image.shape[:2]) / longest)
    stretch = find_stretch(image, bands=Content(image, _GRAIN).bands)
    height, width = image.shape[:2]
    factor = -(-max(height, width) // longest)
    rows, columns = max(height // factor, 1), max(width // factor, 1)
    picture = np.empty((rows, columns, 3), np.uint8)
    for top in range(0, rows, _ROWS):
        bottom = min(top + _ROWS, rows)
        band = to_rgb8(np.asarray(image[top * factor : bottom * factor, : columns * factor]), stretch=stretch)
        size = (columns, bottom - top)
        picture[top:bottom] = band if factor == 1 else cv2.resize(band, size, interpolation=cv2.INTER_AREA)
    return picture, width / full / factor


def _is_grey_png(data: bytes) -> bool:
    """Whether a PNG is grey, maybe with alpha, or has a palette of greys."""
    return data.startswith(_PNG) and (data[_COLOUR_TYPE] in (0, 4) or (_has_palette(data) and is_grey(_palette(data))))


def _has_palette(data: bytes) -> bool:
    return data.startswith(_PNG) and data[_COLOUR_TYPE] == 3


def _palette(data: bytes) -> np.ndarray:
    """(n, 3) uint8, of a PNG whose structure was checked."""
    start = len(_PNG)
    while data[start + 4 : start + 8] not in (b"PLTE", b"IEND"):
        start += 12 + int.from_bytes(data[start : start + 4], "big")
    count = int.from_bytes(data[start : start + 4], "big") // 3
    return np.frombuffer(data, np.uint8, 3 * count, start + 8).reshape(count, 3)


def _check_png(data: bytes, name: str) -> None:
    """Every chunk is whole (CRC) and the last one is IEND; the first one declares the size."""
    start = len(_PNG)
    if data[start + 4 : start + 8] == b"IHDR" and len(data) >= start + 18:
        width, height = struct.unpack(">II", data[start + 8 : start + 16])
        remedy = "save it as a tiled TIFF, which is read part by part"
        # Decoded all of it is in memory, and a kilobyte of the file may be a megabyte of it.
        pixel = max(data[start + 16] // 8, 1) * _SAMPLES.get(data[start + 17], 1)
        check_size(name, height, width, most=min(_MOST_PIXELS, _MOST_BYTES // pixel), remedy=remedy)
    while start + 12 <= len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        end = start + 12 + length
        if end > len(data):
            break
        kind = data[start + 4 : start + 8]
        if zlib.crc32(memoryview(data)[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise FsisError(f"{name}: damaged PNG (checksum of the chunk at byte {start}): {CUT_OFF}")
        if kind == b"IEND":
            return
        start = end
    raise FsisError(f"{name}: truncated PNG (ends after {len(data)} bytes without its last chunk): {CUT_OFF}")


def _decode_opencv(data: bytes, name: str) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise FsisError(f"{name}: cannot be decoded ({error.err}): save it again as PNG or plain TIFF") from error
    if image is None:
        raise FsisError(f"{name}: damaged or unknown image data: save it again as PNG or plain TIFF")
    if image.ndim == 3:
        for top in range(0, len(image), _ROWS):  # BGR to RGB without a second image
            band = image[top : top + _ROWS]
            band[..., :3] = band[..., 2::-1].copy()
    return image
