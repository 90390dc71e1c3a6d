"""The files that are converted: what is in them, told from the content, under the names of its family.

The PyTorch project reads torchvision's backbones by renaming their tensors to its own (utils/resnet_weights_helper.py),
so its names are common to these here, and `ca_fsis` leads from them to ours. Detectron's are another family:
`detectron` leads from them, and from those of its PyTorch twin, to ours.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fsis_jax.config import base_config
from fsis_jax.conversion import ca_fsis
from fsis_jax.conversion.detectron import weights as detectron
from fsis_jax.conversion.detectron.architecture import config_of_blobs, is_whole
from fsis_jax.conversion.detectron.blobs import blob_names
from fsis_jax.conversion.detectron.pytorch_names import renamed as renamed_to_blobs
from fsis_jax.conversion.kinds import KINDS
from fsis_jax.conversion.state_dict import state_dict_names
from fsis_jax.errors import FsisError

BODY = "Conv_Body.conv_body"
"""CA_FSIS_Cell's name of the ResNet of a pyramid."""


@dataclasses.dataclass(frozen=True)
class SourceWeights:
    """Weights of another project."""

    kind: str
    """One of KINDS."""
    tensors: dict[str, np.ndarray]
    """Name in the family -> tensor in PyTorch's layout, in the order of the file."""
    config: ConfigDict
    """The config of the model that the weights fit."""
    whole: bool
    """Whether they are a whole detector; otherwise weights to start training from."""
    unknown: list[str]
    """Names in the file that nothing here knows."""
    left_out: list[str]
    """Names in the file that are known and have no place in our model."""
    name_in_file: Callable[[str], str | None]
    """Name in the family -> how the file spells it; None for what no such file has."""
    our_names: Callable[[Collection[str]], dict[str, str]]
    """Our flat names of the model's arrays -> the family's name of each tensor that is read, and ours of it."""
    training: Mapping[str, Any]
    """What is stored beside the weights: "optimizer", "step", "batch_size" ..."""


def read_source(content: Any, kind: str, path: pathlib.Path) -> SourceWeights:
    """Sort the content of a file out.

    Args:
        content: as `torch_file.read_file` returns it.
        kind: one of KINDS, or "auto".
        path: for messages.

    Raises:
        FsisError: if the content is not of that kind, or of none; something else than a tensor among the weights.
    """
    found = _find(content)
    if found is None:
        start = ", ".join(ascii(str(key)[:40])[1:-1] for key in list(content)[:5]) if isinstance(content, dict) else ""
        raise FsisError(
            f"{path}: weights of no known kind (a {type(content).__name__} of: {start}); known are "
            f"{', '.join(KINDS.values())}"
        )
    recognised, tensors = found
    if kind == "auto" and recognised == "oneshot":
        raise FsisError(
            f"{path}: a ResNet under 'state_dict', as torchvision's training and One-Shot-Object-Detection both write "
            "it, with other strides: give --kind torchvision or --kind oneshot"
        )
    kind = recognised if kind == "auto" else kind
    if (kind, recognised) not in _READERS:
        raise FsisError(f"{path}: not {KINDS[kind]}, but {KINDS[recognised]}; give --kind {recognised} or --kind auto")
    return _READERS[kind, recognised](_stripped(tensors, path), content)


def _find(content: Any) -> tuple[str, dict[Any, Any]] | None:
    """What `content` is, and the mapping in it that holds the weights."""
    if not isinstance(content, dict):
        return None
    for key in ("blobs", "model", "state_dict", None):
        tensors = content if key is None else content.get(key)
        if not isinstance(tensors, dict):
            continue
        names = {str(name).removeprefix("module.") for name in tensors}
        if any(name.startswith(("Conv_Body.", "Box_Head.", "RPN.")) for name in names):
            return "detectron_pytorch" if "Box_Outs.cls_score.weight" in names else "ca_fsis", tensors
        if "conv1_w" in names or "res2_0_branch2a_w" in names:
            return "detectron", tensors
        if any(name.startswith("layer1.0.") for name in names):
            return "oneshot" if key == "state_dict" else "torchvision", tensors
    return None


def _stripped(tensors: dict[Any, Any], path: pathlib.Path) -> dict[str, Any]:
    """Without the prefix that torch.nn.DataParallel gives every name."""
    stripped = {str(name).removeprefix("module."): value for name, value in tensors.items()}
    if len(stripped) != len(tensors):
        raise FsisError(f"{path}: holds the same names with and without 'module.' before them; keep one of the two")
    return stripped


def _ca_fsis(tensors: dict[str, Any], content: dict[str, Any]) -> SourceWeights:
    known = {name: value for name, value in tensors.items() if _is_known(name)}
    return SourceWeights(
        kind="ca_fsis",
        tensors=known,
        config=ca_fsis.model_config(_shapes(tensors)),
        whole=True,
        unknown=[name for name in tensors if name not in known],
        left_out=[],
        name_in_file=lambda name: name,
        our_names=_ca_fsis_names,
        training={key: value for key, value in content.items() if key != "model"},
    )


_TORCHVISION = re.compile(r"(conv1|bn1|layer([1-4]))\.(.+)$")


def _torchvision(tensors: dict[str, Any], content: dict[str, Any]) -> SourceWeights:
    """The stride sits on the 3x3 convolutions, and the stem's pool is padded."""
    source = _resnet("torchvision", tensors)
    source.config.model.backbone.stride_in_1x1 = False
    source.config.model.backbone.padded_pool = True
    return source


def _oneshot(tensors: dict[str, Any], content: dict[str, Any]) -> SourceWeights:
    """A ResNet in Caffe's style, as the PyTorch project's own: stride on the 1x1 convolutions, no padding."""
    return _resnet("oneshot", tensors)


def _resnet(kind: str, tensors: dict[str, Any]) -> SourceWeights:
    renamed: dict[str, Any] = {}
    unknown: list[str] = []
    left_out: list[str] = []
    for name, value in tensors.items():
        found = _TORCHVISION.match(name)
        if found is None:
            (left_out if name.startswith("fc.") else unknown).append(name)
            continue
        ours = f"{BODY}.res{int(found[2]) + 1}.{found[3]}" if found[2] else f"{BODY}.res1.{name}"
        if _is_known(ours):
            renamed[ours] = value
        else:
            unknown.append(name)
    config = base_config()
    ca_fsis.backbone_config(config.model, _shapes(renamed), BODY)
    return SourceWeights(
        kind=kind,
        tensors=renamed,
        config=config,
        whole=False,
        unknown=unknown,
        left_out=left_out,
        name_in_file=_torchvision_name,
        our_names=_ca_fsis_names,
        training={},
    )


def _torchvision_name(name: str) -> str:
    stage, rest = name.removeprefix(f"{BODY}.res").split(".", 1)
    return rest if stage == "1" else f"layer{int(stage) - 1}.{rest}"


def _ca_fsis_names(arrays: Collection[str]) -> dict[str, str]:
    return {name: ours for name in state_dict_names(arrays) if (ours := ca_fsis.our_name(name)) is not None}


def _detectron(tensors: dict[str, Any], content: dict[str, Any]) -> SourceWeights:
    return _of_blobs("detectron", tensors, {detectron.full_name(name): name for name in tensors}, [])


def _detectron_pytorch(tensors: dict[str, Any], content: dict[str, Any]) -> SourceWeights:
    spelt, unread, unknown = renamed_to_blobs(tensors)
    return _of_blobs("detectron_pytorch", tensors, spelt, unknown, left_out=unread)


def _of_blobs(
    kind: str, tensors: dict[str, Any], spelt: dict[str, str], unknown: list[str], *, left_out: Sequence[str] = ()
) -> SourceWeights:
    """Weights of Detectron: `spelt` has the names of its blobs in the file."""
    config = config_of_blobs(_shapes({blob: tensors[name] for blob, name in spelt.items()}))
    whole = is_whole(spelt)
    ours = blob_names(config.model, heads=whole)
    absent = [blob for blob in spelt if blob not in ours]
    passed = [blob for blob in absent if detectron.is_left_out(blob, config.model.architecture)]
    return SourceWeights(
        kind=kind,
        tensors=detectron.as_read_here({blob: tensors[name] for blob, name in spelt.items() if blob in ours}),
        config=config,
        whole=whole,
        unknown=[*unknown, *(spelt[blob] for blob in absent if blob not in passed)],
        left_out=[*left_out, *(spelt[blob] for blob in passed)],
        name_in_file=lambda blob: spelt.get(blob, None if detectron.is_filled(blob) else blob),
        our_names=lambda arrays: {blob: name for blob, name in ours.items() if name in arrays},
        training={},
    )


_READERS: dict[tuple[str, str], Callable[[dict[str, Any], dict[str, Any]], SourceWeights]] = {
    ("ca_fsis", "ca_fsis"): _ca_fsis,
    ("torchvision", "torchvision"): _torchvision,
    ("oneshot", "oneshot"): _oneshot,
    # The two differ in what the weights mean only, which no file tells for certain.
    ("torchvision", "oneshot"): _torchvision,
    ("oneshot", "torchvision"): _oneshot,
    ("detectron", "detectron"): _detectron,
    ("detectron_pytorch", "detectron_pytorch"): _detectron_pytorch,
}
"""(asked for, recognised) -> reader."""


def _is_known(name: str) -> bool:
    try:
        ca_fsis.our_name(name)
    except KeyError:
        return False
    return True


def _shapes(tensors: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in tensors.items() if isinstance(value, np.ndarray)}
