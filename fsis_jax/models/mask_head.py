"""Relation mask head (modeling/mask_rcnn_heads.py of the PyTorch project).

Roi features and reference features of the roi's level, side by side -> 3x3 convolutions -> x2 deconvolution ->
1x1. The first convolution is split: conv(concat(x, y)) = conv_x(x) + conv_y(y), and conv_y runs once per level.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fsis_jax.models.layers import conv


class RelationMaskHead(nnx.Module):
    """Args:
    channels_in: C of the pooled features.
    channels: width of the convolutions.
    convs: number of 3x3 convolutions.
    outputs: 2 (background and foreground; only the last is trained and read) or 1.
    """

    def __init__(
        self, channels_in: int, *, channels: int, convs: int, outputs: int, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.first = conv(2 * channels_in, channels, 3, dtype=dtype, rngs=rngs)
        self.convs = nnx.List(conv(channels, channels, 3, dtype=dtype, rngs=rngs) for _ in range(convs - 1))
        self.upsample = nnx.Linear(channels, 4 * channels, use_bias=False, dtype=dtype, rngs=rngs)
        self.upsample_bias = nnx.Param(jnp.zeros(channels))
        self.out = conv(channels, outputs, 1, dtype=dtype, rngs=rngs)

    def __call__(self, pooled: jax.Array, reference_pooled: jax.Array, level_index: jax.Array) -> jax.Array:
        """Args:
        pooled: (B, R, p, p, C) features of the rois.
        reference_pooled: (B, L, p, p, C) reference features of each level, resized to p x p.
        level_index: (B, R) int32 in 0..L-1.

        Returns:
            Logits (B, R, 2p, 2p, outputs), float32.
        """
        batch, rois, side = pooled.shape[:3]
        width = pooled.shape[-1]
        kernel = self.first.kernel[...].astype(pooled.dtype)  # (3, 3, 2C, channels)
        of_reference = _conv3x3(reference_pooled, kernel[:, :, width:])  # (B, L, p, p, channels)
        of_reference = jnp.take_along_axis(of_reference, level_index[..., None, None, None], 1)
        x = _conv3x3(pooled, kernel[:, :, :width]) + of_reference
        if self.first.bias is not None:
            x = x + self.first.bias[...].astype(x.dtype)
        x = nnx.relu(x).reshape(batch * rois, side, side, -1)
        for layer in self.convs:
            x = nnx.relu(layer(x))
        # A 2x2 deconvolution with stride 2 writes a separate 2x2 block for every position: a linear map.
        x = self.upsample(x).reshape(batch * rois, side, side, 2, 2, -1)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch * rois, 2 * side, 2 * side, -1)
        x = nnx.relu(x + self.upsample_bias[...].astype(x.dtype))
        return self.out(x).astype(jnp.float32).reshape(batch, rois, 2 * side, 2 * side, -1)


def _conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """(B, N, p, p, c) with (3, 3, c, o), zero-padded: (B, N, p, p, o)."""
    flat = x.reshape(-1, *x.shape[2:])
    y = jax.lax.conv_general_dilated(flat, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y.reshape(*x.shape[:2], *y.shape[1:])
