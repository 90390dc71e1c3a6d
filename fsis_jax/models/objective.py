"""The training objective of the detector: what is sampled, every loss term, and how they share one forward pass.

Follows the training branch of modeling/model_builder.py of the PyTorch project, and adds the mask loss that the
published code comments out (its quirk Q2). See `targets.py` for what counts as a positive.
"""

import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fsis_jax import ops
from fsis_jax.batch import Batch
from fsis_jax.models import losses
from fsis_jax.models.arrays import Pyramid
from fsis_jax.models.build import trunk_of
from fsis_jax.models.detector import Detector, of_class
from fsis_jax.models.extent import Extent
from fsis_jax.models.keypoint_head import keypoint_loss, keypoint_targets
from fsis_jax.models.layers import Training
from fsis_jax.models.normalise import normalise
from fsis_jax.models.targets import RoiTargets, SamplingSettings, assign_roles, roi_labels, roi_targets, rpn_targets
from fsis_jax.models.votes import vote_losses

Terms = dict[str, jax.Array]


def training_losses(
    model: Detector, batch: Batch, key: jax.Array, *, axis_name: str | None = None
) -> tuple[Terms, Terms]:
    """This device's share of every loss term, and of a few counts.

    The terms of the whole batch, on all devices along `axis_name`, are the sums of the shares.

    Args:
        model: the detector; its running statistics change.
        batch: episodes of this device.
        key: the same on all devices; sampling derives a key per image from `batch.sample_ids`.
        axis_name: devices over which the batch is spread.
    """
    config, training = model.config, Training(axis_name)
    image_sizes = jnp.asarray(batch.image_sizes)
    extent = model.extent(image_sizes)
    normalised = functools.partial(normalise, mean=config.image_mean)
    pyramid = model.pyramid(normalised(batch.images, image_sizes), extent)
    # A closed-set detector is shown none.
    references = model.encode_references(normalised(batch.references)) if batch.references.shape[1] else {}
    matched = model.match(pyramid, references, extent, training)
    roles = assign_roles(
        jnp.asarray(batch.gt_boxes),
        jnp.asarray(batch.gt_valid),
        jnp.asarray(batch.gt_matches),
        jnp.asarray(batch.gt_ignore),
        all_positive=config.all_gt_positive,
    )
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch.sample_ids)  # one per image
    keys = jax.vmap(jax.random.split)(keys)  # (B, 2)

    # Region proposals. A level's rows follow the order of `pyramid`.
    all_anchors = jnp.concatenate(list(model.anchors(pyramid).values()))
    inside = trainable_anchors(all_anchors, image_sizes, config.rpn.straddle)
    labels, targets = jax.vmap(rpn_targets, in_axes=(0, None, 0, 0, None))(
        keys[:, 0], all_anchors, inside, roles, sampling_settings(config, "rpn")
    )
    # The original's softmax is averaged over what was sampled, as its sigmoid is without a pyramid.
    constant = config.architecture == "fpn" and config.rpn.objectness == "sigmoid"
    rpn_class, rpn_box = losses.rpn_losses(
        jnp.concatenate(list(matched.logits.values()), 1),
        jnp.concatenate(list(matched.deltas.values()), 1),
        labels,
        targets,
        samples_per_image=config.rpn.samples if constant else None,
        axis_name=axis_name,
    )

    # Boxes.
    proposals = model.proposals(matched, pyramid, extent, image_sizes, train=True)
    sampled = jax.vmap(roi_targets, in_axes=(0, 0, 0, 0, None, None))(
        keys[:, 1],
        proposals.boxes,
        proposals.valid,
        roles,
        sampling_settings(config, "box_head"),
        tuple(config.box_head.box_weights),
    )
    size = config.box_head.pooled
    features = model.pool(matched, sampled.rois, size, valid=sampled.valid, training=training)
    logits, deltas = model.classify(features)
    labels = sampled.labels
    if config.classes:
        of_matched = jnp.take_along_axis(jnp.asarray(batch.gt_classes), sampled.matched, 1)
        labels = jnp.where(labels == ops.POSITIVE, of_matched, 0)
    deltas = of_class(deltas, labels)
    box_class, box_regression = losses.box_losses(
        logits,
        deltas,
        labels,
        sampled.valid,
        sampled.box_targets,
        jnp.asarray(batch.reference_present),
        quality=_reached(model, sampled, deltas) if config.box_head.quality_scores else None,
        axis_name=axis_name,
    )
    terms: Terms = {
        "rpn_class": rpn_class,
        "rpn_box": rpn_box,
        "box_class": box_class,
        "box_regression": box_regression,
    }

    if matched.votes is not None:
        terms |= vote_losses(matched.votes, roles, jnp.asarray(batch.gt_masks), axis_name=axis_name)

    # Masks and keypoints. Only the positives, which come first among the sampled rois, have them to learn.
    count = ops.most_positives(config.box_head.samples, config.box_head.positive_fraction)
    rois, matched_rows = sampled.rois[:, :count], sampled.matched[:, :count]
    positive = (sampled.labels[:, :count] == ops.POSITIVE) & jnp.asarray(batch.reference_present)[:, None]
    if model.mask_head is not None:
        trunk = model.mask_head.trunk
        if config.mask_head.pooled == size and trunk is trunk_of(model.box_head):
            features = features.first(count)
        else:
            features = model.pool_for(trunk, matched, rois, config.mask_head.pooled, valid=positive, training=training)
        logits = model.masks_of(model.mask_head(features), labels[:, :count])
        terms["mask"] = _mask_loss(model, logits, rois, matched_rows, positive, batch, axis_name)
    if model.keypoint_head is not None:
        head = config.keypoint_head
        maps = model.keypoint_head(model.pool_for(None, matched, rois, head.pooled).rois)
        cells, weights = jax.vmap(lambda *image: keypoint_targets(*image, size=maps.shape[2], offset=model.offset))(
            jnp.asarray(batch.gt_keypoints), rois, matched_rows
        )
        terms["keypoint"] = head.loss_weight * keypoint_loss(maps, cells, weights, positive, axis_name=axis_name)
    if batch.contrast_references.shape[1]:
        terms["contrast"] = _contrast_loss(model, pyramid, extent, sampled, batch, training)
    return terms, {"positive_rois": positive.sum().astype(jnp.float32)}


def _reached(model: Detector, sampled: RoiTargets, deltas: jax.Array) -> jax.Array:
    """(B, R) IoU of the boxes that the deltas (B, R, 4) make of the rois with those of their instances."""
    weights = tuple(model.config.box_head.box_weights)
    decode = functools.partial(ops.decode, weights=weights, offset=model.offset)
    found = decode(jax.lax.stop_gradient(deltas), sampled.rois)
    return ops.paired_iou(found, decode(sampled.box_targets, sampled.rois), offset=model.offset)


def _mask_loss(
    model: Detector,
    logits: jax.Array,
    rois: jax.Array,
    matched: jax.Array,
    positive: jax.Array,
    batch: Batch,
    axis_name: str | None,
) -> jax.Array:
    def targets_of(masks: jax.Array, boxes: jax.Array, rois: jax.Array, rows: jax.Array) -> jax.Array:
        return ops.roi_mask_targets(masks, boxes, rois, rows, size=logits.shape[-1], offset=model.offset)

    targets = jax.vmap(targets_of)(jnp.asarray(batch.gt_masks), jnp.asarray(batch.gt_boxes), rois, matched)
    return losses.mask_loss(logits, targets, positive, axis_name=axis_name)


def _contrast_loss(
    model: Detector, pyramid: Pyramid, extent: Extent, sampled: RoiTargets, batch: Batch, training: Training
) -> jax.Array:
    """The class loss of the same rois, shown references of another category (two-way training, Fan et al. 2020).

    What was a positive now is background, and the cells of the other category are the positives.
    """
    config = model.config
    references = model.encode_references(normalise(batch.contrast_references, mean=config.image_mean))
    matched = model.match(pyramid, references, extent, training)
    roles = assign_roles(
        jnp.asarray(batch.gt_boxes),
        jnp.asarray(batch.gt_valid),
        jnp.asarray(batch.gt_classes == batch.contrast_classes[:, None]),
        jnp.asarray(batch.gt_ignore),
        all_positive=False,
    )
    labels = jax.vmap(roi_labels, in_axes=(0, 0, 0, None))(
        sampled.rois, sampled.valid, roles, sampling_settings(config, "box_head")
    )
    features = model.pool(matched, sampled.rois, config.box_head.pooled, valid=sampled.valid, training=training)
    logits, _ = model.classify(features)
    return losses.class_loss(logits, labels, sampled.valid, axis_name=training.axis_name)


def trainable_anchors(anchors: jax.Array, image_sizes: jax.Array, straddle: float) -> jax.Array:
    """(B, N) bool: anchors (N, 4) whose centre is in the image and that reach at most `straddle` pixels out of it.

    A negative `straddle` sets no limit.
    """
    bounds = image_sizes[:, None, ::-1]  # (B, 1, 2): width, height
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2  # (N, 2)
    inside = (centres < bounds).all(-1)
    if straddle >= 0:
        inside &= (anchors[:, :2] >= -straddle).all(-1) & (anchors[:, 2:] < bounds + straddle).all(-1)
    return inside


def sampling_settings(config: ConfigDict, head: str) -> SamplingSettings:
    """How boxes are sampled for the head "rpn" or "box_head" of `config`, the `model` section."""
    section = config[head]
    return SamplingSettings(
        positive_iou=section.positive_iou,
        negative_iou=section.negative_iou,
        samples=section.samples,
        positive_fraction=section.positive_fraction,
        offset=1 if config.legacy_boxes else 0,
    )
