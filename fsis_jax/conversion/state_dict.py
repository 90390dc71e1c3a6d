"""What the `state_dict` of a CA_FSIS_Cell model lists, in its order, and what the original does with each tensor.

A published file also holds tensors that no forward pass reads (`is_unused`), and with C4 the names of the mask
head's res5, which is the box head's (`is_alias`). Of the parameters, the original freezes the stem, res2 and the
norms of the ResNet (`is_frozen`).
"""

import re
from collections.abc import Container, Iterator

_UNUSED = re.compile(
    r"Conv_Body\.(conv_body\.)?fc\.(weight|bias)$"
    r"|Conv_Body\.res5\."
    r"|match_net\.concat_project\.0\.weight$"
    r"|(Conv_Body|Box_Head|Mask_Head|match_net)\..*\.num_batches_tracked$"
)
_FROZEN = re.compile(
    r"Conv_Body\.(conv_body\.)?res[12]\."
    r"|(Conv_Body\.|Box_Head\.|Mask_Head\.).*(bn\d|downsample\.1)\.(weight|bias)$"
)
_BUFFER = re.compile(r".*\.(running_mean|running_var|num_batches_tracked)$")


def is_unused(name: str) -> bool:
    """Whether no forward pass of the original reads this tensor of its files."""
    return _UNUSED.match(name) is not None


def is_alias(name: str) -> bool:
    """Whether the tensor is also listed under another name, with Box_Head for Mask_Head."""
    return name.startswith("Mask_Head.res5.")


def is_trained(name: str) -> bool:
    """Whether the tensor is in a parameter group of the original's optimiser."""
    return not (is_alias(name) or _BUFFER.match(name) or _FROZEN.match(name))


def state_dict_names(arrays: Container[str]) -> Iterator[str]:
    """The original's names for a model with arrays of these names of ours, in the order of its `state_dict`."""
    pyramid = "fpn/lateral/0/kernel" in arrays
    if pyramid:
        yield from _weight_and_bias("Conv_Body.conv_top")
        for i in range(3):
            yield from _weight_and_bias(f"Conv_Body.topdown_lateral_modules.{i}.conv_lateral")
        for i in range(4):
            yield from _weight_and_bias(f"Conv_Body.posthoc_modules.{i}")
    body = "Conv_Body.conv_body" if pyramid else "Conv_Body"
    res5 = "backbone/stages/3" if pyramid else "box_head/embedding/blocks"
    yield f"{body}.res1.conv1.weight"
    yield from _norm(f"{body}.res1.bn1")
    for stage in range(3):
        yield from _blocks(arrays, f"backbone/stages/{stage}", f"{body}.res{stage + 2}")
    yield from _blocks(arrays, res5, f"{body}.res5")
    yield from _weight_and_bias(f"{body}.fc")
    yield from _matching(arrays)
    for part in ("conv", "cls_score", "bbox_pred"):
        yield from _weight_and_bias(f"RPN.FPN_RPN_{part}" if pyramid else f"RPN.RPN_{part}")
    if pyramid:
        yield from _weight_and_bias("Box_Head.fc1")
        yield from _weight_and_bias("Box_Head.fc2")
    else:
        yield from _blocks(arrays, res5, "Box_Head.res5")
    for part in ("cls_score.0", "cls_score.1", "bbox_pred.0", "bbox_pred.1"):
        yield from _weight_and_bias(f"Box_Outs.{part}")
    if pyramid:
        convs = 1
        while f"mask_head/convs/{convs - 1}/kernel" in arrays:
            convs += 1
        for i in range(convs):
            yield from _weight_and_bias(f"Mask_Head.conv_fcn.{2 * i}")
        yield from _weight_and_bias("Mask_Head.upconv")
    else:
        yield from _weight_and_bias("Mask_Head.upconv5")
        yield from _blocks(arrays, res5, "Mask_Head.res5")
    yield from _weight_and_bias("Mask_Outs.classify")


def _matching(arrays: Container[str]) -> Iterator[str]:
    if "matching/conv/kernel" in arrays:
        yield from _weight_and_bias("match_net.conv1x1")
        return
    yield from _weight_and_bias("match_net.g")
    for out in ("W", "Q"):
        yield from _weight_and_bias(f"match_net.{out}.0")
        yield from _norm(f"match_net.{out}.1")
    yield from _weight_and_bias("match_net.theta")
    yield from _weight_and_bias("match_net.phi")
    yield "match_net.concat_project.0.weight"
    yield from _weight_and_bias("match_net.ChannelGate.mlp.1")
    yield from _weight_and_bias("match_net.ChannelGate.mlp.3")


def _blocks(arrays: Container[str], ours: str, theirs: str) -> Iterator[str]:
    """A stage of the ResNet."""
    block = 0
    while f"{ours}/{block}/conv1/kernel" in arrays:
        for i in (1, 2, 3):
            if f"{ours}/{block}/offsets{i}/kernel" in arrays:
                yield f"{theirs}.{block}.offsets{i}.weight"
            yield f"{theirs}.{block}.conv{i}.weight"
            yield from _norm(f"{theirs}.{block}.bn{i}")
        if f"{ours}/{block}/shortcut/kernel" in arrays:
            yield f"{theirs}.{block}.downsample.0.weight"
            yield from _norm(f"{theirs}.{block}.downsample.1")
        block += 1


def _weight_and_bias(layer: str) -> Iterator[str]:
    yield f"{layer}.weight"
    yield f"{layer}.bias"


def _norm(layer: str) -> Iterator[str]:
    for tensor in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        yield f"{layer}.{tensor}"
