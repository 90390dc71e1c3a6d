"""Object keypoint similarity (OKS), the IoU of keypoints, and suppression by it.

The similarity of a detection and a ground truth is the mean of exp(-d^2 / (2 (2 sigma)^2 area)) over the ground truth's
visible keypoints: d is the distance in pixels, sigma says how precisely people place this keypoint, area is the ground
truth's.

Letters: N detections, G ground-truth instances, P keypoints. A keypoint is (x, y, v): v is a score in a detection and
COCO's flag in a ground truth (0 unlabelled, 1 hidden, 2 visible; hidden ones count as visible here).

Sources: cocoapi `cocoeval.py` (`computeOks`); Detectron `utils/keypoints.py` (`nms_oks`, `compute_oks`).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, Num

from fsis_jax.ops.boxes import area
from fsis_jax.ops.shapes import Scalar, check_shapes
from fsis_jax.ops.varying import varying_like

COCO_SIGMAS = np.array(
    [
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
        0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
    ],
    np.float32,
)  # fmt: skip
"""(17,) of COCO's persons: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, each left before right."""
COCO_SIGMAS.setflags(write=False)

OTHER_SIGMA = 0.1
"""The sigma of every keypoint where they are not COCO's seventeen."""

_LEAST_AREA = float(np.spacing(1.0))
"""Added to areas, as in the sources."""


def oks_sigmas(count: int) -> Float32[np.ndarray, " {count}"]:
    """(count,) float32: COCO's for 17 keypoints, else `OTHER_SIGMA` for all."""
    return COCO_SIGMAS if count == len(COCO_SIGMAS) else np.full(count, OTHER_SIGMA, np.float32)


@functools.partial(jax.jit, static_argnames=("offset",))
def pairwise_oks(
    keypoints: Num[Array, "N P 3"],
    gt_keypoints: Num[Array, "G P 3"],
    gt_boxes: Num[Array, "G 4"],
    gt_areas: Num[Array, " G"],
    *,
    sigmas: Float[Array | np.ndarray, " P"] = COCO_SIGMAS,
    offset: int = 0,
) -> Float32[Array, "N G"]:
    """(N, G) float32 similarities of detected keypoints (N, P, 3) and those of the ground truth (G, P, 3).

    A ground truth without visible keypoints has them anywhere in its box, enlarged by its sides in all four directions:
    d is the distance to this.

    Args:
      keypoints: the third value of a keypoint is not read, nor is any invisible ground-truth keypoint.
      gt_boxes: (G, 4).
      gt_areas: (G,) square pixels; COCO's are those of the masks.
      sigmas: (P,).
      offset: 1 for boxes of width x2 - x1 + 1.
    """
    check_shapes(
        "pairwise_oks",
        keypoints=(keypoints, "N P 3"),
        gt_keypoints=(gt_keypoints, "G P 3"),
        gt_boxes=(gt_boxes, "G 4"),
        gt_areas=(gt_areas, "G"),
    )
    _check(keypoints, sigmas)
    keypoints, gt_keypoints, gt_boxes = (x.astype(jnp.float32) for x in (keypoints, gt_keypoints, gt_boxes))
    visible = gt_keypoints[..., 2] > 0  # (G, P)
    some = visible.any(axis=1, keepdims=True)
    sides = gt_boxes[:, 2:] - gt_boxes[:, :2] + offset
    low, high = gt_boxes[:, :2] - sides, gt_boxes[:, :2] + 2.0 * sides  # (G, 2)
    low, high = (jnp.where(some[..., None], gt_keypoints[..., :2], corner[:, None]) for corner in (low, high))
    return _similarity(keypoints, low, high, gt_areas, visible | ~some, sigmas)


@functools.partial(jax.jit, static_argnames=("max_outputs", "offset"))
def oks_nms(
    keypoints: Num[Array, "N P 3"],
    boxes: Num[Array, "N 4"],
    scores: Num[Array, " N"],
    valid: Bool[Array, " N"],
    *,
    threshold: Scalar,
    max_outputs: int,
    sigmas: Float[Array | np.ndarray, " P"] = COCO_SIGMAS,
    offset: int = 0,
) -> tuple[Int32[Array, " {max_outputs}"], Bool[Array, " {max_outputs}"]]:
    """Indices of the detections to whose keypoints (N, P, 3) no better one's have a similarity > threshold.

    All keypoints count, and the area is that of the better one's box (N, 4). Returns indices (max_outputs,) int32 in
    descending order of scores (N,), equal scores by lower index, and valid (max_outputs,) bool. Rows of padding have
    index 0. Detections whose valid (N,) is false, or whose score is not a number, take no part. Detectron's scores here
    are the means over the keypoints' (`keypoints[..., 2]`), and its offset is 1.
    """
    check_shapes(
        "oks_nms",
        keypoints=(keypoints, "N P 3"),
        boxes=(boxes, "N 4"),
        scores=(scores, "N"),
        valid=(valid, "N"),
    )
    _check(keypoints, sigmas)
    keypoints = keypoints.astype(jnp.float32)
    valid = valid & ~jnp.isnan(scores)
    order = jnp.argsort(jnp.where(valid, scores, -jnp.inf), descending=True, stable=True).astype(jnp.int32)
    places, areas, alive = keypoints[order, :, :2], area(boxes[order], offset=offset), valid[order]
    similarity = _similarity(places, places, places, areas, jnp.ones(places.shape[:2], bool), sigmas)
    earlier = jnp.arange(len(order)) < jnp.arange(len(order))[:, None]
    suppressed_by = jax.lax.optimization_barrier((similarity > threshold) & earlier)  # row by column

    # Greedy suppression, by rounds: see nms.py.
    def unsettled(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return state[1]

    def round_(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        keep, _ = state
        new = alive & ~jnp.any(suppressed_by & keep, axis=1)
        return new, jnp.any(new != keep)

    keep, _ = jax.lax.while_loop(
        unsettled, round_, varying_like((alive, jnp.any(alive)), (keypoints, boxes, scores, valid))
    )
    slot = jnp.where(keep, jnp.cumsum(keep) - 1, max_outputs)
    indices = jnp.zeros(max_outputs, jnp.int32).at[slot].set(order, mode="drop")
    return indices, jnp.arange(max_outputs) < jnp.sum(keep)


def _check(keypoints: jax.Array, sigmas: jax.Array | np.ndarray) -> None:
    if sigmas.shape != (keypoints.shape[-2],):
        raise ValueError(f"{keypoints.shape[-2]} keypoints need as many sigmas; sigmas have shape {sigmas.shape}")


def _similarity(
    keypoints: Float32[Array, "N P axes"],
    low: Float32[Array, "G P 2"],
    high: Float32[Array, "G P 2"],
    areas: Num[Array, " G"],
    counted: Bool[Array, "G P"],
    sigmas: Float[Array | np.ndarray, " P"],
) -> Float32[Array, "N G"]:
    """(N, G) mean similarities of keypoints (N, P, 2 or 3) to rectangles from `low` to `high` (G, P, 2), over those
    `counted` (G, P)."""
    tolerance = 2.0 * (2.0 * jnp.asarray(sigmas, jnp.float32)) ** 2  # (P,)
    total = jnp.zeros((keypoints.shape[0], low.shape[0]), jnp.float32)
    for p in range(keypoints.shape[1]):  # the (N, G, P) form is slow on CPU
        squares = jnp.zeros_like(total)
        for axis in range(2):
            place = keypoints[:, p, axis, None]  # (N, 1)
            outside = jnp.maximum(low[:, p, axis] - place, 0.0) + jnp.maximum(place - high[:, p, axis], 0.0)
            squares += outside**2
        exponent = squares / tolerance[p] / (areas + _LEAST_AREA)
        total += jnp.where(counted[:, p], jnp.exp(-exponent), 0.0)
    return total / jnp.maximum(counted.sum(axis=1), 1)
