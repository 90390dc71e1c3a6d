"""Instance masks: targets for rois, and pasting of predictions into the image.

A mask is laid over a box: cell (i, j) of an M x M mask covers the box's i-th row and j-th column of M equal parts.
Resampling is separable, so it is two small matrix products per roi. Letters: R rois, G instances, m and M mask sides.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def _sampling_weights(points: jax.Array, low: jax.Array, high: jax.Array, cells: int) -> jax.Array:
    """(R, P, cells) bilinear weights of a mask's cells at points (R, P), for a mask laid over [low, high] (R,) pixels.

    Beyond the centres of the outermost cells the outermost cell counts in full; outside [low, high] all weights are 0.
    """
    extent = jnp.maximum(high - low, 1e-6)[:, None]
    position = (points - low[:, None]) / extent  # 0..1 inside the box
    inside = (position >= 0.0) & (position <= 1.0)
    cell = jnp.clip(position * cells - 0.5, 0.0, cells - 1.0)
    weights = jnp.maximum(1.0 - jnp.abs(cell[..., None] - jnp.arange(cells)), 0.0)
    return jnp.where(inside[..., None], weights, 0.0)


def _unit_range(masks: jax.Array) -> jax.Array:
    return masks.astype(jnp.float32) / 255.0 if masks.dtype == jnp.uint8 else masks.astype(jnp.float32)


@functools.partial(jax.jit, static_argnames=("size", "offset"))
def roi_mask_targets(
    gt_masks: jax.Array, gt_boxes: jax.Array, rois: jax.Array, matched: jax.Array, *, size: int, offset: int = 0
) -> jax.Array:
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
    boxes = gt_boxes[matched]
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
    masks: jax.Array, boxes: jax.Array, valid: jax.Array, *, size: tuple[int, int], stride: int, offset: int = 0
) -> jax.Array:
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
    masks: jax.Array, boxes: jax.Array, *, size: tuple[int, int], threshold: float = 0.5, offset: int = 0
) -> jax.Array:
    """Full-image masks (R, H, W) bool from masks (R, M, M) of probabilities laid over boxes (R, 4); size = (H, W).

    A pixel belongs to the instance if its centre (x + 0.5, y + 0.5) lies in the box and the bilinear probability there
    exceeds the threshold.
    """
    height, width = size
    x, y = jnp.arange(width) + 0.5, jnp.arange(height) + 0.5

    def paste(mask: jax.Array, box: jax.Array) -> jax.Array:
        across = _sampling_weights(x[None], box[None, 0], box[None, 2] + offset, mask.shape[1])[0]
        down = _sampling_weights(y[None], box[None, 1], box[None, 3] + offset, mask.shape[0])[0]
        return jnp.linalg.multi_dot([down, mask, across.T], precision="highest") > threshold

    # A few at a time: the probabilities of all instances over a whole image, in float32, need not exist at once.
    return jax.lax.map(lambda row: paste(*row), (masks.astype(jnp.float32), boxes), batch_size=8)
