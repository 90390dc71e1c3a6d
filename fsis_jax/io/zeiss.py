"""The parts of a .czi of Zeiss: its directory of subblocks, each a tile of one plane, its metadata, and their pixels.

After Zeiss's public description of the format (ZISRAW). Pyramids are subblocks too: those that store fewer pixels than
they stand for. Nothing is read of a subblock but its entry until its pixels are asked for.
"""

import dataclasses
import struct
from collections.abc import Sequence
from xml.etree import ElementTree

import imagecodecs
import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.chunks import check_chunk
from fsis_jax.io.jpeg import check_part
from fsis_jax.io.pixel_size import micrometres
from fsis_jax.io.stored import Stored

_SEGMENT = struct.Struct("<16sqq")
_ENTRY = struct.Struct("<2siqiiB5xi")
_DIMENSION = struct.Struct("<4siifi")
_PIXELS = {0: ("<u1", 1), 1: ("<u2", 1), 2: ("<f4", 1), 3: ("<u1", 3), 4: ("<u2", 3), 8: ("<f4", 3), 9: ("<u1", 4)}
_PIXELS |= {12: ("<u4", 1), 13: ("<f8", 1)}
"""Type of pixels -> dtype and samples, which are blue, green, red and alpha."""
_RAW, _JPEG, _LZW, _JPEG_XR, _ZSTD, _ZSTD_PACKED = 0, 1, 2, 4, 5, 6


@dataclasses.dataclass(frozen=True)
class Subblock:
    """A tile of one plane, as the directory has it."""

    position: int
    """Of its segment in the file."""
    compression: int
    pixels: int
    place: tuple[tuple[str, int], ...]
    """Letter and number on each axis other than Y, X, S and M, sorted by letter."""
    scene: int
    """-1 where there are none."""
    mosaic: int
    """Number of the tile: what comes later lies on top."""
    y: int
    x: int
    height: int
    width: int
    """Pixels of the image that it stands for, from (y, x) on ..."""
    stored: tuple[int, int]
    """... and height and width as it is stored."""

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(_PIXELS[self.pixels][0])

    @property
    def samples(self) -> int:
        """1, or 3 for colours, without alpha."""
        return min(_PIXELS[self.pixels][1], 3)

    @property
    def factor(self) -> int:
        """Pixels of the image for one that is stored, along a side; 1 at full resolution."""
        return max(round(self.height / self.stored[0]), round(self.width / self.stored[1]), 1)


def read_directory(stored: Stored, name: str) -> list[Subblock]:
    """All subblocks of a file.

    Raises:
        FsisError: a part of a file in several, or pixels or axes that are not read.
        ValueError, struct.error: a damaged file.
    """
    header = _segment(stored, 0, b"ZISRAWFILE")
    part, position = struct.unpack_from("<iq", _read(stored, header, 80), 48)
    if part:
        raise FsisError(f"{name}: part {part} of a .czi in several files: give the first one, exported as one file")
    content = _segment(stored, position, b"ZISRAWDIRECTORY")
    (count,) = struct.unpack("<i", _read(stored, content, 4))
    size = _SEGMENT.unpack(_read(stored, position, _SEGMENT.size))[2] - 128
    if not 0 <= count * _ENTRY.size <= size <= stored.size:
        raise ValueError(f"a directory of {count} subblocks in {size} bytes")
    entries, start, found = _read(stored, content + 128, size), 0, []
    for _ in range(count):
        subblock, start = _entry(entries, start, name)
        found.append(subblock)
    return found


def read_pixels(stored: Stored, block: Subblock, name: str) -> np.ndarray:
    """(h, w) or (h, w, 3) as the subblock stores them; colours are red, green and blue.

    Raises:
        FsisError: a compression that is not read, or a subblock that takes more than a gibibyte.
        ValueError: damaged data.
    """
    dtype, samples = block.dtype, _PIXELS[block.pixels][1]
    height, width = block.stored
    check_chunk(name, (height, width, samples), dtype.itemsize)
    content = _segment(stored, block.position, b"ZISRAWSUBBLOCK")
    metadata, _, size = struct.unpack("<iiq", _read(stored, content, 16))
    dimensions = _ENTRY.unpack(_read(stored, content + 16, _ENTRY.size))[-1]
    start = content + max(256, 16 + _ENTRY.size + dimensions * _DIMENSION.size) + metadata
    data = _read(stored, start, size)
    expected = height * width * samples * dtype.itemsize
    if block.compression == _JPEG_XR:
        pixels = np.asarray(imagecodecs.jpegxr_decode(data))
    elif block.compression == _JPEG:
        check_part(data, None, None, height, width)
        pixels = np.asarray(imagecodecs.jpeg_decode(data))
    else:
        pixels = np.frombuffer(_unpacked(data, block.compression, expected, dtype.itemsize, name), dtype)
    pixels = _shaped(pixels, height, width, samples)
    if samples == 1:
        return pixels[..., 0]
    return pixels[..., :3] if block.compression in (_JPEG_XR, _JPEG) else pixels[..., 2::-1]


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What the XML of a file tells; each is empty where it does not."""

    channels: Sequence[str]
    scenes: Sequence[str]
    pixel_size: float | None
    """Micrometres."""


def read_metadata(stored: Stored) -> Metadata:
    """Names and the size of a pixel.

    Raises:
        ValueError, struct.error, SyntaxError: a damaged file.
    """
    (position,) = struct.unpack_from("<q", _read(stored, _SEGMENT.size, 80), 60)
    if not position:
        return Metadata((), (), None)
    content = _segment(stored, position, b"ZISRAWMETADATA")
    (size,) = struct.unpack("<i", _read(stored, content, 4))
    root = ElementTree.fromstring(_read(stored, content + 256, size))
    image = "./Metadata/Information/Image/Dimensions"
    channels = [each.get("Name") or "" for each in root.iterfind(f"{image}/Channels/Channel")]
    scenes = {each.get("Index") or "": each.get("Name") or "" for each in root.iterfind(f"{image}/S/Scenes/Scene")}
    metres = {each.get("Id"): each.findtext("Value") for each in root.iterfind("./Metadata/Scaling/Items/Distance")}
    numbers = sorted(int(index) for index in scenes if index.isdecimal())
    names = [scenes[str(number)] for number in numbers] if numbers == [*range(len(scenes))] else []
    return Metadata(channels, names, micrometres(metres.get("X"), metres.get("Y"), "m"))


def _read(stored: Stored, start: int, count: int) -> bytes:
    if not 0 <= start <= start + count <= stored.size:
        raise ValueError(f"ends after {stored.size} bytes of {start + count}")
    return stored.read(start, count)


def _segment(stored: Stored, position: int, kind: bytes) -> int:
    """Where the content of the segment of a kind at a position begins."""
    found = _SEGMENT.unpack(_read(stored, position, _SEGMENT.size))[0].rstrip(b"\0")
    if found != kind:
        raise ValueError(f"a segment {found!r} instead of {kind!r}")
    return position + _SEGMENT.size


def _entry(entries: bytes, start: int, name: str) -> tuple[Subblock, int]:
    """The entry of the directory that begins at a byte, and where the next one begins."""
    schema, pixels, position, part, compression, _, count = _ENTRY.unpack_from(entries, start)
    if schema != b"DV" or not 0 <= count <= 64:
        raise ValueError(f"an entry {schema!r} of {count} dimensions")
    if part:
        raise FsisError(f"{name}: a .czi in several files: export it as one file")
    if pixels not in _PIXELS:
        raise FsisError(f"{name}: pixels of type {pixels} of Zeiss: export the image as 8-bit, 16-bit or float")
    start += _ENTRY.size
    axes: dict[str, tuple[int, int, int]] = {}
    for number in range(count):
        letter, first, size, _, kept = _DIMENSION.unpack_from(entries, start + number * _DIMENSION.size)
        axes[letter.rstrip(b"\0").decode("ascii")] = first, size, kept or size
    if not {"X", "Y"} <= axes.keys() or min(min(axes[letter][1:]) for letter in "XY") < 1:
        raise ValueError("a subblock without an extent in X and Y")
    others = {letter: (first, size) for letter, (first, size, _) in axes.items() if letter not in ("X", "Y", "S", "M")}
    if any(size > 1 for _, size in others.values()):
        raise FsisError(f"{name}: several planes in one subblock: export it as OME-TIFF")
    (y, height, high), (x, width, wide) = axes["Y"], axes["X"]
    place = tuple(sorted((letter, first) for letter, (first, _) in others.items()))
    scene, mosaic = (axes[letter][0] if letter in axes else -1 for letter in "SM")
    block = Subblock(position, compression, pixels, place, scene, mosaic, y, x, height, width, (high, wide))
    return block, start + count * _DIMENSION.size


def _unpacked(data: bytes, compression: int, expected: int, itemsize: int, name: str) -> bytes:
    if compression == _RAW:
        return data
    if compression == _LZW:
        return bytes(imagecodecs.lzw_decode(data, out=expected))
    if compression not in (_ZSTD, _ZSTD_PACKED):
        raise FsisError(f"{name}: compression {compression} of Zeiss is not read: export it as OME-TIFF")
    packed = False
    if compression == _ZSTD_PACKED:
        # A header of 1 or 3 bytes; the third says that all low bytes come before all high ones.
        length = data[0]
        packed = length == 3 and bool(data[2] & 1)
        data = data[length:]
    content = bytes(imagecodecs.zstd_decode(data, out=expected))
    if packed and itemsize == 2:
        return np.ascontiguousarray(np.frombuffer(content, np.uint8).reshape(2, -1).T).tobytes()
    return content


def _shaped(pixels: np.ndarray, height: int, width: int, samples: int) -> np.ndarray:
    """(h, w, samples) of pixels; at the border of a pyramid's level there may be a row or column less than stated."""
    for high in (height, height - 1):
        for wide in (width, width - 1):
            if pixels.size == high * wide * samples:
                found = pixels.reshape(high, wide, samples)
                return np.pad(found, ((0, height - high), (0, width - wide), (0, 0)), "edge")
    raise ValueError(f"{pixels.size} values in a subblock of {height} x {width} x {samples}")
