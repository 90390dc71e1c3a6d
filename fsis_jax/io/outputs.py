"""Which files are written for an image: the kinds of output, their names, and what must not be lost to them."""

import os
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.decoding import overview
from fsis_jax.io.geojson import write_geojson
from fsis_jax.io.given import ImageLike, as_image, known_pixel_size
from fsis_jax.io.names import DEFAULT, RESULTS, ZARR
from fsis_jax.io.ome_zarr import is_zarr
from fsis_jax.io.rois import write_rois
from fsis_jax.io.table import write_table
from fsis_jax.io.writers import Result, write_coco, write_labels, write_overlay
from fsis_jax.io.zarr_image import Version
from fsis_jax.io.zarr_labels import write_zarr

_LONGEST_PART = 64
"""Characters of a channel's name that are kept in a file's."""


def image_name(path: str) -> str:
    """The name of an image file without its suffixes, which names its results: "a" of "x/a.ome.tif".

    Of an image inside a folder of Zarr all that leads to it: "plate-A-1-0" of "x/plate.zarr/A/1/0".
    """
    name, *inside = file_name(path).split("/")
    stem = pathlib.PurePath(name).stem
    return "-".join([stem[:-4] if stem.lower().endswith(".ome") and len(stem) > 4 else stem, *inside])


def file_name(path: str) -> str:
    """The name of an image file; of an image inside a folder of Zarr the path from that folder on, with slashes."""
    place = pathlib.Path(os.path.abspath(path))  # of "." too
    root = place
    for folder in place.parents:
        if folder.name and (folder.name.lower().endswith(".zarr") or is_zarr(folder)):
            root = folder
    return place.relative_to(root.parent).as_posix()


def plane_parts(*, series: str | None = None, channel: str | None = None, page: str | None = None) -> list[str]:
    """What tells a chosen plane from others of its file: ["DAPI", "Z3"]; numbers get a letter: "S1", "C2", "P5"."""
    pages = [] if page is None else page.upper().split(",")
    chosen = [("S", series), ("C", channel), *(("P", part) for part in pages)]
    parts = [(letter, part.strip()) for letter, part in chosen if part is not None]
    return [letter * part.isdecimal() + part for letter, part in parts]


def plane_suffix(parts: Sequence[str]) -> str:
    """How names of files end that are of a plane, "-DAPI-Z3" of `plane_parts`; "" where nothing was chosen.

    What may not be in a file's name becomes a low line, so that two channels of odd names may get the same.
    """
    return "".join("-" + re.sub(r"[^\w.+-]+", "_", part)[:_LONGEST_PART] for part in parts)


def check_names(paths: Sequence[str]) -> None:
    """Raise FsisError where two images have one name."""
    seen: dict[str, str] = {}
    for path in paths:
        name = image_name(path).casefold()
        if name in seen:
            raise FsisError(
                f"{path}: has the name of {seen[name]}, and so would its results: rename one, "
                "or segment them into two folders"
            )
        seen[name] = path


def check_results(
    read: Sequence[str], names: Iterable[str], output: str | os.PathLike[str], kinds: Sequence[str]
) -> None:
    """Raise FsisError where a result of these names would take the place of a file that is read."""
    folder = pathlib.Path(output).resolve()
    results = {folder / RESULTS[kind].format(name) for name in names for kind in kinds}
    for path in read:
        if pathlib.Path(path).resolve() in results:
            raise FsisError(f"{path}: would be replaced by a result: choose another folder for the output")


def write_outputs(
    folder: str | os.PathLike[str],
    name: str,
    image: ImageLike,
    instances: Result,
    kinds: Sequence[str] = DEFAULT,
    *,
    file_name: str = "",
    references: Sequence[np.ndarray] = (),
    pixel_size: float | None = None,
    place: str | os.PathLike[str] | None = None,
) -> dict[str, str]:
    """Write some of `RESULTS` for an image.

    Args:
        folder: made if missing.
        name: of the image, for the names of the files.
        image: the one that was segmented; read again for the table and the overlay, a part at a time.
        instances: of which those `without_overlaps` are written.
        file_name: of the image, as COCO's file names it.
        references: crops shown beside the overlay.
        pixel_size: micrometres per pixel of the image; None: as it says itself, if it is of `open_image`.
        place: the folder that the files will be moved to; None: they stay.

    Returns:
        Kind -> path of the file, or of the folder of Zarr.

    Raises:
        OutputError: a file cannot be written.
        FsisError: the image cannot be read, or is too large for a format.
    """
    image = as_image(image)
    pixel_size = known_pixel_size(image, pixel_size)
    instances = instances.without_overlaps()
    paths = {kind: pathlib.Path(folder, RESULTS[kind].format(name)) for kind in kinds}
    for kind, path in paths.items():
        if kind == "labels":
            write_labels(path, instances, pixel_size=pixel_size)
        elif kind == "coco":
            write_coco(path, {file_name or name: instances})
        elif kind == "geojson":
            write_geojson(path, instances)
        elif kind == "rois":
            write_rois(path, instances)
        elif kind == "table":
            write_table(path, instances, image, pixel_size)
        elif kind in ZARR:
            shown = getattr(image, "path", "")
            there = pathlib.Path(place or folder, path.name)
            version: Version = "0.5" if kind == "zarr" else "0.4"
            beside = shown if shown and is_zarr(shown) else None
            write_zarr(path, instances, pixel_size=pixel_size, image=beside, place=there, version=version)
        else:
            picture, scale = overview(image)
            write_overlay(path, picture, instances, references, scale=scale)
    return {kind: str(path) for kind, path in paths.items()}
