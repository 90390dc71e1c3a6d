"""Areas, formats, overlaps, deltas and clipping of boxes.

A box is (x1, y1, x2, y2) in absolute pixels, float32; boxes of another type are cast. `offset` names the convention, as
in mmcv: 0 (default) is continuous, width = x2 - x1; 1 is the legacy inclusive one of Detectron, width = x2 - x1 + 1.
Leading axes are free but in the functions of all pairs; N and M below are numbers of boxes.

Sources: Girshick et al., R-CNN (arXiv 1311.2524), appendix C, for the deltas; Detectron `utils/boxes.py` for offset=1.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Num

from fsis_jax.ops.shapes import Scalar, check_shapes

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]

MAX_LOG_SCALE = math.log(1000.0 / 16.0)
"""A decoded box is at most 62.5 times as wide as its anchor."""

_MIN_SIDE = 1e-3
"""Sides below this (pixels) are encoded as this, so that padding or an empty box gives finite deltas."""


@functools.partial(jax.jit, static_argnames=("offset",))
def area(boxes: Num[Array, "*batch 4"], *, offset: int = 0) -> Float32[Array, "*batch"]:
    """Areas (...) of boxes (..., 4) in square pixels; 0 for a box turned inside out."""
    check_shapes("area", boxes=(boxes, "... 4"))
    return _area(_corners(boxes), offset)


@functools.partial(jax.jit, static_argnames=("source", "target", "offset"))
def box_convert(
    boxes: Num[Array, "*batch 4"], source: BoxFormat, target: BoxFormat, *, offset: int = 0
) -> Float32[Array, "*batch 4"]:
    """Boxes (..., 4) from one format to another.

    Args:
      source, target: "xyxy": the corners; "xywh": (x1, y1, width, height), as in COCO's files; "cxcywh": (x, y) of the
        centre, x1 + width / 2, then width and height.
      offset: convention of the corners.

    Raises:
      ValueError: an unknown format.
    """
    check_shapes("box_convert", boxes=(boxes, "... 4"))
    for name in (source, target):
        if name not in get_args(BoxFormat):
            raise ValueError(f"box_convert: format is {name!r}, expected one of {get_args(BoxFormat)}")
    boxes = boxes.astype(jnp.float32)
    if source == target:
        return boxes
    place, last = boxes[..., :2], boxes[..., 2:]
    sides = last - place + offset if source == "xyxy" else last
    low = place - sides / 2 if source == "cxcywh" else place
    match target:
        case "xyxy":
            return jnp.concatenate([low, low + sides - offset], axis=-1)
        case "xywh":
            return jnp.concatenate([low, sides], axis=-1)
        case "cxcywh":
            return jnp.concatenate([low + sides / 2, sides], axis=-1)


class _Corners(NamedTuple):
    """The coordinates of boxes, one array each: the form with the last axis of 4 is slow on CPU."""

    x1: jax.Array
    y1: jax.Array
    x2: jax.Array
    y2: jax.Array


def _corners(boxes: jax.Array) -> _Corners:
    # float32, since an area in float16 is soon infinite.
    boxes = boxes.astype(jnp.float32)
    return _Corners(*(boxes[..., i] for i in range(4)))


def _area(box: _Corners, offset: int) -> jax.Array:
    return jnp.maximum(box.x2 - box.x1 + offset, 0.0) * jnp.maximum(box.y2 - box.y1 + offset, 0.0)


def _shared(a: _Corners, b: _Corners) -> _Corners:
    """What two boxes share; turned inside out where they are apart."""
    return _Corners(jnp.maximum(a.x1, b.x1), jnp.maximum(a.y1, b.y1), jnp.minimum(a.x2, b.x2), jnp.minimum(a.y2, b.y2))


def _hull(a: _Corners, b: _Corners) -> _Corners:
    """The smallest box around two."""
    return _Corners(jnp.minimum(a.x1, b.x1), jnp.minimum(a.y1, b.y1), jnp.maximum(a.x2, b.x2), jnp.maximum(a.y2, b.y2))


def _iou(a: _Corners, b: _Corners, offset: int) -> tuple[jax.Array, jax.Array]:
    """Intersection over union, and the union."""
    intersection = _area(_shared(a, b), offset)
    union = _area(a, offset) + _area(b, offset) - intersection
    return _ratio(intersection, union), union


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole, 0 where whole is not positive. The division comes last: XLA ends a loop with it, and those who read
    the result need not look at `whole` again."""
    some = whole > 0.0
    return jnp.where(some, part, 0.0) / jnp.where(some, whole, 1.0)


def _partners(op: str, a: jax.Array, b: jax.Array) -> tuple[_Corners, _Corners]:
    """Coordinates (...) of boxes a and b (..., 4)."""
    check_shapes(op, a=(a, "... 4"), b=(b, "... 4"))
    return _corners(a), _corners(b)


def _every_pair(op: str, a: jax.Array, b: jax.Array) -> tuple[_Corners, _Corners]:
    """Coordinates (N, 1) and (1, M) of boxes a (N, 4) and b (M, 4)."""
    check_shapes(op, a=(a, "N 4"), b=(b, "M 4"))
    return _corners(a[:, None]), _corners(b[None])


def pairwise_intersection(a: Num[Array, "N 4"], b: Num[Array, "M 4"], *, offset: int = 0) -> Float32[Array, "N M"]:
    """(N, M) intersections, in square pixels, of boxes a (N, 4) and b (M, 4)."""
    return _area(_shared(*_every_pair("pairwise_intersection", a, b)), offset)


@functools.partial(jax.jit, static_argnames=("offset",))
def pairwise_iou(a: Num[Array, "N 4"], b: Num[Array, "M 4"], *, offset: int = 0) -> Float32[Array, "N M"]:
    """(N, M) intersection over union of boxes a (N, 4) and b (M, 4); 0 where both are empty."""
    return _iou(*_every_pair("pairwise_iou", a, b), offset)[0]


@functools.partial(jax.jit, static_argnames=("offset",))
def pairwise_ioa(a: Num[Array, "N 4"], b: Num[Array, "M 4"], *, offset: int = 0) -> Float32[Array, "N M"]:
    """(N, M) intersection over the area of a, for boxes a (N, 4) and b (M, 4); 0 where a is empty."""
    first, second = _every_pair("pairwise_ioa", a, b)
    return _ratio(_area(_shared(first, second), offset), _area(first, offset))


@functools.partial(jax.jit, static_argnames=("offset",))
def paired_iou(a: Num[Array, "*#batch 4"], b: Num[Array, "*#batch 4"], *, offset: int = 0) -> Float32[Array, "*#batch"]:
    """(...) intersection over union of boxes a and b (..., 4), each with its partner; 0 where both are empty.

    Here and in the three below leading axes are broadcast: a[:, None] (N, 1, 4) and b (M, 4) give all pairs, (N, M).
    """
    return _iou(*_partners("paired_iou", a, b), offset)[0]


@functools.partial(jax.jit, static_argnames=("offset",))
def paired_giou(
    a: Num[Array, "*#batch 4"], b: Num[Array, "*#batch 4"], *, offset: int = 0
) -> Float32[Array, "*#batch"]:
    """(...) generalised IoU (arXiv 1902.09630), -1 to 1: IoU minus the share of the smallest box around both that
    neither covers. As a loss, 1 - giou: it has a gradient where boxes are apart."""
    first, second = _partners("paired_giou", a, b)
    iou, union = _iou(first, second, offset)
    around = _area(_hull(first, second), offset)
    return iou - _ratio(around - union, around)


@functools.partial(jax.jit, static_argnames=("offset",))
def paired_diou(
    a: Num[Array, "*#batch 4"], b: Num[Array, "*#batch 4"], *, offset: int = 0
) -> Float32[Array, "*#batch"]:
    """(...) distance IoU (arXiv 1911.08287, equation 6), -1 to 1: IoU minus the squared distance of the centres over
    the squared diagonal of the smallest box around both."""
    first, second = _partners("paired_diou", a, b)
    return _iou(first, second, offset)[0] - _distance(first, second, offset)


@functools.partial(jax.jit, static_argnames=("offset",))
def paired_ciou(
    a: Num[Array, "*#batch 4"], b: Num[Array, "*#batch 4"], *, offset: int = 0
) -> Float32[Array, "*#batch"]:
    """(...) complete IoU (arXiv 1911.08287, equations 8 to 11): distance IoU minus alpha v, where v compares the boxes'
    width / height and alpha = v / (1 - IoU + v), through which no gradient flows."""
    first, second = _partners("paired_ciou", a, b)
    iou, _ = _iou(first, second, offset)

    def angle(box: _Corners) -> jax.Array:
        width, height = (jnp.maximum(side + offset, _MIN_SIDE) for side in (box.x2 - box.x1, box.y2 - box.y1))
        return jnp.arctan(width / height)

    v = (2.0 / jnp.pi * (angle(first) - angle(second))) ** 2
    alpha = jax.lax.stop_gradient(_ratio(v, 1.0 - iou + v))
    return iou - _distance(first, second, offset) - alpha * v


def _distance(a: _Corners, b: _Corners, offset: int) -> jax.Array:
    """Squared distance of the centres over the squared diagonal of the smallest box around both."""
    around = _hull(a, b)
    twice = (a.x1 - b.x1 + a.x2 - b.x2) ** 2 + (a.y1 - b.y1 + a.y2 - b.y2) ** 2
    diagonal = (around.x2 - around.x1 + offset) ** 2 + (around.y2 - around.y1 + offset) ** 2
    return _ratio(twice / 4.0, diagonal)


@functools.partial(jax.jit, static_argnames=("weights", "offset"))
def encode(
    boxes: Num[Array, "*#batch 4"],
    anchors: Num[Array, "*#batch 4"],
    *,
    weights: tuple[float, float, float, float] = (1.0,) * 4,
    offset: int = 0,
) -> Float32[Array, "*#batch 4"]:
    """Deltas (..., 4) = (dx, dy, dw, dh) that `decode` turns back into `boxes` (..., 4), given `anchors` (..., 4).

    dx is the shift of the centre in anchor widths, dw the log of the ratio of widths; each times its weight.
    """
    check_shapes("encode", boxes=(boxes, "... 4"), anchors=(anchors, "... 4"))
    boxes, anchors = boxes.astype(jnp.float32), anchors.astype(jnp.float32)
    anchor_sides = jnp.maximum(anchors[..., 2:] - anchors[..., :2] + offset, _MIN_SIDE)
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2] + offset, _MIN_SIDE)
    anchor_centres = anchors[..., :2] + 0.5 * anchor_sides
    centres = boxes[..., :2] + 0.5 * sides
    deltas = jnp.concatenate([(centres - anchor_centres) / anchor_sides, jnp.log(sides / anchor_sides)], axis=-1)
    return deltas * jnp.asarray(weights, jnp.float32)


@functools.partial(jax.jit, static_argnames=("weights", "offset", "max_log_scale"))
def decode(
    deltas: Num[Array, "*#batch 4"],
    anchors: Num[Array, "*#batch 4"],
    *,
    weights: tuple[float, float, float, float] = (1.0,) * 4,
    offset: int = 0,
    max_log_scale: float = MAX_LOG_SCALE,
) -> Float32[Array, "*#batch 4"]:
    """Boxes (..., 4) from deltas (..., 4) and anchors (..., 4); the inverse of `encode`.

    `max_log_scale` caps dw and dh after division by their weights.
    """
    check_shapes("decode", deltas=(deltas, "... 4"), anchors=(anchors, "... 4"))
    deltas, anchors = deltas.astype(jnp.float32), anchors.astype(jnp.float32)
    deltas = deltas / jnp.asarray(weights, jnp.float32)
    anchor_sides = anchors[..., 2:] - anchors[..., :2] + offset
    centres = anchors[..., :2] + 0.5 * anchor_sides + deltas[..., :2] * anchor_sides
    half_sides = 0.5 * anchor_sides * jnp.exp(jnp.minimum(deltas[..., 2:], max_log_scale))
    return jnp.concatenate([centres - half_sides, centres + half_sides - offset], axis=-1)


@functools.partial(jax.jit, static_argnames=("offset",))
def clip(
    boxes: Num[Array, "*batch 4"], size: Num[Array, "2"] | Sequence[Scalar], *, offset: int = 0
) -> Float32[Array, "*batch 4"]:
    """Boxes (..., 4) moved inside an image of `size` = (height, width): x to [0, width - offset], y likewise."""
    check_shapes("clip", boxes=(boxes, "... 4"))
    boxes = boxes.astype(jnp.float32)
    height, width = size[0] - offset, size[1] - offset
    limits = jnp.stack([jnp.asarray(limit, jnp.float32) for limit in (width, height, width, height)])
    return jnp.clip(boxes, 0.0, limits)
