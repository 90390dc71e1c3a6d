"""Weights of Detectron (Caffe2): its names of the tensors that the PyTorch project maps, and its ways of the stem.

Follows `detectron_weight_mapping` of the PyTorch project's modules. Detectron has no batch norm but a fixed scale and
shift per channel, which here are those of a norm with mean 0 and unit variance. Its networks read the three channels
as blue, green, red from 0 to 255 less a mean, and ours red, green, blue less a mean and over a deviation; `fold_stem`
puts that difference into the first convolution and its norm, so that nothing else changes (but for the outermost
pixels, where both pad with zeros: the mean colours of the two differ by up to 1 of 255).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fsis_jax.config import base_config
from fsis_jax.conversion import ca_fsis
from fsis_jax.models.layers import EPSILON
from fsis_jax.models.normalise import MEAN, STD

PIXEL_MEANS = (122.7717, 115.9465, 102.9801)
"""What Detectron subtracts from red, green and blue."""

_LEFT_OUT = re.compile(
    r".*_momentum$|lr$|weight_order$"
    r"|(conv1|res\d_\d+_branch(1|2[abc]))_b$"  # biases that Detectron writes, always 0, and does not read
    r"|(fc1000|pred|cls_score|bbox_pred|conv_fcn\d|kps_\w+)_[wb]$"  # of its own classes, and of key points
)


UNIT_VARIANCE = np.float32(1 - EPSILON)
"""The variance that gives exactly 1 when the norm adds its epsilon in float32."""


def is_left_out(name: str) -> bool:
    """Whether this blob has no place in our model."""
    return _LEFT_OUT.match(name) is not None


class Names:
    """Detectron's names and CA_FSIS_Cell's.

    Args:
        blobs: the names in a file, which tell the depth of the ResNet and whether there is a pyramid.
    """

    def __init__(self, blobs: Iterable[str]) -> None:
        names = set(blobs)
        self.pyramid = "conv_rpn_w" not in names
        matches = (re.match(r"res([2-5])_(\d+)_branch2a_w$", name) for name in names)
        blocks = {(int(found[1]), int(found[2])) for found in matches if found}
        counts = {stage: max([block for s, block in blocks if s == stage], default=2) + 1 for stage in (2, 3, 4, 5)}
        self._to_ca_fsis = dict(_pairs(counts, pyramid=self.pyramid))
        self._from_ca_fsis = {ca_name: name for name, ca_name in self._to_ca_fsis.items()}
        # Detectron itself calls the lateral convolutions of the pyramid so, its PyTorch twin without the ending.
        self._to_ca_fsis |= {
            name.replace("_lateral", ""): ca_name for name, ca_name in self._to_ca_fsis.items() if "_lateral" in name
        }

    def ca_fsis(self, name: str) -> str | None:
        """CA_FSIS_Cell's name of a blob, or None."""
        return self._to_ca_fsis.get(name)

    def detectron(self, name: str) -> str | None:
        """The blob of a tensor of CA_FSIS_Cell, or None."""
        return self._from_ca_fsis.get(name)


def _pairs(counts: Mapping[int, int], *, pyramid: bool) -> Iterator[tuple[str, str]]:
    """(Detectron's name, CA_FSIS_Cell's) of every tensor of a network with so many blocks in each stage."""
    body = "Conv_Body.conv_body" if pyramid else "Conv_Body"
    yield "conv1_w", f"{body}.res1.conv1.weight"
    yield from _affine("res_conv1_bn", f"{body}.res1.bn1")
    for stage, count in counts.items():
        theirs = f"{body}.res{stage}" if pyramid or stage < 5 else "Box_Head.res5"
        for block in range(count):
            for i, letter in enumerate("abc", start=1):
                branch = f"res{stage}_{block}_branch2{letter}"
                yield f"{branch}_w", f"{theirs}.{block}.conv{i}.weight"
                yield from _affine(f"{branch}_bn", f"{theirs}.{block}.bn{i}")
        yield f"res{stage}_0_branch1_w", f"{theirs}.0.downsample.0.weight"
        yield from _affine(f"res{stage}_0_branch1_bn", f"{theirs}.0.downsample.1")
    if pyramid:
        sums = [f"res{stage}_{counts[stage] - 1}_sum" for stage in (5, 4, 3, 2)]
        yield from _layer(f"fpn_inner_{sums[0]}", "Conv_Body.conv_top")
        for i in range(3):
            lateral = f"Conv_Body.topdown_lateral_modules.{i}.conv_lateral"
            yield from _layer(f"fpn_inner_{sums[i + 1]}_lateral", lateral)
        for i in range(4):
            yield from _layer(f"fpn_{sums[i]}", f"Conv_Body.posthoc_modules.{i}")
    rpn, level = ("RPN.FPN_RPN", "_fpn2") if pyramid else ("RPN.RPN", "")
    yield from _layer(f"conv_rpn{level}", f"{rpn}_conv")
    yield from _layer(f"rpn_cls_logits{level}", f"{rpn}_cls_score")
    yield from _layer(f"rpn_bbox_pred{level}", f"{rpn}_bbox_pred")
    if pyramid:
        yield from _layer("fc6", "Box_Head.fc1")
        yield from _layer("fc7", "Box_Head.fc2")
        for i in range(4):
            yield from _layer(f"_[mask]_fcn{i + 1}", f"Mask_Head.conv_fcn.{2 * i}")
    yield from _layer("conv5_mask", "Mask_Head.upconv" if pyramid else "Mask_Head.upconv5")
    yield from _layer("mask_fcn_logits", "Mask_Outs.classify")


def _layer(blob: str, layer: str) -> Iterator[tuple[str, str]]:
    yield f"{blob}_w", f"{layer}.weight"
    yield f"{blob}_b", f"{layer}.bias"


def _affine(blob: str, norm: str) -> Iterator[tuple[str, str]]:
    yield f"{blob}_s", f"{norm}.weight"
    yield f"{blob}_b", f"{norm}.bias"


def unfit(shapes: ca_fsis.Shapes) -> set[str]:
    """Those of CA_FSIS_Cell's layers that Detectron has with other inputs or outputs.

    The first layers of its mask head see no references, and its masks are of its own classes.
    """
    found = set()
    if shapes.get("Mask_Outs.classify.weight", (2,))[:1] != (2,):
        found.add("Mask_Outs.classify")
    first = shapes.get("Mask_Head.conv_fcn.0.weight", (1, 2))
    if first[1:2] != (2 * first[0],):
        found.add("Mask_Head.conv_fcn.0")
    trunk = shapes.get("Box_Head.res5.0.conv3.weight", (2048,))
    if shapes.get("Mask_Head.upconv5.weight", (2 * trunk[0],))[:1] != (2 * trunk[0],):
        found.add("Mask_Head.upconv5")
    return found


def model_config(shapes: ca_fsis.Shapes) -> ConfigDict:
    """The config of a model that has tensors of these names of CA_FSIS_Cell; raises as `ca_fsis.model_config` does."""
    if any(name.startswith("RPN.") for name in shapes):
        config = ca_fsis.model_config(shapes)
    else:
        config = base_config()
        ca_fsis.backbone_config(config.model, shapes, "Conv_Body.conv_body")
    backbone = config.model.backbone
    backbone.padded_pool = True
    backbone.stride_in_1x1 = backbone.groups == 1  # its ResNeXts have it on the 3x3
    return config


def as_read_here(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors, by their names of CA_FSIS_Cell, for our norms and our way to normalise images."""
    complete = dict(tensors)
    for name, value in tensors.items():
        norm, tensor = name.rpartition(".")[::2]
        if tensor == "weight" and re.search(r"(\.bn\d|\.downsample\.1)$", norm) and isinstance(value, np.ndarray):
            complete[f"{norm}.running_mean"] = np.zeros(value.shape, np.float32)
            complete[f"{norm}.running_var"] = np.full(value.shape, UNIT_VARIANCE, np.float32)
    for name, kernel in tensors.items():
        if name.endswith("res1.conv1.weight") and isinstance(kernel, np.ndarray) and kernel.shape[1:] == (3, 7, 7):
            mean = name.replace("conv1.weight", "bn1.running_mean")
            complete[name], complete[mean] = fold_stem(kernel, np.zeros(len(kernel)))
    return complete


def fold_stem(kernel: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The stem for images normalised our way.

    Args:
        kernel: (O, 3, h, w), for blue, green, red.
        mean: (O,), of the norm behind it.

    Returns:
        Kernel for red, green, blue, and the norm's mean.
    """
    kernel = kernel[:, ::-1].astype(np.float64)
    shift = 255 * np.array(MEAN) - np.array(PIXEL_MEANS)  # what Detectron sees where our image is 0
    mean = mean - np.einsum("ocij,c->o", kernel, shift)
    kernel = kernel * (255 * np.array(STD))[:, None, None]
    return kernel.astype(np.float32), mean.astype(np.float32)
