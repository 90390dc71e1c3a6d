"""Areas, overlaps, deltas and clipping of boxes.

A box is (x1, y1, x2, y2) in absolute pixels, float32. `offset` names the convention, as in mmcv: 0 (default) is
continuous, width = x2 - x1; 1 is the legacy inclusive one of Detectron, width = x2 - x1 + 1. Leading axes of
`encode`, `decode`, `clip` and `area` are free; N and M below are numbers of boxes.

Sources: Girshick et al., R-CNN (arXiv 1311.2524), appendix C, for the deltas; Detectron `utils/boxes.py` for offset=1.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

MAX_LOG_SCALE = math.log(1000.0 / 16.0)
"""A decoded box is at most 62.5 times as wide as its anchor."""

_MIN_SIDE = 1e-3
"""Sides below this (pixels) are encoded as this, so that padding or an empty box gives finite deltas."""


@functools.partial(jax.jit, static_argnames=("offset",))
def area(boxes: jax.Array, *, offset: int = 0) -> jax.Array:
    """Areas (...) of boxes (..., 4) in square pixels; 0 for a box turned inside out."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2] + offset, 0.0)
    return sides[..., 0] * sides[..., 1]


def pairwise_intersection(a: jax.Array, b: jax.Array, *, offset: int = 0) -> jax.Array:
    """(N, M) intersections, in square pixels, of boxes a (N, 4) and b (M, 4)."""
    # One coordinate at a time: the (N, M, 2) form is slow on CPU.
    ax1, ay1, ax2, ay2 = (a[:, i, None] for i in range(4))
    bx1, by1, bx2, by2 = (b[None, :, i] for i in range(4))
    width = jnp.minimum(ax2, bx2) - jnp.maximum(ax1, bx1) + offset
    height = jnp.minimum(ay2, by2) - jnp.maximum(ay1, by1) + offset
    return jnp.maximum(width, 0.0) * jnp.maximum(height, 0.0)


@functools.partial(jax.jit, static_argnames=("offset",))
def paired_iou(a: jax.Array, b: jax.Array, *, offset: int = 0) -> jax.Array:
    """(...) intersection over union of boxes a and b (..., 4), each with its partner; 0 where both are empty."""
    low, high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    sides = jnp.maximum(high - low + offset, 0.0)
    intersection = sides[..., 0] * sides[..., 1]
    union = area(a, offset=offset) + area(b, offset=offset) - intersection
    return jnp.where(union > 0.0, intersection / jnp.where(union > 0.0, union, 1.0), 0.0)


@functools.partial(jax.jit, static_argnames=("offset",))
def pairwise_iou(a: jax.Array, b: jax.Array, *, offset: int = 0) -> jax.Array:
    """(N, M) intersection over union of boxes a (N, 4) and b (M, 4); 0 where both are empty."""
    intersection = pairwise_intersection(a, b, offset=offset)
    union = area(a, offset=offset)[:, None] + area(b, offset=offset)[None, :] - intersection
    return _ratio(intersection, union)


@functools.partial(jax.jit, static_argnames=("offset",))
def pairwise_ioa(a: jax.Array, b: jax.Array, *, offset: int = 0) -> jax.Array:
    """(N, M) intersection over the area of a, for boxes a (N, 4) and b (M, 4); 0 where a is empty."""
    return _ratio(pairwise_intersection(a, b, offset=offset), area(a, offset=offset)[:, None])


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole, 0 where whole is not positive. The division comes last: XLA ends a loop with it, and those who read
    the result need not look at `whole` again."""
    some = whole > 0.0
    return jnp.where(some, part, 0.0) / jnp.where(some, whole, 1.0)


@functools.partial(jax.jit, static_argnames=("weights", "offset"))
def encode(
    boxes: jax.Array, anchors: jax.Array, *, weights: tuple[float, float, float, float] = (1.0,) * 4, offset: int = 0
) -> jax.Array:
    """Deltas (..., 4) = (dx, dy, dw, dh) that `decode` turns back into `boxes` (..., 4), given `anchors` (..., 4).

    dx is the shift of the centre in anchor widths, dw the log of the ratio of widths; each times its weight.
    """
    anchor_sides = jnp.maximum(anchors[..., 2:] - anchors[..., :2] + offset, _MIN_SIDE)
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2] + offset, _MIN_SIDE)
    anchor_centres = anchors[..., :2] + 0.5 * anchor_sides
    centres = boxes[..., :2] + 0.5 * sides
    deltas = jnp.concatenate([(centres - anchor_centres) / anchor_sides, jnp.log(sides / anchor_sides)], axis=-1)
    return deltas * jnp.asarray(weights, deltas.dtype)


@functools.partial(jax.jit, static_argnames=("weights", "offset", "max_log_scale"))
def decode(
    deltas: jax.Array,
    anchors: jax.Array,
    *,
    weights: tuple[float, float, float, float] = (1.0,) * 4,
    offset: int = 0,
    max_log_scale: float = MAX_LOG_SCALE,
) -> jax.Array:
    """Boxes (..., 4) from deltas (..., 4) and anchors (..., 4); the inverse of `encode`.

    `max_log_scale` caps dw and dh after division by their weights.
    """
    deltas = deltas / jnp.asarray(weights, deltas.dtype)
    anchor_sides = anchors[..., 2:] - anchors[..., :2] + offset
    centres = anchors[..., :2] + 0.5 * anchor_sides + deltas[..., :2] * anchor_sides
    half_sides = 0.5 * anchor_sides * jnp.exp(jnp.minimum(deltas[..., 2:], max_log_scale))
    return jnp.concatenate([centres - half_sides, centres + half_sides - offset], axis=-1)


@functools.partial(jax.jit, static_argnames=("offset",))
def clip(boxes: jax.Array, size: jax.Array | Sequence[float], *, offset: int = 0) -> jax.Array:
    """Boxes (..., 4) moved inside an image of `size` = (height, width): x to [0, width - offset], y likewise."""
    height, width = size[0] - offset, size[1] - offset
    limits = jnp.stack([jnp.asarray(limit, boxes.dtype) for limit in (width, height, width, height)])
    return jnp.clip(boxes, 0.0, limits)
