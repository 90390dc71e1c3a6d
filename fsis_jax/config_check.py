"""What a config may say, checked before anything is built: each key by itself, and keys that must agree.

Every fault is told in one form: `config.KEY is VALUE; it must be ...`.
"""

import collections
import itertools
import reprlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from fsis_jax.config_rules import RULES
from fsis_jax.errors import FsisError

Fault = tuple[str, str]
"""A key, and what it must be."""


class Need(NamedTuple):
    """What one key asks of another."""

    key: str
    values: tuple[Any, ...] | None
    """Those of `key` that ask for it; None: all but 0 and ()."""
    other: str
    needed: Any
    """What `other` must then be."""
    why: str = ""


_NO_REFERENCES = ": a detector of named classes is shown no references"

NEEDS = (
    Need("model.box_head.kind", ("res5",), "model.architecture", "c4"),
    Need("model.mask_head.kind", ("res5",), "model.architecture", "c4"),
    Need("model.mask_head.kind", ("shared_res5",), "model.box_head.kind", "res5"),
    Need("model.votes.kind", ("dense",), "model.architecture", "fpn"),
    Need("model.votes.kind", ("dense",), "model.legacy_boxes", False),
    Need("model.detections.vote_confidence", None, "model.votes.kind", "dense"),
    Need("model.detections.legacy_pasting", (True,), "model.legacy_boxes", True),
    Need("model.shifted_mask_references", (True,), "model.fpn.coarsest", 6),
    Need("model.backbone.depth", (10, 18, 34), "model.backbone.deformable", "none", ": such blocks need 50 or more"),
    Need("model.backbone.depth", (10, 18, 34), "model.backbone.groups", 1, ": such blocks need 50 or more"),
    Need("model.backbone.depth", (10, 18, 34), "model.backbone.dilation", 1, ": such blocks need 50 or more"),
    Need("model.backbone.dilation", (2,), "model.architecture", "c5"),
    Need("data.aspect_bounds", None, "data.transform.scale", "shortest_side"),
    Need("model.classes", None, "model.matching.kind", "none", _NO_REFERENCES),
    Need("model.classes", None, "model.relation", "none", _NO_REFERENCES),
    Need("model.classes", None, "data.contrast", False, _NO_REFERENCES),
    Need("model.classes", None, "data.mosaic", 0, _NO_REFERENCES),
    Need("model.classes", None, "data.fold", 0, _NO_REFERENCES),
    Need("model.classes", None, "data.transform.scale", "shortest_side", _NO_REFERENCES),
    Need("model.classes", None, "eval.mosaics", 0, _NO_REFERENCES),
    Need("model.classes", None, "eval.kinds", False, _NO_REFERENCES),
    Need("eval.kinds", (True,), "eval.mosaics", 0, ": these are two tests"),
    Need("eval.kinds", (True,), "eval.otsu", False, ": these are two tests"),
    Need("eval.kinds", (True,), "eval.references", "train"),
    Need("eval.mosaics", None, "eval.otsu", False, ": these are two tests"),
    Need("eval.mosaics", None, "eval.references", "train"),
)

ORDERED = (
    ("data.transform.shortest_side", "data.transform.longest_side"),
    ("data.transform.min_scale", "data.transform.max_scale"),
    ("model.rpn.negative_iou", "model.rpn.positive_iou"),
    ("model.box_head.negative_iou", "model.box_head.positive_iou"),
)
"""The first of each pair must not exceed the second."""


def check_config(config: ConfigDict, source: object = None) -> None:
    """Raise FsisError for values that cannot work, alone or together.

    Args:
        config: a whole one.
        source: the file or folder that it comes from, with which the message then begins.
    """
    check_values(config, source)
    _raise_first(config, itertools.chain(_needs(config), _orders(config), _data(config), _model(config)), source)


def check_values(config: ConfigDict, source: object = None) -> None:
    """Raise FsisError for a value that its key cannot have whatever the others are; arguments as for `check_config`."""
    faults = ((key, rule.must_be) for key, rule in RULES.items() if not rule.allows(value_of(config, key)))
    _raise_first(config, faults, source)


def value_of(config: ConfigDict, key: str) -> Any:
    """The value of a key like "data.shots"; None if the config lacks it."""
    part: Any = config
    for name in key.split("."):
        part = part.get(name) if isinstance(part, ConfigDict) else None
    return part


def _raise_first(config: ConfigDict, faults: Iterator[Fault], source: object) -> None:
    for key, must_be in faults:
        where = "" if source is None else f"{source}: "
        raise FsisError(f"{where}config.{key} is {_shown(value_of(config, key))}; it must be {must_be}")


def _needs(config: ConfigDict) -> Iterator[Fault]:
    for need in NEEDS:
        value = value_of(config, need.key)
        asks = bool(value) if need.values is None else value in need.values
        if asks and value_of(config, need.other) != need.needed:
            yield need.other, f"{need.needed!r} where config.{need.key} is {_shown(value)}{need.why}"


def _orders(config: ConfigDict) -> Iterator[Fault]:
    for smaller, larger in ORDERED:
        if value_of(config, smaller) > value_of(config, larger):
            yield smaller, f"at most config.{larger}, which is {value_of(config, larger)}"


def _data(config: ConfigDict) -> Iterator[Fault]:
    data = config.data
    if data.present + data.background > 1:
        yield "data.background", f"at most 1 together with config.data.present, which is {data.present}"
    if data.mosaic and data.transform.max_instances < 4:
        must_be = f"at least 4, one for each panel, where config.data.mosaic is {data.mosaic}"
        yield "data.transform.max_instances", must_be


def _model(config: ConfigDict) -> Iterator[Fault]:
    model = config.model
    levels = model.fpn.coarsest - 1
    if model.architecture == "fpn" and len(model.rpn.anchor_sizes) != levels:
        must_be = f"{levels} sizes, one for each level of the pyramid (2 to {model.fpn.coarsest})"
        yield "model.rpn.anchor_sizes", must_be
    if model.keypoint_head.kind != "none" and not model.classes:
        must_be = "'none' where config.model.classes is (): only detectors of named classes find keypoints"
        yield "model.keypoint_head.kind", must_be
    if twice := [name for name, count in collections.Counter(model.classes).items() if count > 1]:
        yield "model.classes", f"different names; {twice[0]!r} is there twice"


def _shown(value: Any) -> str:
    """A value in one line, and not all of a long tuple."""
    return " ".join(_brief.repr(value).split())


_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 200
