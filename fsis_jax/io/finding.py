"""Finding the image files that the arguments of a command stand for: files, folders, patterns, plates of OME-Zarr."""

import glob
import logging
import os
import pathlib
import re
from collections.abc import Iterable

from fsis_jax.errors import FsisError
from fsis_jax.io.czi import CZI_SUFFIX
from fsis_jax.io.names import FILES
from fsis_jax.io.ome_zarr import images_in, is_zarr
from fsis_jax.io.our_zarr import is_ours
from fsis_jax.io.slides import SLIDE_SUFFIXES
from fsis_jax.io.unread import is_hidden, is_in_zarr, unread_kinds
from fsis_jax.io.vendor import VENDOR_SUFFIXES

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".btf", ".tf8", ".lsm", ".qptiff", ".zarr"),
    *(*SLIDE_SUFFIXES, CZI_SUFFIX, *VENDOR_SUFFIXES),
)
"""Suffixes of images that are taken from a folder; more are read when they are named."""
_OURS = tuple(FILES[kind].format("") for kind in ("labels", "overlay"))

_logger = logging.getLogger(__name__)


def image_files(paths: Iterable[str], *, tell: bool = True) -> list[str]:
    """The image files that arguments stand for, each once, in the order of the arguments.

    An argument is a file (or folder of OME-Zarr); a folder, for the images (`IMAGE_SUFFIXES`) directly in it; or a
    pattern with `*`, `?` or `[...]`, where `**` stands for any folders. Those of a folder or pattern come in natural
    order ("a2" before "a10"), without hidden files, label images and overlays that we wrote. A line of the log counts
    what else of a folder or pattern is not read. A plate or a well of OME-Zarr stands for all its fields.

    Args:
        tell: have that line in the log.

    Raises:
        FsisError: no such file, a folder without images, a pattern that matches none.
    """
    files: dict[str, str] = {}
    for path in paths:
        for found in _expand(path, tell):
            for file in (images_in(found) if _is_zarr_folder(found) else []) or [found]:
                files.setdefault(os.path.abspath(file), file)
    return list(files.values())


def _expand(path: str, tell: bool) -> list[str]:
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
    folders = {os.path.abspath(image) for image in images}
    images = [image for image in images if folders.isdisjoint(map(str, pathlib.Path(os.path.abspath(image)).parents))]
    kinds = unread_kinds(set(found).difference(images), IMAGE_SUFFIXES, searched="**" in path)
    told = ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items()))
    if not images:
        raise FsisError(f"{path}: {nothing}{f', only {told}' * bool(told)}: {remedy}")
    if told and tell:
        count = kinds.total()
        _logger.warning(f"{path}: {count} {'entries are' if count > 1 else 'entry is'} not read: {told}")
    return sorted(images, key=_natural)


def _is_zarr_folder(path: str) -> bool:
    """Whether a folder is taken for an image: by its name too, so that opening it tells what is wrong with it."""
    return path.rstrip("/\\").lower().endswith(".zarr") or is_zarr(path)


def _may_be_image(path: str) -> bool:
    """Whether a file that nobody named should be read: no part of an OME-Zarr image, and none of our results."""
    if path.endswith(_OURS) or is_ours(path):
        return False
    if is_in_zarr(path) or (is_zarr(path) and not path.lower().endswith(".zarr")):
        return os.path.isdir(path) and bool(images_in(path))
    return os.path.isfile(path) or _is_zarr_folder(path)


def _natural(path: str) -> list[tuple[int, int, str]]:
    """Sorts numbers in a name by their value."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in re.split(r"([0-9]+)", path)]
