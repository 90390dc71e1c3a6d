"""Dense votes: every position of a fine map says whether it lies in a cell, and which box that cell has.

Anchors and boxes alone cannot part cells that touch or lie askew: two rods side by side have nearly one box, and
overlap of boxes decides which anchor learns which cell. A position lies in one cell only. Each therefore regresses the
distances to the four sides of its own cell's box (FCOS, Tian et al. 2019, with the mask in the place of the box as the
region that learns), at stride 2, from the matched features of the finest level and the backbone's stem. The votes serve
twice: where they are best of their surroundings they are proposals beside those of the RPN, and pooled over a roi they
tell its heads which part of it belongs to one cell (`pooled_votes`).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fsis_jax import ops
from fsis_jax.models.extent import Extent
from fsis_jax.models.layers import GroupNorm, conv, device_sum, relu, small_normal
from fsis_jax.models.losses import weighted_mean
from fsis_jax.models.rpn import Proposals
from fsis_jax.models.targets import Roles

STRIDE = 2
"""Pixels of the canvas per position."""
CHANNELS = 7
"""The number of channels of `pooled_votes`."""
_UNIT = 8.0
"""Distances are predicted as the logarithm of this many pixels."""
_MAX_LOG = 4.0
_PEAK = 3
"""Side of the window, in positions, of which a vote must be the best to be proposed."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Votes:
    """The votes of B images, h = H / 2."""

    cell: jax.Array
    """(B, h, w) float32 logits: in a cell."""
    quality: jax.Array
    """(B, h, w) float32 logits: IoU of the vote with the box of the cell; 0 outside cells."""
    boxes: jax.Array
    """(B, h, w, 4) float32, canvas pixels."""
    inside: jax.Array | None
    """(B, h, w) bool, whether the position lies in the image's extent; None if all do."""


class VoteHead(nnx.Module):
    """Two 3x3 convolutions at stride 2.

    Args:
        fine: channels of the stem.
        coarse: channels of the finest level of the pyramid.
        channels: of the convolutions.
    """

    def __init__(self, fine: int, coarse: int, *, channels: int, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.from_fine = conv(fine, channels, 1, use_bias=False, dtype=dtype, rngs=rngs)
        self.from_coarse = conv(coarse, channels, 1, use_bias=False, dtype=dtype, rngs=rngs)
        self.convs = nnx.List(conv(channels, channels, 3, use_bias=False, dtype=dtype, rngs=rngs) for _ in range(2))
        self.norms = nnx.List(GroupNorm(channels) for _ in range(3))
        self.out = conv(channels, 6, 1, dtype=dtype, rngs=rngs, kernel_init=small_normal)

    def __call__(self, fine: jax.Array, coarse: jax.Array, extent: Extent | None) -> Votes:
        """From the stem (B, h, w, C) and matched features (B, h / 2, w / 2, C) of the finest level."""
        mask = None if extent is None else extent.mask(fine, STRIDE)
        _, height, width, _ = fine.shape
        wide = jnp.repeat(jnp.repeat(self.from_coarse(coarse), 2, axis=1), 2, axis=2)[:, :height, :width]
        x = relu(self.norms[0](self.from_fine(fine) + wide, mask))
        for layer, norm in zip(self.convs, self.norms[1:], strict=True):
            x = relu(norm(layer(x), mask))
        y = self.out(x).astype(jnp.float32)
        distances = _UNIT * jnp.exp(jnp.clip(y[..., 2:], -_MAX_LOG, _MAX_LOG))
        columns = (jnp.arange(width, dtype=jnp.float32) + 0.5) * STRIDE
        rows = (jnp.arange(height, dtype=jnp.float32) + 0.5)[:, None] * STRIDE
        left, top, right, bottom = (distances[..., side] for side in range(4))
        boxes = jnp.stack([columns - left, rows - top, columns + right, rows + bottom], -1)
        return Votes(y[..., 0], y[..., 1], boxes, None if mask is None else mask[..., 0] > 0)


def propose_votes(
    votes: Votes, image_sizes: jax.Array, *, pre_nms: int, post_nms: int, nms_threshold: float, min_size: float
) -> Proposals:
    """The votes that are best of their surroundings, by cell and quality, after NMS; clipped to `image_sizes` (B, 2).

    Args:
        pre_nms: votes of an image that are looked at.
        post_nms: proposals of an image.
        min_size: least width and height, canvas pixels.
    """
    scores = jax.nn.log_sigmoid(votes.cell) + jax.nn.log_sigmoid(votes.quality)
    if votes.inside is not None:
        scores = jnp.where(votes.inside, scores, -jnp.inf)
    best = jax.lax.reduce_window(scores, -jnp.inf, jax.lax.max, (1, _PEAK, _PEAK), (1, 1, 1), "SAME")
    scores = jnp.where(scores == best, scores, -jnp.inf).reshape(len(scores), -1)

    def of_image(scores: jax.Array, boxes: jax.Array, size: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        scores, order = jax.lax.top_k(scores, min(pre_nms, len(scores)))
        boxes = ops.clip(boxes[order], size)
        valid = jnp.isfinite(scores) & (boxes[:, 2:] - boxes[:, :2] >= min_size).all(-1)
        kept, kept_valid = ops.nms(
            boxes, scores, valid, iou_threshold=nms_threshold, max_outputs=min(post_nms, len(scores))
        )
        return boxes[kept], scores[kept], kept_valid

    boxes, scores, valid = jax.vmap(of_image)(scores, votes.boxes.reshape(len(scores), -1, 4), image_sizes)
    return Proposals(boxes=boxes, scores=scores, valid=valid)


def pooled_votes(votes: Votes, rois: jax.Array, size: int) -> jax.Array:
    """What the votes in each roi (B, R, 4) say of it: (B, R, size, size, 7), without a gradient.

    Cell, quality; how far the voted box reaches beyond the roi on each of its four sides, as a share of the roi's
    width or height within -1 and 1; and the IoU of the voted box and the roi. All but the first are weighted with cell.
    """
    rois, votes = jax.lax.stop_gradient((rois, votes))
    cell = _cell(votes)
    read = jnp.concatenate(
        [jnp.stack([cell, cell * jax.nn.sigmoid(votes.quality)], -1), cell[..., None] * votes.boxes], -1
    )

    def of_image(features: jax.Array, rois: jax.Array) -> jax.Array:
        pooled = ops.roi_align(features, rois, spatial_scale=1 / STRIDE, output_size=size, sampling_ratio=1)
        weight = pooled[..., :1]  # (R, p, p, 1)
        voted = pooled[..., 2:] / jnp.maximum(weight, 1e-3)
        roi = rois[:, None, None]  # (R, 1, 1, 4)
        sides = jnp.maximum(roi[..., 2:] - roi[..., :2], 1e-3)
        beyond = (voted - roi) / jnp.concatenate([sides, sides], -1) * jnp.array([-1.0, -1.0, 1.0, 1.0])
        agreement = ops.paired_iou(voted, roi)[..., None]
        return jnp.concatenate([pooled[..., :2], jnp.clip(beyond, -1, 1) * weight, agreement * weight], -1)

    return jax.vmap(of_image)(read, rois)


def pooled_cell(votes: Votes, rois: jax.Array, size: int) -> jax.Array:
    """The probability to lie in a cell, in each roi (B, R, 4) of the canvas: (B, R, size, size) in 0..1."""
    pool = functools.partial(ops.roi_align, spatial_scale=1 / STRIDE, output_size=size, sampling_ratio=1)
    return jax.vmap(pool)(_cell(votes)[..., None], rois)[..., 0]


def _cell(votes: Votes) -> jax.Array:
    cell = jax.nn.sigmoid(votes.cell)
    return cell if votes.inside is None else cell * votes.inside


def vote_losses(
    votes: Votes,
    roles: Roles,
    gt_masks: jax.Array,
    *,
    axis_name: str | None,
) -> dict[str, jax.Array]:
    """This device's share of three terms, for the ground truth (B, G, ...) of B images.

    "vote_cell": binary cross entropy over all positions but those of ignored instances and of another category than the
    references', which are neither. "vote_quality": the same for the IoU that the vote reaches. "vote_box": minus the
    logarithm of that IoU (UnitBox, Yu et al. 2016), each instance of any category counting once.
    """
    size = votes.cell.shape[1:]

    def owners(roles: Roles, masks: jax.Array) -> jax.Array:
        shown = roles.positive | roles.other | roles.ignore
        return ops.owner_map(masks, roles.boxes, shown, size=(size[0], size[1]), stride=STRIDE)

    owner = jax.vmap(owners)(roles, gt_masks)  # (B, h, w)
    batch = len(owner)
    flat = jnp.maximum(owner, 0).reshape(batch, -1)

    def of_owner(values: jax.Array) -> jax.Array:
        found = jnp.take_along_axis(values, flat.reshape(batch, -1, *[1] * (values.ndim - 2)), 1)
        return found.reshape(*owner.shape, *values.shape[2:])

    covered = owner >= 0
    ignored = covered & of_owner(roles.ignore)
    learnt = covered & ~ignored
    iou = ops.paired_iou(votes.boxes, of_owner(roles.boxes))
    counts = (
        jnp.zeros((batch, roles.boxes.shape[1]))
        .at[jnp.arange(batch)[:, None], flat]
        .add(learnt.reshape(batch, -1).astype(jnp.float32))
    )
    instances = jnp.maximum(device_sum((counts > 0).sum().astype(jnp.float32), axis_name), 1.0)
    share = jnp.where(learnt, 1 / jnp.maximum(of_owner(counts), 1.0), 0.0)
    inside = jnp.ones_like(covered) if votes.inside is None else votes.inside
    positive = learnt & of_owner(roles.positive)
    reached = jnp.where(learnt, jax.lax.stop_gradient(iou), 0.0)
    return {
        "vote_cell": weighted_mean(
            _entropy(votes.cell, positive.astype(jnp.float32)), inside & (positive | ~covered), axis_name=axis_name
        ),
        "vote_quality": weighted_mean(_entropy(votes.quality, reached), inside & ~ignored, axis_name=axis_name),
        "vote_box": (share * -jnp.log(jnp.maximum(iou, 1e-3))).sum() / instances,
    }


def _entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Binary cross entropy with targets in 0..1, elementwise."""
    return jax.nn.softplus(logits) - logits * targets
