"""From crops of example cells to the features that the detector compares with."""

from collections.abc import Sequence

import jax
import numpy as np

from fsis_jax.inference.causes import check_crop
from fsis_jax.inference.programs import Network
from fsis_jax.io.intensity import Stretch
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import reference_image


def encode_crops(
    network: Network,
    transform: TransformConfig,
    crops: Sequence[np.ndarray],
    names: Sequence[str],
    stretches: Sequence[Stretch | None] = (),
    *,
    checked: bool = True,
) -> tuple[dict[int, jax.Array], np.ndarray]:
    """The features of k crops, and the images that the network saw of them.

    Args:
        network: that encodes them, one by one, so that any number of them runs the same program.
        transform: how they are prepared.
        crops: each (h, w) or (h, w, C), any dtype.
        names: k, for messages.
        stretches: k, of the images that they were cut from, None where not known; (): of none.
        checked: refuse crops in which there is nothing to see.

    Returns:
        {level: (1, h, w, C)}, the means over the crops; and (k, S, S, 3) uint8.

    Raises:
        FsisError: a crop of less than 2x2 pixels, or one that shows nothing.
    """
    images = np.stack(
        [
            reference_image(crop, transform, stretch=stretch, name=name)
            for crop, name, stretch in zip(crops, names, stretches or [None] * len(crops), strict=True)
        ]
    )
    for crop, name in zip(crops, names, strict=True) if checked else ():
        check_crop(crop, transform, name)
    each = [network.encode(image[None, None]) for image in images]
    features: dict[int, jax.Array] = jax.tree.map(lambda *levels: sum(levels) / len(levels), *each)
    return features, images
