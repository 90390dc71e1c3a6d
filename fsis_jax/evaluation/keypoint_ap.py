"""What COCO's average precision of keypoints needs beside `coco_ap.coco_evaluate` with iou_type "keypoints".

The similarity of keypoints (OKS) takes the place of the intersection over union: the mean over the labelled keypoints
of exp(-d^2 / (2 area (2 sigma)^2)), where d is their distance in pixels, area that of the instance, and sigma how far
apart annotators are on that keypoint, of the instance's size. pycocotools takes the area from the file; ours is that
of the mask, which differs by about a hundredth for polygons.
"""

from collections.abc import Sequence

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.ops import COCO_SIGMAS, oks_sigmas
from fsis_jax.preprocess.records import Annotations

MAX_DETS = (20,)
"""Detections per image that COCO counts."""
AREA_SPLITS = (32**2, 96**2)
"""COCO's bounds of medium instances, pixels; it has no smaller ones with keypoints."""


def sigmas(ground_truth: Sequence[Annotations]) -> np.ndarray:
    """(P,) float64: COCO's where P is 17, else `ops.oks.OTHER_SIGMA` for all.

    Raises:
        FsisError: the images have no keypoints.
    """
    count = max((record.keypoints.shape[1] for record in ground_truth), default=len(COCO_SIGMAS))
    if not count:
        raise FsisError("the annotations have no keypoints to compare with: give those of a COCO keypoint file")
    return oks_sigmas(count).astype(np.float64)


def extent(keypoints: Sequence[float]) -> list[float]:
    """(x, y, width, height) of all keypoints of a detection, x, y, score, x, y, score ..., as pycocotools has it.

    COCO compares its area with the bounds of small, medium and large.
    """
    x, y = keypoints[0::3], keypoints[1::3]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]
