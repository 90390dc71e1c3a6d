"""The detector filled with the golden weights: PyTorch names and layouts on one side, ours on the other."""

import importlib.util
import json
import pathlib
import re
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.models.detector import Detector

Path = tuple[str | int, ...]

_UNUSED = re.compile(r"Conv_Body\.conv_body\.fc\.|match_net\.concat_project\.|.*num_batches_tracked$")
"""Tensors of a published checkpoint that no forward pass reads."""

_LAYERS: dict[str, Path] = {
    "Conv_Body.conv_body.res1.conv1": ("backbone", "stem"),
    "Conv_Body.conv_body.res1.bn1": ("backbone", "stem_norm"),
    # The modules of the pyramid are listed from the coarsest level to the finest.
    "Conv_Body.conv_top": ("fpn", "lateral", 3),
    **{f"Conv_Body.topdown_lateral_modules.{i}.conv_lateral": ("fpn", "lateral", 2 - i) for i in range(3)},
    **{f"Conv_Body.posthoc_modules.{i}": ("fpn", "output", 3 - i) for i in range(4)},
    "match_net.g": ("co_attention", "g"),
    "match_net.theta": ("co_attention", "theta"),
    "match_net.phi": ("co_attention", "phi"),
    "match_net.W.0": ("co_attention", "reference_out"),
    "match_net.W.1": ("co_attention", "reference_norm"),
    "match_net.Q.0": ("co_attention", "target_out"),
    "match_net.Q.1": ("co_attention", "target_norm"),
    "match_net.ChannelGate.mlp.1": ("co_attention", "gate", "fc1"),
    "match_net.ChannelGate.mlp.3": ("co_attention", "gate", "fc2"),
    "RPN.FPN_RPN_conv": ("rpn", "conv"),
    "RPN.FPN_RPN_cls_score": ("rpn", "objectness"),
    "RPN.FPN_RPN_bbox_pred": ("rpn", "deltas"),
    "Box_Head.fc1": ("box_head", "fc1"),
    "Box_Head.fc2": ("box_head", "fc2"),
    "Box_Outs.cls_score.0": ("box_head", "class_pair"),
    "Box_Outs.cls_score.1": ("box_head", "class_out"),
    "Box_Outs.bbox_pred.0": ("box_head", "box_pair"),
    "Box_Outs.bbox_pred.1": ("box_head", "box_out"),
    "Mask_Head.conv_fcn.0": ("mask_head", "first"),
    **{f"Mask_Head.conv_fcn.{2 * i + 2}": ("mask_head", "convs", i) for i in range(3)},
    "Mask_Outs.classify": ("mask_head", "out"),
}

_BLOCK = re.compile(r"Conv_Body\.conv_body\.res(\d)\.(\d)\.(conv|bn|downsample\.)(\d)$")
_TENSORS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def our_path(name: str, shape: tuple[int, ...]) -> Path:
    """Where the tensor of this PyTorch name and shape lies in our state."""
    if name.startswith("Mask_Head.upconv."):
        return ("mask_head", "upsample", "kernel") if name.endswith("weight") else ("mask_head", "upsample_bias")
    layer, tensor = name.rsplit(".", 1)
    last = "kernel" if len(shape) > 1 else _TENSORS[tensor]
    block = _BLOCK.match(layer)
    if block is None:
        return (*_LAYERS[layer], last)
    stage, position, kind, number = block.groups()
    ours = {
        "conv": f"conv{number}",
        "bn": f"norm{number}",
        "downsample.": "shortcut" if number == "0" else "shortcut_norm",
    }[kind]
    return ("backbone", "stages", int(stage) - 2, int(position), ours, last)


def our_layout(name: str, value: np.ndarray) -> np.ndarray:
    """A PyTorch tensor in our order of axes."""
    if name == "Box_Head.fc1.weight":  # inputs ordered (channel, row, column) there, (row, column, channel) here
        outputs = value.shape[0]
        return value.reshape(outputs, -1, 7, 7).transpose(2, 3, 1, 0).reshape(-1, outputs)
    if name == "Mask_Head.upconv.weight":  # (in, out, 2, 2); here a linear map to (row, column, out)
        return value.transpose(0, 2, 3, 1).reshape(value.shape[0], -1)
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def load_rule(golden: pathlib.Path) -> ModuleType:
    """The module that makes every tensor from its name and shape."""
    spec = importlib.util.spec_from_file_location("golden_weights_rule", golden / "weights_rule.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tensor_names(golden: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """PyTorch name -> shape of all tensors that the detector has too."""
    manifest = json.loads((golden / "V1_fpn_full" / "manifest.json").read_text())
    return {name: tuple(shape) for name, shape in manifest["state_dict"] if not _UNUSED.match(name)}


def golden_values(golden: pathlib.Path) -> dict[Path, np.ndarray]:
    """Our path -> value of every tensor of the detector."""
    rule = load_rule(golden)
    shapes = tensor_names(golden)
    return {our_path(name, shape): our_layout(name, rule.make(name, shape)) for name, shape in shapes.items()}


def build(config: ConfigDict, values: dict[Path, np.ndarray]) -> tuple[nnx.GraphDef, nnx.State]:
    """The detector of `config.model` with exactly these values: a missing, extra or misshapen one is an error."""
    graph, state = nnx.split(_empty(config))
    flat: dict[Path, Any] = dict(nnx.to_flat_state(state))
    assert set(flat) == set(values)
    assert {path: flat[path].shape for path in flat} == {path: values[path].shape for path in flat}
    filled = {path: variable.replace(jnp.asarray(values[path])) for path, variable in flat.items()}
    return graph, jax.block_until_ready(nnx.from_flat_state(filled))


def graph_of(config: ConfigDict) -> nnx.GraphDef:
    """The structure of the detector of `config.model`, to merge with the state of one that differs in settings only."""
    return nnx.graphdef(_empty(config))


def _empty(config: ConfigDict) -> Detector:
    return nnx.eval_shape(lambda: Detector(config.model, rngs=nnx.Rngs(0)))
