"""Labels of boxes (anchors or proposals) by their overlap with the ground truth.

Letters: N boxes, G ground-truth instances (padded). Labels are ordered, IGNORE < NEGATIVE < POSITIVE.

Sources: Faster R-CNN (arXiv 1506.01497), section 3.1.2; Detectron `roi_data/rpn.py`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fsis_jax.ops.boxes import pairwise_ioa, pairwise_iou
from fsis_jax.ops.varying import varying_like

IGNORE = -1
NEGATIVE = 0
POSITIVE = 1

_COVERED_BY_IGNORED = 0.5
"""A box with at least this share of its area inside an ignored instance is not a negative."""


_Columns = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


class Assignment(NamedTuple):
    """What `assign` found for each of N boxes."""

    labels: jax.Array
    """(N,) int32: POSITIVE, NEGATIVE or IGNORE."""
    matched: jax.Array
    """(N,) int32, row of the valid, not ignored instance of highest IoU (the first of equals); 0 if none overlaps."""
    iou: jax.Array
    """(N,) float32, IoU with that instance."""


@functools.partial(jax.jit, static_argnames=("force_best", "offset"))
def assign(
    boxes: jax.Array,
    gt_boxes: jax.Array,
    gt_valid: jax.Array,
    *,
    positive_iou: float,
    negative_iou: float,
    force_best: bool = False,
    gt_ignore: jax.Array | None = None,
    boxes_valid: jax.Array | None = None,
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
    usable = gt_valid if gt_ignore is None else gt_valid & ~gt_ignore

    # One instance at a time over all boxes: every step is a few vector operations on (N,), nothing of size N x G is
    # stored, and on CPU this is several times faster than max and argmax over an (N, G) array.
    def step(carry: _Columns, instance: _Columns) -> tuple[_Columns, None]:
        best_iou, matched, forced, shadowed = carry
        index, gt_box, is_usable, is_valid = instance
        iou = pairwise_iou(gt_box[None], boxes, offset=offset)[0]  # (N,)
        # The barrier makes `iou == max(iou)` compare one stored value with itself, not two roundings of it.
        iou = jax.lax.optimization_barrier(iou)
        if boxes_valid is not None:
            iou = jnp.where(boxes_valid, iou, 0.0)
        if gt_ignore is not None:
            covered = pairwise_ioa(boxes, gt_box[None], offset=offset)[:, 0] >= _COVERED_BY_IGNORED
            shadowed = shadowed | (is_valid & ~is_usable & (covered | (iou >= negative_iou)))
        iou = jnp.where(is_usable, iou, 0.0)
        if force_best:
            forced = forced | ((iou == jnp.max(iou)) & (iou > 0.0))
        better = iou > best_iou
        return (jnp.where(better, iou, best_iou), jnp.where(better, index, matched), forced, shadowed), None

    number = boxes.shape[0]
    none = jnp.zeros(number, bool)
    start = (jnp.zeros(number, jnp.float32), jnp.zeros(number, jnp.int32), none, none)
    start = varying_like(start, (boxes, gt_boxes, usable, gt_valid, boxes_valid))
    rows = jnp.arange(gt_boxes.shape[0], dtype=jnp.int32)
    (iou, matched, forced, shadowed), _ = jax.lax.scan(step, start, (rows, gt_boxes, usable, gt_valid))

    positive = (iou >= positive_iou) & (iou > 0.0) | forced
    negative = (iou < negative_iou) & ~shadowed
    labels = jnp.where(positive, POSITIVE, jnp.where(negative, NEGATIVE, IGNORE)).astype(jnp.int32)
    if boxes_valid is not None:
        labels = jnp.where(boxes_valid, labels, IGNORE)
    return Assignment(labels, matched, iou)
