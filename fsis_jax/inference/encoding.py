"""From crops of example cells to the features that the detector compares with."""

from collections.abc import Sequence

import jax
import numpy as np

from fsis_jax.inference.causes import check_crop
from fsis_jax.inference.programs import Network
from fsis_jax.inference.references import References
from fsis_jax.inference.traits import measure
from fsis_jax.io.intensity import Stretch
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import reference_image, to_8bit


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
    features: dict[int, jax.Array] = jax.tree.map(lambda *levels: sum(levels) / len(levels), *each)
    known = np.asarray([crop.shape[:2] for crop in crops] if sides is None else sides, np.float32)
    rows = np.zeros(len(crops), np.int32)
    traits = _traits(crops, known, stretches, transform)
    return References(features, known, images, pixel_size, model, owners=rows, traits=traits, trait_kinds=rows)


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
