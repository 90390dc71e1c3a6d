"""Labels of boxes (anchors or proposals) by their overlap with the ground truth.

Letters: N boxes, G ground-truth instances (padded). Labels are ordered, IGNORE < NEGATIVE < POSITIVE.

Sources: Faster R-CNN (arXiv 1506.01497), section 3.1.2; Detectron `roi_data/rpn.py`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Num

from fsis_jax.ops.boxes import area, pairwise_intersection, pairwise_iou
from fsis_jax.ops.shapes import Scalar, check_shapes
from fsis_jax.ops.varying import varying_like

IGNORE = -1
NEGATIVE = 0
POSITIVE = 1

_FAR = 1e9
"""Pixels."""

_COVERED_BY_IGNORED = 0.5
"""A box with at least this share of its area inside an ignored instance is not a negative."""


class Assignment(NamedTuple):
    """What `assign` found for each of N boxes."""

    labels: Int32[Array, " N"]
    """(N,) int32: POSITIVE, NEGATIVE or IGNORE."""
    matched: Int32[Array, " N"]
    """(N,) int32, row of the valid, not ignored instance of highest IoU (the first of equals); 0 if none overlaps."""
    iou: Float32[Array, " N"]
    """(N,) float32, IoU with that instance."""


@functools.partial(jax.jit, static_argnames=("force_best", "offset"))
def assign(
    boxes: Num[Array, "N 4"],
    gt_boxes: Num[Array, "G 4"],
    gt_valid: Bool[Array, " G"],
    *,
    positive_iou: Scalar,
    negative_iou: Scalar,
    force_best: bool = False,
    gt_ignore: Bool[Array, " G"] | None = None,
    boxes_valid: Bool[Array, " N"] | None = None,
    offset: int = 0,
) -> Assignment:
    """Labels boxes (N, 4) against gt_boxes (G, 4), of which gt_valid (G,) bool tells the real ones.

    Args:
      positive_iou: POSITIVE from this IoU on.
      negative_iou: NEGATIVE below this IoU; IGNORE in between.
      force_best: the boxes of highest IoU (ties included, IoU > 0) of each instance become POSITIVE too. As in
        Detectron, `matched` stays the instance that such a box overlaps most.
      gt_ignore: (G,) bool, instances that nothing may be matched with (crowds, held-out categories). A box that would
        be NEGATIVE and overlaps one (IoU >= negative_iou, or half of the box inside) becomes IGNORE.
      boxes_valid: (N,) bool; the others are IGNORE and nobody's best.
    """
    check_shapes("assign", boxes=(boxes, "N 4"), gt_boxes=(gt_boxes, "G 4"), gt_valid=(gt_valid, "G"))
    boxes, gt_boxes = boxes.astype(jnp.float32), gt_boxes.astype(jnp.float32)
    if gt_boxes.shape[0] == 0:
        gt_boxes, gt_valid, gt_ignore = jnp.zeros((1, 4)), jnp.zeros(1, bool), None  # so that there is a row to index
    boxes, gt_boxes = jax.lax.stop_gradient((boxes, gt_boxes))
    if boxes_valid is not None:
        # Turned inside out they overlap nothing.
        boxes = jnp.where(boxes_valid[:, None], boxes, jnp.array([1.0, 1.0, -1.0, -1.0]) * _FAR)
    usable = gt_valid if gt_ignore is None else gt_valid & ~gt_ignore

    # One instance at a time over all boxes, those that are there alone: every step is a few vector operations on (N,),
    # nothing of size N x G is stored, and on CPU this is several times faster than max and argmax over an (N, G) array.
    def match(step: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        best_iou, matched, forced = state
        row = usable_rows[step]
        iou = pairwise_iou(gt_boxes[row][None], boxes, offset=offset)[0]  # (N,)
        # The barrier makes `iou == max(iou)` compare one stored value with itself, not two roundings of it.
        iou = jax.lax.optimization_barrier(iou)
        if force_best:
            forced = forced | ((iou == jnp.max(iou, initial=0.0)) & (iou > 0.0))
        better = iou > best_iou
        return jnp.where(better, iou, best_iou), jnp.where(better, row, matched), forced

    number = boxes.shape[0]
    none = jnp.zeros(number, bool)
    start = (jnp.zeros(number, jnp.float32), jnp.zeros(number, jnp.int32), none)
    start = varying_like(start, (boxes, gt_boxes, usable))
    usable_rows = _chosen_first(usable)
    iou, matched, forced = jax.lax.fori_loop(0, jnp.sum(usable), match, start)

    shadowed = none
    if gt_ignore is not None:
        ignored = gt_valid & gt_ignore
        ignored_rows = _chosen_first(ignored)

        def shadow(step: jax.Array, shadowed: jax.Array) -> jax.Array:
            gt_box = gt_boxes[ignored_rows[step]][None]
            shared = pairwise_intersection(gt_box, boxes, offset=offset)[0]  # (N,)
            union = area(gt_box, offset=offset) + areas - shared
            over = (shared >= _COVERED_BY_IGNORED * areas) | (shared >= negative_iou * union)
            return shadowed | ((areas > 0.0) & over)

        areas = area(boxes, offset=offset)
        start_shadow = varying_like(none, (boxes, gt_boxes, ignored))
        shadowed = jax.lax.fori_loop(0, jnp.sum(ignored), shadow, start_shadow)

    positive = (iou >= positive_iou) & (iou > 0.0) | forced
    negative = (iou < negative_iou) & ~shadowed
    labels = jnp.where(positive, POSITIVE, jnp.where(negative, NEGATIVE, IGNORE)).astype(jnp.int32)
    if boxes_valid is not None:
        labels = jnp.where(boxes_valid, labels, IGNORE)
    return Assignment(labels, matched, iou)


def _chosen_first(chosen: Bool[Array, " G"]) -> Int32[Array, " G"]:
    """Rows (G,) int32 with those that are chosen (G,) bool in front, in order."""
    return jnp.argsort(~chosen, stable=True).astype(jnp.int32)
