"""Soft-NMS, which lowers the scores of overlapping boxes instead of deleting them, and box voting.

Letters: N boxes, K kept boxes. Sources: Soft-NMS (arXiv 1704.04503) as in Detectron `utils/cython_nms.pyx`
(`soft_nms`); voting from Gidaris and Komodakis (arXiv 1505.01749) as in Detectron `utils/boxes.py` (`box_voting`).
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32, Num

from fsis_jax.ops.boxes import pairwise_iou
from fsis_jax.ops.shapes import Scalar, check_shapes
from fsis_jax.ops.varying import varying_like

SoftNmsMethod = Literal["linear", "gaussian", "hard"]
VotingMethod = Literal["id", "avg", "iou_avg", "temp_avg", "generalized_avg", "quasi_sum"]

_State = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


@functools.partial(jax.jit, static_argnames=("method", "max_outputs", "offset"))
def soft_nms(
    boxes: Num[Array, "N 4"],
    scores: Num[Array, " N"],
    valid: Bool[Array, " N"],
    *,
    method: SoftNmsMethod = "linear",
    iou_threshold: Scalar = 0.5,
    sigma: Scalar = 0.5,
    score_threshold: Scalar = 1e-4,
    max_outputs: int,
    offset: int = 0,
) -> tuple[Int32[Array, " {max_outputs}"], Float32[Array, " {max_outputs}"], Bool[Array, " {max_outputs}"]]:
    """Takes the best box again and again, each time lowering the scores (N,) of the boxes (N, 4) that overlap it.

    Returns indices (max_outputs,) int32, their lowered scores (max_outputs,) float32 in descending order, and valid
    (max_outputs,) bool; padding has index and score 0. Boxes with valid (N,) false take no part.

    Args:
      method: what a box of IoU u with the one just taken keeps of its score: "linear" 1 - u if u > iou_threshold;
        "gaussian" exp(-u^2 / sigma); "hard" nothing if u > iou_threshold (strictly, unlike `nms`).
      score_threshold: a box whose score falls below this is dropped.
    """
    if method not in get_args(SoftNmsMethod):
        raise ValueError(f"soft_nms: method is {method!r}, expected one of {get_args(SoftNmsMethod)}")
    check_shapes("soft_nms", boxes=(boxes, "N 4"), scores=(scores, "N"), valid=(valid, "N"))
    rows = jnp.arange(boxes.shape[0], dtype=jnp.int32)

    def kept_share(iou: jax.Array) -> jax.Array:
        if method == "gaussian":
            return jnp.exp(-(iou**2) / sigma)
        return jnp.where(iou > iou_threshold, 1.0 - iou if method == "linear" else 0.0, 1.0)

    def alive(scores: jax.Array) -> jax.Array:
        return jnp.where(scores >= score_threshold, scores, -jnp.inf)

    def unfinished(state: _State) -> jax.Array:
        count, remaining, _, _ = state
        return (count < max_outputs) & jnp.any(remaining > -jnp.inf)

    def take(state: _State) -> _State:
        count, remaining, indices, taken_scores = state
        best = jnp.argmax(remaining).astype(jnp.int32)
        iou = pairwise_iou(boxes[best][None], boxes, offset=offset)[0]  # (N,)
        lowered = jnp.where(remaining > -jnp.inf, remaining * kept_share(iou), -jnp.inf)
        left = jnp.where(rows == best, -jnp.inf, alive(lowered))
        return count + 1, left, indices.at[count].set(best), taken_scores.at[count].set(remaining[best])

    start = (
        jnp.int32(0),
        jnp.where(valid, alive(scores.astype(jnp.float32)), -jnp.inf),
        jnp.zeros(max_outputs, jnp.int32),
        jnp.zeros(max_outputs, jnp.float32),
    )
    start = varying_like(start, (boxes, scores, valid))
    count, _, indices, taken_scores = jax.lax.while_loop(unfinished, take, start)
    return indices, taken_scores, jnp.arange(max_outputs) < count


@functools.partial(jax.jit, static_argnames=("method", "offset"))
def box_voting(
    boxes: Num[Array, "K 4"],
    scores: Float[Array, " K"],
    all_boxes: Num[Array, "N 4"],
    all_scores: Float[Array, " N"],
    all_valid: Bool[Array, " N"],
    *,
    iou_threshold: Scalar,
    method: VotingMethod = "id",
    beta: Scalar = 1.0,
    offset: int = 0,
) -> tuple[Float32[Array, "K 4"], Float[Array, " K"]]:
    """Refines kept boxes (K, 4) to the score-weighted mean of their voters: the boxes of `all_boxes` (N, 4) with
    IoU >= iou_threshold. Returns boxes (K, 4) and scores (K,); a box without voters stays as it is.

    Args:
      scores: (K,) scores of the kept boxes.
      all_boxes, all_scores, all_valid: (N, 4), (N,), (N,) bool, the boxes before suppression.
      method: score of a refined box, from the scores s of its n voters. "id": unchanged; "avg": mean; "iou_avg": mean
        weighted by IoU; "temp_avg": mean of s^(1/beta) / (s^(1/beta) + (1 - s)^(1/beta)); "generalized_avg":
        mean(s^beta)^(1/beta); "quasi_sum": sum / n^beta.
    """
    check_shapes(
        "box_voting",
        boxes=(boxes, "K 4"),
        scores=(scores, "K"),
        all_boxes=(all_boxes, "N 4"),
        all_scores=(all_scores, "N"),
        all_valid=(all_valid, "N"),
    )
    boxes, all_boxes = boxes.astype(jnp.float32), all_boxes.astype(jnp.float32)
    iou = pairwise_iou(boxes, all_boxes, offset=offset)  # (K, N)
    votes = (iou >= iou_threshold) & all_valid
    weights = jnp.where(votes, all_scores, 0.0)
    total, number = weights.sum(axis=1), jnp.maximum(votes.sum(axis=1), 1).astype(jnp.float32)
    safe_total = jnp.where(total > 0.0, total, 1.0)
    refined = jnp.matmul(weights, all_boxes, precision="highest") / safe_total[:, None]
    refined = jnp.where(total[:, None] > 0.0, refined, boxes)

    match method:
        case "id":
            refined_scores = scores
        case "avg":
            refined_scores = total / number
        case "iou_avg":
            shares = jnp.where(votes, iou, 0.0)
            share_sum = shares.sum(axis=1)
            refined_scores = (shares * weights).sum(axis=1) / jnp.where(share_sum > 0.0, share_sum, 1.0)
        case "temp_avg":
            heated, heated_rest = all_scores ** (1.0 / beta), (1.0 - all_scores) ** (1.0 / beta)
            refined_scores = jnp.where(votes, heated / (heated + heated_rest), 0.0).sum(axis=1) / number
        case "generalized_avg":
            refined_scores = (jnp.where(votes, all_scores**beta, 0.0).sum(axis=1) / number) ** (1.0 / beta)
        case "quasi_sum":
            refined_scores = total / number**beta
        case _:
            raise ValueError(f"box_voting: method is {method!r}, expected one of {get_args(VotingMethod)}")
    return refined, jnp.where(total > 0.0, refined_scores, scores)
