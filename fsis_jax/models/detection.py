"""From images to instances: proposals, classes and boxes, suppression, then masks and keypoints of what is left.

Follows core/test.py of the PyTorch project (im_detect_all, box_results_with_nms_and_limit), for a batch of images and
with static shapes. Test-time augmentation (its BBOX_AUG and MASK_AUG) looks at the images several times: candidates of
all views are suppressed together, and the masks of what is left are the means over the views.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from fsis_jax import ops
from fsis_jax.models.arrays import Detections, Pyramid, View
from fsis_jax.models.box_head import RoiFeatures
from fsis_jax.models.detector import Detector, Matched
from fsis_jax.models.keypoint_head import decode_keypoints
from fsis_jax.models.res5 import Res5
from fsis_jax.models.rpn import Proposals
from fsis_jax.models.votes import pooled_cell


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What the network makes of a view; boxes in pixels of the original image, not flipped."""

    view: View
    matched: Matched
    boxes: jax.Array
    """(B, R, F, 4)."""
    scores: jax.Array
    """(B, R, C)."""
    valid: jax.Array
    """(B, R) bool."""


def detect(
    model: Detector,
    views: Sequence[View],
    references: Pyramid | Sequence[Pyramid],
    *,
    original_sizes: jax.Array | None = None,
) -> Detections:
    """Find and segment the cells like the references, or the instances of all classes of a closed-set detector.

    With references of several kinds each image is read once and matched with every kind. Boxes are proposed for all
    kinds together, refined for each and suppressed together; what is left is compared with every kind, scores as the
    likeliest, and gets the mask that this kind's match gives.

    Args:
        model: the detector.
        views: one or several of the same images; keypoints are those of the first, which is not flipped.
        references: from `encode_references`; a batch axis of 1 serves all images. Empty for a closed-set detector. A
            sequence has those of each kind.
        original_sizes: (B, 2) int32, of the images before they were scaled; those of the first view if None.
    """
    sizes = views[0].image_sizes if original_sizes is None else original_sizes
    kinds = [references] if isinstance(references, Mapping) else references
    shown = [{level: jnp.broadcast_to(x, (len(sizes), *x.shape[1:])) for level, x in kind.items()} for kind in kinds]
    seen = [_look(model, view, shown, sizes) for view in views]
    every = [s for of_view in seen for s in of_view]
    candidates = [jnp.concatenate(part, 1) for part in zip(*((s.boxes, s.scores, s.valid) for s in every), strict=True)]
    boxes, scores, valid, classes = jax.vmap(lambda *image: _suppress(model, *image))(*candidates)
    masks = keypoints = kind_logits = None
    likeliest = jnp.zeros(boxes.shape[:2], jnp.int32)
    if len(shown) > 1:
        each = [_kind_logits(model, of_view, boxes, sizes) for of_view in seen]
        kind_logits = sum(each[1:], each[0]) / len(each)
        likeliest, scores = kind_logits.argmax(-1).astype(jnp.int32), jax.nn.sigmoid(kind_logits.max(-1))
    if model.mask_head is not None:
        each = [_masks(model, of_view, boxes, classes, likeliest, sizes) for of_view in seen]
        masks = sum(each[1:], each[0]) / len(each)
    if model.keypoint_head is not None:
        # Of the first view alone: in a flipped one, left and right limbs have changed names.
        decode = functools.partial(decode_keypoints, offset=model.offset)
        keypoints = jax.vmap(decode)(_heat_maps(model, seen[0], boxes, likeliest, sizes), boxes)
        if model.config.keypoint_head.oks_threshold:
            valid = jax.vmap(lambda *image: _distinct_poses(model, *image))(keypoints, boxes, classes, valid)
    found = Detections(boxes, scores, valid, classes, masks, keypoints, kind_logits)
    settings = model.config.detections
    if masks is None or not (settings.mask_confidence or settings.vote_confidence):
        return found if kind_logits is None else _ranked(found, scores)
    scores = scores * mask_confidence(masks) ** settings.mask_confidence
    if settings.vote_confidence:
        scores = scores * _vote_confidence(model, seen, boxes, masks, sizes) ** settings.vote_confidence
    return _ranked(found, scores)


def mask_confidence(masks: jax.Array) -> jax.Array:
    """(...) IoU that masks (..., M, M) of probabilities, cut at 0.5, are to be expected to have with the true ones.

    The expected intersection over the expected union, each pixel by itself; 0 of an empty mask.
    """
    inside = masks > 0.5
    shared = jnp.where(inside, masks, 0.0).sum((-2, -1))
    union = jnp.where(inside, 1.0, masks).sum((-2, -1))
    return shared / jnp.maximum(union, 1e-6)


def _vote_confidence(
    model: Detector, seen: Sequence[Sequence[_Seen]], boxes: jax.Array, masks: jax.Array, sizes: jax.Array
) -> jax.Array:
    """(B, D) in 0..1, over each mask (B, D, M, M), cut at 0.5, the votes' mean probability to lie in a cell."""
    inside = (masks > 0.5).astype(jnp.float32)

    def of_view(seen: _Seen) -> jax.Array:
        assert seen.matched.votes is not None
        cell = pooled_cell(seen.matched.votes, _rois(model, seen, boxes, sizes), masks.shape[-1])
        return cell[..., ::-1] if seen.view.flipped else cell

    cell = sum(of_view(of_kinds[0]) for of_kinds in seen) / len(seen)  # all kinds share the votes
    return (cell * inside).sum((-2, -1)) / jnp.maximum(inside.sum((-2, -1)), 1.0)


def _ranked(found: Detections, scores: jax.Array) -> Detections:
    """The detections with other scores, by descending score again."""
    order = jnp.argsort(jnp.where(found.valid, -scores, jnp.inf), axis=1)
    ranked: Detections = jax.tree.map(
        lambda x: jnp.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), 1),
        dataclasses.replace(found, scores=scores),
    )
    return ranked


def _look(model: Detector, view: View, kinds: Sequence[Pyramid], original_sizes: jax.Array) -> list[_Seen]:
    """What a view shows, of the references of each kind."""
    extent = model.extent(view.image_sizes)
    pyramid = model.pyramid(view.images, extent)
    each = model.match_kinds(pyramid, kinds, extent)
    limits = extent.sizes if model.config.clip_to_padding else view.image_sizes
    proposals = model.proposals(each[0], pyramid, extent, limits, train=False)
    seen = [_compare(model, view, matched, proposals, original_sizes) for matched in each]
    if not (model.config.shifted_mask_references and model.config.architecture == "fpn"):
        return seen
    shifted = [model.match_levels(pyramid, references, extent, shift=1) for references in kinds]
    return [
        dataclasses.replace(s, matched=dataclasses.replace(s.matched, matches=matches))
        for s, matches in zip(seen, shifted, strict=True)
    ]


def _compare(model: Detector, view: View, matched: Matched, proposals: Proposals, original_sizes: jax.Array) -> _Seen:
    logits, deltas = model.classify(model.pool(matched, proposals.boxes, model.config.box_head.pooled))
    scores = jax.nn.softmax(logits)[..., 1:]
    # In the legacy convention it matters where boxes are decoded and compared: in the original image.
    rois = proposals.boxes / jnp.reshape(view.scales, (-1, 1, 1))
    boxes = jax.vmap(lambda *image: _decode(model, *image))(rois, deltas, original_sizes)
    if view.flipped:
        boxes = _flip(boxes, original_sizes, model.offset)
    return _Seen(view, matched, boxes, scores, proposals.valid)


def _decode(model: Detector, rois: jax.Array, deltas: jax.Array, image_size: jax.Array) -> jax.Array:
    """Boxes (R, F, 4) of rois (R, 4) and deltas (R, F, 4), clipped to the image."""
    if not model.config.detections.box_regression:
        deltas = jnp.zeros_like(deltas[:, :1])
    weights = tuple(model.config.box_head.box_weights)

    def decode(deltas: jax.Array) -> jax.Array:
        boxes = ops.decode(deltas, rois, weights=weights, offset=model.offset)
        return ops.clip(boxes, image_size, offset=model.offset)

    return jax.vmap(decode, in_axes=1, out_axes=1)(deltas)


def _suppress(
    model: Detector, boxes: jax.Array, scores: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """What is left of an image, class by class: boxes (D, 4), scores, valid, classes (D,) by descending score."""
    settings = model.config.detections

    def of_one(boxes: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        usable = valid & (scores > settings.score_threshold)
        kept, kept_scores, kept_valid = ops.soft_nms(
            boxes,
            scores,
            usable,
            method=settings.nms_method,
            iou_threshold=settings.nms_threshold,
            sigma=settings.sigma,
            score_threshold=settings.decayed_score_threshold,
            max_outputs=settings.max_instances,
            offset=model.offset,
        )
        kept_boxes = boxes[kept]
        if settings.box_voting:
            kept_boxes, kept_scores = ops.box_voting(
                kept_boxes,
                kept_scores,
                boxes,
                scores,
                usable,
                iou_threshold=settings.box_voting,
                method=settings.box_voting_scores,
                offset=model.offset,
            )
        return kept_boxes, kept_scores, kept_valid

    count = scores.shape[1]
    boxes = jnp.broadcast_to(boxes, (len(boxes), count, 4))
    boxes, scores, valid = jax.vmap(of_one, in_axes=1)(boxes, scores)  # (C, D, 4), (C, D), (C, D)
    classes = jnp.repeat(jnp.arange(1, count + 1, dtype=jnp.int32), settings.max_instances)
    boxes, scores, valid = boxes.reshape(-1, 4), scores.reshape(-1), valid.reshape(-1)
    if count > 1 or settings.box_voting:
        _, order = jax.lax.top_k(jnp.where(valid, scores, -jnp.inf), settings.max_instances)
        boxes, scores, valid, classes = boxes[order], scores[order], valid[order], classes[order]
    return boxes, scores, valid, classes


def _kind_logits(model: Detector, seen: Sequence[_Seen], boxes: jax.Array, sizes: jax.Array) -> jax.Array:
    """(B, D, K) log odds of boxes (B, D, 4) by the matches of a view with each kind."""
    rois, side = _rois(model, seen[0], boxes, sizes), model.config.box_head.pooled
    each = [model.classify(model.pool(s.matched, rois, side))[0] for s in seen]
    return jnp.stack([logits[..., 1] - logits[..., 0] for logits in each], axis=-1)


def _masks(
    model: Detector,
    seen: Sequence[_Seen],
    boxes: jax.Array,
    classes: jax.Array,
    kinds: jax.Array,
    sizes: jax.Array,
) -> jax.Array:
    """(B, D, M, M) probabilities, of each box by the match of a view with its kind."""
    assert model.mask_head is not None
    rois = _rois(model, seen[0], boxes, sizes)
    features = _pool_kinds(model, model.mask_head.trunk, seen, rois, kinds, model.config.mask_head.pooled)
    masks = jax.nn.sigmoid(model.masks_of(model.mask_head.predict(features), classes))
    return masks[..., ::-1] if seen[0].view.flipped else masks


def _heat_maps(
    model: Detector, seen: Sequence[_Seen], boxes: jax.Array, kinds: jax.Array, sizes: jax.Array
) -> jax.Array:
    """(B, D, M, M, P) logits."""
    assert model.keypoint_head is not None
    rois = _rois(model, seen[0], boxes, sizes)
    return model.keypoint_head(_pool_kinds(model, None, seen, rois, kinds, model.config.keypoint_head.pooled).rois)


def _pool_kinds(
    model: Detector, trunk: Res5 | None, seen: Sequence[_Seen], rois: jax.Array, kinds: jax.Array, side: int
) -> RoiFeatures:
    """The features of each roi by the match with its kind (B, D)."""
    each = [model.pool_for(trunk, s.matched, rois, side) for s in seen]
    return each[0] if len(each) == 1 else RoiFeatures.chosen(each, kinds)


def _distinct_poses(
    model: Detector, keypoints: jax.Array, boxes: jax.Array, classes: jax.Array, valid: jax.Array
) -> jax.Array:
    """valid (D,) of one image: of instances of a class with like poses that of the surest keypoints is left."""
    count = len(valid)

    def of_class(number: jax.Array) -> jax.Array:
        kept, kept_valid = ops.oks_nms(
            keypoints,
            boxes,
            keypoints[..., 2].mean(-1),
            valid & (classes == number),
            threshold=model.config.keypoint_head.oks_threshold,
            sigmas=ops.oks_sigmas(keypoints.shape[1]),
            max_outputs=count,
            offset=model.offset,
        )
        return jnp.zeros_like(valid).at[jnp.where(kept_valid, kept, count)].set(True, mode="drop")

    return jax.lax.map(of_class, jnp.arange(1, len(model.config.classes) + 1)).any(0)


def _rois(model: Detector, seen: _Seen, boxes: jax.Array, sizes: jax.Array) -> jax.Array:
    """Boxes (B, D, 4) of the original image on a view's canvas."""
    if seen.view.flipped:
        boxes = _flip(boxes, sizes, model.offset)
    return boxes * jnp.reshape(seen.view.scales, (-1, 1, 1))


def _flip(boxes: jax.Array, sizes: jax.Array, offset: int) -> jax.Array:
    """(B, ..., 4) boxes of images of sizes (B, 2), left and right exchanged."""
    right = (sizes[:, 1].astype(jnp.float32) - offset).reshape(-1, *[1] * (boxes.ndim - 2))
    return jnp.stack([right - boxes[..., 2], boxes[..., 1], right - boxes[..., 0], boxes[..., 3]], axis=-1)
