"""From what the detector finds in a tile to instances with masks at the image's resolution."""

import numpy as np
from ml_collections import ConfigDict

from fsis_jax.inference.instances import Instances
from fsis_jax.inference.references import References
from fsis_jax.inference.tile_plan import TilePlan
from fsis_jax.inference.tiling import Tile, near_core
from fsis_jax.inference.traits import kind_scores, measure
from fsis_jax.models.arrays import Detections


def paste_tile(
    plan: TilePlan,
    tile: Tile,
    detections: Detections,
    row: int,
    config: ConfigDict,
    references: References,
    *,
    offset: int,
    min_score: float,
) -> Instances:
    """The instances that a tile answers for, in its pixels; of references of several kinds each with its kind.

    Args:
        plan: of the image that the tile is of.
        tile: where it lies.
        detections: of several tiles, as numpy arrays; boxes in pixels of the image, from the corner of the tile.
        row: the tile's, in these.
        config: the detector's.
        references: that it was shown.
        offset: 1 where boxes are of the inclusive convention, else 0.
        min_score: what `Instances.min_score` will be.
    """
    boxes, scores, valid = (np.asarray(x[row]) for x in (detections.boxes, detections.scores, detections.valid))
    if len(plan.tiles) > 1:
        valid = valid & near_core(boxes, tile, plan.margin)
    classes = np.asarray(detections.classes[row]) - 1 if config.model.classes else None
    kinds = evidence = traits = None
    weight = config.model.detections.faintness
    if _measured(config, references):
        model = references.kind_model
        traits = measure(plan.shown(tile.window), np.where(valid[:, None], boxes, 0))
        traits[:, 0] += np.log(references.ratio(plan.pixel_size))
        faint = weight * model.faintness(traits)
        logits = None if detections.kind_logits is None else np.asarray(detections.kind_logits[row])
        evidence = _evidence(plan.kinds, scores, logits, model.count)
        evidence[:, :-1] -= faint
        if references.kinds:
            kinds = kind_scores(evidence, traits, model)
            scores, classes = 1 - kinds[:, -1], kinds[:, :-1].argmax(1).astype(np.int32)
        else:
            against = faint[:, 0] + model.log_odds(traits)[1]
            if weight or against.any():
                scores = (scores / (scores + (1 - scores) * np.exp(against))).astype(np.float32)
    found = Instances.from_padded(
        boxes,
        scores,
        valid,
        None if detections.masks is None else np.asarray(detections.masks[row]),
        plan.window,
        offset=offset,
        min_score=min_score,
        legacy=config.model.detections.legacy_pasting,
        names=references.kinds or tuple(config.model.classes),
        classes=classes,
        kind_scores=kinds,
        evidence=evidence,
        traits=traits,
        keypoints=None if detections.keypoints is None else np.asarray(detections.keypoints[row]),
    )
    share = config.model.detections.mask_nms_threshold
    return found.without_repeats(share) if share else found


def _measured(config: ConfigDict, references: References) -> bool:
    """Whether the traits of what is found count, or are asked for: for them the image is read again."""
    corrected = bool((references.trait_kinds == references.kind_model.count).any())
    wanted = corrected or references.keep_traits or config.model.detections.faintness > 0
    return bool(references.kinds) or (wanted and len(references.traits) > 0)


def _evidence(looked_for: tuple[int, ...], scores: np.ndarray, logits: np.ndarray | None, count: int) -> np.ndarray:
    """(D, K + 1), as `Instances.evidence`.

    Args:
        looked_for: G rows of the kinds that the detector was shown.
        scores: (D,) that it gives.
        logits: (D, G) of these kinds; None of a single one, whose score says it all.
        count: K.
    """
    found = np.full((len(scores), count + 1), -np.inf, np.float32)
    if logits is None:
        each = np.clip(scores.astype(np.float64), 1e-9, 1 - 1e-9)
        found[:, looked_for[0]], found[:, -1] = np.log(each / (1 - each)), 1
    else:
        found[:, looked_for] = logits
        found[:, -1] = np.minimum(scores * (1 + np.exp(-logits.max(1).astype(np.float64))), 1)
    return found


def nothing_found(plan: TilePlan, config: ConfigDict, references: References) -> Instances:
    """No instances, of the kinds that the detector of a config finds with these references."""
    keypoints = config.model.keypoint_head
    return Instances.none(
        plan.window,
        names=references.kinds or tuple(config.model.classes),
        measured=_measured(config, references),
        keypoints=0 if keypoints.kind == "none" else keypoints.keypoints,
        boxes_only=config.model.mask_head.kind == "none",
    )
