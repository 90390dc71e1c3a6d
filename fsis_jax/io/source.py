"""Image files as biologists have them: opening one of any format."""

import os
import pathlib

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.czi import CZI_SUFFIX, open_czi
from fsis_jax.io.decoding import WHOLE_HEADS, read_head, read_image, read_labels
from fsis_jax.io.image_file import ImageFile, Plane
from fsis_jax.io.ome_zarr import is_zarr, open_ome_zarr
from fsis_jax.io.planes import Contents, Listed, Wanted, choose_plane, choose_series
from fsis_jax.io.slides import SLIDE_SUFFIXES, is_readable_slide, open_slide, unreadable_slide
from fsis_jax.io.tiff import TIFF_HEADS, open_tiff
from fsis_jax.io.vendor import VENDOR_SUFFIXES, open_vendor

_FOREIGN_SUFFIXES = (
    *(".lof", ".xlef", ".nd", ".oib", ".oif", ".oir", ".vsi", ".ets", ".zvi", ".dv"),
    *(".r3d", ".dcm", ".dicom", ".mrc", ".ics", ".ids", ".sld", ".sldy", ".spe", ".ipl", ".h5", ".hdf5", ".c01"),
)
"""Suffixes of formats that Fiji reads and we do not."""


def open_image(
    path: str | os.PathLike[str],
    *,
    channel: str | int | None = None,
    page: str | int | None = None,
    series: str | int | None = None,
    where_there: bool = False,
    labels: bool = False,
) -> ImageFile:
    """Open an image file so that only the windows that are sliced of it are read.

    TIFF in all its dialects, OME-Zarr (a folder), whole slides and files of microscope makers (.czi, and with the extra
    `vendor` .nd2, .lif and .ims) are read part by part; PNG and JPEG are decoded here and kept in memory until the file
    is closed. Three channels or samples are red, green and blue, whatever their
    dtype, unless `channel` chooses one.

    Args:
        channel: of an image with several: a number from 1, or a name that the file states, in any case; of a colour
            image 1 to 3 or red, green, blue.
        page: of a stack: a number from 1, or where several axes number its pages one for each, as in `Z3,T1`.
        series: of a file with several images: a number from 1, or a name that the file states. Previews and the like
            are read only if they are chosen so.
        where_there: ignore a channel, page or series that this file does not have.
        labels: the pixels are numbers of objects: they are read as they are stored, whatever colours stand for them.

    Raises:
        FsisError: no such file, channel, page or series; a stack of which no plane is chosen, or several images of
            which none is; a format that is not read; and whatever is wrong with the file that can be told without
            decoding its pixels. Slicing raises it for the rest.
    """
    return _open(os.fspath(path), Wanted(_text(channel), _text(page), _text(series), where_there, labels))


def contents(path: str | os.PathLike[str], series: str | None = None) -> Contents:
    """What a file has, before a plane of it is chosen; of the axes what those of one image are.

    Args:
        series: which image of a file with several, as for `open_image`.

    Raises:
        FsisError: it cannot be read, as far as that can be told without decoding its pixels.
    """
    told = Contents()
    try:
        _open(os.fspath(path), Wanted(series=series, told=told)).close()
    except FsisError:
        if not told.images:
            raise
    return told


def _open(name: str, wanted: Wanted) -> ImageFile:
    if os.path.isdir(name):
        if is_zarr(name):
            return open_ome_zarr(name, wanted)
        raise FsisError(f"{name}: a folder, and not an OME-Zarr image: give an image file")
    head, suffix = read_head(name), pathlib.PurePath(name).suffix.lower()
    if suffix in SLIDE_SUFFIXES and is_readable_slide(name):
        return open_slide(name, wanted)
    if head.startswith(TIFF_HEADS):
        return open_tiff(name, name, wanted)
    if suffix in SLIDE_SUFFIXES:  # before its content is looked at: some are a JPEG beside the slide's data
        raise unreadable_slide(name)
    if suffix in (CZI_SUFFIX, *VENDOR_SUFFIXES) and not head.startswith(WHOLE_HEADS):
        return open_czi(name, wanted) if suffix == CZI_SUFFIX else open_vendor(name, wanted)
    if suffix in _FOREIGN_SUFFIXES and not head.startswith(WHOLE_HEADS):
        remedy = "export it as OME-TIFF (Fiji: Plugins > Bio-Formats > Bio-Formats Exporter)"
        raise FsisError(f"{name}: {suffix} files are not read: {remedy}")
    return _open_whole(name, wanted)


def _text(value: str | int | None) -> str | None:
    return None if value is None else str(value)


def _open_whole(name: str, wanted: Wanted) -> ImageFile:
    """A PNG or JPEG, which is decoded at once."""
    pixels = read_labels(name) if wanted.labels else read_image(name)
    axes = "YX" if pixels.ndim == 2 else "YXS"
    choose_series(name, [Listed("", axes, pixels.shape)], wanted)
    choice = choose_plane(name, axes, pixels.shape, wanted)

    def read(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        return pixels[top:bottom, left:right].copy()

    plane = Plane(name, pixels.shape, pixels.dtype, read)
    return ImageFile(name, [plane if choice.sample is None else plane.sample(choice.sample)], None)
