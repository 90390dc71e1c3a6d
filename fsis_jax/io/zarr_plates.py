"""A plate of OME-Zarr around the results of its fields: each is in its well, image and labels, for viewers of plates.

    PLATE.zarr/A/1/0 -> ../../../PLATE-A-1-0.zarr

Wells and fields without results are left out. Several processes may do this at once: each file is replaced as a whole,
and who is last knows of all that is finished. https://ngff.openmicroscopy.org
"""

import contextlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import atomic_write, write_failure
from fsis_jax.io.damage import damage_in
from fsis_jax.io.names import RESULTS
from fsis_jax.io.ome_zarr import images_in, is_zarr, ome_metadata
from fsis_jax.io.our_zarr import MARK, is_ours
from fsis_jax.io.outputs import image_name
from fsis_jax.io.zarr_image import Version

_logger = logging.getLogger(__name__)


def write_plates(output: pathlib.Path, results: Mapping[str, str], kind: str, suffix: str) -> None:
    """Plates of the fields that have results.

    Args:
        output: the folder that the results are in.
        results: path of each image -> the folder that `write_zarr` made; images that are no fields are passed over.
        kind: of the results, in `ZARR`.
        suffix: of their names, after that of the image.

    Raises:
        OutputError: one cannot be written.
    """
    plates: dict[pathlib.Path, dict[pathlib.Path, str]] = {}
    for path, folder in results.items():
        field = pathlib.Path(os.path.abspath(path))
        if len(field.parents) > 2 and "well" in _told(field.parent) and "plate" in _told(field.parents[2]):
            plates.setdefault(field.parents[2], {})[field] = folder
    for plate, fields in plates.items():
        target = output / RESULTS[kind].format(image_name(str(plate)) + suffix)
        if not all(map(images_in, fields.values())):
            other = "zarr-0.4" if kind == "zarr" else "zarr"
            _logger.warning(
                f"{plate}: of another version than --save {kind}: --save {other} shows labels on the images"
            )
        elif target.is_symlink() or (target.exists() and not is_ours(target)):
            _logger.warning(f"{target}: not made by fsis, so it stays, and results are no plate")
        else:
            try:
                _write_plate(target, plate, fields, "0.5" if kind == "zarr" else "0.4")
            except OSError as error:
                raise write_failure(target, error) from error


def _write_plate(
    target: pathlib.Path, plate: pathlib.Path, fields: Mapping[pathlib.Path, str], version: Version
) -> None:
    wells = {field.parent.relative_to(plate).as_posix() for field in fields}
    told = _told(plate)["plate"]
    _write_group(target, {"plate": {**told, "wells": [row for row in told["wells"] if row["path"] in wells]}}, version)
    for well in wells:
        told = _told(plate / well)["well"]
        listed = [row for row in told["images"] if plate / well / row["path"] in fields]
        _write_group((target / well).parent, {}, version)
        _write_group(target / well, {"well": {**told, "images": listed}}, version)
    for field, folder in fields.items():
        link = target / field.relative_to(plate)
        with contextlib.suppress(FileExistsError):  # of an earlier run, or of another process
            os.symlink(os.path.relpath(folder, link.parent), link, target_is_directory=True)


def _told(folder: pathlib.Path) -> Mapping[str, Any]:
    """What OME says of a folder; nothing where it is none of its."""
    if not is_zarr(folder):
        return {}
    try:
        with damage_in(str(folder), "damaged OME-Zarr"):
            return ome_metadata(str(folder))
    except FsisError:
        return {}


def _write_group(folder: pathlib.Path, told: Mapping[str, Any], version: Version) -> None:
    """A group of Zarr with what OME says of it, and our mark."""
    if version == "0.5":
        ome = {"ome": {"version": version, **told}} if told else {}
        files = {"zarr.json": {"zarr_format": 3, "node_type": "group", "attributes": {MARK: "plate", **ome}}}
    else:
        files = {".zgroup": {"zarr_format": 2}, ".zattrs": {MARK: "plate", **told}}
    for name, content in files.items():
        with atomic_write(folder / name) as file:
            file.write(json.dumps(content, indent=1).encode())
