"""The one place that maps values of `config.model` to modules: another head is a module of its own and a line here."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.models.blocks import BlockStyle
from fsis_jax.models.box_head import ClassBoxHead, Convolutions, Embedding, FullyConnected, RelationBoxHead
from fsis_jax.models.co_attention import CoAttention
from fsis_jax.models.fpn import FPN
from fsis_jax.models.keypoint_head import KeypointHead
from fsis_jax.models.l1_match import L1Match
from fsis_jax.models.mask_head import ConvMaskHead, Res5MaskHead
from fsis_jax.models.res5 import Res5
from fsis_jax.models.resnet import ResNet, make_stage
from fsis_jax.models.rpn import RPN
from fsis_jax.models.votes import CHANNELS as VOTE_CHANNELS
from fsis_jax.models.votes import VoteHead

BoxHead = RelationBoxHead | ClassBoxHead
MaskHead = ConvMaskHead | Res5MaskHead

RES5_SIDE = 7
"""Pooled features of this side pass res5 at its stride of 1; of twice the side, at 2."""


def build_backbone(config: ConfigDict, *, rngs: nnx.Rngs) -> ResNet:
    """As deep as the architecture reads."""
    return ResNet(
        config.backbone.depth,
        width=config.backbone.width,
        group_width=config.backbone.group_width,
        style=_style(config),
        padded_pool=config.backbone.padded_pool,
        stages=3 if config.architecture == "c4" else 4,
        remat=config.remat,
        rngs=rngs,
    )


def build_fpn(config: ConfigDict, backbone: ResNet, *, rngs: nnx.Rngs) -> FPN | None:
    """None for an architecture without a pyramid."""
    if config.architecture not in ("fpn", "p2"):
        return None
    return FPN(
        backbone.channels,
        config.fpn.channels,
        norm=config.fpn.norm,
        coarsest=config.fpn.coarsest,
        finest_only=config.architecture == "p2",
        dtype=_dtype(config),
        rngs=rngs,
    )


def build_matching(config: ConfigDict, channels: int, *, rngs: nnx.Rngs) -> CoAttention | L1Match | None:
    """The matching of target and references over features of so many channels."""
    if config.matching.kind == "co_attention":
        return CoAttention(channels, norm=config.matching.norm, dtype=_dtype(config), rngs=rngs)
    if config.matching.kind == "l1":
        return L1Match(channels, dtype=_dtype(config), rngs=rngs)
    return None


def build_rpn(config: ConfigDict, channels: int, *, rngs: nnx.Rngs) -> RPN:
    """Over features of so many channels."""
    return RPN(
        channels,
        anchors_per_position(config),
        hidden=config.rpn.channels,
        softmax=config.rpn.objectness == "softmax",
        dtype=_dtype(config),
        rngs=rngs,
    )


def build_votes(config: ConfigDict, channels: int, *, rngs: nnx.Rngs) -> VoteHead | None:
    """Over the stem and a finest level of so many channels."""
    if config.votes.kind == "none":
        return None
    return VoteHead(config.backbone.width, channels, channels=config.votes.channels, dtype=_dtype(config), rngs=rngs)


def anchors_per_position(config: ConfigDict) -> int:
    """A of the RPN: a pyramid has one size a level."""
    sizes = 1 if config.architecture == "fpn" else len(config.rpn.anchor_sizes)
    return len(config.rpn.anchor_ratios) * sizes


def build_box_head(config: ConfigDict, channels: int, *, rngs: nnx.Rngs) -> BoxHead:
    """Over pooled features of so many channels."""
    head, dtype = config.box_head, _dtype(config)
    embedding: Embedding
    if head.kind == "res5":
        embedding = _res5(config, channels, head.pooled, rngs)
    elif head.kind == "convs":
        embedding = Convolutions(
            channels,
            pooled=head.pooled,
            channels=head.conv_channels,
            convs=head.convs,
            norm=head.conv_norm,
            hidden=head.hidden,
            dtype=dtype,
            rngs=rngs,
        )
    else:
        embedding = FullyConnected(channels, pooled=head.pooled, hidden=head.hidden, dtype=dtype, rngs=rngs)
    boxes = outputs_per_roi(config, head.class_specific)
    if config.classes:
        return ClassBoxHead(embedding, classes=len(config.classes), boxes=boxes, dtype=dtype, rngs=rngs)
    read = embedding.channels if head.kind == "res5" else channels
    return RelationBoxHead(
        embedding,
        channels=read,
        relation=config.relation,
        boxes=boxes,
        votes=_vote_channels(config) * head.pooled**2,
        dtype=dtype,
        rngs=rngs,
    )


def build_mask_head(config: ConfigDict, channels: int, box_head: BoxHead, *, rngs: nnx.Rngs) -> MaskHead | None:
    """Over pooled features of so many channels, or over those of the box head's trunk."""
    head, dtype = config.mask_head, _dtype(config)
    if head.kind == "none":
        return None
    relation = config.relation != "none"
    outputs = outputs_per_roi(config, head.class_specific)
    if head.kind == "convs":
        return ConvMaskHead(
            channels,
            relation=relation,
            votes=_vote_channels(config),
            channels=head.channels,
            convs=head.convs,
            norm=head.norm,
            outputs=outputs,
            dtype=dtype,
            rngs=rngs,
        )
    shared = trunk_of(box_head)
    trunk = shared if head.kind == "shared_res5" and shared else _res5(config, channels, head.pooled, rngs)
    return Res5MaskHead(trunk, relation=relation, channels=head.channels, outputs=outputs, dtype=dtype, rngs=rngs)


def build_keypoint_head(config: ConfigDict, channels: int, *, rngs: nnx.Rngs) -> KeypointHead | None:
    """Over pooled features of so many channels."""
    head = config.keypoint_head
    if head.kind == "none":
        return None
    return KeypointHead(
        channels,
        keypoints=head.keypoints,
        channels=head.channels,
        convs=head.convs,
        dtype=_dtype(config),
        rngs=rngs,
    )


def trunk_of(head: BoxHead) -> Res5 | None:
    """The stage that a box head's pooled features pass first, if there is one."""
    return head.embedding if isinstance(head.embedding, Res5) else None


def outputs_per_roi(config: ConfigDict, class_specific: bool) -> int:
    """Boxes or masks that a head gives of a roi: the background's first, if there is one."""
    foreground = len(config.classes) if config.classes and class_specific else 1
    return foreground + config.background_outputs


def _vote_channels(config: ConfigDict) -> int:
    """What heads read of the votes at each position of a roi; 0 where there are none."""
    return 0 if config.votes.kind == "none" else VOTE_CHANNELS


def _res5(config: ConfigDict, channels: int, pooled: int, rngs: nnx.Rngs) -> Res5:
    stage, width = make_stage(
        config.backbone.depth,
        3,
        channels,
        width=config.backbone.width,
        group_width=config.backbone.group_width,
        stride=max(pooled // RES5_SIDE, 1),
        style=dataclasses.replace(_style(config), norm=config.box_head.norm, dilation=1),
        rngs=rngs,
    )
    return Res5(stage, width, remat=config.remat)


def _style(config: ConfigDict) -> BlockStyle:
    backbone = config.backbone
    return BlockStyle(
        norm=backbone.norm,
        dtype=_dtype(config),
        stride_in_1x1=backbone.stride_in_1x1,
        groups=backbone.groups,
        dilation=backbone.dilation,
        deformable=backbone.deformable,
    )


def _dtype(config: ConfigDict) -> jnp.dtype:
    return jnp.dtype(config.compute_dtype)
