"""Cells as a person draws or corrects them: GeoJSON of QuPath, ROIs of ImageJ or a label image, as instances.

Files that fsis wrote itself give the masks that they were written from, pixel by pixel.
"""

import collections
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.inference.example_cells import Opener, label_boxes
from fsis_jax.inference.instances import Instances
from fsis_jax.io.geojson import read_geojson_figures
from fsis_jax.io.outlines import Figure, fill
from fsis_jax.io.rois import read_roi_figures
from fsis_jax.preprocess.cropped_mask import CroppedMask, Size

_ROIS = (".zip", ".roi")
_OUTLINES = (".geojson", ".json", *_ROIS)


def read_cells(file: str | os.PathLike[str], size: Size, opener: Opener) -> Instances:
    """All cells of a file, each with a score of 1; they may overlap.

    Classes of GeoJSON and groups of ROIs are their `names`; cells without one have the only one that others have.

    Args:
        file: .geojson or .json, .zip or .roi, or else a label image.
        size: of the image that it belongs to; outlines are cut off at its border.
        opener: opens a label image.

    Raises:
        FsisError: the file cannot be read or is of another image, a cell is none, or some cells have a class and others
            have none.
    """
    name = os.fspath(file)
    suffix = pathlib.Path(name).suffix.lower()
    if suffix not in _OUTLINES:
        return _of_masks(_label_masks(name, size, opener), [], size)
    drawn = (read_roi_figures if suffix in _ROIS else read_geojson_figures)(name)
    masks = [_filled(figures, size, f"{name}: cell {number}") for number, (figures, _) in enumerate(drawn, start=1)]
    return _of_masks(masks, _kinds([kind for _, kind in drawn], name), size)


def _label_masks(name: str, size: Size, opener: Opener) -> list[CroppedMask]:
    with opener(name, labels=True) as labels:
        if labels.shape != size:
            raise FsisError(f"{name}: a label image of shape {labels.shape} for an image with {size}: give its own")
        return [
            CroppedMask(y1, x1, np.asarray(labels[y1:y2, x1:x2]) == label)
            for label, (x1, y1, x2, y2) in label_boxes(labels, name).items()
        ]


def _filled(figures: Sequence[Figure], size: Size, where: str) -> CroppedMask:
    mask, y, x = fill(figures, size)
    if not mask.any():
        height, width = size
        raise FsisError(f"{where}: no pixel of the image of {width}x{height} lies in it: draw it again, or delete it")
    crop = CroppedMask(y, x, mask)
    x1, y1, x2, y2 = crop.bounds
    return CroppedMask(y1, x1, mask[y1 - y : y2 - y, x1 - x : x2 - x])


def _kinds(kinds: Sequence[str], name: str) -> list[str]:
    """The kind of each cell; [] where none has one."""
    known = sorted({*kinds} - {""})
    if len(known) > 1 and "" in kinds:
        raise FsisError(
            f"{name}: cell {kinds.index('') + 1} has no class, others have ({', '.join(known)}): give each a class"
        )
    return [kind or known[0] for kind in kinds] if known else []


def _of_masks(masks: Sequence[CroppedMask], kinds: Sequence[str], size: Size) -> Instances:
    rows = collections.Counter(kinds)
    names = tuple(sorted(rows))
    return Instances(
        np.array([crop.extent for crop in masks], np.float32).reshape(-1, 4),
        np.ones(len(masks), np.float32),
        tuple(masks),
        size,
        classes=np.array([names.index(kind) for kind in kinds], np.int32) if names else None,
        names=names,
    )
