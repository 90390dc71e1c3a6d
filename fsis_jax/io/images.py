"""Reading images: PNG, JPEG and TIFF to numpy arrays, and any array to 8-bit RGB.

Decoders return what they could read of a file that was cut off in a copy, so the structure of the file is
checked before its pixels are decoded: a half image would silently give half of the cells. Pixels come as they
are stored: an EXIF orientation is not applied, since annotations refer to stored pixels.
"""

import io
import os
import zlib

import cv2
import numpy as np
import tifffile

from fsis_jax.errors import FsisError

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CUT_OFF = "copy or export the file again"


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """An image file as (H, W), (H, W, 3) RGB or (H, W, 4) RGBA in its own dtype.

    Raises:
        FsisError: no such file, cut off or damaged data, or a dtype or shape that is not an image's.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise FsisError(f"{name}: no such file: check the path") from error
    except OSError as error:
        raise FsisError(f"{name}: cannot be read ({error.strerror or error}): give a readable image file") from error
    return decode_image(data, name)


def decode_image(data: bytes, name: str) -> np.ndarray:
    """`read_image` for the bytes of a file; `name` stands for the file in messages."""
    if data.startswith(_PNG):
        _check_png(data, name)
        image = _decode_opencv(data, name)
    elif data.startswith(_JPEG):
        _check_jpeg(data, name)
        image = _decode_opencv(data, name)
    elif data.startswith(_TIFF):
        image = _decode_tiff(data, name)
    else:
        what = "the file is empty" if not data else "not a PNG, JPEG or TIFF file"
        raise FsisError(f"{name}: {what}: save the image as PNG, JPEG or TIFF")
    if image.dtype == bool:
        image = image.astype(np.uint8) * np.uint8(255)
    if image.dtype.kind not in "uif":
        raise FsisError(f"{name}: pixels of type {image.dtype}: save the image as 8-bit, 16-bit or float")
    return image


def to_rgb8(image: np.ndarray, *, stretch: bool = False, percentiles: tuple[float, float] = (1.0, 99.8)) -> np.ndarray:
    """An image of any dtype as (H, W, 3) uint8, which may be `image` itself: grey is repeated, alpha dropped.

    A stretch maps the two percentiles of all values, the channels together (colours stay what they are), to 0
    and 255. An image whose percentiles coincide is stretched between its extremes; a constant one becomes 0.
    Values that are not finite become 0 and do not count.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), any integer or float dtype.
        stretch: stretch uint8 images too. Other dtypes always are: their range says nothing about the image.
    """
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise FsisError(f"an image of shape {image.shape}: give (H, W), (H, W, 3) or (H, W, 4)")
    if image.ndim == 3:
        image = image[..., 0] if image.shape[2] == 1 else image[..., :3]
    levels = image if image.dtype == np.uint8 and not stretch else _stretch(image, percentiles)
    if levels.ndim == 2:
        return np.repeat(levels[..., None], 3, axis=2)
    return np.ascontiguousarray(levels)


def _stretch(image: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
    if image.dtype in (np.uint8, np.uint16):
        # Few possible values: a histogram and a table are many times faster than sorting and arithmetic.
        counts = np.bincount(image.ravel(), minlength=np.iinfo(image.dtype).max + 1)
        low, high = (_histogram_percentile(counts, p) for p in percentiles)
        if high <= low:
            present = np.flatnonzero(counts)
            low, high = float(present[0]), float(present[-1])
        return _to_levels(np.arange(len(counts), dtype=np.float64), low, high)[image]
    values = image.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, np.nan)
    if not finite.any():
        return np.zeros(image.shape, np.uint8)
    low, high = np.percentile(values[finite], percentiles)
    if high <= low:
        low, high = np.nanmin(values), np.nanmax(values)
    return _to_levels(values, low, high)


def _histogram_percentile(counts: np.ndarray, percent: float) -> float:
    """`np.percentile` (linear interpolation) of the values that a histogram over 0, 1, 2 ... describes."""
    below = np.cumsum(counts)
    position = percent / 100 * (below[-1] - 1)
    first = np.searchsorted(below, np.floor(position), side="right")
    second = np.searchsorted(below, np.ceil(position), side="right")
    return float(first + (second - first) * (position - np.floor(position)))


def _to_levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    # Divided before it is multiplied: 255 * (high - low) may overflow, as may high - low of extreme floats.
    unit = (values / 2 - low / 2) / (high / 2 - low / 2)
    return np.rint(np.nan_to_num(np.clip(unit, 0, 1)) * 255).astype(np.uint8)


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
        if image is not None and image.ndim == 3:
            image = cv2.cvtColor(image, {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}[image.shape[2]])
    except cv2.error as error:
        raise FsisError(f"{name}: cannot be decoded ({error.err}): save it again as PNG or plain TIFF") from error
    if image is None:
        raise FsisError(f"{name}: damaged or unknown image data: save it again as PNG or plain TIFF")
    return image


def _decode_tiff(data: bytes, name: str) -> np.ndarray:
    try:
        with tifffile.TiffFile(io.BytesIO(data), name=os.path.basename(name)) as tiff:
            series = tiff.series[0]
            photometric = series.keyframe.photometric
            if photometric == tifffile.PHOTOMETRIC.PALETTE:
                return _decode_opencv(data, name)
            try:
                image = series.asarray()
            except ValueError as error:
                # tifffile leaves LZW, JPEG and some other compressions to a package that we do not need otherwise.
                if "imagecodecs" not in str(error):
                    raise
                return _decode_opencv(data, name)
    except FsisError:
        raise
    except Exception as error:  # a damaged header may lead the parser to any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FsisError(f"{name}: truncated or damaged TIFF ({reason}): {_CUT_OFF}") from error
    image = _channels_last(image, series.axes, name)
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE and image.dtype.kind == "u":
        return np.iinfo(image.dtype).max - image
    return image


def _channels_last(image: np.ndarray, axes: str, name: str) -> np.ndarray:
    """One plane of a TIFF series. Axes: Y, X, S samples of a pixel, C channels, others are kinds of stacks."""
    single = tuple(i for i, (axis, size) in enumerate(zip(axes, image.shape, strict=True)) if size == 1)
    dropped = tuple(i for i in single if axes[i] not in "YX")
    kept = "".join(axis for i, axis in enumerate(axes) if i not in dropped)
    plane = image.squeeze(dropped)
    if kept in ("SYX", "CYX"):
        plane, kept = np.moveaxis(plane, 0, -1), "YX" + kept[0]
    if kept == "YXS" and plane.shape[2] == 2:  # grey and alpha
        plane, kept = plane[..., 0], "YX"
    if kept == "YX" or (kept == "YXS" and plane.shape[2] in (3, 4)) or (kept == "YXC" and plane.shape[2] == 3):
        return np.ascontiguousarray(plane)
    raise FsisError(f"{name}: a TIFF of shape {image.shape} (axes {axes}): save one plane, grey or RGB")
