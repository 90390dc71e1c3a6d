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
from jaxtyping import Array, Bool, Float32, Int, Int32, Num

from fsis_jax.ops import dispatch
from fsis_jax.ops.boxes import pairwise_iou
from fsis_jax.ops.shapes import Scalar, check_shapes
from fsis_jax.ops.varying import varying_like

_TILE = 512
"""Boxes of a tile ..."""

_MOST_TILES = 8
"""... or more, since every tile is compiled."""


@functools.partial(jax.jit, static_argnames=("max_outputs", "offset", "backend"))
def nms(
    boxes: Num[Array, "N 4"],
    scores: Num[Array, " N"],
    valid: Bool[Array, " N"],
    *,
    iou_threshold: Scalar,
    max_outputs: int,
    offset: int = 0,
    backend: dispatch.Backend = "xla",
) -> tuple[Int32[Array, " {max_outputs}"], Bool[Array, " {max_outputs}"]]:
    """Indices of the boxes (N, 4) that no better one overlaps with IoU >= iou_threshold.

    Returns indices (max_outputs,) int32 in descending order of scores (N,), equal scores by lower index, and valid
    (max_outputs,) bool. Rows of padding have index 0. Boxes whose valid (N,) is false, or whose score is not a number,
    take no part. `backend`: see dispatch.py.
    """
    check_shapes("nms", boxes=(boxes, "N 4"), scores=(scores, "N"), valid=(valid, "N"))
    order, boxes, valid = _best_first(boxes, scores, valid)
    kernels = dispatch.choose(backend, "nms", boxes.shape[0])
    if kernels is None:
        keep = _greedy(boxes, valid, None, iou_threshold, offset)
    else:
        keep = kernels.module.keep_best(boxes, valid, iou_threshold, offset=offset, interpret=kernels.interpret)
    return _kept(order, keep, max_outputs)


@functools.partial(jax.jit, static_argnames=("max_outputs", "offset"))
def batched_nms(
    boxes: Num[Array, "N 4"],
    scores: Num[Array, " N"],
    classes: Int[Array, " N"],
    valid: Bool[Array, " N"],
    *,
    iou_threshold: Scalar,
    max_outputs: int,
    offset: int = 0,
) -> tuple[Int32[Array, " {max_outputs}"], Bool[Array, " {max_outputs}"]]:
    """`nms` within each class: a box suppresses those of its own class (N,) alone. The best of all classes come first.

    Classes are compared as such. (Boxes are not moved apart by class, as in torchvision, which rounds coordinates the
    more the more classes there are.)
    """
    check_shapes("batched_nms", boxes=(boxes, "N 4"), scores=(scores, "N"), classes=(classes, "N"), valid=(valid, "N"))
    order, boxes, valid = _best_first(boxes, scores, valid)
    return _kept(order, _greedy(boxes, valid, classes[order], iou_threshold, offset), max_outputs)


def _best_first(
    boxes: Num[Array, "N 4"], scores: Num[Array, " N"], valid: Bool[Array, " N"]
) -> tuple[Int32[Array, " N"], Float32[Array, "N 4"], Bool[Array, " N"]]:
    """The order of boxes by score, and boxes and valid in this order."""
    boxes, scores = jax.lax.stop_gradient((boxes, scores))  # indices have none, and a kernel has no derivative
    valid = valid & ~jnp.isnan(scores)
    order = jnp.argsort(jnp.where(valid, scores, -jnp.inf), descending=True, stable=True).astype(jnp.int32)
    return order, boxes[order].astype(jnp.float32), valid[order]


def _kept(
    order: Int32[Array, " N"], keep: Bool[Array, " N"], max_outputs: int
) -> tuple[Int32[Array, " {max_outputs}"], Bool[Array, " {max_outputs}"]]:
    """What `nms` returns."""
    rank = jnp.cumsum(keep) - 1
    slot = jnp.where(keep, rank, max_outputs)
    indices = jnp.zeros(max_outputs, jnp.int32).at[slot].set(order, mode="drop")
    return indices, jnp.arange(max_outputs) < jnp.sum(keep)


def _greedy(
    boxes: Float32[Array, "N 4"],
    valid: Bool[Array, " N"],
    classes: Int[Array, " N"] | None,
    iou_threshold: Scalar,
    offset: int,
) -> Bool[Array, " N"]:
    """keep (N,) bool for boxes (N, 4) in descending order of score; with `classes` (N,) within each of them."""
    number = boxes.shape[0]
    tile = max(_TILE, -(-number // _MOST_TILES))
    keep = jnp.zeros(0, bool)

    def overlaps(rows: slice, columns: slice) -> jax.Array:
        """(n, m) bool, whether a box of the rows suppresses one of the columns if it is kept."""
        found = pairwise_iou(boxes[rows], boxes[columns], offset=offset) >= iou_threshold
        return found if classes is None else found & (classes[rows, None] == classes[columns])

    for start in range(0, number, tile):
        before, own = slice(0, start), slice(start, start + tile)
        alive = valid[own]
        if start:
            alive &= ~jnp.any(overlaps(before, own) & keep[:, None], axis=0)
        keep = jnp.concatenate([keep, _settle(overlaps(own, own), alive)])
    return keep


def _settle(overlaps: Bool[Array, "n n"], alive: Bool[Array, " n"]) -> Bool[Array, " n"]:
    """keep (n,) bool of the boxes of a tile, of which those that are not `alive` (n,) take no part."""
    earlier = jnp.arange(len(alive))[:, None] < jnp.arange(len(alive))
    suppresses = overlaps & earlier  # row before column
    suppresses = jax.lax.optimization_barrier(suppresses)

    def unsettled(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return state[1]

    def round_(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        keep, _ = state
        new = alive & ~jnp.any(suppresses & keep[:, None], axis=0)
        return new, jnp.any(new != keep)

    keep, _ = jax.lax.while_loop(unsettled, round_, varying_like((alive, jnp.any(alive)), overlaps))
    return keep
