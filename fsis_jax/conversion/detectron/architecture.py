"""The config of the model that blobs of Detectron belong to, told from their names and shapes.

What no tensor tells is as in Detectron's files for the kind of model: the end-to-end configs of its model zoo.
"""

from collections.abc import Iterable, Mapping

from ml_collections import ConfigDict

from fsis_jax.coco_names import class_names
from fsis_jax.config import base_config
from fsis_jax.errors import FsisError
from fsis_jax.recipes import coco_config

Shapes = Mapping[str, tuple[int, ...]]

IMAGE_MEAN = (122.7717 / 255, 115.9465 / 255, 102.9801 / 255)
"""What Detectron subtracts from red, green and blue."""

_DEPTHS = {6: 50, 23: 101, 36: 152}
"""Blocks of res4 -> depth of the ResNet."""
_RATIOS = {3: (0.5, 1.0, 2.0), 5: (0.2, 0.5, 1.0, 2.0, 5.0)}
_ANCHORS_OF_ONE_LEVEL = {
    12: ((64, 128, 256, 512), _RATIOS[3]),
    15: ((32, 64, 128, 256, 512), _RATIOS[3]),
    25: ((32, 64, 128, 256, 512), _RATIOS[5]),
}
"""Anchors at a position -> their sizes and ratios."""


def is_whole(names: Iterable[str]) -> bool:
    """Whether blobs of these names are those of a detector, and not of a backbone or an RPN alone."""
    return not {"cls_score_w", "bbox_pred_w"}.isdisjoint(names)


def config_of_blobs(shapes: Shapes) -> ConfigDict:
    """The config of the model that has these blobs.

    A blob that is absent leaves its key at a usual value, so that it can be reported as missing.

    Raises:
        FsisError: for an architecture that is not known here, naming the blob.
    """
    whole = is_whole(shapes)
    config = coco_config() if whole else base_config()
    config.init_from = ""
    model = config.model
    model.legacy_boxes = model.background_outputs = True
    model.image_mean = IMAGE_MEAN
    model.architecture = _architecture(shapes, whole)
    _backbone(model, shapes)
    _rpn(model, shapes)
    if whole:
        _box_head(model, shapes)
        _mask_head(model, shapes)
        _keypoint_head(model, shapes)
        outputs = _size(shapes, "cls_score_w", 0, _size(shapes, "bbox_pred_w", 0, 324) // 4)
        model.classes = class_names(outputs - 1, people=model.keypoint_head.kind != "none")
        if model.mask_head.kind == "none":
            config.data.transform.mask_size = 2  # no head reads the masks
    return config


def _architecture(shapes: Shapes, whole: bool) -> str:
    if any(name.startswith("fpn_") for name in shapes):
        return "p2" if "conv_rpn_w" in shapes else "fpn"
    res5 = any(name.startswith("res5_") for name in shapes)
    if whole:
        return "c5" if res5 and "fc6_w" in shapes else "c4"
    return "c4" if "conv_rpn_w" in shapes and not res5 else "fpn"


def _size(shapes: Shapes, name: str, axis: int, default: int) -> int:
    return shapes[name][axis] if len(shapes.get(name, ())) > axis else default


def _count(shapes: Shapes, start: str) -> int:
    """How many layers are numbered from 1 after `start`."""
    count = 0
    while f"{start}{count + 1}_w" in shapes:
        count += 1
    return count


def _backbone(model: ConfigDict, shapes: Shapes) -> None:
    backbone = model.backbone
    blocks = 0
    while f"res4_{blocks}_branch2a_w" in shapes:
        blocks += 1
    if blocks not in _DEPTHS:
        raise FsisError(f"the third stage of the ResNet has {blocks} blocks; known are ResNet-50, -101 and -152")
    backbone.depth = _DEPTHS[blocks]
    backbone.width = _size(shapes, "conv1_w", 0, backbone.width)
    outputs, inputs = (_size(shapes, "res2_0_branch2b_w", axis, backbone.width) for axis in (0, 1))
    backbone.groups = max(outputs // max(inputs, 1), 1)
    backbone.group_width = 0 if (backbone.groups, inputs) == (1, backbone.width) else inputs
    backbone.norm = "group" if "res2_0_branch2a_gn_s" in shapes or "conv1_gn_s" in shapes else "frozen"
    backbone.padded_pool = True
    # Its ResNeXts, and its models with group norm, have the stride on the 3x3.
    backbone.stride_in_1x1 = backbone.groups == 1 and backbone.norm == "frozen"
    if model.architecture in ("fpn", "p2"):
        model.fpn.channels = _size(shapes, "fpn_inner_res5_2_sum_w", 0, model.fpn.channels)
        model.fpn.norm = "group" if "fpn_inner_res5_2_sum_gn_s" in shapes else "none"


def _rpn(model: ConfigDict, shapes: Shapes) -> None:
    level = "_fpn2" if model.architecture == "fpn" else ""
    scores, boxes = f"rpn_cls_logits{level}_w", f"rpn_bbox_pred{level}_w"
    if scores not in shapes or boxes not in shapes:
        return
    anchors = _size(shapes, boxes, 0, 0) // 4
    model.rpn.objectness = "softmax" if _size(shapes, scores, 0, anchors) == 2 * anchors else "sigmoid"
    if model.architecture == "fpn":
        if anchors not in _RATIOS:
            raise FsisError(f"{boxes} is of {anchors} anchors; known are 3 and 5 aspect ratios")
        model.rpn.anchor_ratios = _RATIOS[anchors]
    else:
        if anchors not in _ANCHORS_OF_ONE_LEVEL:
            known = ", ".join(map(str, _ANCHORS_OF_ONE_LEVEL))
            raise FsisError(f"{boxes} is of {anchors} anchors; known are {known} (sizes times aspect ratios)")
        model.rpn.anchor_sizes, model.rpn.anchor_ratios = _ANCHORS_OF_ONE_LEVEL[anchors]
        model.rpn.train_pre_nms, model.rpn.test_pre_nms = 12000, 6000
    outputs, inputs = (_size(shapes, f"conv_rpn{level}_w", axis, 0) for axis in (0, 1))
    model.rpn.channels = 0 if outputs == inputs else outputs


def _box_head(model: ConfigDict, shapes: Shapes) -> None:
    head = model.box_head
    head.sampling_ratio = 2 if model.architecture in ("fpn", "p2") else 0
    if "head_conv1_w" in shapes:
        head.kind = "convs"
        head.convs = _count(shapes, "head_conv")
        head.conv_channels = _size(shapes, "head_conv1_w", 0, head.conv_channels)
        head.conv_norm = "group" if "head_conv1_gn_s" in shapes else "none"
    elif model.architecture == "c4" and "fc6_w" not in shapes:
        head.kind = "res5"
        head.pooled = 14
        head.norm = model.backbone.norm
    if head.kind != "res5":
        head.hidden = _size(shapes, "fc6_w", 0, head.hidden)
    classes = _size(shapes, "cls_score_w", 0, 0)
    head.class_specific = _size(shapes, "bbox_pred_w", 0, 4 * classes) == 4 * classes


def _mask_head(model: ConfigDict, shapes: Shapes) -> None:
    head = model.mask_head
    if "mask_fcn_logits_w" not in shapes and "conv5_mask_w" not in shapes:
        head.kind = "none"
        return
    head.channels = _size(shapes, "conv5_mask_w", 1, head.channels)
    classes = _size(shapes, "cls_score_w", 0, 0)
    head.class_specific = _size(shapes, "mask_fcn_logits_w", 0, classes) == classes
    if any(name.startswith("_[mask]_res5_") for name in shapes):
        head.kind = "res5"
    elif count := max(_count(shapes, "_[mask]_fcn"), _count(shapes, "_mask_fcn")):
        head.convs = count
        head.norm = "group" if "_mask_fcn1_gn_s" in shapes else "none"
    elif model.box_head.kind == "res5":
        head.kind = "shared_res5"


def _keypoint_head(model: ConfigDict, shapes: Shapes) -> None:
    head = model.keypoint_head
    if "kps_score_lowres_w" not in shapes:
        return
    head.kind = "convs"
    head.channels = _size(shapes, "kps_score_lowres_w", 0, head.channels)
    head.keypoints = _size(shapes, "kps_score_lowres_w", 1, head.keypoints)
    head.convs = _count(shapes, "conv_fcn")
