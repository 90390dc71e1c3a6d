"""From what the detector finds in a tile to instances with masks at the image's resolution."""

import numpy as np
from ml_collections import ConfigDict

from fsis_jax.inference.instances import Instances
from fsis_jax.inference.tile_plan import TilePlan
from fsis_jax.inference.tiling import Tile, near_core
from fsis_jax.models.detection import Detections


def paste_tile(
    plan: TilePlan, tile: Tile, detections: Detections, row: int, config: ConfigDict, *, offset: int, min_score: float
) -> Instances:
    """The instances that a tile answers for, in its pixels.

    Args:
        plan: of the image that the tile is of.
        tile: where it lies.
        detections: of several tiles, as numpy arrays; boxes in pixels of the image, from the corner of the tile.
        row: the tile's, in these.
        config: the detector's.
        offset: 1 where boxes are of the inclusive convention, else 0.
        min_score: what `Instances.min_score` will be.
    """
    names = tuple(config.model.classes)
    boxes, scores, valid = (np.asarray(x[row]) for x in (detections.boxes, detections.scores, detections.valid))
    if len(plan.tiles) > 1:
        valid = valid & near_core(boxes, tile, plan.margin)
    found = Instances.from_padded(
        boxes,
        scores,
        valid,
        None if detections.masks is None else np.asarray(detections.masks[row]),
        plan.window,
        offset=offset,
        min_score=min_score,
        legacy=config.model.detections.legacy_pasting,
        classes=np.asarray(detections.classes[row]) - 1 if names else None,
        names=names,
        keypoints=None if detections.keypoints is None else np.asarray(detections.keypoints[row]),
    )
    share = config.model.detections.mask_nms_threshold
    return found.without_repeats(share) if share else found


def nothing_found(plan: TilePlan, config: ConfigDict) -> Instances:
    """No instances, of the kind that the detector of a config finds."""
    keypoints = config.model.keypoint_head
    return Instances.none(
        plan.window,
        names=tuple(config.model.classes),
        keypoints=0 if keypoints.kind == "none" else keypoints.keypoints,
        boxes_only=config.model.mask_head.kind == "none",
    )
