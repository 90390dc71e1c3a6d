"""The image of OME-Zarr that label images are of, as they lie beside it.

In NGFF labels are inside of the folder of their image, have its coordinates and as many levels, and viewers look for
them there. Nothing is written into the folder of a user: ours gets what OME says of the image, and symbolic links to
its arrays, so that it is the image for all who open it. https://ngff.openmicroscopy.org
"""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fsis_jax.io.ome_zarr import is_zarr, ome_metadata

Version = Literal["0.4", "0.5"]
"""Of NGFF."""
Transforms = Sequence[Mapping[str, Any]]
"""Coordinate transformations of NGFF."""

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Where the pixels of a label image (Y, X) are."""

    axes: Sequence[Mapping[str, Any]]
    """Of Y and X."""
    finest: Transforms
    """Of the finest level."""
    common: Transforms = ()
    """Of all levels, after their own."""

    def of_level(self, level: int) -> list[dict[str, Any]]:
        """Transformations of a level, which has every 2**level-th pixel."""
        return [
            {**transform, "scale": [number * 2.0**level for number in transform["scale"]]}
            if transform["type"] == "scale"
            else {**transform}
            for transform in self.finest
        ]


def coordinates(pixel_size: float | None) -> Coordinates:
    """Those of an image that is not OME-Zarr, by its micrometres per pixel."""
    unit = {} if pixel_size is None else {"unit": "micrometer"}
    axes = [{"name": axis, "type": "space", **unit} for axis in "yx"]
    return Coordinates(axes, [{"type": "scale", "scale": [pixel_size or 1.0] * 2}])


@dataclasses.dataclass(frozen=True)
class LabelledImage:
    """An image in a folder of OME-Zarr."""

    folder: str
    told: Mapping[str, Any]
    """What OME says of it."""

    @property
    def _multiscale(self) -> Mapping[str, Any]:
        image: Mapping[str, Any] = self.told["multiscales"][0]
        return image

    @property
    def levels(self) -> int:
        """How many there are."""
        return len(self._multiscale["datasets"])

    @property
    def coordinates(self) -> Coordinates:
        """Those of its Y and X."""
        image = self._multiscale
        names = [axis["name"] for axis in image["axes"]]
        rows = [names.index("y"), names.index("x")]

        def of_plane(transforms: Transforms) -> list[dict[str, Any]]:
            kinds = ("scale", "translation")
            return [
                {"type": kind, kind: [transform[kind][row] for row in rows]}
                for transform in transforms
                for kind in kinds
                if transform["type"] == kind
            ]

        return Coordinates(
            [image["axes"][row] for row in rows],
            of_plane(image["datasets"][0]["coordinateTransformations"]),
            of_plane(image.get("coordinateTransformations", [])),
        )

    def link_arrays(self, folder: pathlib.Path, place: pathlib.Path) -> bool:
        """Make symbolic links to its arrays, if the system can.

        Args:
            folder: that they are made in.
            place: where this will be moved to.
        """
        names = {dataset["path"].split("/")[0] for dataset in self._multiscale["datasets"]}
        here = os.path.relpath(self.folder, os.path.realpath(place))
        try:
            for name in names:
                os.symlink(os.path.join(here, name), folder / name, target_is_directory=True)
        except OSError as error:
            _logger.warning(f"{place}: labels without their image: no symbolic links there ({error.strerror})")
            for name in names:
                (folder / name).unlink(missing_ok=True)
            return False
        return True


def labelled_image(path: str, version: Version) -> LabelledImage | None:
    """The image in a folder of OME-Zarr; None where there is none that labels of this version can lie beside."""
    mark = "zarr.json" if version == "0.5" else ".zgroup"
    if not is_zarr(path) or not os.path.isfile(os.path.join(path, mark)):
        return None
    told = ome_metadata(path)
    images = told.get("multiscales", [])
    stated = told.get("version") if version == "0.5" else images and images[0].get("version", version)
    if len(images) != 1 or stated != version:
        return None
    transforms = images[0]["datasets"][0].get("coordinateTransformations", [])
    first = [dataset["path"].split("/")[0] for dataset in images[0]["datasets"]]
    plain = all(isinstance(axis, Mapping) for axis in images[0].get("axes", ["old"]))
    known = transforms and {transform.get("type") for transform in transforms} <= {"scale", "translation"}
    if not plain or not known or {"", ".", "..", "labels"} & {*first}:
        return None
    return LabelledImage(os.path.realpath(path), told)
