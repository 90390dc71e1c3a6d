"""The heads of a Detectron config, and what becomes of their detections, in ours."""

import math
import re
from typing import Any, get_args

from fsis_jax.conversion.detectron.settings import YamlSettings
from fsis_jax.ops.soft_nms import VotingMethod

Values = dict[str, Any]
"""Keys of our config, such as "model.rpn.samples" -> value."""

_BOX_HEADS: dict[str, Values] = {
    "roi_2mlp_head": {"kind": "mlp"},
    "roi_Xconv1fc_head": {"kind": "convs"},
    "roi_Xconv1fc_gn_head": {"kind": "convs", "conv_norm": "group"},
    "ResNet_roi_conv5_head": {"kind": "res5"},
}
_MASK_HEADS: dict[str, Values] = {
    "mask_rcnn_fcn_head_v0up": {"kind": "res5"},
    "mask_rcnn_fcn_head_v0upshare": {"kind": "shared_res5"},
    "mask_rcnn_fcn_head_v1up": {"kind": "convs", "convs": 2},
    "mask_rcnn_fcn_head_v1up4convs": {"kind": "convs", "convs": 4},
    "mask_rcnn_fcn_head_v1up4convs_gn": {"kind": "convs", "convs": 4, "norm": "group"},
}
ROI_METHODS = {"RoIAlign": "align", "RoIPoolF": "pool", "RoIPool": "pool", "RoICrop": "crop"}
_OKS = 0.3
"""Detectron's threshold of KRCNN.NMS_OKS."""
_RES5_SIDE = 7
"""The side of the features that res5 gives its head."""


def _roi(settings: YamlSettings, section: str) -> None:
    """All heads take features of rois in one way."""
    method, ratio = "ROI_XFORM_METHOD", "ROI_XFORM_SAMPLING_RATIO"
    if settings.choose(f"{section}.{method}", ROI_METHODS) != settings.choose(f"FAST_RCNN.{method}", ROI_METHODS):
        raise settings.error(f"{section}.{method}", f"use {settings[f'FAST_RCNN.{method}']}, as FAST_RCNN.{method}")
    if settings[f"{section}.{method}"] == "RoIAlign":
        settings.require(f"{section}.{ratio}", settings[f"FAST_RCNN.{ratio}"], f"as FAST_RCNN.{ratio}")


def _head(settings: YamlSettings, key: str, heads: dict[str, Values]) -> Values:
    """What a head's name stands for, whose module and "add_" do not matter."""
    name = re.sub(r"^(\w+\.)?(add_)?", "", settings[key])
    if name.endswith("_co"):
        raise settings.error(
            key, "a few-shot head of CA_FSIS_Cell: start from configs/fis_cell.py or configs/fis_cell_c4.py"
        )
    if name not in heads:
        raise settings.error(key, f"use one of: {', '.join(heads)}")
    return heads[name]


def box_head(settings: YamlSettings, architecture: str, norm: str) -> Values:
    """Keys of the head from RoIs to classes and boxes, and of its training."""
    head = _head(settings, "FAST_RCNN.ROI_BOX_HEAD", _BOX_HEADS)
    values: Values = {f"model.box_head.{name}": value for name, value in head.items()}
    if head["kind"] == "res5":
        if architecture != "c4":
            raise settings.error("FAST_RCNN.ROI_BOX_HEAD", "it goes with a ResNet_conv4_body; use roi_2mlp_head")
        values["model.box_head.norm"] = norm
    else:
        values["model.box_head.hidden"] = settings["FAST_RCNN.MLP_HEAD_DIM"]
    if head["kind"] == "convs":
        values["model.box_head.convs"] = settings["FAST_RCNN.NUM_STACKED_CONVS"]
        values["model.box_head.conv_channels"] = settings["FAST_RCNN.CONV_HEAD_DIM"]
    if architecture == "fpn":
        values["model.box_head.canonical_size"] = settings["FPN.ROI_CANONICAL_SCALE"]
        values["model.box_head.canonical_level"] = settings["FPN.ROI_CANONICAL_LEVEL"]
    if settings["TRAIN.BBOX_THRESH"] > settings["TRAIN.FG_THRESH"]:
        raise settings.error("TRAIN.BBOX_THRESH", f"use at most TRAIN.FG_THRESH, {settings['TRAIN.FG_THRESH']}")
    return values | {
        "model.box_head.pooled": settings["FAST_RCNN.ROI_XFORM_RESOLUTION"],
        "model.box_head.sampling_ratio": settings["FAST_RCNN.ROI_XFORM_SAMPLING_RATIO"],
        "model.box_head.class_specific": not settings["MODEL.CLS_AGNOSTIC_BBOX_REG"],
        "model.box_head.box_weights": settings["MODEL.BBOX_REG_WEIGHTS"],
        "model.box_head.positive_iou": settings["TRAIN.FG_THRESH"],
        "model.box_head.negative_iou": settings["TRAIN.BG_THRESH_HI"],
        "model.box_head.samples": settings["TRAIN.BATCH_SIZE_PER_IM"],
        "model.box_head.positive_fraction": settings["TRAIN.FG_FRACTION"],
    }


def mask_head(settings: YamlSettings, architecture: str) -> Values:
    """Boxes alone without MODEL.MASK_ON."""
    if not settings["MODEL.MASK_ON"]:
        return {"model.mask_head.kind": "none"}
    head = _head(settings, "MRCNN.ROI_MASK_HEAD", _MASK_HEADS)
    settings.require_fixed("MRCNN")
    _roi(settings, "MRCNN")
    pooled = settings["MRCNN.ROI_XFORM_RESOLUTION"]
    side = pooled
    if head["kind"] != "convs":
        if architecture != "c4":
            raise settings.error(
                "MRCNN.ROI_MASK_HEAD", "it goes with a ResNet_conv4_body; use mask_rcnn_fcn_head_v1up4convs"
            )
        side = math.ceil(pooled / max(pooled // _RES5_SIDE, 1))
    if head["kind"] == "shared_res5":
        if not settings["FAST_RCNN.ROI_BOX_HEAD"].endswith("ResNet_roi_conv5_head"):
            raise settings.error(
                "MRCNN.ROI_MASK_HEAD", "it shares the box head's stage: use ResNet_roi_conv5_head there"
            )
        settings.require(
            "MRCNN.ROI_XFORM_RESOLUTION", settings["FAST_RCNN.ROI_XFORM_RESOLUTION"], "as the box head that it shares"
        )
    if head["kind"] != "shared_res5" or "MRCNN.DILATION" in settings:
        settings.require("MRCNN.DILATION", 1)
    settings.require("MRCNN.RESOLUTION", 2 * side, "twice the side of the features that the head upsamples")
    return {f"model.mask_head.{name}": value for name, value in head.items()} | {
        "model.mask_head.channels": settings["MRCNN.DIM_REDUCED"],
        "model.mask_head.class_specific": settings["MRCNN.CLS_SPECIFIC_MASK"],
        "model.mask_head.pooled": pooled,
    }


def keypoint_head(settings: YamlSettings) -> Values:
    """None without MODEL.KEYPOINTS_ON."""
    if not settings["MODEL.KEYPOINTS_ON"]:
        return {"model.keypoint_head.kind": "none"}
    head = _head(settings, "KRCNN.ROI_KEYPOINTS_HEAD", {"roi_pose_head_v1convX": {"kind": "convs"}})
    settings.require_fixed("KRCNN")
    _roi(settings, "KRCNN")
    pooled = settings["KRCNN.ROI_XFORM_RESOLUTION"]
    settings.require("KRCNN.HEATMAP_SIZE", 4 * pooled, "four times KRCNN.ROI_XFORM_RESOLUTION")
    if settings["KRCNN.NUM_KEYPOINTS"] < 1:
        raise settings.error("KRCNN.NUM_KEYPOINTS", "give the number of keypoints: 17 for COCO")
    return {
        "model.keypoint_head.kind": head["kind"],
        "model.keypoint_head.keypoints": settings["KRCNN.NUM_KEYPOINTS"],
        "model.keypoint_head.channels": settings["KRCNN.CONV_HEAD_DIM"],
        "model.keypoint_head.convs": settings["KRCNN.NUM_STACKED_CONVS"],
        "model.keypoint_head.pooled": pooled,
        "model.keypoint_head.loss_weight": settings["KRCNN.LOSS_WEIGHT"],
        "model.keypoint_head.oks_threshold": _OKS if settings["KRCNN.NMS_OKS"] else 0.0,
    }


def detections(settings: YamlSettings) -> Values:
    """Suppression and voting at test."""
    values: Values = {
        "model.detections.score_threshold": settings["TEST.SCORE_THRESH"],
        "model.detections.nms_method": "hard",
        "model.detections.nms_threshold": settings["TEST.NMS"],
        "model.detections.box_regression": settings["TEST.BBOX_REG"],
        "model.detections.max_instances": settings["TEST.DETECTIONS_PER_IM"],
    }
    if settings["TEST.SOFT_NMS.ENABLED"]:
        methods = ("linear", "gaussian", "hard")
        method = settings.choose("TEST.SOFT_NMS.METHOD", dict(zip(methods, methods, strict=True)))
        values["model.detections.nms_method"] = method
        values["model.detections.sigma"] = settings["TEST.SOFT_NMS.SIGMA"]
    if settings["TEST.BBOX_VOTE.ENABLED"]:
        scores = settings.choose(
            "TEST.BBOX_VOTE.SCORING_METHOD", {name.upper(): name for name in get_args(VotingMethod)}
        )
        if scores in ("temp_avg", "generalized_avg", "quasi_sum"):
            settings.require("TEST.BBOX_VOTE.SCORING_METHOD_BETA", 1.0)
        values["model.detections.box_voting"] = settings["TEST.BBOX_VOTE.VOTE_TH"]
        values["model.detections.box_voting_scores"] = scores
    return values
