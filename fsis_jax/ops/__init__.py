"""Array functions of object detection, without parameters: what torchvision.ops is to PyTorch.

Each is written for one image, with static shapes, and may be jitted, vmapped and (where it means something)
differentiated. Padded arrays travel with a boolean `valid`. Boxes are (x1, y1, x2, y2), absolute pixels, float32; those
of another type are cast, and an array of a wrong shape raises ValueError (shapes.py).
"""

from fsis_jax.ops.anchors import cell_anchors, grid_anchors
from fsis_jax.ops.assignment import IGNORE, NEGATIVE, POSITIVE, Assignment, assign
from fsis_jax.ops.boxes import (
    MAX_LOG_SCALE,
    BoxFormat,
    area,
    box_convert,
    clip,
    decode,
    encode,
    paired_ciou,
    paired_diou,
    paired_giou,
    paired_iou,
    pairwise_ioa,
    pairwise_iou,
)
from fsis_jax.ops.convolution import conv2d
from fsis_jax.ops.deform import sample_at_offsets
from fsis_jax.ops.focal import sigmoid_focal_loss
from fsis_jax.ops.masks import masks_to_boxes, owner_map, paste_masks, roi_mask_targets
from fsis_jax.ops.nms import batched_nms, nms
from fsis_jax.ops.oks import COCO_SIGMAS, oks_nms, oks_sigmas, pairwise_oks
from fsis_jax.ops.roi_align import assign_levels, multilevel_roi_align, roi_align
from fsis_jax.ops.roi_pool import RoiPoolMethod, multilevel_roi_pool, roi_crop, roi_pool
from fsis_jax.ops.sampling import most_positives, sample_indices, sample_labels
from fsis_jax.ops.soft_nms import box_voting, soft_nms
from fsis_jax.ops.winograd import conv3x3, transform_kernel

__all__ = [
    "COCO_SIGMAS",
    "IGNORE",
    "MAX_LOG_SCALE",
    "NEGATIVE",
    "POSITIVE",
    "Assignment",
    "BoxFormat",
    "RoiPoolMethod",
    "area",
    "assign",
    "assign_levels",
    "batched_nms",
    "box_convert",
    "box_voting",
    "cell_anchors",
    "clip",
    "conv2d",
    "conv3x3",
    "decode",
    "encode",
    "grid_anchors",
    "masks_to_boxes",
    "most_positives",
    "multilevel_roi_align",
    "multilevel_roi_pool",
    "nms",
    "oks_nms",
    "oks_sigmas",
    "owner_map",
    "paired_ciou",
    "paired_diou",
    "paired_giou",
    "paired_iou",
    "pairwise_ioa",
    "pairwise_iou",
    "pairwise_oks",
    "paste_masks",
    "roi_align",
    "roi_crop",
    "roi_mask_targets",
    "roi_pool",
    "sample_at_offsets",
    "sample_indices",
    "sample_labels",
    "sigmoid_focal_loss",
    "soft_nms",
    "transform_kernel",
]
