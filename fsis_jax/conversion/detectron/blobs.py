"""Detectron's names (blobs) of the arrays of a detector without references, beside ours.

Follows detectron/modeling (ResNet.py, FPN.py, rpn_heads.py, fast_rcnn_heads.py, mask_rcnn_heads.py and
keypoint_rcnn_heads.py). A layer has `NAME_w` and `NAME_b`; a norm behind it `NAME_bn_s`, `NAME_bn_b` (a fixed scale and
shift) or `NAME_gn_s`, `NAME_gn_b`.
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from fsis_jax.models.depths import BLOCKS

FILLED = ("_mean", "_var")
"""Endings of names that no file has: the statistics of our norms in the place of a fixed scale and shift."""

_LAYER = {"w": "kernel", "b": "bias"}
_NORMS = {
    "bn": {"s": "scale", "b": "bias", "mean": "mean", "var": "var"},
    "gn": {"s": "scale", "b": "bias"},
}
Pairs = Iterator[tuple[str, str]]


def blob_names(model: ConfigDict, *, heads: bool) -> dict[str, str]:
    """Detectron's name -> our flat name of every array of a model.

    Args:
        model: the config's section of it.
        heads: those behind the RPN too.
    """
    pairs = [*_backbone(model), *_pyramid(model), *_rpn(model)]
    if heads:
        pairs += [*_box_head(model), *_mask_head(model), *_keypoint_head(model)]
    return dict(pairs)


def _layer(blob: str, ours: str, *, bias: bool = True) -> Pairs:
    for letter, name in _LAYER.items():
        if bias or letter == "w":
            yield f"{blob}_{letter}", f"{ours}/{name}"


def _norm(blob: str, ours: str, kind: str) -> Pairs:
    for ending, name in _NORMS[kind].items():
        yield f"{blob}_{kind}_{ending}", f"{ours}/{name}"


def _backbone(model: ConfigDict) -> Pairs:
    kind = _kind(model)
    yield from _layer("conv1", "backbone/stem", bias=False)
    yield from _norm("res_conv1" if kind == "bn" else "conv1", "backbone/stem_norm", kind)
    stages = 3 if model.architecture == "c4" else 4
    for index in range(stages):
        yield from _stage(f"res{index + 2}", f"backbone/stages/{index}", BLOCKS[model.backbone.depth][index], kind)


def _kind(model: ConfigDict) -> str:
    return "gn" if model.backbone.norm == "group" else "bn"


def _stage(blob: str, ours: str, count: int, kind: str) -> Pairs:
    for block in range(count):
        for i, letter in enumerate("abc", start=1):
            yield from _layer(f"{blob}_{block}_branch2{letter}", f"{ours}/{block}/conv{i}", bias=False)
            yield from _norm(f"{blob}_{block}_branch2{letter}", f"{ours}/{block}/norm{i}", kind)
    yield from _layer(f"{blob}_0_branch1", f"{ours}/0/shortcut", bias=False)
    yield from _norm(f"{blob}_0_branch1", f"{ours}/0/shortcut_norm", kind)


def _pyramid(model: ConfigDict) -> Pairs:
    if model.architecture not in ("fpn", "p2"):
        return
    group = model.fpn.norm == "group"
    sums = [f"res{index + 2}_{count - 1}_sum" for index, count in enumerate(BLOCKS[model.backbone.depth])]
    for index, name in enumerate(sums):
        lateral = f"fpn_inner_{name}{'' if index == 3 else '_lateral'}"
        yield from _layer(lateral, f"fpn/lateral/{index}")
        if group:
            yield from _norm(lateral, f"fpn/lateral_norm/{index}", "gn")
    for index, name in enumerate(sums[:1] if model.architecture == "p2" else sums):
        yield from _layer(f"fpn_{name}", f"fpn/output/{index}")
        if group:
            yield from _norm(f"fpn_{name}", f"fpn/output_norm/{index}", "gn")


def _rpn(model: ConfigDict) -> Pairs:
    level = "_fpn2" if model.architecture == "fpn" else ""
    yield from _layer(f"conv_rpn{level}", "rpn/conv")
    yield from _layer(f"rpn_cls_logits{level}", "rpn/objectness")
    yield from _layer(f"rpn_bbox_pred{level}", "rpn/deltas")


def _box_head(model: ConfigDict) -> Pairs:
    head, ours = model.box_head, "box_head/embedding"
    if head.kind == "res5":
        yield from _stage("res5", f"{ours}/blocks", BLOCKS[model.backbone.depth][3], _kind(model))
    elif head.kind == "mlp":
        yield from _layer("fc6", f"{ours}/fc1")
        yield from _layer("fc7", f"{ours}/fc2")
    else:
        yield from _convs("head_conv", f"{ours}/convs", f"{ours}/norms", head.convs, head.conv_norm)
        yield from _layer("fc6", f"{ours}/fc")
    yield from _layer("cls_score", "box_head/class_out")
    yield from _layer("bbox_pred", "box_head/box_out")


def _convs(blob: str, ours: str, norms: str, count: int, norm: str) -> Pairs:
    """Convolutions numbered from 1, each with a bias or a group norm."""
    for index in range(count):
        yield from _layer(f"{blob}{index + 1}", f"{ours}/{index}", bias=norm == "none")
        if norm == "group":
            yield from _norm(f"{blob}{index + 1}", f"{norms}/{index}", "gn")


def _mask_head(model: ConfigDict) -> Pairs:
    head, ours = model.mask_head, "mask_head"
    if head.kind == "none":
        return
    if head.kind == "res5":
        yield from _stage("_[mask]_res5", f"{ours}/trunk/blocks", BLOCKS[model.backbone.depth][3], _kind(model))
    elif head.kind == "convs":
        blob = "_[mask]_fcn" if head.norm == "none" else "_mask_fcn"
        for name, place in _convs(blob, f"{ours}/convs", f"{ours}/norms", head.convs, head.norm):
            yield name, _first_apart(place)
    yield "conv5_mask_w", f"{ours}/upsample/kernel"
    yield "conv5_mask_b", f"{ours}/upsample_bias"
    yield from _layer("mask_fcn_logits", f"{ours}/out")


def _first_apart(place: str) -> str:
    """Our first convolution of masks has a place of its own."""
    start, _, rest = place.partition("/convs/")
    if not rest:
        return place
    index, name = rest.split("/")
    return f"{start}/first/{name}" if index == "0" else f"{start}/convs/{int(index) - 1}/{name}"


def _keypoint_head(model: ConfigDict) -> Pairs:
    if model.keypoint_head.kind == "none":
        return
    for index in range(model.keypoint_head.convs):
        yield from _layer(f"conv_fcn{index + 1}", f"keypoint_head/convs/{index}")
    yield from _layer("kps_score_lowres", "keypoint_head/out")
