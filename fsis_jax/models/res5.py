"""The last stage of a ResNet as the trunk of heads: models that read level 4 of the backbone ("c4").

Follows ResNet_roi_conv5_head in modeling/ResNet.py of the PyTorch project, whose mask heads share the box head's stage
(mask_rcnn_fcn_head_v0upshare) or have one of their own (v0up).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from fsis_jax.models.blocks import Block
from fsis_jax.models.box_head import RoiFeatures
from fsis_jax.models.layers import Training
from fsis_jax.models.resnet import run_stage


class Res5(nnx.Module):
    """The stage's maps (`maps`, which a mask head may read too), and their mean.

    Args:
        stage: its blocks.
        channels: that the stage gives.
        remat: see `run_stage`.
    """

    def __init__(self, stage: nnx.List[Block], channels: int, *, remat: bool = False) -> None:
        self.blocks = stage
        self.channels = channels
        self.remat = remat

    def maps(
        self, features: RoiFeatures, valid: jax.Array | None = None, training: Training | None = None
    ) -> RoiFeatures:
        """The stage's output on both sides, C becoming `channels`.

        Args:
            features: pooled rois and references.
            valid: (B, R) bool, rois that enter batch statistics; all if None.
            training: for the norms. The original repeats the references for every roi: they count as often.
        """
        valid = jnp.ones(features.level_index.shape, bool) if valid is None else valid
        rois = self._run(features.rois, valid.astype(jnp.float32), training)
        if features.references is None:
            return dataclasses.replace(features, rois=rois)
        levels = features.references.shape[1]
        rois_of_level = (jax.nn.one_hot(features.level_index, levels) * valid[..., None]).sum(1)  # (B, L)
        references = self._run(features.references, rois_of_level, training)
        return dataclasses.replace(features, rois=rois, references=references)

    def _run(self, x: jax.Array, weights: jax.Array, training: Training | None) -> jax.Array:
        """(B, N, p, p, C), each counted as often as (B, N) weights say."""
        if training is not None:
            training = dataclasses.replace(training, weights=weights.reshape(-1))
        y = run_stage(self.blocks, x.reshape(-1, *x.shape[2:]), None, 1, training, remat=self.remat)
        return y.reshape(*x.shape[:2], *y.shape[1:])

    def __call__(self, maps: jax.Array) -> jax.Array:
        """(B, N, p, p, channels) -> (B, N, channels)."""
        return maps.mean((2, 3))
