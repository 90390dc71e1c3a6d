"""Image files as biologists have them: opening one of any format, and finding those that a command is given."""

import glob
import logging
import os
import pathlib
import re
from collections.abc import Iterable

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.image_file import ImageFile, Plane
from fsis_jax.io.images import WHOLE_HEADS, read_head, read_image
from fsis_jax.io.ome_zarr import is_zarr, open_ome_zarr
from fsis_jax.io.outputs import FILES
from fsis_jax.io.planes import Wanted, choose_plane
from fsis_jax.io.slides import SLIDE_SUFFIXES, is_readable_slide, open_slide, unreadable_slide
from fsis_jax.io.tiff import TIFF_HEADS, open_tiff
from fsis_jax.io.unread import is_hidden, is_in_zarr, unread_kinds

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".btf", ".tf8", ".lsm", ".qptiff", ".zarr", *SLIDE_SUFFIXES)
"""Of files that are images when a folder is given; more are read when they are named."""
_FOREIGN_SUFFIXES = (
    *(".czi", ".lif", ".lof", ".xlef", ".nd2", ".nd", ".oib", ".oif", ".oir", ".vsi", ".ets", ".zvi", ".ims", ".dv"),
    *(".r3d", ".dcm", ".dicom", ".mrc", ".ics", ".ids", ".sld", ".sldy", ".spe", ".ipl", ".h5", ".hdf5", ".c01"),
)
"""Of formats that Fiji reads and we do not."""
_OURS = tuple(FILES[kind].format("") for kind in ("labels", "overlay"))

_logger = logging.getLogger(__name__)


def open_image(
    path: str | os.PathLike[str], *, channel: str | None = None, page: str | None = None, where_there: bool = False
) -> ImageFile:
    """Open an image file so that only the windows that are sliced of it are read.

    TIFF in all its dialects, OME-Zarr (a folder) and whole slides are read part by part; PNG and JPEG are decoded here
    and kept in memory until the file is closed. Three channels or samples are red, green and blue, whatever their
    dtype, unless `channel` chooses one.

    Args:
        channel: of an image with several: a number from 1, or a name that the file states, in any case; of a colour
            image 1 to 3 or red, green, blue.
        page: of a stack: a number from 1, or where several axes number its pages one for each, as in `Z3,T1`.
        where_there: ignore a channel or page that this image does not have.

    Raises:
        FsisError: no such file, channel or page; a stack of which no plane is chosen; a format that is not read; and
            whatever is wrong with the file that can be told without decoding its pixels. Slicing raises it for the
            rest.
    """
    name, wanted = os.fspath(path), Wanted(channel, page, where_there)
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
    if suffix in _FOREIGN_SUFFIXES and not head.startswith(WHOLE_HEADS):
        remedy = "export it as OME-TIFF (Fiji: Plugins > Bio-Formats > Bio-Formats Exporter)"
        raise FsisError(f"{name}: {suffix} files are not read: {remedy}")
    return _open_whole(name, wanted)


def _open_whole(name: str, wanted: Wanted) -> ImageFile:
    """A PNG or JPEG, which is decoded at once."""
    pixels = read_image(name)
    choice = choose_plane(name, "YX" if pixels.ndim == 2 else "YXS", pixels.shape, wanted)

    def read(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        return pixels[top:bottom, left:right].copy()

    plane = Plane(name, pixels.shape, pixels.dtype, read)
    return ImageFile(name, [plane if choice.sample is None else plane.sample(choice.sample)], None)


def image_files(paths: Iterable[str]) -> list[str]:
    """The image files that arguments stand for, each once, in the order of the arguments.

    An argument is a file (or folder of OME-Zarr); a folder, for the images (`IMAGE_SUFFIXES`) directly in it; or a
    pattern with `*`, `?` or `[...]`, where `**` stands for any folders. Those of a folder or pattern come in natural
    order ("a2" before "a10"), without hidden files, label images and overlays that we wrote. A line of the log counts
    what else of a folder or pattern is not read.

    Raises:
        FsisError: no such file, a folder without images, a pattern that matches none.
    """
    files: dict[str, str] = {}
    for path in paths:
        for file in _expand(path):
            files.setdefault(os.path.abspath(file), file)
    return list(files.values())


def _expand(path: str) -> list[str]:
    path = os.path.expanduser(path)  # a shell leaves it in quotes
    if os.path.isdir(path) and not _is_zarr_folder(path):
        try:
            found = [os.path.join(path, name) for name in os.listdir(path)]
        except OSError as error:
            raise FsisError(f"{path}: cannot be read ({error.strerror}): check its permissions") from error
        may_be_image = [file for file in found if file.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(file)]
        nothing, remedy = "a folder without images", f"give one that has some ({', '.join(IMAGE_SUFFIXES)})"
    elif os.path.isfile(path) or os.path.isdir(path):
        return [path]
    elif os.path.exists(path):
        raise FsisError(f"{path}: neither a file nor a folder: give an image file")
    elif glob.has_magic(path):
        may_be_image = found = glob.glob(path, recursive=True)
        nothing, remedy = "matches no image", "check the pattern"
    else:
        raise FsisError(f"{path}: no such file: check the path")
    images = [file for file in may_be_image if _may_be_image(file)]
    kinds = unread_kinds(set(found).difference(images), IMAGE_SUFFIXES, searched="**" in path)
    told = ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items()))
    if not images:
        raise FsisError(f"{path}: {nothing}{f', only {told}' * bool(told)}: {remedy}")
    if told:
        count = kinds.total()
        _logger.warning(f"{path}: {count} {'entries are' if count > 1 else 'entry is'} not read: {told}")
    return sorted(images, key=_natural)


def _is_zarr_folder(path: str) -> bool:
    """Whether a folder is taken for an image: by its name too, so that opening it tells what is wrong with it."""
    return path.rstrip("/\\").lower().endswith(".zarr") or is_zarr(path)


def _may_be_image(path: str) -> bool:
    """Whether a file that nobody named should be read: no part of an OME-Zarr image, and none of our results."""
    return not is_in_zarr(path) and not path.endswith(_OURS) and (os.path.isfile(path) or _is_zarr_folder(path))


def _natural(path: str) -> list[tuple[int, int, str]]:
    """Sorts numbers in a name by their value."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in re.split(r"([0-9]+)", path)]
