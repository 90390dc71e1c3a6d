"""JPEG: what its markers say, and decoding that refuses what is damaged inside.

Most decoders hand over what they could make of a damaged scan and keep libjpeg's warnings to themselves; simplejpeg
raises them. A JPEG has no checksum: what still decodes into as many blocks as there should be is not noticed, as most
single flipped bits.
"""

import dataclasses

import numpy as np
import simplejpeg

from fsis_jax.errors import FsisError
from fsis_jax.io.damage import CUT_OFF, one_line
from fsis_jax.io.image_file import check_size

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Second bytes of the markers that a size follows."""
_COMMON = (0xC0, 0xC1, 0xC2)
"""Those of frames by Huffman's code: baseline, extended, progressive."""
_MOST_SCANNED = 1 << 31
"""Pixels times scans: a few kilobytes may declare a thousand scans of a large image, each of which takes a second."""
_SPACES = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}
"""What simplejpeg says of colours -> as what they are asked for; all others as RGB."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """What the markers before the first scan declare."""

    height: int
    width: int
    scan: int
    """Byte at which the first scan begins."""
    common: bool
    """Whether it is of a kind that libjpeg decodes in all its builds: 8 bits, Huffman's code."""


def jpeg_frame(data: bytes) -> Frame | None:
    """The frame of a JPEG; None if its markers end before one, or before the first scan.

    The segments before the scan are stepped over: a thumbnail inside them has a frame of its own.
    """
    start, frame = 2, None
    while start + 4 <= len(data) and data[start] == 0xFF:
        kind = data[start + 1]
        if kind == 0xFF:  # fill byte
            start += 1
            continue
        if kind == 0xDA:
            return frame and dataclasses.replace(frame, scan=start)
        if kind in _FRAMES:
            height, width = (int.from_bytes(data[start + place : start + place + 2], "big") for place in (5, 7))
            frame = Frame(height, width, 0, kind in _COMMON and data[start + 4 : start + 5] == b"\x08")
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return None


def decode_jpeg(data: bytes, name: str, most_pixels: int) -> np.ndarray | None:
    """(H, W) or (H, W, 3) RGB uint8; None of a rarer kind (CMYK, 12 bits), of which only the structure was checked.

    Raises:
        FsisError: cut off, damaged, or more pixels than `most_pixels`.
    """
    frame = jpeg_frame(data)
    if frame is not None:
        remedy = "save it as a tiled TIFF, which is read part by part"
        check_size(name, frame.height, frame.width, most=most_pixels, remedy=remedy)
    if frame is None or data.find(b"\xff\xd9", frame.scan) < 0:
        raise FsisError(f"{name}: truncated JPEG (ends after {len(data)} bytes without its end marker): {CUT_OFF}")
    scans = data.count(b"\xff\xda", frame.scan)  # in the data of a scan 0 follows 255
    if scans * frame.height * frame.width > _MOST_SCANNED:
        raise FsisError(f"{name}: a JPEG of {frame.width}x{frame.height} pixels in {scans} scans: save it as PNG")
    if not frame.common:
        return None
    try:
        space = _space(data)
        if space == "CMYK":
            _check_whole(data)
            return None
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, space)
    except ValueError as error:
        raise FsisError(f"{name}: damaged JPEG ({one_line(error)}): {CUT_OFF}") from error
    return pixels[..., 0] if space == "GRAY" else pixels


def check_part(data: bytes, tables: bytes | None, header: bytes | None, height: int, width: int) -> None:
    """Raise ValueError where a tile or strip of a TIFF, of this size, is a damaged JPEG or a much larger one.

    Args:
        tables: what all parts share, a JPEG without a scan.
        header: what the scans of all parts share (NDPI, whose parts are then not looked into).
    """
    whole = data
    if header is not None:
        whole = header + data
    elif tables is not None:
        whole = data[:2] + tables[2:].removesuffix(b"\xff\xd9") + data[2:]
    frame = jpeg_frame(whole)
    if frame is None:
        raise ValueError("a part without the markers of JPEG")
    # Parts at the border may be whole, and whole ones be padded to blocks.
    if frame.height * frame.width > 4 * (height + 16) * (width + 16):
        raise ValueError(f"a part of {width} x {height} pixels that declares {frame.width} x {frame.height}")
    if frame.common and header is None:
        _check_whole(whole)


def _check_whole(data: bytes) -> None:
    """Raise ValueError with what libjpeg warns of, decoding an eighth as large: that costs half as much."""
    simplejpeg.decode_jpeg(data, _space(data), min_factor=8)


def _space(data: bytes) -> str:
    return _SPACES.get(simplejpeg.decode_jpeg_header(data)[2], "RGB")
