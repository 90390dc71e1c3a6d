"""Mask heads (modeling/mask_rcnn_heads.py of the PyTorch project), with a relation to the references or without.

`ConvMaskHead` (v1up, v1up4convs and its form with group norm): roi features and reference features of the roi's level,
side by side -> 3x3 convolutions -> x2 deconvolution -> 1x1. `Res5MaskHead` (v0up, v0upshare): both through a stage of
the backbone, its own or the box head's, side by side -> deconvolution -> 1x1.

The layer that reads the pair is split: f(concat(x, y)) = f_x(x) + f_y(y), and f_y runs once per level,
not once per roi.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fsis_jax import ops
from fsis_jax.models.box_head import RoiFeatures
from fsis_jax.models.layers import GroupNorm, conv, relu
from fsis_jax.models.res5 import Res5

CHUNK = 5
"""Rois that go through all layers together on a CPU."""


class ConvMaskHead(nnx.Module):
    """Convolutions of its own.

    Args:
        channels_in: C of the pooled features.
        relation: whether it sees the references.
        votes: channels of the pooled votes that it reads beside the features of a roi; 0: none.
        channels: width of the convolutions.
        convs: number of 3x3 convolutions.
        norm: after each, "none" or "group".
        outputs: masks of a roi; the background's, which is never trained nor read, first if there is one.
    """

    trunk = None

    def __init__(
        self,
        channels_in: int,
        *,
        relation: bool,
        votes: int = 0,
        channels: int,
        convs: int,
        norm: str,
        outputs: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.relation = relation
        bias = norm == "none"
        self.first = conv((1 + relation) * channels_in + votes, channels, 3, use_bias=bias, dtype=dtype, rngs=rngs)
        self.convs = nnx.List(
            conv(channels, channels, 3, use_bias=bias, dtype=dtype, rngs=rngs) for _ in range(convs - 1)
        )
        self.norms = nnx.List(GroupNorm(channels) for _ in range(convs if norm == "group" else 0))
        self.upsample = nnx.Linear(channels, 4 * channels, use_bias=False, dtype=dtype, rngs=rngs)
        self.upsample_bias = nnx.Param(jnp.zeros(channels))
        self.out = conv(channels, outputs, 1, dtype=dtype, rngs=rngs)

    def __call__(self, features: RoiFeatures) -> jax.Array:
        """Logits (B, R, 2p, 2p, outputs), float32."""
        pooled = _beside_votes(features)
        batch, rois, side = pooled.shape[:3]
        width = pooled.shape[-1]
        kernel = self.first.kernel[...].astype(pooled.dtype)  # (3, 3, what is read of a roi and then C, channels)
        x = _conv3x3(pooled, kernel[:, :, :width])
        if self.relation:
            assert features.references is not None
            x = x + _of_roi(_conv3x3(features.references, kernel[:, :, width:]), features.level_index)
        x = x + _bias(self.first).astype(x.dtype)
        x = self._activate(x.reshape(batch * rois, side, side, -1), 0)
        for row, layer in enumerate(self.convs, start=1):
            x = self._activate(layer(x), row)
        return _deconvolve(self, self.upsample(x)).reshape(batch, rois, 2 * side, 2 * side, -1)

    def _activate(self, x: jax.Array, row: int) -> jax.Array:
        """Norm `row` and the ReLU of (N, p, p, channels)."""
        return relu(self.norms[row](x) if self.norms else x)

    def predict(self, features: RoiFeatures) -> jax.Array:
        """As calling it, for inference: no gradient is wanted, and on a CPU it is faster."""
        if features.rois.dtype != jnp.float32:
            return self(features)
        return jax.lax.platform_dependent(features, cpu=self._by_chunks, default=self)

    def _by_chunks(self, features: RoiFeatures) -> jax.Array:
        """A few rois at a time go through all layers, so that what is between them stays in cache."""
        pooled = _beside_votes(features)
        batch, rois, side, _, width = pooled.shape
        kernel = self.first.kernel[...]  # (3, 3, what is read of a roi and then C, channels)
        bias = _bias(self.first)
        first = ops.transform_kernel(kernel[:, :, :width])
        others = [(ops.transform_kernel(layer.kernel[...]), _bias(layer)) for layer in self.convs]
        shift, row = bias.reshape(1, 1, 1, -1), jnp.zeros_like(features.level_index)
        if self.relation:
            assert features.references is not None
            of_level = _conv3x3(features.references, kernel[:, :, width:])
            shift = shift + of_level.reshape(-1, *of_level.shape[2:])  # (B L, p, p, channels)
            row = jnp.arange(batch)[:, None] * of_level.shape[1] + features.level_index  # (B, R)

        def run(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
            x, row = chunk
            x = self._activate(ops.conv3x3(x, first) + shift[row], 0)
            for position, (transformed, layer_bias) in enumerate(others, start=1):
                x = self._activate(ops.conv3x3(x, transformed) + layer_bias, position)
            return _deconvolve(self, self.upsample(x))

        y = jax.lax.map(run, jax.tree.map(_in_chunks, (pooled, row)))
        return y.reshape(-1, *y.shape[2:])[: batch * rois].reshape(batch, rois, 2 * side, 2 * side, -1)


class Res5MaskHead(nnx.Module):
    """A stage of the backbone; the head reads what has passed it.

    Args:
        trunk: the stage: its own, or the box head's.
        relation, outputs: as for `ConvMaskHead`.
        channels: of the deconvolution.
    """

    def __init__(
        self, trunk: Res5, *, relation: bool, channels: int, outputs: int, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.trunk = trunk
        self.relation = relation
        self.upsample = nnx.Linear(
            (1 + relation) * trunk.channels, 4 * channels, use_bias=False, dtype=dtype, rngs=rngs
        )
        self.upsample_bias = nnx.Param(jnp.zeros(channels))
        self.out = conv(channels, outputs, 1, dtype=dtype, rngs=rngs)

    def predict(self, features: RoiFeatures) -> jax.Array:
        """As calling it, which is all there is."""
        return self(features)

    def __call__(self, features: RoiFeatures) -> jax.Array:
        """Logits (B, R, 2p, 2p, outputs), float32."""
        maps = features.rois
        batch, rois, side = maps.shape[:3]
        width = maps.shape[-1]
        kernel = self.upsample.kernel[...].astype(maps.dtype)  # (C or 2C, 4 * channels)
        x = maps @ kernel[:width]
        if self.relation:
            assert features.references is not None
            x = x + _of_roi(features.references @ kernel[width:], features.level_index)
        x = x.reshape(batch * rois, side, side, -1)
        return _deconvolve(self, x).reshape(batch, rois, 2 * side, 2 * side, -1)


def _deconvolve(head: ConvMaskHead | Res5MaskHead, x: jax.Array) -> jax.Array:
    """From the blocks (N, p, p, 4c) of a 2x2 deconvolution with stride 2, which writes one for every position.

    A block is ordered (row, column, c). Gives logits (N, 2p, 2p, outputs), float32.
    """
    number, side = x.shape[:2]
    x = x.reshape(number, side, side, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(number, 2 * side, 2 * side, -1)
    x = relu(x + head.upsample_bias[...].astype(x.dtype))
    return head.out(x).astype(jnp.float32)


def _beside_votes(features: RoiFeatures) -> jax.Array:
    """(B, R, p, p, C + V): the features of the rois, and beside them their votes where there are any."""
    if features.votes is None:
        return features.rois
    return jnp.concatenate([features.rois, features.votes.astype(features.rois.dtype)], -1)


def _bias(layer: nnx.Conv) -> jax.Array:
    """Zeros where a norm follows."""
    return jnp.zeros(layer.out_features) if layer.bias is None else layer.bias[...]


def _in_chunks(x: jax.Array) -> jax.Array:
    """(B, R, ...) -> (chunks, CHUNK, ...), zeros at the end."""
    x = x.reshape(-1, *x.shape[2:])
    x = jnp.pad(x, [(0, -len(x) % CHUNK)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(-1, CHUNK, *x.shape[1:])


def _of_roi(of_level: jax.Array, level_index: jax.Array) -> jax.Array:
    """(B, L, p, p, c) and (B, R) -> (B, R, p, p, c)."""
    return jnp.take_along_axis(of_level, level_index[..., None, None, None], 1)


def _conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """(B, N, p, p, c) with (3, 3, c, o), zero-padded: (B, N, p, p, o)."""
    flat = x.reshape(-1, *x.shape[2:])
    y = ops.conv2d(flat, kernel)
    return y.reshape(*x.shape[:2], *y.shape[1:])
