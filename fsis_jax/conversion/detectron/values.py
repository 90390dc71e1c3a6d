"""What the keys of a Detectron config are in ours, section by section.

One thing has no counterpart: images have one scale here, in training and at test. It is the test's; several training
scales become a jitter about it.
"""

import dataclasses
import itertools
import math
import re

from fsis_jax.coco_names import COCO_CLASSES, PERSON, class_names
from fsis_jax.conversion.detectron.architecture import IMAGE_MEAN
from fsis_jax.conversion.detectron.heads import ROI_METHODS, Values, box_head, detections, keypoint_head, mask_head
from fsis_jax.conversion.detectron.settings import YamlSettings

Canvases = tuple[tuple[int, int], ...]
_BODY = re.compile(r"(?:\w+\.)?(?:add_)?(fpn_)?ResNet(50|101|152)_conv([45])(_P2only)?_body")
_MOST_CLASSES = 100_000
_MOST_STEPS = 1000
"""Of the learning rate."""
_STRIDES = {"p2": 4, "c4": 16, "c5": 32}


@dataclasses.dataclass(frozen=True)
class Body:
    """The backbone that a file names."""

    architecture: str
    depth: int
    norm: str


def read_body(settings: YamlSettings) -> Body:
    """What MODEL.CONV_BODY names, and the norm that three keys must agree on."""
    found = _BODY.fullmatch(settings["MODEL.CONV_BODY"])
    pyramid, stage, finest = (found[1], found[3], found[4]) if found else (None, None, None)
    if found is None or (pyramid and stage == "4") or (finest and not pyramid):
        raise settings.error(
            "MODEL.CONV_BODY",
            "use a ResNet of 50, 101 or 152 layers: ResNet.add_ResNet50_conv4_body or _conv5_body, "
            "FPN.add_fpn_ResNet50_conv5_body or _conv5_P2only_body",
        )
    architecture = ("p2" if finest else "fpn") if pyramid else f"c{stage}"
    settings.require("FPN.FPN_ON", architecture == "fpn", f"as MODEL.CONV_BODY is {settings['MODEL.CONV_BODY']}")
    norm = settings.choose(
        "RESNETS.TRANS_FUNC", {"bottleneck_transformation": "frozen", "bottleneck_gn_transformation": "group"}
    )
    letters = "gn" if norm == "group" else "bn"
    why = f"as RESNETS.TRANS_FUNC is {settings['RESNETS.TRANS_FUNC']}"
    for key, value in (("STEM_FUNC", f"basic_{letters}_stem"), ("SHORTCUT_FUNC", f"basic_{letters}_shortcut")):
        settings.require(f"RESNETS.{key}", value, why)
    if "RESNETS.USE_GN" in settings:
        settings.require("RESNETS.USE_GN", norm == "group", why)
    if norm == "group" or settings["FPN.USE_GN"]:
        settings.require_fixed("GROUP_NORM")
    return Body(architecture, int(found[2]), norm)


def model_values(settings: YamlSettings, body: Body, notes: list[str]) -> Values:
    """What the file says of `config` as a whole; what differs from the file is added to `notes`.

    Raises:
        FsisError: a value that our models do not have.
    """
    method = settings.choose("FAST_RCNN.ROI_XFORM_METHOD", ROI_METHODS)
    if method == "crop" and settings["CROP_RESIZE_WITH_MAX_POOL"]:
        notes.append("CROP_RESIZE_WITH_MAX_POOL: a cell is one sample here, not the largest of four")
    settings.require_fixed("")
    return {
        **({"seed": settings["RNG_SEED"]} if "RNG_SEED" in settings else {}),
        **_data(settings, notes),
        "model.architecture": body.architecture,
        "model.classes": _classes(settings, notes),
        "model.matching.kind": "none",
        "model.relation": "none",
        "model.roi_method": method,
        "model.image_mean": IMAGE_MEAN,
        **_backbone(settings, body, notes),
        **_rpn(settings, body),
        **box_head(settings, body.architecture, body.norm),
        **mask_head(settings, body.architecture),
        **keypoint_head(settings),
        **detections(settings),
        **_optimizer(settings),
        **_training(settings),
        **_evaluation(settings, notes),
    }


def _data(settings: YamlSettings, notes: list[str]) -> Values:
    shortest, longest, scales = settings["TEST.SCALE"], settings["TEST.MAX_SIZE"], settings["TRAIN.SCALES"]
    if not scales or min(scales) < 1:
        raise settings.error("TRAIN.SCALES", "give lengths of the shortest side of images: (800,)")
    if not 1 <= shortest <= longest:
        raise settings.error("TEST.SCALE", f"give 1 or more, and at most TEST.MAX_SIZE, {longest}")
    if set(scales) != {shortest}:
        spread = ", with a jitter as wide as theirs" if max(scales) > min(scales) else ""
        notes.append(f"TRAIN.SCALES: images have one scale in training and at test, TEST.SCALE{spread}")
    if settings["TRAIN.MAX_SIZE"] != longest:
        notes.append("TRAIN.MAX_SIZE: images have one scale in training and at test, that of TEST.MAX_SIZE")
    cropped = settings["TRAIN.ASPECT_CROPPING"]
    larger = tuple(
        size
        for scale in _augmented_scales(settings)
        for size in _canvases(shortest * scale, longest * scale)
        if max(size) >= longest * scale
    )
    return {
        "data.root": "data/coco",
        "data.fold": 0,
        "data.validation_fraction": 0.01,
        "data.train_canvases": _canvases(shortest, longest),
        "data.test_canvases": tuple(dict.fromkeys(_canvases(shortest, longest) + larger)),
        "data.aspect_bounds": (settings["TRAIN.ASPECT_LO"], settings["TRAIN.ASPECT_HI"]) if cropped else (),
        "data.transform.shortest_side": shortest,
        "data.transform.longest_side": longest,
        "data.transform.scale_jitter": round(math.sqrt(max(scales) / min(scales)), 4),
        "data.transform.flip": 0.5 if settings["TRAIN.USE_FLIPPED"] else 0.0,
    }


def _canvases(shortest: float, longest: float) -> Canvases:
    """Landscape, portrait and square (height, width) for images of these sides, in multiples of 32."""
    height, usual, width = (math.ceil(side / 32) * 32 for side in (shortest, shortest * 4 / 3, longest))
    sizes = [(height, min(usual, width)), (height, width)]
    return tuple(dict.fromkeys([*sizes, *((width, height) for height, width in sizes), (height, height)]))


def _classes(settings: YamlSettings, notes: list[str]) -> tuple[str, ...]:
    number, people = settings["MODEL.NUM_CLASSES"], settings["MODEL.KEYPOINTS_ON"]
    if number == -1:
        notes.append("MODEL.NUM_CLASSES: not given, so the classes are those of COCO")
        return PERSON if people else COCO_CLASSES
    if not 2 <= number <= _MOST_CLASSES:
        raise settings.error("MODEL.NUM_CLASSES", "give the number of categories and 1 for the background: 81 for COCO")
    names = class_names(number - 1, people=people)
    if names not in (PERSON, COCO_CLASSES):
        notes.append("MODEL.NUM_CLASSES: tells no names; put those of your data set into model.classes, in its order")
    return names


def _backbone(settings: YamlSettings, body: Body, notes: list[str]) -> Values:
    groups, width = settings["RESNETS.NUM_GROUPS"], settings["RESNETS.WIDTH_PER_GROUP"]
    dilation = settings["RESNETS.RES5_DILATION"]
    if dilation not in ((1, 2) if body.architecture == "c5" else (1,)):
        raise settings.error("RESNETS.RES5_DILATION", "use 1, or 2 with a ResNet_conv5_body without a pyramid")
    frozen = "TRAIN.FREEZE_AT" if "TRAIN.FREEZE_AT" in settings else "RESNETS.FREEZE_AT"
    freeze_at = settings.choose(frozen, {stage: stage for stage in (0, 2, 3, 4, 5)})
    weights = settings["TRAIN.WEIGHTS"] or settings["RESNETS.IMAGENET_PRETRAINED_WEIGHTS"]
    scratch = not (weights and settings["MODEL.LOAD_IMAGENET_PRETRAINED_WEIGHTS"])
    if body.norm == "group" and scratch and frozen not in settings:
        freeze_at = 0
        notes.append(f"{frozen}: not given, and no pretrained weights either: all of the backbone is trained")
    return {
        "model.backbone.depth": body.depth,
        "model.backbone.norm": body.norm,
        "model.backbone.freeze_at": freeze_at,
        "model.backbone.dilation": dilation,
        "model.backbone.stride_in_1x1": settings["RESNETS.STRIDE_1X1"],
        "model.backbone.padded_pool": True,
        "model.backbone.groups": groups,
        "model.backbone.group_width": 0 if (groups, width) == (1, 64) else width,
        "model.backbone.deformable": "interleaved" if settings["MODEL.USE_DEFORM"] else "none",
    }


def _rpn(settings: YamlSettings, body: Body) -> Values:
    """The RPN, and the pyramid that it reads."""
    values: Values = {}
    if body.architecture in ("fpn", "p2"):
        values["model.fpn.channels"] = settings["FPN.DIM"]
        values["model.fpn.norm"] = "group" if settings["FPN.USE_GN"] else "none"
    for key in ("FPN.MULTILEVEL_ROIS", "FPN.MULTILEVEL_RPN"):
        settings.require(key, body.architecture == "fpn", f"as MODEL.CONV_BODY is {settings['MODEL.CONV_BODY']}")
    if body.architecture == "fpn":
        settings.require_fixed("FPN")
        coarsest = settings.choose("FPN.RPN_MAX_LEVEL", {5: 5, 6: 6})
        values["model.fpn.coarsest"] = coarsest
        start = settings["FPN.RPN_ANCHOR_START_SIZE"]
        values["model.rpn.anchor_sizes"] = tuple(start * 2**level for level in range(coarsest - 1))
        values["model.rpn.anchor_ratios"] = settings["FPN.RPN_ASPECT_RATIOS"]
        values["model.rpn.channels"] = 0  # that of a pyramid is as wide as the pyramid, whatever RPN.OUT_DIM
    else:
        stride = _STRIDES[body.architecture] // settings["RESNETS.RES5_DILATION"]
        if "RPN.STRIDE" in settings:
            settings.require("RPN.STRIDE", stride, "that of the level that MODEL.CONV_BODY gives")
        values["model.rpn.anchor_sizes"] = settings["RPN.SIZES"]
        values["model.rpn.anchor_ratios"] = settings["RPN.ASPECT_RATIOS"]
        values["model.rpn.channels"] = 0 if settings["RPN.OUT_DIM_AS_IN_DIM"] else settings["RPN.OUT_DIM"]
    settings.require("TEST.RPN_NMS_THRESH", settings["TRAIN.RPN_NMS_THRESH"], "as TRAIN.RPN_NMS_THRESH")
    return values | {
        "model.rpn.objectness": settings.choose("RPN.CLS_ACTIVATION", {"sigmoid": "sigmoid", "softmax": "softmax"}),
        "model.rpn.train_pre_nms": settings["TRAIN.RPN_PRE_NMS_TOP_N"],
        "model.rpn.train_post_nms": settings["TRAIN.RPN_POST_NMS_TOP_N"],
        "model.rpn.test_pre_nms": settings["TEST.RPN_PRE_NMS_TOP_N"],
        "model.rpn.test_post_nms": settings["TEST.RPN_POST_NMS_TOP_N"],
        "model.rpn.nms_threshold": settings["TRAIN.RPN_NMS_THRESH"],
        "model.rpn.straddle": settings["TRAIN.RPN_STRADDLE_THRESH"],
        "model.rpn.positive_iou": settings["TRAIN.RPN_POSITIVE_OVERLAP"],
        "model.rpn.negative_iou": settings["TRAIN.RPN_NEGATIVE_OVERLAP"],
        "model.rpn.samples": settings["TRAIN.RPN_BATCH_SIZE_PER_IM"],
        "model.rpn.positive_fraction": settings["TRAIN.RPN_FG_FRACTION"],
    }


def _optimizer(settings: YamlSettings) -> Values:
    settings.require_fixed("SOLVER")
    settings.require("SOLVER.WARM_UP_FACTOR", 1 / 3)
    policy, length, rate = settings["SOLVER.LR_POLICY"], settings["SOLVER.MAX_ITER"], settings["SOLVER.BASE_LR"]
    steps: tuple[int, ...]
    if policy == "steps_with_decay":
        steps = settings["SOLVER.STEPS"]
        settings.require("SOLVER.GAMMA", 0.1)
    elif policy == "steps_with_lrs":
        steps, rates = settings["SOLVER.STEPS"], settings["SOLVER.LRS"]
        if not rates or not all(math.isclose(b, a / 10, rel_tol=1e-3) for a, b in itertools.pairwise(rates)):
            raise settings.error("SOLVER.LRS", "each must be a tenth of the one before, as rates fall here")
        rate = rates[0]
        if len(rates) != len(steps):
            raise settings.error("SOLVER.LRS", f"give one for each of SOLVER.STEPS, {steps}")
    elif policy == "step":
        settings.require("SOLVER.GAMMA", 0.1)
        if not settings["SOLVER.STEP_SIZE"] >= 1 or length > _MOST_STEPS * settings["SOLVER.STEP_SIZE"]:
            raise settings.error("SOLVER.STEP_SIZE", f"give iterations that SOLVER.MAX_ITER, {length}, has some of")
        steps = tuple(range(0, length, settings["SOLVER.STEP_SIZE"]))
    else:
        raise settings.error("SOLVER.LR_POLICY", "use one of: step, steps_with_decay, steps_with_lrs")
    if list(steps) != sorted(set(steps)) or steps[:1] != (0,):
        raise settings.error("SOLVER.STEPS", "give ascending iterations from 0 on: [0, 60000, 80000]")
    return {
        "optimizer.name": settings.choose("SOLVER.TYPE", {"SGD": "sgd", "Adam": "adam"}),
        "optimizer.learning_rate": rate,
        "optimizer.reference_batch_size": _batch_size(settings),
        "optimizer.decay_steps": steps[1:],
        "optimizer.warmup_steps": settings["SOLVER.WARM_UP_ITERS"],
        "optimizer.weight_decay": settings["SOLVER.WEIGHT_DECAY"],
        "optimizer.bias_rate": 2.0 if settings["SOLVER.BIAS_DOUBLE_LR"] else 1.0,
        "optimizer.clip_value": math.inf,
    }


def _batch_size(settings: YamlSettings) -> int:
    for key in ("NUM_GPUS", "TRAIN.IMS_PER_BATCH"):
        if settings[key] < 1:
            raise settings.error(key, "give 1 or more")
    size: int = settings["NUM_GPUS"] * settings["TRAIN.IMS_PER_BATCH"]
    return size


def _training(settings: YamlSettings) -> Values:
    settings.require_fixed("TRAIN", "TEST", "MODEL")
    return {
        "training.batch_size": _batch_size(settings),
        "training.reference_steps": settings["SOLVER.MAX_ITER"],
        "training.checkpoint_every": settings["TRAIN.SNAPSHOT_ITERS"] // settings["NUM_GPUS"],
        "training.freeze_backbone": settings["TRAIN.FREEZE_CONV_BODY"],
    }


def _evaluation(settings: YamlSettings, notes: list[str]) -> Values:
    """Boxes and masks are augmented alike here, keypoints not at all."""
    boxes, masks = "TEST.BBOX_AUG", "TEST.MASK_AUG"
    if settings["MODEL.MASK_ON"]:
        settings.require(f"{masks}.ENABLED", settings[f"{boxes}.ENABLED"], f"as {boxes}.ENABLED")
        if settings[f"{masks}.ENABLED"]:
            settings.require_fixed(masks)
            for name in ("H_FLIP", "SCALES", "SCALE_H_FLIP"):
                settings.require(f"{masks}.{name}", settings[f"{boxes}.{name}"], f"as {boxes}.{name}")
    if settings["MODEL.KEYPOINTS_ON"] and settings["TEST.KPS_AUG.ENABLED"]:
        settings.require_fixed("TEST.KPS_AUG")
        read = [settings[f"TEST.KPS_AUG.{name}"] for name in ("H_FLIP", "SCALES", "SCALE_H_FLIP")]
        notes.append(f"TEST.KPS_AUG: keypoints are those of the usual view here, without flip and scales {read}")
    flip = False
    if settings[f"{boxes}.ENABLED"]:
        settings.require_fixed(boxes)
        flip = settings[f"{boxes}.H_FLIP"]
        if settings[f"{boxes}.SCALES"]:
            settings.require(f"{boxes}.SCALE_H_FLIP", flip, f"as {boxes}.H_FLIP")
    return {"eval.split": "all", "eval.repeats": 1, "eval.flip": flip, "eval.scales": _augmented_scales(settings)}


def _augmented_scales(settings: YamlSettings) -> tuple[float, ...]:
    """The scales of test-time augmentation, as multiples of the usual one."""
    if not settings["TEST.BBOX_AUG.ENABLED"]:
        return ()
    usual = settings["TEST.SCALE"]
    return tuple(round(side / usual, 4) for side in settings["TEST.BBOX_AUG.SCALES"] if side != usual)
