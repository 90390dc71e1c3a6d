"""The detector: siamese backbone, matching with the references, RPN, heads; and without references a plain R-CNN.

Follows modeling/model_builder.py of the PyTorch project, with the matched features computed once and shared by the RPN
and the heads, and with the mask loss that the published code leaves out. Architectures: "fpn", where levels 2 to 5 of a
pyramid are matched and pooled from and level 6 serves the RPN alone; "p2", where level 2 of the pyramid does
everything; "c4" and "c5", where that level of the backbone does. Levels are dictionary keys. `build.py` maps the config
to the parts, `objective.py` trains them, `detection.py` runs them on images. The box convention (`legacy_boxes`) is
read from the config here and nowhere else.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict, FrozenConfigDict

from fsis_jax import ops
from fsis_jax.models.arrays import Pyramid
from fsis_jax.models.box_head import RoiFeatures
from fsis_jax.models.build import (
    anchors_per_position,
    build_backbone,
    build_box_head,
    build_fpn,
    build_keypoint_head,
    build_mask_head,
    build_matching,
    build_rpn,
    build_votes,
    trunk_of,
)
from fsis_jax.models.co_attention import Match
from fsis_jax.models.extent import Extent
from fsis_jax.models.layers import Training, resize_bilinear
from fsis_jax.models.res5 import Res5
from fsis_jax.models.rpn import Proposals, ProposalSettings, anchors_inside, propose
from fsis_jax.models.votes import Votes, pooled_votes, propose_votes

EXTENT_MULTIPLE = {"fpn": 32, "p2": 32, "c4": 1, "c5": 1}
"""The multiple to which an architecture rounds the sizes of images up."""


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
    votes: Votes | None
    """None where the model has none."""


class Detector(nnx.Module):
    """Built from `config.model`; see fsis_jax/config.py for every key.

    Args:
        config: the `model` section.
        rngs: initial parameters.
    """

    def __init__(self, config: ConfigDict, *, rngs: nnx.Rngs) -> None:
        self.offset = 1 if config.legacy_boxes else 0
        self.aligned = not config.legacy_boxes
        self.config = FrozenConfigDict(config)
        self.backbone = build_backbone(config, rngs=rngs)
        self.fpn = build_fpn(config, self.backbone, rngs=rngs)
        if self.fpn is not None:
            channels = config.fpn.channels
            self.levels = self.fpn.levels
        else:
            channels = self.backbone.channels[-1]
            # A dilated last stage keeps the stride of level 4.
            self.levels = (4,) if config.architecture == "c4" or config.backbone.dilation > 1 else (5,)
        self.matching = build_matching(config, channels, rngs=rngs)
        self.rpn = build_rpn(config, channels, rngs=rngs)
        self.vote_head = build_votes(config, channels, rngs=rngs)
        self.box_head = build_box_head(config, channels, rngs=rngs)
        self.mask_head = build_mask_head(config, channels, self.box_head, rngs=rngs)
        self.keypoint_head = build_keypoint_head(config, channels, rngs=rngs)

    # -- features ---------------------------------------------------------------------------------------------

    def extent(self, image_sizes: jax.Array) -> Extent:
        """What of a canvas counts, for (B, 2) image sizes."""
        multiple = EXTENT_MULTIPLE[self.config.architecture]
        return Extent.of(image_sizes, multiple, padded_pool=self.config.backbone.padded_pool)

    def pyramid(self, images: jax.Array, extent: Extent | None) -> Pyramid:
        """(B, H, W, 3) normalised -> {level: (B, h, w, C)}, zero outside the extent; one level without a pyramid."""
        features = self.backbone(images.astype(jnp.dtype(self.config.compute_dtype)), extent)
        found = {level: features[level] for level in self.levels} if self.fpn is None else self.fpn(features, extent)
        return found if self.vote_head is None else {1: features[1], **found}

    def encode_references(self, references: jax.Array) -> Pyramid:
        """(B, K, S, S, 3) normalised -> the mean over the shots of each level, {level: (B, h, w, C)}."""
        batch, shots = references.shape[:2]
        pyramid = self.pyramid(references.reshape(batch * shots, *references.shape[2:]), None)
        return {level: x.reshape(batch, shots, *x.shape[1:]).mean(1) for level, x in _searched(pyramid).items()}

    def match(
        self, pyramid: Pyramid, references: Pyramid, extent: Extent | None, training: Training | None = None
    ) -> Matched:
        """Matching on every level from the coarsest to the finest, then the RPN on all levels.

        `references` is empty for a closed-set detector.
        """
        return self._search(pyramid, self.match_levels(pyramid, references, extent, training), extent)

    def match_kinds(self, pyramid: Pyramid, kinds: Sequence[Pyramid], extent: Extent | None) -> list[Matched]:
        """`match` with the references of each of several kinds, which are searched for together.

        The RPN and the votes, the larger part of the work, see the mean of the kinds' matches.
        """
        each = [self.match_levels(pyramid, references, extent) for references in kinds]
        if len(each) == 1:
            return [self._search(pyramid, each[0], extent)]
        rpn = {level: jnp.stack([matches[level].rpn for matches in each]).mean(0) for level in each[0]}
        mean = {level: dataclasses.replace(match, rpn=rpn[level]) for level, match in each[0].items()}
        searched = self._search(pyramid, mean, extent)
        return [dataclasses.replace(searched, matches=matches) for matches in each]

    def _search(self, pyramid: Pyramid, matches: dict[int, Match], extent: Extent | None) -> Matched:
        read = {level: matches[level].rpn if level in matches else x for level, x in _searched(pyramid).items()}
        outputs = {level: self.rpn(features) for level, features in read.items()}
        limits = None
        if extent is not None:
            limits = jnp.stack([extent.limits(2**level) for level in self.levels], axis=1)
        return Matched(
            matches=matches,
            logits={level: logits for level, (logits, _) in outputs.items()},
            deltas={level: deltas for level, (_, deltas) in outputs.items()},
            limits=limits,
            votes=None if self.vote_head is None else self.vote_head(pyramid[1], matches[2].rpn, extent),
        )

    def match_levels(
        self,
        pyramid: Pyramid,
        references: Pyramid,
        extent: Extent | None,
        training: Training | None = None,
        shift: int = 0,
    ) -> dict[int, Match]:
        """The match of every level with the references' level `shift` above it (coarser)."""
        matches = {}
        for level in reversed(self.levels):
            if self.matching is None:
                matches[level] = Match(pyramid[level], pyramid[level], references.get(level + shift))
                continue
            mask = None if extent is None else extent.mask(pyramid[level], 2**level)
            matches[level] = self.matching(pyramid[level], references[level + shift], mask, training)
        return dict(sorted(matches.items()))

    def anchors(self, pyramid: Pyramid) -> dict[int, jax.Array]:
        """{level: (h * w * A, 4)} for feature maps of these shapes."""
        sizes, ratios = self.config.rpn.anchor_sizes, tuple(self.config.rpn.anchor_ratios)
        per_level = sizes if self.config.architecture == "fpn" else [sizes]  # a pyramid has one size a level
        result = {}
        for (level, features), size in zip(_searched(pyramid).items(), per_level, strict=True):
            cell = ops.cell_anchors(size, ratios, stride=2**level, offset=self.offset)
            _, height, width, _ = features.shape
            result[level] = ops.grid_anchors(cell, (height, width), 2**level)
        return result

    def proposals(
        self,
        matched: Matched,
        pyramid: Pyramid,
        extent: Extent | None,
        image_sizes: jax.Array,
        *,
        train: bool,
    ) -> Proposals:
        """The RPN's best boxes and the best votes, clipped to `image_sizes` (B, 2)."""
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
            level: anchors_inside(extent, features, level, anchors_per_position(self.config))
            for level, features in _searched(pyramid).items()
        }
        found = propose(matched.logits, matched.deltas, self.anchors(pyramid), inside, image_sizes, settings)
        if matched.votes is None:
            return found
        votes = self.config.votes
        voted = propose_votes(
            matched.votes,
            image_sizes,
            pre_nms=votes.pre_nms,
            post_nms=votes.post_nms,
            nms_threshold=rpn.nms_threshold,
            min_size=rpn.min_size,
        )
        return jax.tree.map(lambda *both: jnp.concatenate(both, 1), found, voted)

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
        """Features that the box head reads, and what shares its trunk; `pool_for` for other heads.

        Args:
            matched: of the images.
            rois: (B, R, 4).
            size: side p of the pooled features.
            valid: (B, R) bool, rois that enter batch statistics.
            training: for the norms of res5.
        """
        return self.pool_for(trunk_of(self.box_head), matched, rois, size, valid=valid, training=training)

    def pool_for(
        self,
        trunk: Res5 | None,
        matched: Matched,
        rois: jax.Array,
        size: int,
        *,
        valid: jax.Array | None = None,
        training: Training | None = None,
    ) -> RoiFeatures:
        """As `pool`, passed through a head's own trunk."""
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
            method = self.config.roi_method
            if method != "align":
                return ops.multilevel_roi_pool(features, boxes, levels, method=method, output_size=size, limits=limits)
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
        shown = [match.reference for match in matched.matches.values() if match.reference is not None]
        resized = jnp.stack([resize_bilinear(x, size) for x in shown], axis=1) if shown else None
        voted = None if matched.votes is None else pooled_votes(matched.votes, rois, size)
        features = RoiFeatures(pooled, resized, levels - finest, voted)
        return features if trunk is None else trunk.maps(features, valid, training)

    def classify(self, features: RoiFeatures) -> tuple[jax.Array, jax.Array]:
        """What the box head says of pooled rois.

        Returns:
            Logits (B, R, 1 + C), background first, and deltas of the foreground (B, R, F, 4), where C is 1 with
            references, and F is C with a box for each class, else 1.
        """
        logits, deltas = self.box_head(features)
        deltas = deltas.reshape(*deltas.shape[:-1], -1, 4)
        return logits, deltas[..., int(self.config.background_outputs) :, :]

    def masks_of(self, logits: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """The mask of each roi's label (B, R), 1 to C, of the mask head's (B, R, M, M, outputs): (B, R, M, M)."""
        return of_class(jnp.moveaxis(logits[..., int(self.config.background_outputs) :], -1, 2), labels)


def _searched(pyramid: Pyramid) -> Pyramid:
    """The levels that are matched or searched by the RPN."""
    return {level: features for level, features in pyramid.items() if level > 1}


def of_class(x: jax.Array, labels: jax.Array | None) -> jax.Array:
    """(B, R, F, ...) -> (B, R, ...): row `labels` - 1 for labels (B, R) of 1 to F; the only one if F is 1."""
    if x.shape[2] == 1 or labels is None:
        return x[:, :, 0]
    rows = jnp.maximum(labels - 1, 0).reshape(*labels.shape, *[1] * (x.ndim - 2))
    return jnp.take_along_axis(x, rows, 2)[:, :, 0]
