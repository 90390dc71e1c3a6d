"""Configs of Detectron, in parts that tests put together, and what ours are of some of them."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import yaml

from fsis_jax.coco_names import COCO_CLASSES
from fsis_jax.conversion.detectron.architecture import IMAGE_MEAN
from fsis_jax.conversion.detectron.yaml_file import import_yaml

DETECTOR = """
MODEL: {TYPE: generalized_rcnn, NUM_CLASSES: 81, FASTER_RCNN: True}
NUM_GPUS: 8
SOLVER: {WEIGHT_DECAY: 0.0001, LR_POLICY: steps_with_decay, BASE_LR: 0.02, GAMMA: 0.1, MAX_ITER: 90000}
TRAIN:
  WEIGHTS: https://example.org/R-50.pkl
  DATASETS: ('coco_2014_train', 'coco_2014_valminusminival')
  SCALES: (800,)
  MAX_SIZE: 1333
  BATCH_SIZE_PER_IM: 512
TEST: {DATASETS: "('coco_2014_minival',)", SCALE: 800, MAX_SIZE: 1333, NMS: 0.5, RPN_POST_NMS_TOP_N: 1000}
OUTPUT_DIR: .
"""
FASTER_1X = "SOLVER: {STEPS: [0, 60000, 80000]}"
# Twice as long; and 1x for one image on each GPU.
TWICE = "SOLVER: {MAX_ITER: 180000, STEPS: [0, 120000, 160000]}"
S1X = """
SOLVER: {MAX_ITER: 130000, STEPS: [0, 100000, 120000]}
TRAIN: {SCALES: "(640, 672, 704, 736, 768, 800)"}
"""
ONE_IMAGE = TWICE + "\nTRAIN: {IMS_PER_BATCH: 1}"
HALF_RATE = "SOLVER: {BASE_LR: 0.01}"
PYRAMID = """
MODEL: {CONV_BODY: FPN.add_fpn_ResNet50_conv5_body}
FPN: {FPN_ON: True, MULTILEVEL_ROIS: True, MULTILEVEL_RPN: True}
FAST_RCNN:
  ROI_BOX_HEAD: fast_rcnn_heads.add_roi_2mlp_head
  ROI_XFORM_METHOD: RoIAlign
  ROI_XFORM_RESOLUTION: 7
  ROI_XFORM_SAMPLING_RATIO: 2
TRAIN: {RPN_PRE_NMS_TOP_N: 2000}
TEST: {RPN_PRE_NMS_TOP_N: 1000}
"""
MASKS = """
MODEL: {MASK_ON: True}
MRCNN:
  ROI_MASK_HEAD: mask_rcnn_heads.mask_rcnn_fcn_head_v1up4convs
  RESOLUTION: 28
  ROI_XFORM_METHOD: RoIAlign
  ROI_XFORM_RESOLUTION: 14
  ROI_XFORM_SAMPLING_RATIO: 2
  DILATION: 1
  CONV_INIT: MSRAFill
"""
C4 = """
MODEL: {CONV_BODY: ResNet.add_ResNet50_conv4_body}
RPN: {SIZES: "(32, 64, 128, 256, 512)"}
FAST_RCNN: {ROI_BOX_HEAD: ResNet.add_ResNet_roi_conv5_head, ROI_XFORM_METHOD: RoIAlign}
TEST: {RPN_PRE_NMS_TOP_N: 6000}
"""
C4_MASKS = """
MODEL: {MASK_ON: True}
MRCNN:
  ROI_MASK_HEAD: mask_rcnn_heads.mask_rcnn_fcn_head_v0upshare
  RESOLUTION: 14
  ROI_XFORM_METHOD: RoIAlign
  ROI_XFORM_RESOLUTION: 14
  DILATION: 1
  CONV_INIT: MSRAFill
"""
ONE_LEVEL = """
FPN: {FPN_ON: False, MULTILEVEL_ROIS: False, MULTILEVEL_RPN: False}
RPN: {SIZES: "(32, 64, 128, 256, 512)"}
"""
P2 = ONE_LEVEL + "MODEL: {CONV_BODY: FPN.add_fpn_ResNet50_conv5_P2only_body}"
C5 = ONE_LEVEL + "MODEL: {CONV_BODY: ResNet.add_ResNet50_conv5_body}"
X_32X8D = """
MODEL: {CONV_BODY: FPN.add_fpn_ResNet101_conv5_body}
RESNETS: {STRIDE_1X1: False, TRANS_FUNC: bottleneck_transformation, NUM_GROUPS: 32, WIDTH_PER_GROUP: 8}
"""
X_64X4D = X_32X8D.replace("32, WIDTH_PER_GROUP: 8", "64, WIDTH_PER_GROUP: 4")
AUGMENTED = """
MODEL: {CONV_BODY: FPN.add_fpn_ResNet152_conv5_body}
SOLVER: {MAX_ITER: 260000, STEPS: [0, 200000, 240000]}
TRAIN: {SCALES: "(640, 672, 704, 736, 768, 800)"}
TEST:
  BBOX_VOTE: {ENABLED: True, VOTE_TH: 0.9}
  SOFT_NMS: {ENABLED: True, METHOD: gaussian, SIGMA: 0.4}
  BBOX_AUG:
    ENABLED: True
    SCORE_HEUR: UNION
    COORD_HEUR: UNION
    H_FLIP: True
    SCALES: (400, 500, 600, 700, 900, 1000, 1100, 1200)
    MAX_SIZE: 2000
    SCALE_H_FLIP: True
    SCALE_SIZE_DEP: False
    ASPECT_RATIOS: ()
    ASPECT_RATIO_H_FLIP: False
  MASK_AUG:
    ENABLED: True
    HEUR: SOFT_AVG
    H_FLIP: True
    SCALES: (400, 500, 600, 700, 900, 1000, 1100, 1200)
    MAX_SIZE: 2000
    SCALE_H_FLIP: True
    SCALE_SIZE_DEP: False
    ASPECT_RATIOS: ()
    ASPECT_RATIO_H_FLIP: False
"""
GROUP_NORM = """
FPN: {USE_GN: True}
RESNETS:
  STRIDE_1X1: False
  TRANS_FUNC: bottleneck_gn_transformation
  STEM_FUNC: basic_gn_stem
  SHORTCUT_FUNC: basic_gn_shortcut
FAST_RCNN: {ROI_BOX_HEAD: fast_rcnn_heads.add_roi_Xconv1fc_gn_head}
MRCNN: {ROI_MASK_HEAD: mask_rcnn_heads.mask_rcnn_fcn_head_v1up4convs_gn}
"""
KEYPOINTS = """
MODEL: {NUM_CLASSES: 2, KEYPOINTS_ON: True}
FAST_RCNN: {ROI_BOX_HEAD: head_builder.add_roi_2mlp_head}
KRCNN:
  ROI_KEYPOINTS_HEAD: keypoint_rcnn_heads.add_roi_pose_head_v1convX
  NUM_STACKED_CONVS: 8
  NUM_KEYPOINTS: 17
  USE_DECONV_OUTPUT: True
  CONV_INIT: MSRAFill
  CONV_HEAD_DIM: 512
  UP_SCALE: 2
  HEATMAP_SIZE: 56
  ROI_XFORM_METHOD: RoIAlign
  ROI_XFORM_RESOLUTION: 14
  ROI_XFORM_SAMPLING_RATIO: 2
  KEYPOINT_CONFIDENCE: bbox
TRAIN: {SCALES: "(640, 672, 704, 736, 768, 800)"}
"""
FPN_MASKS = (DETECTOR, FASTER_1X, PYRAMID, MASKS)
C4_1X = (DETECTOR, C4, ONE_IMAGE, HALF_RATE)

PLAIN = {
    "data.root": "data/coco",
    "data.fold": 0,
    "data.validation_fraction": 0.01,
    "data.train_canvases": ((800, 1088), (800, 1344), (1088, 800), (1344, 800), (800, 800)),
    "data.test_canvases": ((800, 1088), (800, 1344), (1088, 800), (1344, 800), (800, 800)),
    "data.transform.shortest_side": 800,
    "data.transform.longest_side": 1333,
    "model.classes": COCO_CLASSES,
    "model.matching.kind": "none",
    "model.relation": "none",
    "model.image_mean": IMAGE_MEAN,
    "model.backbone.padded_pool": True,
    "model.rpn.anchor_ratios": (0.5, 1.0, 2.0),
    "model.box_head.samples": 512,
    "model.detections.nms_method": "hard",
    "model.detections.max_instances": 100,
    "optimizer.decay_steps": (60000, 80000),
    "optimizer.clip_value": math.inf,
    "training.reference_steps": 90000,
    "training.checkpoint_every": 2500,
    "eval.split": "all",
    "eval.repeats": 1,
}
"""Of R-50-FPN 1x, where all else is as in our own R50-FPN recipe."""
LONG = {"training.reference_steps": 180000, "optimizer.decay_steps": (120000, 160000)}
HALVED = {
    "training.batch_size": 8,
    "optimizer.reference_batch_size": 8,
    "optimizer.learning_rate": 0.01,
}
C4_VALUES = {
    "model.architecture": "c4",
    "model.box_head.kind": "res5",
    "model.box_head.pooled": 14,
    "model.box_head.sampling_ratio": 0,
    "model.rpn.train_pre_nms": 12000,
    "model.rpn.test_pre_nms": 6000,
}


def merged(parts: Sequence[str]) -> dict[str, Any]:
    """One mapping of YAML texts; later ones add to earlier ones, or take their place."""

    def merge(into, part):
        for key, value in part.items():
            if isinstance(value, dict):
                merge(into.setdefault(key, {}), value)
            else:
                into[key] = value

    content = {}
    for part in parts:
        merge(content, yaml.safe_load(part))
    return content


def write(folder: pathlib.Path, *parts: Any) -> pathlib.Path:
    """YAML texts -> a file with all of their keys, or one mapping -> a file."""
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(parts[0] if isinstance(parts[0], dict) else merged(parts)))
    return path


def values(folder: pathlib.Path, *parts: Any) -> dict[str, Any]:
    """YAML texts -> what the config changes, key by key."""
    return import_yaml(write(folder, *parts)).values
