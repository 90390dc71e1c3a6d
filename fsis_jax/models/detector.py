"""The few-shot detector: siamese pyramid, co-attention, RPN, relation box head, relation mask head.

Follows modeling/model_builder.py of the PyTorch project, with the matched features computed once and shared by
the RPN and both heads, and with the mask loss that the published code leaves out. Levels are dictionary keys;
P6 is never matched and never pooled from. All boxes are in canvas pixels; the box convention (`legacy_boxes`) is
read from the config here and nowhere else.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict, FrozenConfigDict

from fsis_jax import ops
from fsis_jax.batch import Batch
from fsis_jax.models import losses
from fsis_jax.models.box_head import RelationBoxHead
from fsis_jax.models.co_attention import CoAttention, Match
from fsis_jax.models.extent import Extent
from fsis_jax.models.fpn import FPN
from fsis_jax.models.layers import resize_bilinear
from fsis_jax.models.mask_head import RelationMaskHead
from fsis_jax.models.normalise import normalise
from fsis_jax.models.resnet import ResNet
from fsis_jax.models.rpn import RPN, Proposals, ProposalSettings, anchors_inside, propose
from fsis_jax.models.targets import RoiTargets, SamplingSettings, assign_roles, roi_labels, roi_targets, rpn_targets

Pyramid = dict[int, jax.Array]
"""{level: (B, h, w, C)}, h = H / 2**level."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Detections:
    """D instances of each of B images, by descending score."""

    boxes: jax.Array
    """(B, D, 4) float32, canvas pixels."""
    scores: jax.Array
    """(B, D)."""
    valid: jax.Array
    """(B, D) bool."""
    masks: jax.Array
    """(B, D, M, M) probabilities over each instance's own box."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Matched:
    """Everything that depends on target and references but not on rois."""

    matches: dict[int, Match]
    """Per matched level."""
    logits: Pyramid
    """RPN objectness (B, h * w * A) of every level, P6 included."""
    deltas: Pyramid
    """RPN box deltas (B, h * w * A, 4)."""


class Detector(nnx.Module):
    """Built from `config.model`; see fsis_jax/config.py for every key.

    Args:
        config: the `model` section.
        rngs: initial parameters.
    """

    def __init__(self, config: ConfigDict, *, rngs: nnx.Rngs) -> None:
        dtype = jnp.dtype(config.compute_dtype)
        self.offset = 1 if config.legacy_boxes else 0
        self.aligned = not config.legacy_boxes
        self.config = FrozenConfigDict(config)
        channels = config.fpn.channels
        self.backbone = ResNet(
            config.backbone.depth,
            width=config.backbone.width,
            norm=config.backbone.norm,
            dtype=dtype,
            rngs=rngs,
        )
        self.fpn = FPN(
            self.backbone.channels,
            channels,
            norm=config.fpn.norm,
            coarsest=config.fpn.coarsest,
            dtype=dtype,
            rngs=rngs,
        )
        self.co_attention = CoAttention(channels, norm=config.co_attention.norm, dtype=dtype, rngs=rngs)
        self.rpn = RPN(channels, len(config.rpn.anchor_ratios), dtype=dtype, rngs=rngs)
        self.box_head = RelationBoxHead(
            channels,
            pooled=config.box_head.pooled,
            hidden=config.box_head.hidden,
            relation=config.box_head.relation,
            box_columns=8 if config.background_outputs else 4,
            dtype=dtype,
            rngs=rngs,
        )
        self.mask_head = RelationMaskHead(
            channels,
            channels=config.mask_head.channels,
            convs=config.mask_head.convs,
            outputs=2 if config.background_outputs else 1,
            dtype=dtype,
            rngs=rngs,
        )

    # -- features ---------------------------------------------------------------------------------------------

    def pyramid(self, images: jax.Array, extent: Extent | None) -> Pyramid:
        """(B, H, W, 3) normalised -> {level: (B, h, w, C)}, zero outside the extent."""
        dtype = jnp.dtype(self.config.compute_dtype)
        return self.fpn(self.backbone(images.astype(dtype), extent), extent)

    def encode_references(self, references: jax.Array) -> Pyramid:
        """(B, K, S, S, 3) normalised -> the mean over the shots of each matched level, {level: (B, h, w, C)}."""
        batch, shots = references.shape[:2]
        pyramid = self.pyramid(references.reshape(batch * shots, *references.shape[2:]), None)
        return {
            level: pyramid[level].reshape(batch, shots, *pyramid[level].shape[1:]).mean(1) for level in self.fpn.levels
        }

    def match(
        self,
        pyramid: Pyramid,
        references: Pyramid,
        extent: Extent | None,
        *,
        train: bool = False,
        axis_name: str | None = None,
    ) -> Matched:
        """Co-attention on every level from the coarsest to the finest, then the RPN on all levels."""
        matches = {}
        for level in reversed(self.fpn.levels):
            mask = None if extent is None else extent.mask(pyramid[level], 2**level)
            match = self.co_attention(pyramid[level], references[level], mask, train=train, axis_name=axis_name)
            if extent is not None:
                match = dataclasses.replace(match, target=extent.repeat_edge(match.target, 2**level))
            matches[level] = match
        matches = dict(sorted(matches.items()))
        read = {level: matches[level].rpn if level in matches else pyramid[level] for level in pyramid}
        outputs = {level: self.rpn(features) for level, features in read.items()}
        return Matched(
            matches=matches,
            logits={level: logits for level, (logits, _) in outputs.items()},
            deltas={level: deltas for level, (_, deltas) in outputs.items()},
        )

    def anchors(self, pyramid: Pyramid) -> dict[int, jax.Array]:
        """{level: (h * w * A, 4)} for feature maps of these shapes."""
        sizes = self.config.rpn.anchor_sizes
        result = {}
        for level, size in zip(pyramid, sizes, strict=True):
            cell = ops.cell_anchors(size, tuple(self.config.rpn.anchor_ratios), stride=2**level, offset=self.offset)
            _, height, width, _ = pyramid[level].shape
            result[level] = ops.grid_anchors(cell, (height, width), 2**level)
        return result

    def proposals(
        self, matched: Matched, pyramid: Pyramid, extent: Extent | None, image_sizes: jax.Array, *, train: bool
    ) -> Proposals:
        """The RPN's best boxes, clipped to `image_sizes` (B, 2)."""
        rpn = self.config.rpn
        settings = ProposalSettings(
            pre_nms=rpn.train_pre_nms if train else rpn.test_pre_nms,
            post_nms=rpn.train_post_nms if train else rpn.test_post_nms,
            nms_threshold=rpn.nms_threshold,
            min_size=rpn.min_size,
            offset=self.offset,
        )
        inside = {
            level: anchors_inside(extent, features, level, len(rpn.anchor_ratios))
            for level, features in pyramid.items()
        }
        return propose(matched.logits, matched.deltas, self.anchors(pyramid), inside, image_sizes, settings)

    # -- heads ------------------------------------------------------------------------------------------------

    def pool(self, matched: Matched, rois: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Features that a head reads.

        Args:
            matched: of the images.
            rois: (B, R, 4).
            size: side p of the pooled features.

        Returns:
            Roi features (B, R, p, p, C), reference features of each level (B, L, p, p, C), and the index of each
            roi's level among the L (B, R).
        """
        head = self.config.box_head
        finest, coarsest = self.fpn.levels[0], self.fpn.levels[-1]
        levels = ops.assign_levels(
            rois,
            min_level=finest,
            max_level=coarsest,
            canonical_size=head.canonical_size,
            canonical_level=head.canonical_level,
            offset=self.offset,
        )

        def pool_image(features: Pyramid, boxes: jax.Array, levels: jax.Array) -> jax.Array:
            return ops.multilevel_roi_align(
                features,
                boxes,
                levels,
                output_size=size,
                sampling_ratio=head.sampling_ratio,
                aligned=self.aligned,
            )

        target = {level: match.target for level, match in matched.matches.items()}
        pooled = jax.vmap(pool_image)(target, rois, levels)
        resized = [resize_bilinear(match.reference, size) for match in matched.matches.values()]
        return pooled, jnp.stack(resized, axis=1), levels - finest

    def classify(self, matched: Matched, rois: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Rois (B, R, 4) -> logits (B, R, 2) and the foreground's deltas (B, R, 4)."""
        logits, deltas = self.box_head(*self.pool(matched, rois, self.config.box_head.pooled))
        return logits, deltas[..., -4:]

    def segment(self, matched: Matched, rois: jax.Array) -> jax.Array:
        """Rois (B, R, 4) -> mask logits of the foreground (B, R, M, M)."""
        return self.mask_head(*self.pool(matched, rois, self.config.mask_head.pooled))[..., -1]

    # -- the two uses -----------------------------------------------------------------------------------------

    def detect(self, images: jax.Array, image_sizes: jax.Array, references: Pyramid) -> Detections:
        """Find and segment the cells like the references.

        Args:
            images: (B, H, W, 3) normalised float32, zero outside the image.
            image_sizes: (B, 2) int32.
            references: from `encode_references`; a batch axis of 1 serves all images.
        """
        extent = Extent.of(image_sizes)
        pyramid = self.pyramid(images, extent)
        references = {level: jnp.broadcast_to(x, (images.shape[0], *x.shape[1:])) for level, x in references.items()}
        matched = self.match(pyramid, references, extent)
        limits = extent.sizes if self.config.clip_to_padding else image_sizes
        proposals = self.proposals(matched, pyramid, extent, limits, train=False)
        logits, deltas = self.classify(matched, proposals.boxes)
        scores = jax.nn.softmax(logits)[..., 1]
        boxes, scores, valid = jax.vmap(self._suppress)(proposals, scores, deltas, image_sizes)
        masks = jax.nn.sigmoid(self.segment(matched, boxes))
        return Detections(boxes=boxes, scores=scores, valid=valid, masks=masks)

    def _suppress(
        self, proposals: Proposals, scores: jax.Array, deltas: jax.Array, image_size: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        settings = self.config.detections
        weights = tuple(self.config.box_head.box_weights)
        boxes = ops.decode(deltas, proposals.boxes, weights=weights, offset=self.offset)
        boxes = ops.clip(boxes, image_size, offset=self.offset)
        valid = proposals.valid & (scores > settings.score_threshold)
        kept, kept_scores, kept_valid = ops.soft_nms(
            boxes,
            scores,
            valid,
            method=settings.nms_method,
            iou_threshold=settings.nms_threshold,
            score_threshold=settings.decayed_score_threshold,
            max_outputs=settings.max_instances,
            offset=self.offset,
        )
        return boxes[kept], kept_scores, kept_valid

    def losses(
        self, batch: Batch, key: jax.Array, *, axis_name: str | None = None
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """This device's share of every loss term, and of a few counts.

        The terms of the whole batch, on all devices along `axis_name`, are the sums of the shares.

        Args:
            batch: episodes of this device.
            key: the same on all devices; sampling derives a key per image from `batch.sample_ids`.
            axis_name: devices over which the batch is spread.
        """
        config = self.config
        image_sizes = jnp.asarray(batch.image_sizes)
        images = normalise(batch.images, image_sizes)
        extent = Extent.of(image_sizes)
        pyramid = self.pyramid(images, extent)
        references = self.encode_references(normalise(batch.references))
        matched = self.match(pyramid, references, extent, train=True, axis_name=axis_name)
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
        anchors = self.anchors(pyramid)
        all_anchors = jnp.concatenate(list(anchors.values()))
        inside = self._trainable_anchors(all_anchors, image_sizes)
        labels, targets = jax.vmap(rpn_targets, in_axes=(0, None, 0, 0, None))(
            keys[:, 0], all_anchors, inside, roles, self._sampling(config.rpn)
        )
        rpn_class, rpn_box = losses.rpn_losses(
            jnp.concatenate(list(matched.logits.values()), 1),
            jnp.concatenate(list(matched.deltas.values()), 1),
            labels,
            targets,
            samples_per_image=config.rpn.samples,
            axis_name=axis_name,
        )

        # Boxes.
        proposals = self.proposals(matched, pyramid, extent, image_sizes, train=True)
        sampled = jax.vmap(roi_targets, in_axes=(0, 0, 0, 0, None, None))(
            keys[:, 1],
            proposals.boxes,
            proposals.valid,
            roles,
            self._sampling(config.box_head),
            tuple(config.box_head.box_weights),
        )
        logits, deltas = self.classify(matched, sampled.rois)
        box_class, box_regression = losses.box_losses(
            logits,
            deltas,
            sampled.labels,
            sampled.valid,
            sampled.box_targets,
            jnp.asarray(batch.reference_present),
            axis_name=axis_name,
        )
        terms = {"rpn_class": rpn_class, "rpn_box": rpn_box, "box_class": box_class, "box_regression": box_regression}
        terms["mask"] = self._mask_loss(matched, sampled, batch, axis_name)
        if batch.contrast_references.shape[1]:
            terms["contrast"] = self._contrast_loss(pyramid, extent, sampled, batch, axis_name)
        positives = (sampled.labels == ops.POSITIVE) & batch.reference_present[:, None]
        return terms, {"positive_rois": positives.sum().astype(jnp.float32)}

    def _contrast_loss(
        self, pyramid: Pyramid, extent: Extent, sampled: RoiTargets, batch: Batch, axis_name: str | None
    ) -> jax.Array:
        """The class loss of the same rois, shown references of another category (two-way training, Fan et al. 2020).

        What was a positive now is background, and the cells of the other category are the positives.
        """
        references = self.encode_references(normalise(batch.contrast_references))
        matched = self.match(pyramid, references, extent, train=True, axis_name=axis_name)
        matches = jnp.asarray(batch.gt_classes == batch.contrast_classes[:, None])
        roles = assign_roles(
            jnp.asarray(batch.gt_boxes),
            jnp.asarray(batch.gt_valid),
            matches,
            jnp.asarray(batch.gt_ignore),
            all_positive=False,
        )
        labels = jax.vmap(roi_labels, in_axes=(0, 0, 0, None))(
            sampled.rois, sampled.valid, roles, self._sampling(self.config.box_head)
        )
        logits, _ = self.classify(matched, sampled.rois)
        return losses.class_loss(logits, labels, sampled.valid, axis_name=axis_name)

    def _mask_loss(self, matched: Matched, sampled: RoiTargets, batch: Batch, axis_name: str | None) -> jax.Array:
        """Only the positives, which come first among the sampled rois, have a mask to learn."""
        head = self.config.box_head
        count = int(head.samples * head.positive_fraction)
        rois, matched_gt = sampled.rois[:, :count], sampled.matched[:, :count]
        positive = (sampled.labels[:, :count] == ops.POSITIVE) & batch.reference_present[:, None]
        logits = self.segment(matched, rois)

        def targets_of(masks: jax.Array, boxes: jax.Array, rois: jax.Array, rows: jax.Array) -> jax.Array:
            return ops.roi_mask_targets(masks, boxes, rois, rows, size=logits.shape[-1], offset=self.offset)

        targets = jax.vmap(targets_of)(jnp.asarray(batch.gt_masks), jnp.asarray(batch.gt_boxes), rois, matched_gt)
        return losses.mask_loss(logits, targets, positive, axis_name=axis_name)

    def _trainable_anchors(self, anchors: jax.Array, image_sizes: jax.Array) -> jax.Array:
        """(B, N) bool: anchors whose centre is in the image and that reach at most `straddle` pixels out of it."""
        bounds = image_sizes[:, None, ::-1]  # (B, 1, 2): width, height
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2  # (N, 2)
        inside = (centres < bounds).all(-1)
        straddle = self.config.rpn.straddle
        if straddle >= 0:
            inside &= (anchors[:, :2] >= -straddle).all(-1) & (anchors[:, 2:] < bounds + straddle).all(-1)
        return inside

    def _sampling(self, section: ConfigDict) -> SamplingSettings:
        return SamplingSettings(
            positive_iou=section.positive_iou,
            negative_iou=section.negative_iou,
            samples=section.samples,
            positive_fraction=section.positive_fraction,
            offset=self.offset,
        )
