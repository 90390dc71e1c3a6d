"""Keypoint head, its targets and its loss, and keypoints from its heat maps.

Follows modeling/keypoint_rcnn_heads.py and utils/keypoints.py of Detectron (roi_pose_head_v1convX with
KRCNN.USE_DECONV_OUTPUT and UP_SCALE 2; He et al. 2017, Mask R-CNN, section 5). A keypoint is a softmax over the cells
of its own heat map, which is laid over the roi: cell (i, j) of M x M covers the roi's i-th row and j-th column of M
equal parts. P is the number of keypoints; flat cell numbers are row * M + column.

Keypoints are continuous: the middle of pixel i is i + 0.5. With boxes of the legacy inclusive convention (`offset` 1)
it is i in the frame of a roi, as Detectron trains.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import DTypeLike

from fsis_jax.models.layers import conv, device_sum, relu

_STEPS = 8
"""Positions per cell at which `decode_keypoints` looks for the highest point."""
_REACH = 2
"""Cells beyond the highest one that bear on the surface up to one cell from it."""


class KeypointHead(nnx.Module):
    """3x3 convolutions -> x2 deconvolution to the heat maps -> x2 bilinear.

    Args:
        channels_in: C of the pooled features.
        keypoints: P.
        channels: of the convolutions.
        convs: their number.
    """

    def __init__(
        self, channels_in: int, *, keypoints: int, channels: int, convs: int, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        inputs = [channels_in, *[channels] * (convs - 1)]
        self.convs = nnx.List(conv(c, channels, 3, dtype=dtype, rngs=rngs) for c in inputs)
        # The kernel (4, 4, P, channels) is that of PyTorch, (channels, P, 4, 4), in the other order of axes; "SAME"
        # is its padding of 1.
        self.out = nnx.ConvTranspose(
            channels,
            keypoints,
            (4, 4),
            strides=2,
            padding="SAME",
            transpose_kernel=True,
            kernel_init=jax.nn.initializers.normal(0.001),
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, rois: jax.Array) -> jax.Array:
        """Pooled features (B, R, p, p, C) -> logits (B, R, M, M, P) float32, M = 4 p."""
        batch, number = rois.shape[:2]
        x = rois.reshape(batch * number, *rois.shape[2:])
        for layer in self.convs:
            x = relu(layer(x))
        x = _double(self.out(x).astype(jnp.float32))
        return x.reshape(batch, number, *x.shape[1:])


def _double(x: jax.Array) -> jax.Array:
    """(N, h, w, P) -> (N, 2h, 2w, P), bilinear; beyond its border the map counts as 0, as in Detectron."""

    def weights(length: int) -> jax.Array:
        centres = (jnp.arange(2 * length) + 0.5) / 2 - 0.5
        return jnp.maximum(1 - jnp.abs(centres[:, None] - jnp.arange(length)), 0.0)  # (2 * length, length)

    return jnp.einsum("yi,nijp,xj->nyxp", weights(x.shape[1]), x, weights(x.shape[2]), precision="highest")


def keypoint_targets(
    keypoints: jax.Array, rois: jax.Array, matched: jax.Array, *, size: int, offset: int
) -> tuple[jax.Array, jax.Array]:
    """Cells that the keypoints of each roi's instance lie in, for one image (Detectron's keypoints_to_heatmap_labels).

    Args:
        keypoints: (G, P, 3) x, y and visibility, pixels of the canvas.
        rois: (R, 4).
        matched: (R,) int32, row of the roi's instance.
        size: M.
        offset: convention of the rois.

    Returns:
        (R, P) int32 cells, 0 where there is none; and weights (R, P) bool: labelled (visibility over 0, so hidden
        keypoints too) and inside the roi. Its right and lower border are inside.
    """
    points = keypoints[matched]  # (R, P, 3)
    sides = (rois[:, 2:] - rois[:, :2])[:, None]  # (R, 1, 2)
    from_corner = points[..., :2] - 0.5 * offset - rois[:, None, :2]
    inside = ((from_corner >= 0) & (from_corner <= sides) & (sides > 0)).all(-1)
    weights = inside & (points[..., 2] > 0)
    position = jnp.where(weights[..., None], from_corner / jnp.where(sides > 0, sides, 1.0), 0.0)
    column, row = jnp.unstack(jnp.minimum(jnp.floor(position * size).astype(jnp.int32), size - 1), axis=-1)
    return row * size + column, weights


def keypoint_loss(
    logits: jax.Array, targets: jax.Array, weights: jax.Array, positive: jax.Array, *, axis_name: str | None
) -> jax.Array:
    """This device's share of the cross entropy over the cells of a heat map, averaged over the keypoints that count.

    Args:
        logits: (B, R, M, M, P).
        targets: (B, R, P) int32 cells.
        weights: (B, R, P) bool, of `keypoint_targets`.
        positive: (B, R) bool, rois that have keypoints to learn.
        axis_name: devices over which the batch is spread; the average is over the keypoints of all of them.
    """
    flat = logits.reshape(*logits.shape[:2], -1, logits.shape[-1])  # (B, R, M * M, P)
    entropy = optax.softmax_cross_entropy_with_integer_labels(flat, targets, axis=2)
    counted = weights & positive[..., None]
    number = device_sum(counted.sum().astype(jnp.float32), axis_name)
    return jnp.where(counted, entropy, 0.0).sum() / jnp.maximum(number, 1.0)


def decode_keypoints(logits: jax.Array, rois: jax.Array, *, offset: int = 0) -> jax.Array:
    """Where the heat maps of one image are highest: (R, P, 3) x, y in pixels of the rois' frame, and a score.

    Detectron (heatmaps_to_keypoints) resizes each map bicubically to its roi in whole pixels and takes the highest
    pixel; its size would differ from roi to roi. Here the same surface (the cubic of OpenCV, a = -0.75, the border
    repeated) is looked at in eighths of a cell up to one cell around the highest cell, where its maximum lies: near
    a lower cell it could overshoot that cell's value only by a fraction of the differences to its neighbours. The
    two agree to half a pixel and a sixteenth of a cell, and to a pixel in rois of fewer pixels than the map has cells,
    where Detectron sees only some points of the surface.

    Args:
        logits: (R, M, M, P).
        rois: (R, 4).
        offset: convention of the rois; with 1 they are best those in the original image.

    Returns:
        The score is the probability of the highest cell among all cells of its map.
    """
    number, side, _, count = logits.shape
    flat = logits.reshape(number, -1, count)
    cell = flat.argmax(1)  # (R, P)
    score = jnp.exp(flat.max(1) - jax.nn.logsumexp(flat, axis=1))
    row, column = cell // side, cell % side
    padded = jnp.pad(logits, ((0, 0), (_REACH, _REACH), (_REACH, _REACH), (0, 0)), mode="edge")
    near = jnp.arange(2 * _REACH + 1)
    patches = padded[
        jnp.arange(number)[:, None, None, None],
        row[..., None, None] + near[:, None],
        column[..., None, None] + near,
        jnp.arange(count)[:, None, None],
    ]  # (R, P, 5, 5)
    shifts = np.arange(-_STEPS, _STEPS + 1) / _STEPS
    cubic = _cubic_weights(shifts)  # (S, 5)
    surface = jnp.einsum("si,rpij,tj->rpst", cubic, patches, cubic, precision="highest")
    highest = surface.reshape(number, count, -1).argmax(-1)
    moved = jnp.asarray(shifts, jnp.float32)
    fine = jnp.stack([column + moved[highest % len(shifts)], row + moved[highest // len(shifts)]], axis=-1) + 0.5
    sides = jnp.maximum(rois[:, 2:] - rois[:, :2], 1.0)
    points = rois[:, None, :2] + jnp.clip(fine / side, 0.0, 1.0) * sides[:, None] + 0.5 * offset
    return jnp.concatenate([points, score[..., None]], axis=-1)


def _cubic_weights(positions: np.ndarray) -> np.ndarray:
    """(S, 5) float32 weights of cells -2 ... 2 at positions (S,) between -1 and 1."""
    distance = np.abs(positions[:, None] - np.arange(-_REACH, _REACH + 1))
    a = -0.75
    inner = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    outer = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, inner, np.where(distance < 2, outer, 0.0)).astype(np.float32)
