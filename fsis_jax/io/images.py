"""Reading images: PNG, JPEG and TIFF to numpy arrays, and any array to 8-bit RGB.

Decoders return what they could read of a file that was cut off in a copy, so the structure of the file is
checked before its pixels are decoded: a half image would silently give half of the cells. Pixels come as they
are stored: an EXIF orientation is not applied, since annotations refer to stored pixels.
"""

import contextlib
import io
import os
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.io.levels import Image, Stretch, check_shape, find_stretch, without_alpha

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CUT_OFF = "copy or export the file again"
_ROWS = 256
"""Rows of an image that are converted at once."""


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """An image file as (H, W), (H, W, 3) RGB or (H, W, 4) RGBA in its own dtype.

    Raises:
        FsisError: no such file, cut off or damaged data, or a dtype or shape that is not an image's.
    """
    name = os.fspath(path)
    # A TIFF is read where it lies: beside the pixels, its bytes would be a second image in memory.
    return _decode_tiff(path, name) if _head(name).startswith(_TIFF) else decode_image(_read(name), name)


def check_image(path: str | os.PathLike[str]) -> None:
    """Raise FsisError for what `read_image` refuses, as far as it can be told without decoding the pixels."""
    name = os.fspath(path)
    if not _head(name).startswith(_TIFF):
        _check_structure(_read(name), name)
        return
    with _tiff_errors(name), tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        _plane(series.shape, series.axes, name)
        _check_dtype(series.dtype, name)
        length = os.path.getsize(path)
        for page in series.pages:
            if page is None:
                continue
            ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if max(ends, default=0) > length:
                raise FsisError(f"{name}: truncated TIFF (ends after {length} bytes of {max(ends)}): {_CUT_OFF}")


def decode_image(data: bytes, name: str) -> np.ndarray:
    """`read_image` for the bytes of a file; `name` stands for the file in messages."""
    if data.startswith(_TIFF):
        return _decode_tiff(io.BytesIO(data), name)
    _check_structure(data, name)
    return _decode_opencv(data, name)


def _head(name: str) -> bytes:
    return _read(name, len(_PNG))


def _read(name: str, count: int = -1) -> bytes:
    try:
        with open(name, "rb") as file:
            return file.read(count)
    except FileNotFoundError as error:
        raise FsisError(f"{name}: no such file: check the path") from error
    except OSError as error:
        raise FsisError(f"{name}: cannot be read ({error.strerror or error}): give a readable image file") from error


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
    levels = stretch(pixels) if isinstance(stretch, Stretch) else pixels
    if levels.ndim == 2:
        return np.repeat(levels[..., None], 3, axis=2)
    return np.ascontiguousarray(levels)


def overview(image: Image, longest: int = 4096) -> tuple[np.ndarray, float]:
    """A stretched picture (h, w, 3) uint8 of an image, and its pixels per pixel of the image.

    An image with a longer side is shrunk by a whole factor, a few rows at a time: a large image is never copied.
    """
    stretch = find_stretch(image)
    height, width = image.shape[:2]
    factor = -(-max(height, width) // longest)
    rows, columns = max(height // factor, 1), max(width // factor, 1)
    picture = np.empty((rows, columns, 3), np.uint8)
    for top in range(0, rows, _ROWS):
        bottom = min(top + _ROWS, rows)
        band = to_rgb8(np.asarray(image[top * factor : bottom * factor, : columns * factor]), stretch=stretch)
        size = (columns, bottom - top)
        picture[top:bottom] = band if factor == 1 else cv2.resize(band, size, interpolation=cv2.INTER_AREA)
    return picture, 1 / factor


def _check_structure(data: bytes, name: str) -> None:
    """The bytes are a PNG or a JPEG that was not cut off."""
    if data.startswith(_PNG):
        _check_png(data, name)
    elif data.startswith(_JPEG):
        _check_jpeg(data, name)
    else:
        what = "the file is empty" if not data else "not a PNG, JPEG or TIFF file"
        raise FsisError(f"{name}: {what}: save the image as PNG, JPEG or TIFF")


def _check_dtype(dtype: np.dtype, name: str) -> None:
    if dtype.kind not in "buif":
        raise FsisError(f"{name}: pixels of type {dtype}: save the image as 8-bit, 16-bit or float")


def _check_png(data: bytes, name: str) -> None:
    """Every chunk is whole (CRC) and the last one is IEND."""
    start = len(_PNG)
    while start + 12 <= len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        end = start + 12 + length
        if end > len(data):
            break
        kind = data[start + 4 : start + 8]
        if zlib.crc32(memoryview(data)[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise FsisError(f"{name}: damaged PNG (checksum of the chunk at byte {start}): {_CUT_OFF}")
        if kind == b"IEND":
            return
        start = end
    raise FsisError(f"{name}: truncated PNG (ends after {len(data)} bytes without its last chunk): {_CUT_OFF}")


def _check_jpeg(data: bytes, name: str) -> None:
    """The image data that follow the first scan header end with an end-of-image marker.

    The segments before the scan are stepped over: a thumbnail inside them has an end marker of its own.
    """
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        if data[start + 1] == 0xFF:  # fill byte
            start += 1
        elif data[start + 1] == 0xDA:
            if data.find(b"\xff\xd9", start) >= 0:
                return
            break
        else:
            start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    raise FsisError(f"{name}: truncated JPEG (ends after {len(data)} bytes without its end marker): {_CUT_OFF}")


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


def _decode_tiff(file: str | os.PathLike[str] | io.BytesIO, name: str) -> np.ndarray:
    with _tiff_errors(name), tifffile.TiffFile(file, name=os.path.basename(name)) as tiff:
        series = tiff.series[0]
        photometric = series.keyframe.photometric
        image = None
        if photometric != tifffile.PHOTOMETRIC.PALETTE:
            try:
                image = series.asarray()
            except ValueError as error:
                # tifffile leaves LZW, JPEG and some other compressions to a package that we do not need otherwise.
                if "imagecodecs" not in str(error):
                    raise
        axes = series.axes
    if image is None:
        return _decode_opencv(file.getvalue() if isinstance(file, io.BytesIO) else _read(name), name)
    _check_dtype(image.dtype, name)
    image = _channels_last(image, axes, name)
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE and image.dtype.kind == "u":
        return np.subtract(np.iinfo(image.dtype).max, image, out=image)
    return image


@contextlib.contextmanager
def _tiff_errors(name: str) -> Iterator[None]:
    try:
        yield
    except FsisError:
        raise
    except Exception as error:  # a damaged header may lead the parser to any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FsisError(f"{name}: truncated or damaged TIFF ({reason}): {_CUT_OFF}") from error


def _channels_last(image: np.ndarray, axes: str, name: str) -> np.ndarray:
    """The plane of a TIFF series (`_plane`) as (H, W), (H, W, 3) or (H, W, 4)."""
    dropped, kept = _plane(image.shape, axes, name)
    plane = image.squeeze(dropped)
    if kept in ("SYX", "CYX"):
        plane = np.moveaxis(plane, 0, -1)
    if plane.ndim == 3 and plane.shape[2] == 2:  # grey and alpha
        plane = plane[..., 0]
    return np.ascontiguousarray(plane)


def _plane(shape: tuple[int, ...], axes: str, name: str) -> tuple[tuple[int, ...], str]:
    """The axes to drop from a TIFF series of one plane, and those that stay.

    Axes: Y, X, S samples of a pixel, C channels, others are kinds of stacks.
    """
    dropped = tuple(i for i, (axis, size) in enumerate(zip(axes, shape, strict=True)) if size == 1 and axis not in "YX")
    kept = "".join(axis for i, axis in enumerate(axes) if i not in dropped)
    channels = dict(zip(axes, shape, strict=True)).get(kept.strip("YX"), 0)
    if kept == "YX" or (kept in ("SYX", "YXS") and channels in (2, 3, 4)) or (kept in ("CYX", "YXC") and channels == 3):
        return dropped, kept
    raise FsisError(f"{name}: a TIFF of shape {shape} (axes {axes}): save one plane, grey or RGB")
