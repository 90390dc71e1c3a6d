"""Which files are written for an image: the kinds of output, and their names."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from fsis_jax.io.exports import Result, write_coco, write_labels, write_overlay
from fsis_jax.io.geojson import write_geojson
from fsis_jax.io.images import overview
from fsis_jax.io.levels import Image
from fsis_jax.io.rois import write_rois
from fsis_jax.io.table import write_table

FILES = {
    "labels": "{}-labels.tif",
    "coco": "{}-coco.json",
    "geojson": "{}.geojson",
    "rois": "{}-rois.zip",
    "table": "{}-table.csv",
    "overlay": "{}-overlay.png",
}
"""Kind -> file of an image NAME."""
DEFAULT = ("labels", "table", "overlay")


def write_outputs(
    folder: str | os.PathLike[str],
    name: str,
    image: Image,
    instances: Result,
    kinds: Sequence[str] = DEFAULT,
    *,
    file_name: str = "",
    references: Sequence[np.ndarray] = (),
    pixel_size: float | None = None,
) -> dict[str, str]:
    """Write some of `FILES` for an image.

    Args:
        folder: made if missing.
        name: of the image, for the names of the files.
        image: read again for the table and the overlay, a part at a time.
        instances: of which those `without_overlaps` are written.
        file_name: of the image, as COCO's file names it.
        references: crops shown beside the overlay.
        pixel_size: micrometres per pixel of the image.

    Returns:
        Kind -> path of the file.

    Raises:
        OutputError: a file cannot be written.
        FsisError: the image cannot be read, or is too large for a format.
    """
    instances = instances.without_overlaps()
    paths = {kind: pathlib.Path(folder, FILES[kind].format(name)) for kind in kinds}
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
        else:
            picture, scale = overview(image)
            write_overlay(path, picture, instances, references, scale=scale)
    return {kind: str(path) for kind, path in paths.items()}
