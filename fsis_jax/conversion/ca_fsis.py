"""Names and layouts of the tensors of CA_FSIS_Cell, both ways, and the architecture that they belong to.

Follows the modules of the PyTorch project (modeling/model_builder.py, ResNet.py, FPN.py, match.py, rpn_heads.py,
fast_rcnn_heads.py, mask_rcnn_heads.py). Layouts: convolutions (out, in, h, w) there, (h, w, in, out) here; linear
layers (out, in) there, (in, out) here; the first layer of the box head reads (channel, row, column) there and
(row, column, channel) here; the deconvolution of the mask head is a linear map to (row, column, out) here. The
modules of the pyramid are listed from the coarsest level to the finest there, from the finest here.
"""

import re
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from fsis_jax.config import base_config
from fsis_jax.conversion.state_dict import is_unused, state_dict_names
from fsis_jax.errors import FsisError
from fsis_jax.recipes import c4_config

Shapes = Mapping[str, tuple[int, ...]]

POOLED = 7
"""Side of the pooled features that the first fully connected layer reads."""
CLASSES = 1000
"""Outputs of the classifier that the backbone carries along."""

_LAYERS = {
    "Conv_Body.conv_top": "fpn/lateral/3",
    **{f"Conv_Body.topdown_lateral_modules.{i}.conv_lateral": f"fpn/lateral/{2 - i}" for i in range(3)},
    **{f"Conv_Body.posthoc_modules.{i}": f"fpn/output/{3 - i}" for i in range(4)},
    **{f"match_net.{name}": f"matching/{name}" for name in ("g", "theta", "phi")},
    "match_net.W.0": "matching/reference_out",
    "match_net.W.1": "matching/reference_norm",
    "match_net.Q.0": "matching/target_out",
    "match_net.Q.1": "matching/target_norm",
    "match_net.ChannelGate.mlp.1": "matching/gate/fc1",
    "match_net.ChannelGate.mlp.3": "matching/gate/fc2",
    "match_net.conv1x1": "matching/conv",
    **{f"RPN.{kind}RPN_conv": "rpn/conv" for kind in ("", "FPN_")},
    **{f"RPN.{kind}RPN_cls_score": "rpn/objectness" for kind in ("", "FPN_")},
    **{f"RPN.{kind}RPN_bbox_pred": "rpn/deltas" for kind in ("", "FPN_")},
    "Box_Head.fc1": "box_head/embedding/fc1",
    "Box_Head.fc2": "box_head/embedding/fc2",
    "Box_Outs.cls_score.0": "box_head/class_pair",
    "Box_Outs.cls_score.1": "box_head/class_out",
    "Box_Outs.bbox_pred.0": "box_head/box_pair",
    "Box_Outs.bbox_pred.1": "box_head/box_out",
    "Mask_Head.conv_fcn.0": "mask_head/first",
    **{f"Mask_Head.conv_fcn.{2 * i + 2}": f"mask_head/convs/{i}" for i in range(7)},
    "Mask_Outs.classify": "mask_head/out",
}
_STEM = {"conv1": "backbone/stem", "bn1": "backbone/stem_norm"}
_STEM_LAYER = re.compile(r"Conv_Body\.(?:conv_body\.)?res1\.(conv1|bn1)$")
_STAGE_LAYER = re.compile(r"Conv_Body\.(?:conv_body\.)?res([2-5])\.(\d+)\.([a-z0-9.]+)$")
_HEAD_LAYER = re.compile(r"(?:Box|Mask)_Head\.res5\.(\d+)\.([a-z0-9.]+)$")
_UPSAMPLE = re.compile(r"Mask_Head\.upconv5?\.(weight|bias)$")
_IN_BLOCK = {
    **{f"conv{i}": f"conv{i}" for i in (1, 2, 3)},
    **{f"bn{i}": f"norm{i}" for i in (1, 2, 3)},
    **{f"offsets{i}": f"offsets{i}" for i in (1, 2, 3)},
    "downsample.0": "shortcut",
    "downsample.1": "shortcut_norm",
}
_NORM_TENSORS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_TENSORS = {"weight": "kernel", "bias": "bias"}
_NORM = re.compile(r"norm\d?$")
_READS_POOLED = tuple(f"box_head/embedding/{layer}/kernel" for layer in ("fc1", "fc"))


def our_name(name: str) -> str | None:
    """Our flat name of a tensor, or None for one that the original carries but never uses.

    Raises:
        KeyError: for a name that the original does not have.
    """
    if is_unused(name):
        return None
    upsample = _UPSAMPLE.match(name)
    if upsample:
        return "mask_head/upsample/kernel" if upsample[1] == "weight" else "mask_head/upsample_bias"
    layer, tensor = name.rpartition(".")[::2]
    ours = _our_layer(layer)
    tensors = _NORM_TENSORS if _NORM.search(ours) else _TENSORS
    if tensor not in tensors:
        raise KeyError(name)
    return f"{ours}/{tensors[tensor]}"


def _our_layer(layer: str) -> str:
    if layer in _LAYERS:
        return _LAYERS[layer]
    if stem := _STEM_LAYER.match(layer):
        return _STEM[stem[1]]
    if stage := _STAGE_LAYER.match(layer):
        return f"backbone/stages/{int(stage[1]) - 2}/{stage[2]}/{_IN_BLOCK[stage[3]]}"
    if head := _HEAD_LAYER.match(layer):
        return f"box_head/embedding/blocks/{head[1]}/{_IN_BLOCK[head[2]]}"
    raise KeyError(layer)


def to_ours(name: str, value: np.ndarray) -> tuple[str, np.ndarray] | None:
    """Our flat name and the tensor in our layout; None for a tensor that the original carries but never uses.

    Raises:
        KeyError: for a name that the original does not have.
    """
    ours = our_name(name)
    return None if ours is None else (ours, our_layout(ours, value))


def our_layout(ours: str, value: np.ndarray) -> np.ndarray:
    """The tensor of PyTorch or Caffe2 that becomes our array of this flat name, in our layout."""
    if ours == "mask_head/upsample/kernel" and value.ndim == 4:  # (in, out, row, column)
        return value.transpose(0, 2, 3, 1).reshape(value.shape[0], -1)
    if _pools(ours, value.shape[-1:]):
        outputs = value.shape[0]
        return value.reshape(outputs, -1, POOLED, POOLED).transpose(2, 3, 1, 0).reshape(-1, outputs)
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def their_layout(ours: str, value: np.ndarray) -> np.ndarray:
    """An array of ours as the original's tensor, C-contiguous."""
    return np.ascontiguousarray(_transposed(ours, value))


def _transposed(ours: str, value: np.ndarray) -> np.ndarray:
    if ours == "mask_head/upsample/kernel":
        return value.reshape(value.shape[0], 2, 2, -1).transpose(0, 3, 1, 2)
    if _pools(ours, value.shape[:1]):
        outputs = value.shape[-1]
        return value.reshape(POOLED, POOLED, -1, outputs).transpose(3, 2, 0, 1).reshape(outputs, -1)
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def their_shape(ours: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape there of an array of ours."""
    if ours == "mask_head/upsample/kernel":
        return (shape[0], shape[1] // 4, 2, 2)
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def _pools(ours: str, inputs: tuple[int, ...]) -> bool:
    return ours in _READS_POOLED and inputs[0] % POOLED**2 == 0


# -- the reverse --------------------------------------------------------------------------------------------------


def to_pytorch(
    arrays: Mapping[str, np.ndarray], unused: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """The original's `state_dict`, in its order, C-contiguous.

    Args:
        arrays: our flat name -> array; the whole model of an architecture that the original has.
        unused: tensors by their PyTorch names for those that the original never uses; zeros otherwise.

    Raises:
        FsisError: for arrays of a model that the original does not have.
    """
    left = set(arrays)
    tensors: dict[str, np.ndarray] = {}
    for name in state_dict_names(arrays):
        ours = our_name(name)
        if ours is not None:
            if ours not in arrays:
                raise FsisError(
                    f"no array {ours!r}, which PyTorch's {name} needs: the PyTorch project has no such model"
                )
            tensors[name] = their_layout(ours, arrays[ours])
            left.discard(ours)
        else:
            tensors[name] = (unused or {}).get(name, np.zeros(*_unused_like(name, arrays)))
    if left:
        raise FsisError(
            f"{len(left)} arrays have no name in the PyTorch project: {', '.join(sorted(left))}; "
            "only a model of the original's architecture can be written"
        )
    return tensors


def _unused_like(name: str, arrays: Mapping[str, np.ndarray]) -> tuple[tuple[int, ...], type]:
    """Shape and dtype of an unused tensor in a model with these arrays of ours."""
    if name.endswith("num_batches_tracked"):
        return (), np.int64
    if name.endswith("fc.weight"):
        last = "backbone/stages/3" if "fpn/lateral/0/kernel" in arrays else "box_head/embedding/blocks"
        return (CLASSES, arrays[f"{last}/0/conv3/kernel"].shape[-1]), np.float32
    if name.endswith("fc.bias"):
        return (CLASSES,), np.float32
    if name.startswith("match_net"):
        return (1, 2 * arrays["matching/g/kernel"].shape[-1], 1, 1), np.float32
    ours = our_name(name.replace("Conv_Body", "Box_Head"))  # C4's Conv_Body.res5
    assert ours is not None
    return their_shape(ours, arrays[ours].shape), np.float32


# -- the architecture ---------------------------------------------------------------------------------------------

_DEPTHS = {6: 50, 23: 101, 36: 152}
"""Blocks of res4 -> depth of the ResNet."""
_RATIOS = {3: (0.5, 1.0, 2.0), 5: (0.2, 0.5, 1.0, 2.0, 5.0)}
_C4_SIZES = 5


def model_config(shapes: Shapes) -> ConfigDict:
    """The config of the model that has tensors of these names and shapes; everything else as by default.

    A tensor that is absent leaves its key at the default, so that it can be reported as missing.

    Raises:
        FsisError: for an architecture that is not known here, naming the tensor.
    """
    if any(name.startswith(("Conv_Body.conv_body.", "RPN.FPN_")) for name in shapes):
        config = base_config()
        body = "Conv_Body.conv_body"
        _fpn(config, shapes)
    else:
        config = c4_config()
        body = "Conv_Body"
        _c4(config, shapes)
    model = config.model
    backbone_config(model, shapes, body)
    model.matching.kind = "l1" if "match_net.conv1x1.weight" in shapes else "co_attention"
    return config


def backbone_config(model: ConfigDict, shapes: Shapes, body: str) -> None:
    """Set `model.backbone` after the tensors whose names start with `body`, the original's name of the ResNet.

    Raises:
        FsisError: for a depth that is not known.
    """
    backbone = model.backbone
    pattern = re.compile(re.escape(body) + r"\.res4\.(\d+)\.")
    blocks = {int(found[1]) for name in shapes if (found := pattern.match(name))}
    bottlenecks = any(name.endswith(".conv3.weight") for name in shapes)
    if blocks:
        count = max(blocks) + 1
        if count not in _DEPTHS or not bottlenecks:
            kind = f"{count} blocks" if bottlenecks else "basic blocks"
            raise FsisError(f"the third stage of the ResNet has {kind}; known are ResNet-50, -101 and -152")
        backbone.depth = _DEPTHS[count]
    backbone.width = _size(shapes, f"{body}.res1.conv1.weight", 0, backbone.width)
    outputs, inputs = (_size(shapes, f"{body}.res2.0.conv2.weight", axis, backbone.width) for axis in (0, 1))
    backbone.groups = max(outputs // max(inputs, 1), 1)
    backbone.group_width = 0 if (backbone.groups, inputs) == (1, backbone.width) else inputs
    backbone.deformable = "interleaved" if any(".offsets" in name for name in shapes) else "none"


def _size(shapes: Shapes, name: str, axis: int, default: int) -> int:
    return shapes[name][axis] if len(shapes.get(name, ())) > axis else default


def _fpn(config: ConfigDict, shapes: Shapes) -> None:
    model = config.model
    model.fpn.channels = _size(shapes, "Conv_Body.conv_top.weight", 0, model.fpn.channels)
    ratios = _size(shapes, "RPN.FPN_RPN_cls_score.weight", 0, len(model.rpn.anchor_ratios))
    if ratios not in _RATIOS:
        raise FsisError(f"RPN.FPN_RPN_cls_score.weight is of {ratios} anchors; known are 3 and 5 aspect ratios")
    model.rpn.anchor_ratios = _RATIOS[ratios]
    model.box_head.hidden = _size(shapes, "Box_Head.fc1.weight", 0, model.box_head.hidden)
    features = _size(shapes, "Box_Outs.cls_score.0.weight", 1, 2 * model.box_head.hidden)
    model.relation = "none" if features == model.box_head.hidden else "concat"
    model.mask_head.channels = _size(shapes, "Mask_Head.upconv.weight", 0, model.mask_head.channels)
    convs = [i + 1 for i in range(8) if f"Mask_Head.conv_fcn.{2 * i}.weight" in shapes]
    model.mask_head.convs = max(convs, default=model.mask_head.convs)


def _c4(config: ConfigDict, shapes: Shapes) -> None:
    model = config.model
    anchors = _size(shapes, "RPN.RPN_cls_score.weight", 0, _C4_SIZES * len(model.rpn.anchor_ratios))
    if anchors not in [_C4_SIZES * count for count in _RATIOS]:
        raise FsisError(
            f"RPN.RPN_cls_score.weight is of {anchors} anchors; known are 15 and 25 (5 sizes, 3 or 5 ratios)"
        )
    model.rpn.anchor_ratios = _RATIOS[anchors // _C4_SIZES]
    embedded = _size(shapes, "Box_Head.res5.0.conv3.weight", 0, 2048)
    features = _size(shapes, "Box_Outs.cls_score.0.weight", 1, 2 * embedded)
    model.relation = "none" if features == embedded else "concat"
    model.mask_head.channels = _size(shapes, "Mask_Head.upconv5.weight", 1, model.mask_head.channels)
