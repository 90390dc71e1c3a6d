"""Which values each key of the config may have by itself: one table, `RULES`. config_check.py holds configs against it.

Choices come from the Literals of the code that acts on them, where it has such.
"""

import dataclasses
import math
import re
import sys
from collections.abc import Callable
from typing import Any, get_args

from fsis_jax.models.depths import BLOCKS
from fsis_jax.ops.deform import OffsetLayout
from fsis_jax.ops.dispatch import Backend
from fsis_jax.ops.roi_pool import RoiPoolMethod
from fsis_jax.ops.soft_nms import SoftNmsMethod, VotingMethod
from fsis_jax.preprocess.records import ReferencesFrom, ReferenceSource
from fsis_jax.preprocess.transform_config import Intensity, ReferenceStretch, Scale


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which values a key may have."""

    must_be: str
    """The end of a sentence: "it must be ..."."""
    allows: Callable[[Any], bool]
    """Whether a value, of whatever type, is one of them."""


def one_of(*options: Any) -> Rule:
    """One of these values, and of its type."""

    def allows(value: Any) -> bool:
        return any(type(value) is type(option) and value == option for option in options)

    return Rule(f"one of: {', '.join(map(str, options))}", allows)


def number(
    least: float | None = None, most: float | None = None, *, above: float | None = None, below: float | None = None
) -> Rule:
    """A finite number within bounds; `above` and `below` are themselves outside."""
    words = {"at least": least, "above": above, "at most": most, "below": below}
    bounds = " and ".join(f"{word} {bound}" for word, bound in words.items() if bound is not None)

    def allows(value: Any) -> bool:
        return _is_number(value) and (
            (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
            and (below is None or value < below)
        )

    return Rule(f"a number, {bounds}", allows)


def whole(least: int, most: int | None = None) -> Rule:
    """A whole number within bounds."""
    rule = number(least, most)
    must_be = f"a whole {rule.must_be.removeprefix('a ')}"
    return Rule(must_be, lambda value: isinstance(value, int) and rule.allows(value))


def several(each: Rule, like: str, *, least: int = 0, most: float = math.inf) -> Rule:
    """A tuple of `least` to `most` values, each of which the rule allows; `like`: an example."""
    count = "() or" if least == 0 else "one or more" if most > least else least

    def allows(value: Any) -> bool:
        return isinstance(value, tuple) and least <= len(value) <= most and all(map(each.allows, value))

    return Rule(f"{count} values like {like}, each {each.must_be}", allows)


def _is_number(value: Any) -> bool:
    """A finite one; True is none, and neither is a whole number that no float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _are_bounds(value: Any) -> bool:
    return value == () or (several(POSITIVE, "", least=2, most=2).allows(value) and value[0] <= 1 <= value[1])


def _are_percentiles(value: Any) -> bool:
    return several(number(0, 100), "", least=2, most=2).allows(value) and value[0] < value[1]


def _is_canvas(value: Any) -> bool:
    return several(whole(32), "", least=2, most=2).allows(value) and not any(side % 32 for side in value)


def _is_place_among_processes(value: Any) -> bool:
    found = isinstance(value, str) and re.fullmatch(r"[^\s,]+:(\d{1,5}),(\d{1,6}),(\d{1,6})", value)
    if not found:
        return value in ("", "auto")
    port, processes, process = map(int, found.groups())
    return 0 < port < 1 << 16 and process < processes


SWITCH = Rule("True or False", lambda value: isinstance(value, bool))
TEXT = Rule("text", lambda value: isinstance(value, str))
NAME = Rule("a name", lambda value: isinstance(value, str) and value != "")
COUNT, COUNT_OR_NONE = whole(1), whole(0)
LAYERS, CHANNELS = whole(1, 64), whole(1, 1 << 16)
"""Of networks: weights may be a stranger's, and each layer that they declare takes time before they are compared."""
SHARE = number(0, 1)
PART = number(0, below=1)
POSITIVE = number(above=0)
NOT_NEGATIVE = number(0)
LIMIT = Rule("a number, above 0, or inf for none", lambda value: POSITIVE.allows(value) or value == math.inf)
CANVASES = several(Rule("(height, width) in multiples of 32", _is_canvas), "((256, 256), (256, 512))", least=1)

RULES: dict[str, Rule] = {
    "seed": whole(0, 2**31 - 1),
    "debug": SWITCH,
    "init_from": TEXT,
    "parallel": one_of("shard_map", "pmap"),
    "distributed": Rule(
        "'' for one process, 'auto' (SLURM, Open MPI, Kubernetes), or ADDRESS:PORT,NUMBER,ID, where IDs begin at 0, "
        "like 'node1:8476,2,0'",
        _is_place_among_processes,
    ),
    "data.root": TEXT,
    "data.synthetic": SWITCH,
    "data.fold": COUNT_OR_NONE,
    "data.shots": COUNT,
    "data.present": SHARE,
    "data.background": SHARE,
    "data.repeat_rare": SHARE,
    "data.contrast": SWITCH,
    "data.mosaic": SHARE,
    "data.reference_source": one_of(*get_args(ReferenceSource)),
    "data.min_reference_area": NOT_NEGATIVE,
    "data.validation_fraction": PART,
    "data.train_canvases": CANVASES,
    "data.test_canvases": CANVASES,
    "data.tile_overlap": number(1),
    "data.background_contrast": number(0, below=255),
    "data.aspect_bounds": Rule(
        "() or the least width over height, at most 1, and the largest, at least 1, like (0.5, 2.0)", _are_bounds
    ),
    "data.workers": COUNT_OR_NONE,
    "data.transform.scale": one_of(*get_args(Scale)),
    "data.transform.shortest_side": COUNT,
    "data.transform.longest_side": COUNT,
    "data.transform.reference_pixels": POSITIVE,
    "data.transform.min_scale": POSITIVE,
    "data.transform.max_scale": POSITIVE,
    "data.transform.intensity": one_of(*get_args(Intensity)),
    "data.transform.percentiles": Rule("two increasing numbers of 0 to 100, like (1.0, 99.8)", _are_percentiles),
    "data.transform.reference_size": whole(8, 4096),
    "data.transform.reference_stretch": one_of(*get_args(ReferenceStretch)),
    "data.transform.antialias": SWITCH,
    "data.transform.legacy_reference_crop": SWITCH,
    "data.transform.mask_size": whole(2),
    "data.transform.max_instances": COUNT,
    "data.transform.min_visible": SHARE,
    "data.transform.anywhere": SHARE,
    "data.transform.copies": COUNT_OR_NONE,
    "data.transform.scale_jitter": number(1),
    "data.transform.reference_context": number(1),
    "data.transform.flip": SHARE,
    "data.transform.rot90": SWITCH,
    "data.transform.gamma": number(1),
    "data.transform.contrast": PART,
    "data.transform.brightness": PART,
    "data.transform.colour": PART,
    "data.transform.noise": PART,
    "data.transform.invert": SHARE,
    "data.transform.grey": SHARE,
    "model.architecture": one_of("fpn", "p2", "c4", "c5"),
    "model.classes": several(NAME, "('person', 'car')"),
    "model.roi_method": one_of("align", *get_args(RoiPoolMethod)),
    "model.relation": one_of("concat", "compare", "compare_bags", "none"),
    "model.image_mean": several(SHARE, "(0.485, 0.456, 0.406)", least=3, most=3),
    "model.compute_dtype": one_of("float32", "bfloat16", "float16"),
    "model.remat": SWITCH,
    "model.ops": one_of(*get_args(Backend)),
    "model.legacy_boxes": SWITCH,
    "model.background_outputs": SWITCH,
    "model.all_gt_positive": SWITCH,
    "model.clip_to_padding": SWITCH,
    "model.shifted_mask_references": SWITCH,
    "model.backbone.depth": one_of(*sorted(BLOCKS)),
    "model.backbone.width": CHANNELS,
    "model.backbone.norm": one_of("frozen", "group"),
    "model.backbone.freeze_at": whole(0, 5),
    "model.backbone.dilation": one_of(1, 2),
    "model.backbone.stride_in_1x1": SWITCH,
    "model.backbone.padded_pool": SWITCH,
    "model.backbone.groups": CHANNELS,
    "model.backbone.group_width": whole(0, 1 << 16),
    "model.backbone.deformable": one_of("none", *get_args(OffsetLayout)),
    "model.fpn.channels": whole(2, 1 << 16),
    "model.fpn.norm": one_of("none", "group"),
    "model.fpn.coarsest": one_of(5, 6),
    "model.matching.kind": one_of("co_attention", "l1", "none"),
    "model.matching.norm": one_of("batch", "group"),
    "model.rpn.channels": whole(0, 1 << 16),
    "model.rpn.objectness": one_of("sigmoid", "softmax"),
    "model.rpn.anchor_sizes": several(POSITIVE, "(32, 64, 128)", least=1),
    "model.rpn.anchor_ratios": several(POSITIVE, "(0.5, 1.0, 2.0)", least=1),
    "model.rpn.train_pre_nms": COUNT,
    "model.rpn.train_post_nms": COUNT,
    "model.rpn.test_pre_nms": COUNT,
    "model.rpn.test_post_nms": COUNT,
    "model.rpn.nms_threshold": SHARE,
    "model.rpn.min_size": NOT_NEGATIVE,
    "model.rpn.straddle": Rule("a number, at least 0, or -1", lambda x: NOT_NEGATIVE.allows(x) or x == -1),
    "model.rpn.positive_iou": SHARE,
    "model.rpn.negative_iou": SHARE,
    "model.rpn.samples": COUNT,
    "model.rpn.positive_fraction": number(above=0, most=1),
    "model.votes.kind": one_of("none", "dense"),
    "model.votes.channels": CHANNELS,
    "model.votes.pre_nms": COUNT,
    "model.votes.post_nms": COUNT,
    "model.box_head.kind": one_of("mlp", "convs", "res5"),
    "model.box_head.hidden": CHANNELS,
    "model.box_head.convs": LAYERS,
    "model.box_head.conv_channels": CHANNELS,
    "model.box_head.conv_norm": one_of("none", "group"),
    "model.box_head.class_specific": SWITCH,
    "model.box_head.pooled": COUNT,
    "model.box_head.norm": one_of("frozen", "batch", "group"),
    "model.box_head.sampling_ratio": COUNT_OR_NONE,
    "model.box_head.canonical_size": POSITIVE,
    "model.box_head.canonical_level": whole(2, 6),
    "model.box_head.box_weights": several(POSITIVE, "(10.0, 10.0, 5.0, 5.0)", least=4, most=4),
    "model.box_head.positive_iou": SHARE,
    "model.box_head.negative_iou": SHARE,
    "model.box_head.quality_scores": SWITCH,
    "model.box_head.samples": COUNT,
    "model.box_head.positive_fraction": number(above=0, most=1),
    "model.mask_head.kind": one_of("convs", "shared_res5", "res5", "none"),
    "model.mask_head.channels": CHANNELS,
    "model.mask_head.convs": LAYERS,
    "model.mask_head.norm": one_of("none", "group"),
    "model.mask_head.class_specific": SWITCH,
    "model.mask_head.pooled": COUNT,
    "model.keypoint_head.kind": one_of("none", "convs"),
    "model.keypoint_head.keypoints": CHANNELS,
    "model.keypoint_head.channels": CHANNELS,
    "model.keypoint_head.convs": LAYERS,
    "model.keypoint_head.pooled": COUNT,
    "model.keypoint_head.loss_weight": NOT_NEGATIVE,
    "model.keypoint_head.oks_threshold": SHARE,
    "model.detections.score_threshold": SHARE,
    "model.detections.nms_method": one_of(*get_args(SoftNmsMethod)),
    "model.detections.nms_threshold": SHARE,
    "model.detections.mask_nms_threshold": SHARE,
    "model.detections.mask_confidence": NOT_NEGATIVE,
    "model.detections.vote_confidence": NOT_NEGATIVE,
    "model.detections.faintness": NOT_NEGATIVE,
    "model.detections.sigma": POSITIVE,
    "model.detections.box_voting": SHARE,
    "model.detections.box_voting_scores": one_of(*get_args(VotingMethod)),
    "model.detections.box_regression": SWITCH,
    "model.detections.decayed_score_threshold": SHARE,
    "model.detections.max_instances": COUNT,
    "model.detections.legacy_pasting": SWITCH,
    "optimizer.name": one_of("sgd", "adam", "adamw"),
    "optimizer.learning_rate": NOT_NEGATIVE,
    "optimizer.reference_batch_size": COUNT,
    "optimizer.schedule": one_of("steps", "cosine"),
    "optimizer.decay_steps": several(COUNT, "(5000, 8000)"),
    "optimizer.warmup_steps": COUNT_OR_NONE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.bias_rate": NOT_NEGATIVE,
    "optimizer.scale_momentum": SWITCH,
    "optimizer.clip_value": LIMIT,
    "optimizer.accumulate": COUNT,
    "training.batch_size": COUNT,
    "training.freeze_backbone": SWITCH,
    "training.save": SWITCH,
    "training.reference_steps": COUNT,
    "training.steps": COUNT_OR_NONE,
    "training.log_every": COUNT,
    "training.checkpoint_every": COUNT,
    "training.validate_every": COUNT,
    "training.overlays": COUNT_OR_NONE,
    "eval.split": one_of("seen", "unseen", "all"),
    "eval.shots": several(COUNT, "(1, 3, 5)", least=1),
    "eval.references": one_of(*get_args(ReferencesFrom)),
    "eval.repeats": COUNT,
    "eval.kinds": SWITCH,
    "eval.mosaics": COUNT_OR_NONE,
    "eval.otsu": SWITCH,
    "eval.max_images": COUNT_OR_NONE,
    "eval.flip": SWITCH,
    "eval.scales": several(POSITIVE, "(0.5, 2.0)"),
    "eval.overlays": COUNT_OR_NONE,
}
