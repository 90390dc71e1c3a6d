"""Weights of Detectron (Caffe2), and of detectors of its PyTorch twin, for our modules.

Detectron has no batch norm but a fixed scale and shift per channel, which here are those of a norm with mean 0 and
unit variance. Its networks read the three channels as blue, green, red from 0 to 255 less a mean, and ours red, green,
blue less a mean and over a deviation: the first convolution takes the order and the deviation in, and the mean is
the config's `model.image_mean`.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fsis_jax.conversion.detectron.blobs import FILLED
from fsis_jax.models.layers import EPSILON
from fsis_jax.models.normalise import STD

_LEFT_OUT = re.compile(
    r".*_momentum$|lr$|weight_order$"
    r"|(conv1|(_\[mask\]_)?res\d_\d+_branch(1|2[abc]))_b$"  # biases that Detectron writes, always 0, and does not read
    r"|(fc1000|pred)_[wb]$"  # of ImageNet's classes
    r"|kps_score_[wb]$"  # the fixed kernel that enlarges heat maps
    r"|(mask_fcn_logits_up)_[wb]$"
)
_UNREAD_LEVELS = re.compile(r"fpn_res[345]_\d+_sum_(w|b|gn_s|gn_b)$")
"""Levels of a pyramid that a model of its finest level alone does not read."""

UNIT_VARIANCE = np.float32(1 - EPSILON)
"""The variance that gives exactly 1 when the norm adds its epsilon in float32."""


def is_left_out(name: str, architecture: str) -> bool:
    """Whether this blob has no place in our model of that architecture."""
    return _LEFT_OUT.match(name) is not None or (architecture == "p2" and _UNREAD_LEVELS.match(name) is not None)


def full_name(blob: str) -> str:
    """A blob as Detectron calls it: an early PyTorch twin leaves the ending of the pyramid's lateral layers out."""
    return re.sub(r"^(fpn_inner_res[234]_\d+_sum)(?=_(w|b|gn_s|gn_b)$)", r"\1_lateral", blob)


def is_filled(blob: str) -> bool:
    """Whether no file has this array, which `as_read_here` makes."""
    return blob.endswith(FILLED)


def as_read_here(blobs: Mapping[str, Any]) -> dict[str, Any]:
    """The blobs for our norms, our way to normalise images, and our outputs: with a background's in any case."""
    arrays = {name: value for name, value in blobs.items() if isinstance(value, np.ndarray)}
    complete = dict(blobs)
    for name, value in arrays.items():
        if name.endswith("_bn_s"):
            norm = name.removesuffix("_s")
            complete.setdefault(f"{norm}_mean", np.zeros(value.shape, np.float32))
            complete.setdefault(f"{norm}_var", np.full(value.shape, UNIT_VARIANCE, np.float32))
        elif name.startswith("fpn_") and name.endswith("_gn_s"):
            # Our layers of the pyramid have a bias before the norm too.
            complete.setdefault(f"{name.removesuffix('_gn_s')}_b", np.zeros(value.shape, np.float32))
    stem = arrays.get("conv1_w")
    if stem is not None and stem.shape[1:] == (3, 7, 7):
        complete["conv1_w"] = (stem[:, ::-1] * (255 * np.array(STD))[:, None, None]).astype(np.float32)
    for layer, rows in (("bbox_pred", 4), ("mask_fcn_logits", 1)):
        for blob in (f"{layer}_w", f"{layer}_b"):
            if blob in arrays and len(arrays[blob]) == rows:
                complete[blob] = np.concatenate([np.zeros_like(arrays[blob]), arrays[blob]])
    return complete
