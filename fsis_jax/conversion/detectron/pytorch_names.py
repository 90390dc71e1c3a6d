"""Detectron.pytorch's names of tensors as Detectron's blobs: its `detectron_weight_mapping`, for detectors without
references.

What it writes and never reads has no blob: the fixed kernel that enlarges heat maps, counters of norms.
"""

import re
from collections.abc import Mapping

import numpy as np

_ENDINGS = {"weight": "w", "bias": "b"}
_NORM_ENDINGS = {"weight": "s", "bias": "b", "running_mean": "mean", "running_var": "var"}
_UNREAD = re.compile(r".*\.num_batches_tracked$|Keypoint_Outs\.upsample\.|Mask_Outs\.upsample\.|Conv_Body\..*fc\.")
_LAYERS = {
    **{f"RPN.{kind}RPN_{part}": f"{blob}{level}"
       for kind, level in (("", ""), ("FPN_", "_fpn2"))
       for part, blob in (("conv", "conv_rpn"), ("cls_score", "rpn_cls_logits"), ("bbox_pred", "rpn_bbox_pred"))},
    "Box_Head.fc1": "fc6",
    "Box_Head.fc2": "fc7",
    "Box_Head.fc": "fc6",
    "Box_Outs.cls_score": "cls_score",
    "Box_Outs.bbox_pred": "bbox_pred",
    "Mask_Head.upconv": "conv5_mask",
    "Mask_Head.upconv5": "conv5_mask",
    "Mask_Outs.classify": "mask_fcn_logits",
    "Keypoint_Outs.classify": "kps_score_lowres",
}  # fmt: skip
_STEM = re.compile(r"Conv_Body\.(?:conv_body\.)?res1\.(conv1|bn1|gn1)$")
_BLOCK = re.compile(
    r"(?P<module>Conv_Body|Conv_Body\.conv_body|Box_Head|Mask_Head)\.res(?P<stage>[2-5])\.(?P<block>\d+)\."
    r"(?:(?P<kind>conv|bn|gn)(?P<row>[123])|downsample\.(?P<part>[01]))$"
)
_PYRAMID = re.compile(
    r"Conv_Body\.(?:conv_top|topdown_lateral_modules\.(?P<lateral>\d)\.conv_lateral|posthoc_modules\.(?P<output>\d))"
    r"(?:\.(?P<part>[01]))?$"
)
_SEQUENCE = re.compile(r"(Box_Head\.convs|Mask_Head\.conv_fcn|Keypoint_Head\.conv_fcn)\.(\d+)$")
_SHARED = "Mask_Head.res5."
"""Of a mask head that shares the box head's stage this is another name of the same tensors."""


def renamed(tensors: Mapping[str, object]) -> tuple[dict[str, str], list[str], list[str]]:
    """Names of tensors in Detectron's words.

    Returns:
        Blob -> name in the file, in the order of the file; names without a blob that nothing reads; unknown names.
    """
    found: dict[str, str] = {}
    unread: list[str] = []
    unknown: list[str] = []
    read = _Reader(tensors)
    shared = _shares_res5(tensors)
    for name in tensors:
        if _UNREAD.match(name) or (shared and name.startswith(_SHARED)):
            unread.append(name)
        elif (blob := read(name)) is None:
            unknown.append(name)
        else:
            found[blob] = name
    return found, unread, unknown


def _shares_res5(tensors: Mapping[str, object]) -> bool:
    pairs = [
        (tensors[name], tensors.get(name.replace("Mask_Head", "Box_Head")))
        for name in tensors
        if name.startswith(_SHARED)
    ]
    return all(isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b) for a, b in pairs)


class _Reader:
    """Name -> blob, of a file that has these names."""

    def __init__(self, names: Mapping[str, object]) -> None:
        self._names = names
        last = dict.fromkeys((5, 4, 3, 2), 0)
        for name in names:
            if found := _BLOCK.match(name.rpartition(".")[0]):
                stage = int(found["stage"])
                last[stage] = max(last[stage], int(found["block"]))
        self._sums = [f"res{stage}_{block}_sum" for stage, block in last.items()]
        """From the coarsest level to the finest."""
        self._norm = "gn" if any(".gn1." in name for name in names) else "bn"
        """Of residual blocks."""

    def __call__(self, name: str) -> str | None:
        layer, _, tensor = name.rpartition(".")
        blob = _LAYERS.get(layer)
        for pattern, rule in ((_STEM, _stem), (_BLOCK, self._block), (_PYRAMID, self._pyramid), (_SEQUENCE, self._row)):
            if found := pattern.match(layer):
                blob = rule(found)
        if blob is None:
            return None
        ending = (_NORM_ENDINGS if blob.endswith(("_bn", "_gn")) else _ENDINGS).get(tensor)
        return None if ending is None else f"{blob}_{ending}"

    def _block(self, found: re.Match[str]) -> str | None:
        stage, block, part = found["stage"], int(found["block"]), found["part"]
        blob = f"{'_[mask]_' if found['module'] == 'Mask_Head' else ''}res{stage}_{block}_branch"
        if part is not None:
            return f"{blob}1{f'_{self._norm}' if part == '1' else ''}"
        norm = "" if found["kind"] == "conv" else f"_{found['kind']}"
        return f"{blob}2{'abc'[int(found['row']) - 1]}{norm}"

    def _pyramid(self, found: re.Match[str]) -> str | None:
        if found["output"]:
            blob = f"fpn_{self._sums[int(found['output'])]}" if int(found["output"]) < 4 else None
        elif found["lateral"]:
            row = int(found["lateral"]) + 1
            blob = f"fpn_inner_{self._sums[row]}_lateral" if row < 4 else None
        else:
            blob = f"fpn_inner_{self._sums[0]}"
        return blob and f"{blob}{'_gn' if found['part'] == '1' else ''}"

    def _row(self, found: re.Match[str]) -> str | None:
        """Of convolutions between ReLUs, or between norms and ReLUs."""
        group = f"{found[1]}.1.weight" in self._names
        row, part = divmod(int(found[2]), 3 if group else 2)
        blob = {
            "Box_Head.convs": "head_conv",
            "Mask_Head.conv_fcn": "_mask_fcn" if group else "_[mask]_fcn",
            "Keypoint_Head.conv_fcn": "conv_fcn",
        }[found[1]]
        return f"{blob}{row + 1}{'_gn' if part else ''}"


def _stem(found: re.Match[str]) -> str | None:
    return {"conv1": "conv1", "bn1": "res_conv1_bn", "gn1": "conv1_gn"}[found[1]]
