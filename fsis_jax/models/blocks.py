"""Residual blocks (He et al. 2015): of the backbone, and of the box head of models without a pyramid.

Follows modeling/ResNet.py of the PyTorch project, whose stride sits on the first 1x1 convolution of a bottleneck;
torchvision's sits on the 3x3. `norm="frozen"` expects pretrained weights, "group" trains from scratch, "batch" uses
the statistics of the batch in training (see `layers.make_norm`). With `groups` it is a ResNeXt block (Xie et al. 2017).
"""

import dataclasses
import functools

import jax
from flax import nnx
from jax.typing import DTypeLike

from fsis_jax import ops
from fsis_jax.models.extent import Extent
from fsis_jax.models.layers import Norm, Training, conv, make_norm, relu

EXPANSION = 4
"""Output channels of a bottleneck over its width."""


@dataclasses.dataclass(frozen=True)
class BlockStyle:
    """What all blocks of a network have in common."""

    norm: str
    dtype: DTypeLike
    stride_in_1x1: bool = True
    """Where the stride of a bottleneck sits: on its first 1x1 convolution, or on the 3x3."""
    groups: int = 1
    """The groups of the 3x3 convolution."""
    dilation: int = 1
    """The dilation of the 3x3 convolution of a bottleneck."""
    deformable: str = "none"
    """Learned offsets ahead of each convolution of a bottleneck: "none", or a layout of `ops.sample_at_offsets`."""


class Bottleneck(nnx.Module):
    """1x1, 3x3, 1x1 with a shortcut.

    Args:
        channels_in: channels that it reads.
        width: channels of the 3x3 convolution.
        channels: channels that it gives.
        stride: 1 or 2.
        style: see `BlockStyle`.
    """

    def __init__(
        self, channels_in: int, width: int, channels: int, stride: int, *, style: BlockStyle, rngs: nnx.Rngs
    ) -> None:
        dtype, norm = style.dtype, style.norm
        self.stride = stride
        self.stride_in_1x1 = style.stride_in_1x1
        self.deformable = style.deformable
        first, second = (stride, 1) if style.stride_in_1x1 else (1, stride)
        self.conv1 = conv(channels_in, width, 1, stride=first, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm1 = make_norm(norm, width)
        self.conv2 = conv(
            width,
            width,
            3,
            stride=second,
            use_bias=False,
            dtype=dtype,
            rngs=rngs,
            groups=style.groups,
            dilation=style.dilation,
        )
        self.norm2 = make_norm(norm, width)
        self.conv3 = conv(width, channels, 1, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm3 = make_norm(norm, channels, zero_init=True)
        self.shortcut, self.shortcut_norm = _shortcut(channels_in, channels, stride, style, rngs)
        if style.deformable != "none":
            self.offsets1 = _offsets(channels_in, dtype, rngs)
            self.offsets2 = _offsets(width, dtype, rngs)
            self.offsets3 = _offsets(width, dtype, rngs)

    def __call__(self, x: jax.Array, extent: Extent | None, pixels: int, training: Training | None = None) -> jax.Array:
        """(B, h, w, channels_in) -> (B, h / stride, w / stride, channels).

        Args:
            x: zero beyond the extent.
            extent: of the images; None where the whole map counts.
            pixels: image pixels per pixel of x.
            training: for batch statistics.
        """
        between = pixels * (self.stride if self.stride_in_1x1 else 1)
        y = self.conv1(self._displace(x, "offsets1", extent, pixels))
        y = relu(self.norm1(y, _mask(y, extent, between), training))
        after = pixels * self.stride
        y = self.conv2(self._displace(y, "offsets2", extent, between))
        mask = _mask(y, extent, after)
        y = relu(self.norm2(y, mask, training))
        y = self.norm3(self.conv3(self._displace(y, "offsets3", extent, after)), mask, training)
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x), mask, training)
        return relu(x + y)

    def _displace(self, x: jax.Array, name: str, extent: Extent | None, pixels: int) -> jax.Array:
        if self.deformable == "none":
            return x
        offsets = getattr(self, name)(x)
        sample = functools.partial(ops.sample_at_offsets, layout=self.deformable)
        return jax.vmap(sample)(x, offsets, None if extent is None else extent.limits(pixels))


class BasicBlock(nnx.Module):
    """3x3, 3x3 with a shortcut; arguments as for `Bottleneck`, with `channels` equal to `width`."""

    def __init__(
        self, channels_in: int, width: int, channels: int, stride: int, *, style: BlockStyle, rngs: nnx.Rngs
    ) -> None:
        if style.deformable != "none" or style.groups != 1 or style.dilation != 1:
            raise ValueError("deformable, grouped and dilated blocks are bottlenecks; choose a depth of 50 or more")
        dtype, norm = style.dtype, style.norm
        self.stride = stride
        self.conv1 = conv(channels_in, width, 3, stride=stride, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm1 = make_norm(norm, width)
        self.conv2 = conv(width, channels, 3, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm2 = make_norm(norm, channels, zero_init=True)
        self.shortcut, self.shortcut_norm = _shortcut(channels_in, channels, stride, style, rngs)

    def __call__(self, x: jax.Array, extent: Extent | None, pixels: int, training: Training | None = None) -> jax.Array:
        """As `Bottleneck`."""
        y = self.conv1(x)
        mask = _mask(y, extent, pixels * self.stride)
        y = relu(self.norm1(y, mask, training))
        y = self.norm2(self.conv2(y), mask, training)
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x), mask, training)
        return relu(x + y)


Block = Bottleneck | BasicBlock


def _mask(x: jax.Array, extent: Extent | None, pixels: int) -> jax.Array | None:
    return None if extent is None else extent.mask(x, pixels)


def _shortcut(
    channels_in: int, channels: int, stride: int, style: BlockStyle, rngs: nnx.Rngs
) -> tuple[nnx.Conv | None, Norm | None]:
    if stride == 1 and channels_in == channels:
        return None, None
    layer = conv(channels_in, channels, 1, stride=stride, use_bias=False, dtype=style.dtype, rngs=rngs)
    return layer, make_norm(style.norm, channels)


def _offsets(channels: int, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Conv:
    small = jax.nn.initializers.normal(0.01)
    return conv(channels, 2 * channels, 3, use_bias=False, dtype=dtype, rngs=rngs, kernel_init=small)
