"""What a model has to beat: Otsu's threshold and the watershed of the distance transform, with default settings.

No references, no training, no parameter tuned: as an analyst would start in scikit-image. All scores are 1.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.evaluation.predictions import Prediction, pairs_to_test, read_target
from fsis_jax.inference.instances import Instances
from fsis_jax.io.decoding import to_rgb8
from fsis_jax.preprocess.records import Source

LEAST_AREA = 9
"""Pixels; what is smaller is noise."""


def predict_otsu_watershed(targets: Source, categories: Sequence[int], *, max_images: int = 0) -> list[Prediction]:
    """As `predictions.predict`, without references."""
    return [
        Prediction(
            target=target,
            image_id=targets.annotations[target].image_id,
            category=category,
            instances=Instances.from_labels(
                otsu_watershed(read_target(targets, target)), category=targets.categories[category]
            ),
            references=np.zeros((0, 1, 1, 3), np.uint8),
        )
        for target, category in pairs_to_test(targets, categories, max_images)
    ]


def otsu_watershed(image: np.ndarray) -> np.ndarray:
    """(H, W) int32 labels of an image of any dtype and channels, 0 = background.

    Foreground is the side of Otsu's threshold that covers less of the image, so that dark cells on light ground count
    too. Touching cells are parted by the watershed of the smoothed distance transform from its local maxima.

    Raises:
        FsisError: scikit-image is not installed.
    """
    try:
        from skimage.feature import peak_local_max
        from skimage.filters import gaussian, threshold_otsu
        from skimage.measure import label
        from skimage.morphology import remove_small_objects
        from skimage.segmentation import watershed
    except ImportError as error:
        raise FsisError("the Otsu baseline needs scikit-image: pip install scikit-image") from error
    grey = cv2.cvtColor(to_rgb8(image, stretch=True), cv2.COLOR_RGB2GRAY)
    smooth = gaussian(grey, 1, preserve_range=True)
    if smooth.min() == smooth.max():
        return np.zeros(grey.shape, np.int32)
    bright = smooth > threshold_otsu(smooth)
    foreground = bright if bright.mean() <= 0.5 else ~bright
    foreground = remove_small_objects(foreground, max_size=LEAST_AREA - 1)
    distance = gaussian(cv2.distanceTransform(foreground.astype(np.uint8), cv2.DIST_L2, 5), 2, preserve_range=True)
    regions = label(foreground)
    peaks = peak_local_max(distance, min_distance=5, labels=regions, exclude_border=False)
    seeds = np.zeros(grey.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-distance, seeds, mask=foreground), np.int32)
