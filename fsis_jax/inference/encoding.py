"""From crops of example cells to the features that the detector compares with."""

import functools
import logging
from collections.abc import Sequence

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.inference.causes import check_crop
from fsis_jax.inference.programs import Network
from fsis_jax.inference.references import Features, References
from fsis_jax.inference.traits import measure
from fsis_jax.io.intensity import Image, Stretch
from fsis_jax.io.outlines import Box
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import cut_reference, reference_image, to_8bit

_logger = logging.getLogger(__name__)
_MOST_OF_IMAGE = 0.8
"""Share of the image's sides that a reference may have without a warning."""


def encode_crops(
    network: Network,
    transform: TransformConfig,
    model: str,
    crops: Sequence[np.ndarray],
    names: Sequence[str],
    stretches: Sequence[Stretch | None] = (),
    sides: np.ndarray | None = None,
    *,
    pixel_size: float | None = None,
    checked: bool = True,
) -> References:
    """References of one kind without a name.

    Args:
        network: that encodes the crops, one by one, so that any number of them runs the same program.
        transform: how they are prepared.
        model: `Segmenter.fingerprint`.
        crops: k, each (h, w) or (h, w, C), any dtype.
        names: k, for messages.
        stretches: k, of the images that they were cut from, None where not known; (): of none.
        sides: (k, 2), height and width of the cells in pixels; None: of the crops.
        pixel_size: micrometres per pixel of the sides.
        checked: refuse crops in which there is nothing to see.

    Raises:
        FsisError: a crop of less than 2x2 pixels, or one that shows nothing.
    """
    stretches = stretches or [None] * len(crops)
    by_image = transform.reference_stretch != "crop"
    images = np.stack(
        [
            reference_image(crop, transform, stretch=stretch if by_image else None, name=name)
            for crop, name, stretch in zip(crops, names, stretches, strict=True)
        ]
    )
    for crop, name in zip(crops, names, strict=True) if checked else ():
        check_crop(crop, transform, name)
    each = [network.encode(image[None, None]) for image in images]
    features: Features = {level: _mean([x[level] for x in each]) for level in each[0]}
    known = np.asarray([crop.shape[:2] for crop in crops] if sides is None else sides, np.float32)
    rows = np.zeros(len(crops), np.int32)
    traits = _traits(crops, known, stretches, transform)
    return References(features, known, images, pixel_size, model, owners=rows, traits=traits, trait_kinds=rows)


def cut_boxes(image: Image, boxes: Sequence[Box], names: Sequence[str], where: str) -> list[np.ndarray]:
    """The pixels that each box touches, a warning of each that is nearly as large as its image.

    Args:
        names: of the boxes, and `where` of their image: for messages.

    Raises:
        FsisError: a box that has sides of less than 2 pixels or is not inside the image.
    """
    height, width = image.shape[:2]
    for (x1, y1, x2, y2), name in zip(boxes, names, strict=True):
        if not (x1 < x2 and y1 < y2):
            raise FsisError(f"{name}: a box without an area: give x1,y1,x2,y2 with x1 < x2 and y1 < y2")
        if min(x2 - x1, y2 - y1) < 2:
            raise FsisError(
                f"{name}: a box of {x2 - x1:g}x{y2 - y1:g} pixels shows no cell: give one around a cell, in pixels "
                f"of {where}"
            )
        if not (x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height):
            place = f"{x1:g},{y1:g},{x2:g},{y2:g}"
            raise FsisError(
                f"{name}: the box {place} is not inside the image of {width}x{height} pixels: give pixels of {where}"
            )
        if x2 - x1 > _MOST_OF_IMAGE * width and y2 - y1 > _MOST_OF_IMAGE * height:
            _logger.warning(
                f"{name}: the box is nearly as large as its image of {width}x{height} pixels: cells of that size "
                "will be looked for; give a box around one cell"
            )
    return [cut_reference(image, box) for box in boxes]


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """In the arrays' own type."""
    return functools.reduce(np.add, arrays) / np.asarray(len(arrays), arrays[0].dtype)


def _traits(
    crops: Sequence[np.ndarray], sides: np.ndarray, stretches: Sequence[Stretch | None], transform: TransformConfig
) -> np.ndarray:
    """(k, T) `traits.measure` of crops of cells with `sides` (k, 2); brightness is NaN where no stretch is known."""
    found = []
    for crop, stretch in zip(crops, stretches, strict=True):
        traits = measure(to_8bit(crop, transform, stretch), np.array([[0, 0, crop.shape[1], crop.shape[0]]]))[0]
        if stretch is None:
            traits[2:] = np.nan
        found.append(traits)
    traits = np.stack(found)
    traits[:, 0] = np.log(np.maximum(np.prod(sides, axis=1), 1.0)) / 2
    return traits
