"""Image files that no program can read, or not without being told more: functions that write one, given its path."""

import io
import pathlib
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import tifffile
import zarr
from PIL import Image

Maker = Callable[[pathlib.Path], object]

_GREY = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)


def content(data: bytes) -> Maker:
    """A file of these bytes."""
    return lambda path: path.write_bytes(data)


def encoded(suffix: str, image: np.ndarray = _GREY) -> bytes:
    """A sound PNG or JPEG."""
    return cv2.imencode(suffix, image)[1].tobytes()


def pillow(kind: str) -> bytes:
    """A sound file of a kind that Pillow writes."""
    buffer = io.BytesIO()
    Image.fromarray(_GREY).save(buffer, kind)
    return buffer.getvalue()


def tiff(image: np.ndarray = _GREY, **options: object) -> bytes:
    """A sound TIFF."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def stack(axes: str, *sizes: int, **options: object) -> bytes:
    """A TIFF of several planes of 64x64 pixels; an OME-TIFF if `options` say so."""
    planes = np.broadcast_to(_GREY, (*sizes, 64, 64))
    return tiff(planes, photometric="minisblack", metadata={"axes": f"{axes}YX", **options}, ome=bool(options) or None)


def overwritten(data: bytes, start: int, new: bytes) -> bytes:
    """Bytes with others in their place from `start` on, counted from the end if negative."""
    start %= len(data)
    return data[:start] + new + data[start + len(new) :]


def png_of_size(height: int, width: int) -> bytes:
    """A PNG that declares a size, and has hardly any pixels."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(100))),
        (b"IEND", b""),
    )
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_of_size(height: int, width: int) -> bytes:
    """A JPEG whose header declares another size than it has."""
    data = encoded(".jpg")
    start = data.index(b"\xff\xc0") + 5
    return overwritten(data, start, struct.pack(">HH", height, width))


def tiff_of_size(height: int, width: int, **options: object) -> bytes:
    """A TIFF whose header declares another size than it has."""
    buffer = io.BytesIO(tiff(**options))
    with tifffile.TiffFile(buffer) as opened:
        places = [opened.pages.first.tags[tag].valueoffset for tag in ("ImageLength", "ImageWidth")]
        kinds = [opened.pages.first.tags[tag].dtype for tag in ("ImageLength", "ImageWidth")]
    data = buffer.getvalue()
    for place, kind, side in zip(places, kinds, (height, width), strict=True):
        data = overwritten(data, place, struct.pack("<H" if kind == 3 else "<I", side))
    return data


def zip_of(**files: bytes) -> bytes:
    """A zip with these files; the double underscore in a name stands for a dot."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "."), data)
    return buffer.getvalue()


def ome_zarr(path: pathlib.Path, image: np.ndarray = _GREY, axes: str = "yx") -> None:
    """A sound OME-Zarr image."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=image, chunks=(*(1,) * (image.ndim - 2), 32, 32))
    group.attrs["multiscales"] = [{"version": "0.4", "axes": [{"name": a} for a in axes], "datasets": [{"path": "0"}]}]


def zarr_without_multiscales(path: pathlib.Path) -> None:
    zarr.open_group(path, mode="w", zarr_format=2)


def zarr_without_array(path: pathlib.Path) -> None:
    ome_zarr(path)
    shutil.rmtree(path / "0")


def zarr_with_damaged_chunk(path: pathlib.Path) -> None:
    ome_zarr(path)
    next(file for file in (path / "0").rglob("*") if file.name[0].isdigit() and file.is_file()).write_bytes(b"no blosc")
