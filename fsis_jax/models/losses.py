"""The losses of the detector, as sums over this device divided by counts over all devices.

Follows modeling/FPN.py (rpn), fast_rcnn_heads.py (boxes) and mask_rcnn_heads.py (masks) of the PyTorch project.
Each function returns this device's share: the loss of the whole batch is the sum of the shares over the devices.
"""

import jax
import jax.numpy as jnp
import optax

from fsis_jax.models.layers import device_sum
from fsis_jax.ops import IGNORE, POSITIVE


def smooth_l1(difference: jax.Array, beta: float) -> jax.Array:
    """0.5 d^2 / beta where |d| < beta, else |d| - 0.5 beta, elementwise."""
    size = jnp.abs(difference)
    return jnp.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)


def rpn_losses(
    logits: jax.Array,
    deltas: jax.Array,
    labels: jax.Array,
    box_targets: jax.Array,
    *,
    samples_per_image: int | None,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array]:
    """Objectness and box loss of the sampled anchors of all levels.

    Args:
        logits: (B, N).
        deltas, box_targets: (B, N, 4).
        labels: (B, N) int32, 1, 0 or -1 (not sampled).
        samples_per_image: the constant by which the objectness loss of an image is divided, whatever was sampled
            (the original with a pyramid). None: it is divided by the number of samples of all images (without one).
        axis_name: devices over which the batch is spread.

    Returns:
        Binary cross entropy, divided as `samples_per_image` says, and smooth L1 (beta 1/9) of the positives, divided by
        the number of samples of their image and by the number of images.
    """
    images = device_sum(jnp.float32(logits.shape[0]), axis_name)
    sampled = labels != IGNORE
    entropy = optax.sigmoid_binary_cross_entropy(logits, (labels == POSITIVE).astype(jnp.float32))
    number = _count(sampled, axis_name) if samples_per_image is None else samples_per_image * images
    objectness = jnp.where(sampled, entropy, 0.0).sum() / number
    distance = smooth_l1(deltas - box_targets, 1 / 9).sum(-1)  # (B, N)
    per_image = jnp.where(labels == POSITIVE, distance, 0.0).sum(1) / jnp.maximum(sampled.sum(1), 1)
    return objectness, per_image.sum() / images


def box_losses(
    logits: jax.Array,
    deltas: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    box_targets: jax.Array,
    reference_present: jax.Array,
    *,
    quality: jax.Array | None = None,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array]:
    """Class and box loss of the sampled rois.

    Args:
        logits: (B, R, 1 + C).
        deltas, box_targets: (B, R, 4).
        labels: (B, R) int32, 0 background, 1 to C.
        valid: (B, R) bool, false where fewer rois than R could be sampled.
        reference_present: (B,) bool; elsewhere every label counts as background and no box is regressed.
        quality: (B, R) in 0..1, the probability that a positive is to be given instead of 1, so that scores rank boxes
            by how good they are (VarifocalNet, Zhang et al. 2021); None: 1.
        axis_name: devices over which the batch is spread.

    Returns:
        Cross entropy averaged over all valid rois, and smooth L1 (beta 1) of the positives divided by the number of
        valid rois of the images whose references are present.
    """
    present = reference_present[:, None]
    labels = jnp.where(present, labels, 0)
    classification = class_loss(logits, labels, valid, quality=quality, axis_name=axis_name)
    distance = smooth_l1(deltas - box_targets, 1.0).sum(-1)
    regression = jnp.where(valid & (labels > 0), distance, 0.0).sum() / _count(valid & present, axis_name)
    return classification, regression


def class_loss(
    logits: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    *,
    quality: jax.Array | None = None,
    axis_name: str | None,
) -> jax.Array:
    """Cross entropy averaged over the valid rois: logits (B, R, 1 + C), labels (B, R) int32, valid (B, R) bool.

    With `quality` (B, R), a label above 0 is wanted with that probability and the background with the rest.
    """
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if quality is not None:
        background = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.zeros_like(labels))
        entropy = quality * entropy + (1 - quality) * background
    return weighted_mean(entropy, valid, axis_name=axis_name)


def mask_loss(logits: jax.Array, targets: jax.Array, weights: jax.Array, *, axis_name: str | None) -> jax.Array:
    """Binary cross entropy averaged over all pixels of the weighted rois.

    Args:
        logits: (B, P, M, M) of the foreground channel.
        targets: (B, P, M, M) of 0 and 1.
        weights: (B, P) bool, positive rois of images whose references are present.
        axis_name: devices over which the batch is spread.
    """
    entropy = optax.sigmoid_binary_cross_entropy(logits, targets).mean((-2, -1))
    return weighted_mean(entropy, weights, axis_name=axis_name)


def weighted_mean(values: jax.Array, weights: jax.Array, *, axis_name: str | None) -> jax.Array:
    """This device's share of the mean of the values where `weights`, of the same shape, is true on any device."""
    return jnp.where(weights, values, 0.0).sum() / _count(weights, axis_name)


def _count(mask: jax.Array, axis_name: str | None) -> jax.Array:
    return jnp.maximum(device_sum(mask.sum().astype(jnp.float32), axis_name), 1.0)
