"""Writing label images of OME-Zarr: NGFF 0.5 on Zarr 3, in shards, or 0.4 on Zarr 2.

    NAME.zarr/labels/KIND/0, 1, 2 ...

An image that is OME-Zarr itself, of the same version, is in that folder, too, by links (`zarr_image.py`).

KIND is that of the cells, or their category; "cell" where they have no name. The numbers are those of all other
results. Each level has every second pixel of the one before in each direction, as numbers have no mean. The image is
painted a band of rows at a time. A band is whole rows of chunks, or shards, of a level, so that nothing is written
twice, and little more than two bands is in memory. https://ngff.openmicroscopy.org
"""

import math
import os
import pathlib
import re
import secrets
import shutil
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fsis_jax.io.atomic import write_failure
from fsis_jax.io.kinds import PALETTE, counts, kind_colour, probabilities
from fsis_jax.io.our_zarr import MARK, move_zarr
from fsis_jax.io.writers import Result, label_bands
from fsis_jax.io.zarr_image import Coordinates, Version, coordinates, labelled_image

if TYPE_CHECKING:
    import zarr

_CHUNK = 256
_SHARD = (512, 2048)
"""Rows and columns of a file of 0.5; one of 0.4 is a chunk."""
_COARSEST = 256
"""Pixels that the longer side of the coarsest level has at most."""
_MOST_TOLD = 100_000
"""Instances of a kind whose colours and properties are told: of more, viewers would read the metadata for minutes."""


def write_zarr(
    path: str | os.PathLike[str],
    result: Result,
    *,
    pixel_size: float | None = None,
    image: str | None = None,
    place: str | os.PathLike[str] | None = None,
    version: Version = "0.5",
) -> None:
    """Label images of the instances, one for each kind or category.

    Args:
        path: of the folder; one that we wrote before is replaced.
        result: masks that do not overlap, but for those of different categories.
        pixel_size: micrometres per pixel.
        image: path of the image, if that is OME-Zarr, too.
        place: where the folder will be moved to; None: it stays.

    Raises:
        OutputError: it cannot be written, or has the name of something that we did not write.
    """
    target = pathlib.Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of zarr, about parts of the format that may change
                _write(temporary, pathlib.Path(place or target), result, pixel_size, image, version)
            move_zarr(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise write_failure(target, error) from error


def _write(
    path: pathlib.Path,
    place: pathlib.Path,
    result: Result,
    pixel_size: float | None,
    image: str | None,
    version: Version,
) -> None:
    import zarr  # which takes as long as all else that writes results

    root = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2, attributes={MARK: "labels"})
    beside, source = None if image is None else labelled_image(image, version), image
    if beside is not None and beside.link_arrays(path, place):
        _tell(root, dict(beside.told), version)
        grid, levels, source = beside.coordinates, beside.levels, "../../"
    else:
        grid, levels = coordinates(pixel_size), _levels(result.size)
        if image is not None:
            source = os.path.relpath(os.path.abspath(image), os.path.abspath(place / "labels" / "KIND"))
    folders = _folders(result)
    labels = root.create_group("labels")
    _tell(labels, {"labels": [*folders]}, version)
    for folder, (name, rows) in folders.items():
        group = labels.create_group(folder)
        arrays = _arrays(group, result.size, levels, version)
        told = {
            "multiscales": [_multiscale(name, levels, grid, version)],
            "image-label": _image_label(result, rows, source, version),
        }
        _tell(group, told, version)
        pyramid = _Pyramid(arrays, _SHARD[0] if version == "0.5" else _CHUNK)
        for band in label_bands(result, pyramid.rows, rows):
            pyramid.add(band)
        pyramid.finish()


def _tell(group: "zarr.Group", told: dict[str, Any], version: Version) -> None:
    group.attrs.update({"ome": {"version": version, **told}} if version == "0.5" else told)


def _folders(result: Result) -> dict[str, tuple[str, list[int]]]:
    """Folder of each kind -> its name, and the rows of its instances."""
    categories = [name or "cell" for name in result.categories]
    names = [*counts(result)] if result.classes is not None else [result.category or "cell"]
    found: dict[str, tuple[str, list[int]]] = {}
    for name in dict.fromkeys([*names, *categories]) or ("cell",):
        folder = re.sub(r"[^\w+-]+", "_", name)[:64]
        while folder.casefold() in map(str.casefold, found):
            folder += "_"
        found[folder] = name, [row for row, other in enumerate(categories) if other == name]
    return found


def _levels(size: tuple[int, int]) -> int:
    """How many there are, down to the coarsest, of an image that is not OME-Zarr."""
    return 1 + max(math.ceil(math.log2(max(size) / _COARSEST)), 0)


def _arrays(group: "zarr.Group", size: tuple[int, int], levels: int, version: Version) -> list["zarr.Array[Any]"]:
    import numcodecs
    from zarr.codecs import ZstdCodec

    options: dict[str, Any] = {"dtype": "uint32", "chunks": (_CHUNK, _CHUNK), "fill_value": 0}
    if version == "0.5":
        options |= {"shards": _SHARD, "compressors": ZstdCodec(level=3), "dimension_names": ("y", "x")}
    else:
        compressor = numcodecs.Blosc(cname="zstd", clevel=3, shuffle=numcodecs.Blosc.SHUFFLE)
        options |= {"compressors": compressor, "chunk_key_encoding": {"name": "v2", "separator": "/"}}
    shapes = [tuple(-(-side // 2**level) for side in size) for level in range(levels)]
    return [group.create_array(str(level), shape=shape, **options) for level, shape in enumerate(shapes)]


class _Pyramid:
    """The levels of a label image while its bands of `rows` rows come, from top to bottom."""

    def __init__(self, arrays: Sequence["zarr.Array[Any]"], rows: int) -> None:
        self._arrays, self.rows = arrays, rows
        self._waiting: list[list[np.ndarray]] = [[] for _ in arrays]
        self._tops = [0] * len(arrays)

    def add(self, band: np.ndarray, level: int = 0) -> None:
        """Take (n, W) of a level; what is less than a band waits for more."""
        self._waiting[level].append(band)
        if sum(map(len, self._waiting[level])) >= self.rows:
            self._write(level)

    def finish(self) -> None:
        """Write what waits."""
        for level, waiting in enumerate(self._waiting):
            if waiting:
                self._write(level)

    def _write(self, level: int) -> None:
        band, top = np.concatenate(self._waiting[level]), self._tops[level]
        self._waiting[level].clear()
        self._arrays[level][top : top + len(band)] = band.astype(np.uint32)
        self._tops[level] += len(band)
        if level + 1 < len(self._arrays):
            self.add(band[::2, ::2].copy(), level + 1)


def _multiscale(name: str, levels: int, grid: Coordinates, version: Version) -> dict[str, Any]:
    return {
        "name": name,
        "axes": [{**axis} for axis in grid.axes],
        "datasets": [
            {"path": str(level), "coordinateTransformations": grid.of_level(level)} for level in range(levels)
        ],
        **({"coordinateTransformations": [*grid.common]} if grid.common else {}),
        **({"version": version} if version == "0.4" else {}),
    }


def _image_label(result: Result, rows: Sequence[int], source: str | None, version: Version) -> dict[str, Any]:
    """Colours and properties of the labels, as far as they are not too many."""
    told: dict[str, Any] = {"version": version} if version == "0.4" else {}
    if source is not None:
        told["source"] = {"image": source}
    if 0 < len(rows) <= _MOST_TOLD:
        classes, scores, shares = result.classes, result.scores.tolist(), probabilities(result)
        told["colors"] = [
            {
                "label-value": row + 1,
                "rgba": [*_colour(row, None if classes is None else int(classes[row])), 255],
            }
            for row in rows
        ]
        told["properties"] = [
            {"label-value": row + 1, "score": round(scores[row], 4), **_rounded(shares[row])} for row in rows
        ]
    return told


def _colour(row: int, kind: int | None) -> Sequence[int]:
    """That of its kind, as in all results; without kinds of neighbouring numbers different ones."""
    return PALETTE[row % len(PALETTE)].tolist() if kind is None else kind_colour(kind)


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    return {name: round(share, 4) for name, share in shares.items()}
