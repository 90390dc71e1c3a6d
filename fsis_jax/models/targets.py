"""What the detector is asked to predict: labels and box targets of anchors and rois, sampled, for one image.

An instance of the references' category is a positive. One of another category is background for the box head
and neither foreground nor background for the RPN, whose proposals should stay open to any cell. Crowds and
held-out categories are ignored by both. `all_positive` gives the PyTorch project's labels instead: every
instance is a positive whatever the references show.
"""

import dataclasses

import jax
import jax.numpy as jnp

from fsis_jax import ops


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Roles:
    """Ground truth of one image (or a batch, with a leading axis), G rows."""

    boxes: jax.Array
    """(G, 4) float32."""
    positive: jax.Array
    """(G,) bool."""
    other: jax.Array
    """(G,) bool, instances of another category than the references'."""
    ignore: jax.Array
    """(G,) bool."""


def assign_roles(
    boxes: jax.Array, valid: jax.Array, matches: jax.Array, ignore: jax.Array, *, all_positive: bool
) -> Roles:
    """From the batch's gt_boxes, gt_valid, gt_matches and gt_ignore."""
    usable = valid & ~ignore
    positive = usable if all_positive else usable & matches
    return Roles(boxes=boxes, positive=positive, other=usable & ~positive, ignore=valid & ignore)


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """Thresholds of intersection over union, and how many boxes of an image enter the loss."""

    positive_iou: float
    negative_iou: float
    samples: int
    positive_fraction: float
    offset: int
    """Box convention."""


def rpn_targets(
    key: jax.Array,
    anchors: jax.Array,
    inside: jax.Array,
    roles: Roles,
    settings: SamplingSettings,
) -> tuple[jax.Array, jax.Array]:
    """Labels (N,) int32, 1, 0 or -1 (not sampled), and box targets (N, 4) of all anchors of one image.

    Args:
        key: randomness of the sampling.
        anchors: (N, 4).
        inside: (N,) bool; anchors outside are never sampled.
        roles: the ground truth.
        settings: thresholds and counts.
    """
    ignored = roles.ignore | roles.other
    assigned = ops.assign(
        anchors,
        roles.boxes,
        roles.positive | ignored,
        positive_iou=settings.positive_iou,
        negative_iou=settings.negative_iou,
        force_best=True,
        gt_ignore=ignored,
        boxes_valid=inside,
        offset=settings.offset,
    )
    labels = ops.sample_labels(key, assigned.labels, num=settings.samples, positive_fraction=settings.positive_fraction)
    return labels, ops.encode(roles.boxes[assigned.matched], anchors, offset=settings.offset)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RoiTargets:
    """R sampled rois of one image (or a batch), positives first."""

    rois: jax.Array
    """(R, 4)."""
    valid: jax.Array
    """(R,) bool."""
    labels: jax.Array
    """(R,) int32, 1 or 0."""
    matched: jax.Array
    """(R,) int32, row of the ground truth that a positive covers."""
    box_targets: jax.Array
    """(R, 4) deltas, divided by the head's standard deviations."""


def roi_targets(
    key: jax.Array,
    proposals: jax.Array,
    proposals_valid: jax.Array,
    roles: Roles,
    settings: SamplingSettings,
    box_weights: tuple[float, float, float, float],
) -> RoiTargets:
    """Sample rois from the proposals (P, 4) and the ground truth itself."""
    rois = jax.lax.stop_gradient(jnp.concatenate([proposals, roles.boxes]))
    usable = jnp.concatenate([proposals_valid, roles.positive | roles.other])
    assigned = _assign_rois(rois, usable, roles, settings)
    chosen, valid = ops.sample_indices(
        key, assigned.labels, num=settings.samples, positive_fraction=settings.positive_fraction
    )
    rois, matched = rois[chosen], assigned.matched[chosen]
    return RoiTargets(
        rois=rois,
        valid=valid,
        labels=jnp.where(valid, jnp.maximum(assigned.labels[chosen], 0), 0),
        matched=matched,
        box_targets=ops.encode(roles.boxes[matched], rois, weights=box_weights, offset=settings.offset),
    )


def roi_labels(rois: jax.Array, valid: jax.Array, roles: Roles, settings: SamplingSettings) -> jax.Array:
    """Labels (R,) int32, 1 or 0, of rois (R, 4) that are sampled already; `valid` is (R,) bool."""
    return jnp.maximum(_assign_rois(rois, valid, roles, settings).labels, 0)


def _assign_rois(rois: jax.Array, valid: jax.Array, roles: Roles, settings: SamplingSettings) -> ops.Assignment:
    return ops.assign(
        rois,
        roles.boxes,
        roles.positive | roles.ignore,
        positive_iou=settings.positive_iou,
        negative_iou=settings.negative_iou,
        gt_ignore=roles.ignore,
        boxes_valid=valid,
        offset=settings.offset,
    )
