"""Non-maximum suppression, exact and without a step per box.

Boxes are taken in tiles, in descending order of score. The boxes that earlier tiles kept suppress those of a tile, all
at once. Within a tile greedy suppression keeps box i if no kept box before it overlaps it: the only solution of
keep[i] = alive[i] and no j < i with keep[j] and overlap[j, i]. Iterating that equation from keep = alive settles the
boxes in order of the length of their chains of overlaps, a few rounds in practice and never more than a tile has boxes.
Every pair of tiles is compared once; over all boxes at a time it would be twice.

On a GPU that has them, the kernels of `kernels/nms.py` find the same solution box by box; see dispatch.py.

Source of the result: Detectron `utils/cython_nms.pyx` (`nms`): suppression at IoU >= threshold.
"""

import functools

import jax
import jax.numpy as jnp

from fsis_jax.ops import dispatch
from fsis_jax.ops.boxes import pairwise_iou
from fsis_jax.ops.varying import varying_like

_TILE = 512
"""Boxes of a tile ..."""

_MOST_TILES = 8
"""... or more, since every tile is compiled."""


@functools.partial(jax.jit, static_argnames=("max_outputs", "offset", "backend"))
def nms(
    boxes: jax.Array,
    scores: jax.Array,
    valid: jax.Array,
    *,
    iou_threshold: float,
    max_outputs: int,
    offset: int = 0,
    backend: dispatch.Backend = "xla",
) -> tuple[jax.Array, jax.Array]:
    """Indices of the boxes (N, 4) that no better one overlaps with IoU >= iou_threshold.

    Returns indices (max_outputs,) int32 in descending order of scores (N,), equal scores by lower index, and valid
    (max_outputs,) bool. Rows of padding have index 0. Boxes whose valid (N,) is false, or whose score is not a number,
    take no part. `backend`: see dispatch.py.
    """
    boxes, scores = jax.lax.stop_gradient((boxes, scores))  # indices have none, and a kernel has no derivative
    valid = valid & ~jnp.isnan(scores)
    order = jnp.argsort(jnp.where(valid, scores, -jnp.inf), descending=True, stable=True).astype(jnp.int32)
    sorted_valid = valid[order]
    kernels = dispatch.choose(backend, "nms", boxes.shape[0])
    if kernels is None:
        keep = _greedy(boxes[order], sorted_valid, iou_threshold, offset)
    else:
        keep = kernels.module.keep_best(
            boxes[order], sorted_valid, iou_threshold, offset=offset, interpret=kernels.interpret
        )
    rank = jnp.cumsum(keep) - 1
    slot = jnp.where(keep, rank, max_outputs)
    indices = jnp.zeros(max_outputs, jnp.int32).at[slot].set(order, mode="drop")
    return indices, jnp.arange(max_outputs) < jnp.sum(keep)


def _greedy(boxes: jax.Array, valid: jax.Array, iou_threshold: float, offset: int) -> jax.Array:
    """keep (N,) bool for boxes (N, 4) in descending order of score."""
    number = boxes.shape[0]
    tile = max(_TILE, -(-number // _MOST_TILES))
    keep = jnp.zeros(0, bool)
    for start in range(0, number, tile):
        own, alive = boxes[start : start + tile], valid[start : start + tile]
        if start:
            overlaps = pairwise_iou(boxes[:start], own, offset=offset) >= iou_threshold  # (start, tile)
            alive &= ~jnp.any(overlaps & keep[:, None], axis=0)
        keep = jnp.concatenate([keep, _settle(own, alive, iou_threshold, offset)])
    return keep


def _settle(boxes: jax.Array, alive: jax.Array, iou_threshold: float, offset: int) -> jax.Array:
    """keep (n,) bool of the boxes (n, 4) of a tile, of which those that are not `alive` (n,) take no part."""
    earlier = jnp.arange(len(boxes))[:, None] < jnp.arange(len(boxes))
    suppresses = (pairwise_iou(boxes, boxes, offset=offset) >= iou_threshold) & earlier  # row before column
    suppresses = jax.lax.optimization_barrier(suppresses)

    def unsettled(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return state[1]

    def round_(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        keep, _ = state
        new = alive & ~jnp.any(suppresses & keep[:, None], axis=0)
        return new, jnp.any(new != keep)

    keep, _ = jax.lax.while_loop(unsettled, round_, varying_like((alive, jnp.any(alive)), boxes))
    return keep
