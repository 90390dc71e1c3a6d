"""OME-Zarr (NGFF 0.4 on Zarr 2, 0.5 on Zarr 3), read chunk by chunk.

A folder whose metadata list the resolutions of one image: https://ngff.openmicroscopy.org
"""

import dataclasses
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.chunks import ChunkCache, Chunks, check_chunk
from fsis_jax.io.damage import CUT_OFF, damage_in
from fsis_jax.io.image_file import ImageFile, Plane
from fsis_jax.io.ome_attributes import check_attributes
from fsis_jax.io.pixel_size import micrometres
from fsis_jax.io.planes import Choice, Listed, Wanted, choose_plane, choose_series

if TYPE_CHECKING:
    import zarr

_MARKS = (".zgroup", ".zarray", "zarr.json")


def is_zarr(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is one of Zarr's."""
    return any(os.path.isfile(os.path.join(path, mark)) for mark in _MARKS)


def open_ome_zarr(path: str, wanted: Wanted) -> ImageFile:
    """Open the image of an OME-Zarr folder.

    Raises:
        FsisError: a folder that holds no image, or several; damaged metadata; no such plane.
    """
    with damage_in(path, "damaged OME-Zarr"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zarr, about parts of the format that may change
        return _open(path, wanted)


def images_in(path: str) -> list[str]:
    """The folders of the images that a folder of Zarr stands for: all fields of a plate or a well, itself if it is one.

    A field that its plate lists is among them even if it is not there, so that opening it tells. A collection is one,
    of which `series` chooses. None for anything else.
    """
    try:
        with damage_in(path, "damaged OME-Zarr"):
            metadata = ome_metadata(path)
            if "plate" in metadata:
                wells = [os.path.join(path, well["path"]) for well in metadata["plate"].get("wells", [])]
                return [field for well in wells for field in images_in(well) or [well]]
            if "well" in metadata:
                return [os.path.join(path, image["path"]) for image in metadata["well"].get("images", [])]
            shows = bool(metadata.get("multiscales")) or "bioformats2raw.layout" in metadata
            return [path] if shows and "image-label" not in metadata else []
    except FsisError:
        return []


def ome_metadata(path: str) -> Mapping[str, Any]:
    """What OME says of a folder.

    Raises:
        FsisError: it is none of a group of Zarr.
        ValueError, OSError: damaged metadata, as `damage_in` tells.
    """
    import zarr  # here, since most images are none of its, and it takes as long as all else that reads them

    group = zarr.open(path, mode="r")
    if not isinstance(group, zarr.Group):
        raise FsisError(f"{path}: an array of Zarr without OME metadata: give the folder of the image around it")
    metadata: Mapping[str, Any] = group.attrs.asdict()
    found: Mapping[str, Any] = metadata.get("ome", metadata)
    if not isinstance(found, Mapping):
        raise ValueError(f"ome {found!r:.100}")
    check_attributes(found)
    return found


def _open(path: str, wanted: Wanted) -> ImageFile:
    metadata = ome_metadata(path)
    _check_kind(path, metadata, wanted)
    if "multiscales" not in metadata:
        folders = _collected(path)
        listed = [_listed(folder, image) for folder in folders for image in ome_metadata(folder)["multiscales"][:1]]
        opened = _open(folders[choose_series(path, listed, wanted)], dataclasses.replace(wanted, series=None))
        opened.path = path
        return opened
    listed = [_listed(path, image) for image in metadata["multiscales"]]
    image = metadata["multiscales"][choose_series(path, listed, wanted)]
    arrays = _arrays(path, image)
    names, units = _axes(image, arrays[0].ndim)
    axes = "".join(_letter(name) for name in names)
    if len(axes) != arrays[0].ndim:
        raise FsisError(f"{path}: axes {axes} of an array of shape {arrays[0].shape}: export the image again")
    channels = metadata.get("omero", {}).get("channels", [])
    labels = [str(channel.get("label") or "") for channel in channels]
    count = arrays[0].shape[axes.index("C")] if "C" in axes else 1
    choice = choose_plane(path, axes, arrays[0].shape, wanted, labels if len(labels) == count else ())
    cache = ChunkCache()
    planes = [_plane(path, array, axes, choice, cache) for array in _levels(arrays, axes)]
    scale = [1.0] * len(axes)
    for transform in [
        *image["datasets"][0].get("coordinateTransformations", []),
        *image.get("coordinateTransformations", []),
    ]:
        if transform.get("type") == "scale":
            scale = [a * b for a, b in zip(scale, transform["scale"], strict=True)]
    y, x = axes.index("Y"), axes.index("X")
    across, down = micrometres(scale[x], scale[x], units[x]), micrometres(scale[y], scale[y], units[y])
    return ImageFile(path, planes, micrometres(across, down, "µm"))


def _check_kind(path: str, metadata: Mapping[str, Any], wanted: Wanted) -> None:
    """Raise FsisError if the folder is not that of one image, or of labels where they are wanted."""
    if "plate" in metadata or "well" in metadata:
        remedy = "give one field of a well, like plate.zarr/A/1/0"
        raise FsisError(f"{path}: a plate of many images: {remedy}")
    if "labels" in metadata or ("image-label" in metadata and not wanted.labels):
        raise FsisError(f"{path}: labels and not an image: give the folder of the image around it")
    if not metadata.get("multiscales") and "bioformats2raw.layout" not in metadata:
        raise FsisError(
            f"{path}: a Zarr folder without an image of OME-Zarr (multiscales): export it as OME-Zarr 0.4 or 0.5"
        )


def _collected(path: str) -> list[str]:
    """The folders of the images of a collection as bioformats2raw makes them: "0", "1" ..., or what its OME says."""
    inside = os.path.join(path, "OME")
    series = ome_metadata(inside).get("series") if is_zarr(inside) else None
    names = series or sorted((name for name in os.listdir(path) if name.isdecimal()), key=int)
    folders = [os.path.join(path, name) for name in names]
    images = [folder for folder in folders if images_in(folder) == [folder]]
    if not images:
        raise FsisError(f"{path}: a collection without images: {CUT_OFF}")
    return images


def _listed(folder: str, image: Mapping[str, Any]) -> Listed:
    """An image for the choice among several."""
    shape = _arrays(folder, image)[0].shape
    return Listed(image.get("name") or "", "".join(map(_letter, _axes(image, len(shape))[0])), shape)


def _arrays(folder: str, image: Mapping[str, Any]) -> list["zarr.Array[Any]"]:
    """The resolutions of an image."""
    import zarr

    group = zarr.open_group(folder, mode="r")
    missing = [dataset["path"] for dataset in image["datasets"] if dataset["path"] not in group]
    if missing:
        raise FsisError(f"{folder}: array '{missing[0]}', which it lists, is missing: copy the whole folder again")
    return [array for dataset in image["datasets"] if isinstance(array := group[dataset["path"]], zarr.Array)]


def _axes(image: Mapping[str, Any], count: int) -> tuple[list[str], list[str | None]]:
    """Names and units of the axes."""
    axes = image.get("axes", list("tczyx")[-count:])  # the first versions of the format name none
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in axes]
    return [axis["name"] for axis in axes], [axis.get("unit") for axis in axes]


def _letter(name: str) -> str:
    """The letter of an axis: its own, or that of an unknown kind of pages."""
    return name.upper() if name.upper() in list("TCZYX") else "Q"


def _levels(arrays: Sequence["zarr.Array[Any]"], axes: str) -> Iterator["zarr.Array[Any]"]:
    """The first array, and those that are the same stack at a coarser resolution in Y and X only."""

    def stack(array: "zarr.Array[Any]") -> tuple[object, ...]:
        sizes = [size for axis, size in zip(axes, array.shape, strict=False) if axis not in "YX"]
        return array.ndim, sizes, array.dtype

    first, *others = arrays
    yield first
    y, x = axes.index("Y"), axes.index("X")
    height, width = above = first.shape[y], first.shape[x]
    for array in others:
        if stack(array) != stack(first):
            continue
        high, wide = array.shape[y], array.shape[x]
        same_field = abs(high * width / height - wide) <= 2 + 0.01 * wide
        if high < above[0] and wide < above[1] and same_field:
            above = high, wide
            yield array


def _plane(path: str, array: "zarr.Array[Any]", axes: str, choice: Choice, cache: ChunkCache) -> Plane:
    """The chosen plane of one resolution."""
    from fsis_jax.io.zarr_chunks import ChunkSizes

    check_chunk(path, array.chunks, array.dtype.itemsize)
    sizes = ChunkSizes(array)
    y, x = axes.index("Y"), axes.index("X")
    high, wide = array.chunks[y], array.chunks[x]
    height, width = array.shape[y], array.shape[x]
    colours = next((i for i, number in enumerate(choice.index) if number is None and axes[i] not in "YX"), None)
    shape = (height, width) if colours is None else (height, width, array.shape[colours])
    dtype = array.dtype.newbyteorder("=")
    # Of the axes that stay, which may be stored in any order: Y, X and the colours.
    stay = [i for i, number in enumerate(choice.index) if number is None]
    order = [stay.index(i) for i in (y, x, colours) if i is not None]

    def decode(row: int, column: int) -> np.ndarray:
        every = zip(choice.index, array.shape, strict=True)
        window: list[int | slice] = [slice(0, side) if number is None else number for number, side in every]
        window[y] = slice(row * high, min((row + 1) * high, height))
        window[x] = slice(column * wide, min((column + 1) * wide, width))
        sizes.check(window)
        return np.asarray(array[tuple(window)]).transpose(order)

    return Plane(path, shape, dtype, Chunks(shape, dtype, (high, wide), decode, cache))
