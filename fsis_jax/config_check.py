"""What a config may say, checked before anything is built."""

import functools
from typing import Any, get_args

from ml_collections import ConfigDict

from fsis_jax.errors import FsisError
from fsis_jax.ops.soft_nms import SoftNmsMethod, VotingMethod

CHOICES: dict[str, tuple[Any, ...]] = {
    "parallel": ("shard_map", "pmap"),
    "data.reference_source": ("other", "target", "any"),
    "model.architecture": ("fpn", "p2", "c4", "c5"),
    "model.roi_method": ("align", "pool", "crop"),
    "model.relation": ("concat", "compare", "compare_bags", "none"),
    "model.ops": ("auto", "xla", "pallas"),
    "model.compute_dtype": ("float32", "bfloat16", "float16"),
    "model.backbone.norm": ("frozen", "group"),
    "model.backbone.depth": (18, 34, 50, 101, 152),
    "model.backbone.dilation": (1, 2),
    "model.backbone.deformable": ("none", "interleaved", "split"),
    "model.fpn.norm": ("none", "group"),
    "model.fpn.coarsest": (5, 6),
    "model.matching.kind": ("co_attention", "l1", "none"),
    "model.matching.norm": ("batch", "group"),
    "model.rpn.objectness": ("sigmoid", "softmax"),
    "model.votes.kind": ("none", "dense"),
    "model.box_head.kind": ("mlp", "convs", "res5"),
    "model.box_head.conv_norm": ("none", "group"),
    "model.box_head.norm": ("frozen", "batch", "group"),
    "model.mask_head.kind": ("convs", "shared_res5", "res5", "none"),
    "model.mask_head.norm": ("none", "group"),
    "model.keypoint_head.kind": ("none", "convs"),
    "model.detections.nms_method": get_args(SoftNmsMethod),
    "model.detections.box_voting_scores": get_args(VotingMethod),
    "optimizer.name": ("sgd", "adam", "adamw"),
    "optimizer.schedule": ("steps", "cosine"),
    "eval.split": ("seen", "unseen", "all"),
    "eval.references": ("train", "target", "wrong"),
}
"""All values that a key may have."""

AT_LEAST = {
    0: (
        "seed",
        "data.fold",
        "data.workers",
        "training.steps",
        "training.overlays",
        "eval.max_images",
        "eval.mosaics",
        "eval.overlays",
        "model.backbone.group_width",
        "model.rpn.channels",
        "model.keypoint_head.loss_weight",
        "model.detections.mask_confidence",
    ),
    1: (
        "data.shots",
        "data.tile_overlap",
        "optimizer.accumulate",
        "optimizer.reference_batch_size",
        "training.batch_size",
        "training.log_every",
        "training.checkpoint_every",
        "training.validate_every",
        "eval.repeats",
        "model.rpn.samples",
        "model.votes.channels",
        "model.votes.pre_nms",
        "model.votes.post_nms",
        "model.box_head.samples",
        "model.box_head.pooled",
        "model.box_head.convs",
        "model.box_head.conv_channels",
        "model.mask_head.pooled",
        "model.mask_head.convs",
        "model.keypoint_head.pooled",
        "model.keypoint_head.convs",
        "model.keypoint_head.channels",
        "model.keypoint_head.keypoints",
        "model.detections.max_instances",
        "model.backbone.groups",
    ),
}
"""Least values of numbers."""

WITHIN = {
    "data.mosaic": (0, 1),
    "data.repeat_rare": (0, 1),
    "model.backbone.freeze_at": (0, 5),
    "model.detections.box_voting": (0, 1),
    "model.detections.mask_nms_threshold": (0, 1),
    "model.keypoint_head.oks_threshold": (0, 1),
}
"""Least and largest values of numbers."""


def check_config(config: ConfigDict) -> None:
    """Raise FsisError for values that cannot work, before anything is built."""
    _check_values(config)
    _check_data(config.data)
    _check_layers(config.model)
    _check_heads(config.model)
    _check_classes(config)
    _check_evaluation(config.eval)


def _check_values(config: ConfigDict) -> None:
    def value_of(key: str) -> Any:
        return functools.reduce(lambda part, name: part[name], key.split("."), config)

    for key, allowed in CHOICES.items():
        if value_of(key) not in allowed:
            options = ", ".join(str(option) for option in allowed)
            raise FsisError(f"config.{key} is {value_of(key)!r}; use one of: {options}")
    for least, keys in AT_LEAST.items():
        for key in keys:
            if value_of(key) < least:
                raise FsisError(f"config.{key} is {value_of(key)}; it must be at least {least}")
    for key, (low, high) in WITHIN.items():
        if not low <= value_of(key) <= high:
            raise FsisError(f"config.{key} is {value_of(key)}; it must be from {low} to {high}")


def _check_data(data: ConfigDict) -> None:
    for key, limit in (("background_contrast", 255), ("validation_fraction", 1)):
        if not 0 <= data[key] < limit:
            raise FsisError(f"config.data.{key} is {data[key]}; it must be from 0 to below {limit}")
    if data.mosaic and data.transform.max_instances < 4:
        raise FsisError(
            f"config.data.transform.max_instances is {data.transform.max_instances}; the four panels of "
            "config.data.mosaic need at least 4"
        )
    bounds = data.aspect_bounds
    if bounds != () and not (_are_numbers(bounds) and len(bounds) == 2 and 0 < bounds[0] <= 1 <= bounds[1]):
        raise FsisError(
            f"config.data.aspect_bounds is {bounds!r}; give the least width over height, at most 1, and the largest, "
            "at least 1: (0.5, 2.0), or ()"
        )
    if bounds and data.transform.scale != "shortest_side":
        raise FsisError(
            f"config.data.aspect_bounds is {bounds!r} and config.data.transform.scale {data.transform.scale!r}: "
            "set the scale to shortest_side or the bounds to ()"
        )
    for key in ("train_canvases", "test_canvases"):
        canvases = data[key]
        if not isinstance(canvases, tuple) or not canvases or not all(map(_is_canvas, canvases)):
            raise FsisError(
                f"config.data.{key} is {canvases!r}; give (height, width) pairs, multiples of 32: ((256, 256),)"
            )


def _check_layers(model: ConfigDict) -> None:
    """Backbone, pyramid and anchors."""
    backbone, sizes = model.backbone, model.rpn.anchor_sizes
    if backbone.depth < 50 and (backbone.deformable != "none" or backbone.groups != 1 or backbone.dilation != 1):
        raise FsisError(
            f"config.model.backbone.depth is {backbone.depth}: deformable, grouped and dilated convolutions need a "
            "depth of 50 or more"
        )
    if backbone.dilation != 1 and model.architecture != "c5":
        raise FsisError(
            f"config.model.backbone.dilation is {backbone.dilation} and config.model.architecture "
            f"{model.architecture!r}: set the dilation to 1 or the architecture to c5"
        )
    levels = model.fpn.coarsest - 1
    if not sizes:
        raise FsisError("config.model.rpn.anchor_sizes is empty; give at least one size")
    if model.architecture == "fpn" and len(sizes) != levels:
        raise FsisError(
            f"config.model.rpn.anchor_sizes has {len(sizes)} sizes; "
            f"the pyramid has {levels} levels (2 to {model.fpn.coarsest}), give one size for each"
        )
    if model.architecture == "fpn" and model.shifted_mask_references and model.fpn.coarsest < 6:
        raise FsisError(
            f"config.model.fpn.coarsest is {model.fpn.coarsest}; config.model.shifted_mask_references needs level 6"
        )


def _check_heads(model: ConfigDict) -> None:
    needs: tuple[tuple[str, Any, str, Any], ...] = (
        ("box_head.kind", "res5", "architecture", "c4"),
        ("mask_head.kind", "res5", "architecture", "c4"),
        ("mask_head.kind", "shared_res5", "box_head.kind", "res5"),
        ("detections.legacy_pasting", True, "legacy_boxes", True),
        ("votes.kind", "dense", "architecture", "fpn"),
        ("votes.kind", "dense", "legacy_boxes", False),
    )
    for key, value, other, needed in needs:
        found, there = (functools.reduce(lambda part, name: part[name], k.split("."), model) for k in (key, other))
        if found == value and there != needed:
            raise FsisError(
                f"config.model.{key} is {value!r}, which needs config.model.{other} to be {needed!r}; it is {there!r}: "
                "change one of them"
            )
    if model.keypoint_head.kind != "none" and not model.classes:
        raise FsisError(
            f"config.model.keypoint_head.kind is {model.keypoint_head.kind!r} and config.model.classes empty: only "
            "detectors of named classes find keypoints; name them, or set the kind to none"
        )


def _check_classes(config: ConfigDict) -> None:
    """A plain detector is shown no references, so nothing may ask for any."""
    classes = config.model.classes
    if not isinstance(classes, tuple) or not all(isinstance(name, str) and name for name in classes):
        raise FsisError(f"config.model.classes is {classes!r}; give names of categories: ('person', 'car'), or ()")
    if len(set(classes)) != len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise FsisError(f"config.model.classes names {twice!r} twice; name each category once")
    if not classes:
        return
    needed = {
        "model.matching.kind": (config.model.matching.kind, "none"),
        "model.relation": (config.model.relation, "none"),
        "data.contrast": (config.data.contrast, False),
        "data.mosaic": (config.data.mosaic, 0),
        "data.fold": (config.data.fold, 0),
        "data.transform.scale": (config.data.transform.scale, "shortest_side"),
        "eval.mosaics": (config.eval.mosaics, 0),
    }
    for key, (value, right) in needed.items():
        if value != right:
            raise FsisError(
                f"config.{key} is {value!r}, but a detector of config.model.classes is shown no references: "
                f"set it to {right!r}"
            )


def _check_evaluation(settings: ConfigDict) -> None:
    shots = settings.shots
    if not isinstance(shots, tuple) or not shots or not all(type(k) is int and k >= 1 for k in shots):
        raise FsisError(f"config.eval.shots is {shots}; give one or more numbers of references: 1,3,5")
    if not _are_numbers(settings.scales) or not all(scale > 0 for scale in settings.scales):
        raise FsisError(f"config.eval.scales is {settings.scales!r}; give numbers above 0: (0.5, 2.0), or ()")
    if settings.mosaics and settings.otsu:
        raise FsisError(
            f"config.eval.mosaics is {settings.mosaics} and config.eval.otsu is True: two tests; give one of them"
        )
    if settings.mosaics and settings.references != "train":
        raise FsisError(
            f"config.eval.mosaics is {settings.mosaics}: their references come from the train split; set "
            f"config.eval.references to train, it is {settings.references!r}"
        )


def _are_numbers(value: object) -> bool:
    return isinstance(value, tuple) and all(type(number) in (int, float) for number in value)


def _is_canvas(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(side, int) and side > 0 and side % 32 == 0 for side in value)
    )
