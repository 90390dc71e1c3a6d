"""Instance masks: targets for rois, pasting of predictions into the image, and boxes around masks.

A mask is laid over a box: cell (i, j) of an M x M mask covers the box's i-th row and j-th column of M equal parts.
Resampling is separable, so it is two small matrix products per roi. Letters: R rois, G instances, m and M mask sides.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Num, Shaped

from fsis_jax.ops.shapes import Scalar, check_shapes


def _sampling_weights(
    points: Float[Array, "R P"], low: Float[Array, " R"], high: Float[Array, " R"], cells: int
) -> Float[Array, "R P {cells}"]:
    """(R, P, cells) bilinear weights of a mask's cells at points (R, P), for a mask laid over [low, high] (R,) pixels.

    Beyond the centres of the outermost cells the outermost cell counts in full; outside [low, high] all weights are 0.
    """
    extent = jnp.maximum(high - low, 1e-6)[:, None]
    position = (points - low[:, None]) / extent  # 0..1 inside the box
    inside = (position >= 0.0) & (position <= 1.0)
    cell = jnp.clip(position * cells - 0.5, 0.0, cells - 1.0)
    weights = jnp.maximum(1.0 - jnp.abs(cell[..., None] - jnp.arange(cells)), 0.0)
    return jnp.where(inside[..., None], weights, 0.0)


def _unit_range(masks: Shaped[Array, "G m n"]) -> Float32[Array, "G m n"]:
    return masks.astype(jnp.float32) / 255.0 if masks.dtype == jnp.uint8 else masks.astype(jnp.float32)


@functools.partial(jax.jit, static_argnames=("size", "offset"))
def roi_mask_targets(
    gt_masks: Shaped[Array, "G m n"],
    gt_boxes: Num[Array, "G 4"],
    rois: Num[Array, "R 4"],
    matched: Int[Array, " R"],
    *,
    size: int,
    offset: int = 0,
) -> Float32[Array, "R {size} {size}"]:
    """Targets (R, size, size) float32, 0 or 1, of a mask head for rois (R, 4).

    The mask of the matched instance, cropped to its own box, is read bilinearly at the centres of the roi's cells and
    thresholded at 0.5; it is 0 outside the instance's box.

    Args:
      gt_masks: (G, m, m), uint8 coverage 0..255 (as in Batch), or bool or float 0..1.
      gt_boxes: (G, 4) pixels.
      matched: (R,) int32, row of the roi's instance.
      offset: convention of `gt_boxes` (1: x2 and y2 name the last pixel inside). A roi spans what RoIAlign reads of it,
        x1 to x2 in either convention.
    """
    check_shapes(
        "roi_mask_targets",
        gt_masks=(gt_masks, "G m n"),
        gt_boxes=(gt_boxes, "G 4"),
        rois=(rois, "R 4"),
        matched=(matched, "R"),
    )
    boxes, rois = gt_boxes[matched].astype(jnp.float32), rois.astype(jnp.float32)
    masks = _unit_range(gt_masks[matched])  # (R, m, m)
    fractions = (jnp.arange(size) + 0.5) / size
    sides = rois[:, 2:] - rois[:, :2]
    points = rois[:, :2, None] + sides[:, :, None] * fractions  # (R, 2, size)
    across = _sampling_weights(points[:, 0], boxes[:, 0], boxes[:, 2] + offset, masks.shape[2])
    down = _sampling_weights(points[:, 1], boxes[:, 1], boxes[:, 3] + offset, masks.shape[1])
    coverage = jnp.einsum("rym,rmn,rxn->ryx", down, masks, across, precision="highest")
    return (coverage >= 0.5).astype(jnp.float32)


@functools.partial(jax.jit, static_argnames=("size", "stride", "offset"))
def owner_map(
    masks: Shaped[Array, "G m n"],
    boxes: Num[Array, "G 4"],
    valid: Bool[Array, " G"],
    *,
    size: tuple[int, int],
    stride: int,
    offset: int = 0,
) -> Int32[Array, "h w"]:
    """Which instance covers each position of a feature map: (h, w) int32, its row in `boxes`; -1 where none does.

    The position in row i and column j looks at the pixel position ((j + 0.5) * stride, (i + 0.5) * stride). Where
    instances overlap, the one that covers it most has it (the first of equals).

    Args:
      masks: (G, m, m), uint8 coverage 0..255 (as in Batch), or bool or float 0..1, each laid over its own box.
      boxes: (G, 4) pixels.
      valid: (G,) bool; the others cover nothing.
      size: (h, w).
      stride: pixels per position.
    """
    check_shapes("owner_map", masks=(masks, "G m n"), boxes=(boxes, "G 4"), valid=(valid, "G"))
    boxes = boxes.astype(jnp.float32)
    height, width = size
    count = len(boxes)
    x = jnp.broadcast_to((jnp.arange(width) + 0.5) * stride, (count, width))
    y = jnp.broadcast_to((jnp.arange(height) + 0.5) * stride, (count, height))
    across = _sampling_weights(x, boxes[:, 0], boxes[:, 2] + offset, masks.shape[2])
    down = _sampling_weights(y, boxes[:, 1], boxes[:, 3] + offset, masks.shape[1])
    coverage = jnp.einsum("gym,gmn,gxn->gyx", down, _unit_range(masks), across)
    coverage = jnp.where(valid[:, None, None], coverage, 0.0)
    nobody = jnp.full((1, height, width), np.nextafter(np.float32(0.5), np.float32(0)))
    return jnp.argmax(jnp.concatenate([nobody, coverage]), 0).astype(jnp.int32) - 1


@functools.partial(jax.jit, static_argnames=("size", "offset"))
def paste_masks(
    masks: Shaped[Array, "R m n"],
    boxes: Num[Array, "R 4"],
    *,
    size: tuple[int, int],
    threshold: Scalar = 0.5,
    offset: int = 0,
) -> Bool[Array, "R H W"]:
    """Full-image masks (R, H, W) bool from masks (R, M, M) of probabilities laid over boxes (R, 4); size = (H, W).

    A pixel belongs to the instance if its centre (x + 0.5, y + 0.5) lies in the box and the bilinear probability there
    exceeds the threshold.
    """
    check_shapes("paste_masks", masks=(masks, "R m n"), boxes=(boxes, "R 4"))
    boxes = boxes.astype(jnp.float32)
    height, width = size
    x, y = jnp.arange(width) + 0.5, jnp.arange(height) + 0.5

    def paste(mask: jax.Array, box: jax.Array) -> jax.Array:
        across = _sampling_weights(x[None], box[None, 0], box[None, 2] + offset, mask.shape[1])[0]
        down = _sampling_weights(y[None], box[None, 1], box[None, 3] + offset, mask.shape[0])[0]
        return jnp.linalg.multi_dot([down, mask, across.T], precision="highest") > threshold

    # A few at a time: the probabilities of all instances over a whole image, in float32, need not exist at once.
    return jax.lax.map(lambda row: paste(*row), (masks.astype(jnp.float32), boxes), batch_size=8)


@functools.partial(jax.jit, static_argnames=("offset",))
def masks_to_boxes(masks: Shaped[Array, "G H W"], *, offset: int = 0) -> Float32[Array, "G 4"]:
    """The tight boxes (G, 4) of full-image masks (G, H, W): what is not 0 is inside.

    With offset 0, x2 and y2 are the far edges of the last pixels inside, with offset 1 these pixels themselves. The box
    of an empty mask has area 0: (0, 0, -offset, -offset).
    """
    check_shapes("masks_to_boxes", masks=(masks, "G H W"))

    def span(inside: jax.Array) -> tuple[jax.Array, jax.Array]:
        """First and last row (or column), (G,) each, of those (G, n) that hold a pixel inside."""
        some, length = inside.any(axis=1), inside.shape[1]
        first, after = jnp.argmax(inside, axis=1), length - jnp.argmax(inside[:, ::-1], axis=1)
        return jnp.where(some, first, 0), jnp.where(some, after, 0) - offset

    (x1, x2), (y1, y2) = span((masks != 0).any(axis=1)), span((masks != 0).any(axis=2))
    return jnp.stack([x1, y1, x2, y2], axis=1).astype(jnp.float32)
