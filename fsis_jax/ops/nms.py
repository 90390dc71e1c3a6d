"""Non-maximum suppression, exact and without a step per box.

Greedy suppression keeps box i if no kept box before it (in descending score) overlaps it. That is the only solution of
keep[i] = valid[i] and no j < i with keep[j] and overlap[j, i], and iterating the equation from keep = valid settles the
boxes in order of the length of their chains of overlaps, a few rounds in practice and never more than N. The overlaps
are packed 32 to a word, which makes a round cost N^2 / 32 operations.

On a GPU that has them, the kernels of `kernels/nms.py` find the same solution box by box; see dispatch.py.

Source of the result: Detectron `utils/cython_nms.pyx` (`nms`): suppression at IoU >= threshold.
"""

import functools

import jax
import jax.numpy as jnp

from fsis_jax.ops import dispatch
from fsis_jax.ops.boxes import pairwise_iou
from fsis_jax.ops.varying import varying_like

_WORD = 32


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
    words = -(-number // _WORD)
    padded = jnp.pad(boxes, ((0, words * _WORD - number), (0, 0)))
    # Bit b of word w stands for box b * words + w, so that a reduction over the first axis packs, in vector operations.
    suppresses = pairwise_iou(padded, boxes, offset=offset) >= iou_threshold  # (32 * words, N)
    earlier = jnp.arange(words * _WORD)[:, None] < jnp.arange(number)[None, :]
    bits = (jnp.uint32(1) << jnp.arange(_WORD, dtype=jnp.uint32))[:, None, None]
    overlap = jnp.sum(
        jnp.where((suppresses & earlier).reshape(_WORD, words, number), bits, jnp.uint32(0)),
        axis=0,
        dtype=jnp.uint32,
    )  # (words, N)
    overlap = jax.lax.optimization_barrier(overlap)

    def pack(keep: jax.Array) -> jax.Array:
        spread = jnp.pad(keep, (0, words * _WORD - number)).reshape(_WORD, words)
        return jnp.sum(jnp.where(spread, bits[:, :, 0], jnp.uint32(0)), axis=0, dtype=jnp.uint32)

    def unsettled(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return state[1]

    def round_(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        keep, _ = state
        suppressed = jnp.any((overlap & pack(keep)[:, None]) != 0, axis=0)
        new = valid & ~suppressed
        return new, jnp.any(new != keep)

    keep, _ = jax.lax.while_loop(unsettled, round_, varying_like((valid, jnp.any(valid)), boxes))
    return keep
