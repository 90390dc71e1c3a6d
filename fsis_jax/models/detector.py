"""The few-shot detector: siamese backbone, matching with the references, RPN, relation box head, relation mask head.

Follows modeling/model_builder.py of the PyTorch project, with the matched features computed once and shared by
the RPN and both heads, and with the mask loss that the published code leaves out. Two architectures: "fpn", where
levels 2 to 5 of a pyramid are matched and pooled from and level 6 serves the RPN alone; and "c4", where level 4 of
the backbone does everything, and its last stage (res5) is the trunk of both heads. Levels are dictionary keys. The
box convention (`legacy_boxes`) is read from the config here and nowhere else. The training objective is in
`objective.py`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict, FrozenConfigDict

from fsis_jax import ops
from fsis_jax.models.blocks import BlockStyle
from fsis_jax.models.box_head import FullyConnected, RelationBoxHead, Res5, RoiFeatures
from fsis_jax.models.co_attention import CoAttention, Match
from fsis_jax.models.extent import Extent
from fsis_jax.models.fpn import FPN
from fsis_jax.models.l1_match import L1Match
from fsis_jax.models.layers import Training, resize_bilinear
from fsis_jax.models.mask_head import RelationMaskHead, Res5MaskHead
from fsis_jax.models.resnet import ResNet, make_stage
from fsis_jax.models.rpn import RPN, Proposals, ProposalSettings, anchors_inside, propose

Pyramid = dict[int, jax.Array]
"""{level: (B, h, w, C)}, h = H / 2**level."""

EXTENT_MULTIPLE = {"fpn": 32, "c4": 1}
"""To what an architecture rounds the sizes of images up."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Detections:
    """D instances of each of B images, by descending score."""

    boxes: jax.Array
    """(B, D, 4) float32, pixels of the original image."""
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
    """RPN objectness (B, h * w * A) of every level."""
    deltas: Pyramid
    """RPN box deltas (B, h * w * A, 4)."""
    limits: jax.Array | None
    """(B, L, 2) int32, rows and columns of each matched level at which the image ends; the whole maps if None."""


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
        backbone, box_head = config.backbone, config.box_head
        style = BlockStyle(
            norm=backbone.norm,
            dtype=dtype,
            stride_in_1x1=backbone.stride_in_1x1,
            groups=backbone.groups,
            deformable=backbone.deformable,
        )
        self.backbone = ResNet(
            backbone.depth,
            width=backbone.width,
            group_width=backbone.group_width,
            style=style,
            padded_pool=backbone.padded_pool,
            stages=4 if config.architecture == "fpn" else 3,
            remat=config.remat,
            rngs=rngs,
        )
        embedding: FullyConnected | Res5
        self.matching: CoAttention | L1Match | None
        self.mask_head: RelationMaskHead | Res5MaskHead
        if config.architecture == "fpn":
            channels = config.fpn.channels
            self.fpn = FPN(
                self.backbone.channels,
                channels,
                norm=config.fpn.norm,
                coarsest=config.fpn.coarsest,
                dtype=dtype,
                rngs=rngs,
            )
            self.levels = self.fpn.levels
            embedding = FullyConnected(channels, pooled=box_head.pooled, hidden=box_head.hidden, dtype=dtype, rngs=rngs)
        else:
            channels = self.backbone.channels[-1]
            self.levels = (4,)
            res5, width = make_stage(
                backbone.depth,
                3,
                channels,
                width=backbone.width,
                group_width=backbone.group_width,
                stride=1,
                style=dataclasses.replace(style, norm=box_head.norm),
                rngs=rngs,
            )
            embedding = Res5(res5, width, remat=config.remat)
        if config.matching.kind == "co_attention":
            self.matching = CoAttention(channels, norm=config.matching.norm, dtype=dtype, rngs=rngs)
        elif config.matching.kind == "l1":
            self.matching = L1Match(channels, dtype=dtype, rngs=rngs)
        else:
            self.matching = None
        self.rpn = RPN(channels, self._anchors_per_position, dtype=dtype, rngs=rngs)
        self.box_head = RelationBoxHead(
            embedding,
            relation=config.relation,
            box_columns=8 if config.background_outputs else 4,
            dtype=dtype,
            rngs=rngs,
        )
        relation = config.relation != "none"
        outputs = 2 if config.background_outputs else 1
        if config.architecture == "fpn":
            self.mask_head = RelationMaskHead(
                channels,
                relation=relation,
                channels=config.mask_head.channels,
                convs=config.mask_head.convs,
                outputs=outputs,
                dtype=dtype,
                rngs=rngs,
            )
        else:
            self.mask_head = Res5MaskHead(
                embedding.channels,
                relation=relation,
                channels=config.mask_head.channels,
                outputs=outputs,
                dtype=dtype,
                rngs=rngs,
            )

    # -- features ---------------------------------------------------------------------------------------------

    def extent(self, image_sizes: jax.Array) -> Extent:
        """What of a canvas counts, for (B, 2) image sizes."""
        multiple = EXTENT_MULTIPLE[self.config.architecture]
        return Extent.of(image_sizes, multiple, padded_pool=self.config.backbone.padded_pool)

    def pyramid(self, images: jax.Array, extent: Extent | None) -> Pyramid:
        """(B, H, W, 3) normalised -> {level: (B, h, w, C)}, zero outside the extent; one level with "c4"."""
        features = self.backbone(images.astype(jnp.dtype(self.config.compute_dtype)), extent)
        if self.config.architecture == "fpn":
            return self.fpn(features, extent)
        return {level: features[level] for level in self.levels}

    def encode_references(self, references: jax.Array) -> Pyramid:
        """(B, K, S, S, 3) normalised -> the mean over the shots of each level, {level: (B, h, w, C)}."""
        batch, shots = references.shape[:2]
        pyramid = self.pyramid(references.reshape(batch * shots, *references.shape[2:]), None)
        return {level: x.reshape(batch, shots, *x.shape[1:]).mean(1) for level, x in pyramid.items()}

    def match(
        self, pyramid: Pyramid, references: Pyramid, extent: Extent | None, training: Training | None = None
    ) -> Matched:
        """Matching on every level from the coarsest to the finest, then the RPN on all levels."""
        matches = self.match_levels(pyramid, references, extent, training)
        read = {level: matches[level].rpn if level in matches else pyramid[level] for level in pyramid}
        outputs = {level: self.rpn(features) for level, features in read.items()}
        limits = None
        if extent is not None:
            limits = jnp.stack([extent.limits(2**level) for level in self.levels], axis=1)
        return Matched(
            matches=matches,
            logits={level: logits for level, (logits, _) in outputs.items()},
            deltas={level: deltas for level, (_, deltas) in outputs.items()},
            limits=limits,
        )

    def match_levels(
        self,
        pyramid: Pyramid,
        references: Pyramid,
        extent: Extent | None,
        training: Training | None = None,
        shift: int = 0,
    ) -> dict[int, Match]:
        """Of every level with the references' level `shift` above it (coarser)."""
        matches = {}
        for level in reversed(self.levels):
            if self.matching is None:
                matches[level] = Match(pyramid[level], pyramid[level], references[level + shift])
                continue
            mask = None if extent is None else extent.mask(pyramid[level], 2**level)
            matches[level] = self.matching(pyramid[level], references[level + shift], mask, training)
        return dict(sorted(matches.items()))

    @property
    def _anchors_per_position(self) -> int:
        rpn = self.config.rpn
        sizes = 1 if self.config.architecture == "fpn" else len(rpn.anchor_sizes)
        return len(rpn.anchor_ratios) * sizes

    def anchors(self, pyramid: Pyramid) -> dict[int, jax.Array]:
        """{level: (h * w * A, 4)} for feature maps of these shapes."""
        sizes, ratios = self.config.rpn.anchor_sizes, tuple(self.config.rpn.anchor_ratios)
        per_level = sizes if self.config.architecture == "fpn" else [sizes]
        result = {}
        for level, size in zip(pyramid, per_level, strict=True):
            cell = ops.cell_anchors(size, ratios, stride=2**level, offset=self.offset)
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
            backend=self.config.ops,
        )
        inside = {
            level: anchors_inside(extent, features, level, self._anchors_per_position)
            for level, features in pyramid.items()
        }
        return propose(matched.logits, matched.deltas, self.anchors(pyramid), inside, image_sizes, settings)

    # -- heads ------------------------------------------------------------------------------------------------

    def pool(
        self,
        matched: Matched,
        rois: jax.Array,
        size: int,
        *,
        valid: jax.Array | None = None,
        training: Training | None = None,
    ) -> RoiFeatures:
        """Features that a head reads.

        Args:
            matched: of the images.
            rois: (B, R, 4).
            size: side p of the pooled features.
            valid: (B, R) bool, rois that enter batch statistics.
            training: for the norms of res5 (c4).
        """
        head = self.config.box_head
        finest, coarsest = self.levels[0], self.levels[-1]
        levels = ops.assign_levels(
            rois,
            min_level=finest,
            max_level=coarsest,
            canonical_size=head.canonical_size,
            canonical_level=head.canonical_level,
            offset=self.offset,
        )

        def pool_image(features: Pyramid, boxes: jax.Array, levels: jax.Array, limits: jax.Array | None) -> jax.Array:
            return ops.multilevel_roi_align(
                features,
                boxes,
                levels,
                output_size=size,
                sampling_ratio=head.sampling_ratio,
                aligned=self.aligned,
                limits=limits,
                backend=self.config.ops,
            )

        target = {level: match.target for level, match in matched.matches.items()}
        pooled = jax.vmap(pool_image)(target, rois, levels, matched.limits)
        resized = [resize_bilinear(match.reference, size) for match in matched.matches.values()]
        features = RoiFeatures(pooled, jnp.stack(resized, axis=1), levels - finest)
        embedding = self.box_head.embedding
        if isinstance(embedding, Res5):
            return embedding.maps(features, valid, training)
        return features

    def classify(self, features: RoiFeatures) -> tuple[jax.Array, jax.Array]:
        """What the box head says of pooled rois: logits (B, R, 2) and the foreground's deltas (B, R, 4)."""
        logits, deltas = self.box_head(features)
        return logits, deltas[..., -4:]

    def segment(self, features: RoiFeatures) -> jax.Array:
        """Mask logits of the foreground (B, R, M, M) of pooled rois."""
        return self.mask_head(features)[..., -1]

    # -- inference --------------------------------------------------------------------------------------------

    def detect(
        self,
        images: jax.Array,
        image_sizes: jax.Array,
        references: Pyramid,
        *,
        scales: jax.Array | None = None,
        original_sizes: jax.Array | None = None,
    ) -> Detections:
        """Find and segment the cells like the references.

        Args:
            images: (B, H, W, 3) normalised float32, zero outside the image.
            image_sizes: (B, 2) int32.
            references: from `encode_references`; a batch axis of 1 serves all images.
            scales: (B,) float32, canvas pixels per pixel of the original image; 1 if None.
            original_sizes: (B, 2) int32, of the images before they were scaled; `image_sizes` if None.
        """
        scales = jnp.ones(len(images)) if scales is None else scales
        extent = self.extent(image_sizes)
        pyramid = self.pyramid(images, extent)
        references = {level: jnp.broadcast_to(x, (images.shape[0], *x.shape[1:])) for level, x in references.items()}
        matched = self.match(pyramid, references, extent)
        limits = extent.sizes if self.config.clip_to_padding else image_sizes
        proposals = self.proposals(matched, pyramid, extent, limits, train=False)
        logits, deltas = self.classify(self.pool(matched, proposals.boxes, self.config.box_head.pooled))
        scores = jax.nn.softmax(logits)[..., 1]
        # In the legacy convention it matters where boxes are decoded and compared: in the original image.
        boxes, scores, valid = jax.vmap(self._suppress)(
            proposals.boxes / scales[:, None, None],
            proposals.valid,
            scores,
            deltas,
            image_sizes if original_sizes is None else original_sizes,
        )
        if self.config.shifted_mask_references and self.config.architecture == "fpn":
            matches = self.match_levels(pyramid, references, extent, shift=1)
            matched = dataclasses.replace(matched, matches=matches)
        features = self.pool(matched, boxes * scales[:, None, None], self.config.mask_head.pooled)
        return Detections(
            boxes=boxes, scores=scores, valid=valid, masks=jax.nn.sigmoid(self.mask_head.predict(features)[..., -1])
        )

    def _suppress(
        self, rois: jax.Array, valid: jax.Array, scores: jax.Array, deltas: jax.Array, image_size: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        settings = self.config.detections
        weights = tuple(self.config.box_head.box_weights)
        boxes = ops.decode(deltas, rois, weights=weights, offset=self.offset)
        boxes = ops.clip(boxes, image_size, offset=self.offset)
        valid = valid & (scores > settings.score_threshold)
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
