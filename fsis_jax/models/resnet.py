"""ResNet (He et al. 2015), the bottom-up half of the pyramid; siamese: target and references share it.

Follows the PyTorch project's modeling/ResNet.py: the stride sits on the first 1x1 convolution of a bottleneck,
the stem is 7x7/2 and an unpadded 3x3/2 max pool in ceil mode. `norm="frozen"` expects pretrained weights;
`norm="group"` trains from scratch. Depth 18 with a small width is the compact variant for CPUs.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fsis_jax.models.extent import Extent
from fsis_jax.models.layers import FrozenBatchNorm, GroupNorm, conv

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
EXPANSION = 4
"""Output channels of a bottleneck over its width."""


def make_norm(kind: str, channels: int, *, zero_init: bool = False) -> FrozenBatchNorm | GroupNorm:
    """The normalisation `kind`: "frozen" or "group".

    Raises:
        ValueError: for any other kind.
    """
    if kind == "frozen":
        return FrozenBatchNorm(channels)
    if kind == "group":
        return GroupNorm(channels, zero_init=zero_init)
    raise ValueError(f"norm is {kind!r}; it must be 'frozen' (pretrained weights) or 'group' (from scratch)")


class Bottleneck(nnx.Module):
    """1x1/s, 3x3, 1x1 with a shortcut."""

    def __init__(
        self, channels_in: int, width: int, stride: int, *, norm: str, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        channels = width * EXPANSION
        self.stride = stride
        self.conv1 = conv(channels_in, width, 1, stride=stride, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm1 = make_norm(norm, width)
        self.conv2 = conv(width, width, 3, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm2 = make_norm(norm, width)
        self.conv3 = conv(width, channels, 1, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm3 = make_norm(norm, channels, zero_init=True)
        self.shortcut, self.shortcut_norm = _shortcut(channels_in, channels, stride, norm, dtype, rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """`mask` is that of the output's stride."""
        y = nnx.relu(self.norm1(self.conv1(x), mask))
        y = nnx.relu(self.norm2(self.conv2(y), mask))
        y = self.norm3(self.conv3(y), mask)
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x), mask)
        return nnx.relu(x + y)


class BasicBlock(nnx.Module):
    """3x3/s, 3x3 with a shortcut."""

    def __init__(
        self, channels_in: int, width: int, stride: int, *, norm: str, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.conv1 = conv(channels_in, width, 3, stride=stride, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm1 = make_norm(norm, width)
        self.conv2 = conv(width, width, 3, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm2 = make_norm(norm, width, zero_init=True)
        self.shortcut, self.shortcut_norm = _shortcut(channels_in, width, stride, norm, dtype, rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """`mask` is that of the output's stride."""
        y = nnx.relu(self.norm1(self.conv1(x), mask))
        y = self.norm2(self.conv2(y), mask)
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x), mask)
        return nnx.relu(x + y)


def _shortcut(
    channels_in: int, channels: int, stride: int, norm: str, dtype: DTypeLike, rngs: nnx.Rngs
) -> tuple[nnx.Conv | None, FrozenBatchNorm | GroupNorm | None]:
    if stride == 1 and channels_in == channels:
        return None, None
    return conv(channels_in, channels, 1, stride=stride, use_bias=False, dtype=dtype, rngs=rngs), make_norm(
        norm, channels
    )


class ResNet(nnx.Module):
    """Args:
    depth: 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks).
    width: channels of the first stage's 3x3 convolutions; 64 in the paper.
    norm: "frozen" or "group".
    """

    def __init__(self, depth: int, *, width: int = 64, norm: str, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        if depth not in BLOCKS:
            raise ValueError(f"backbone depth is {depth}; it must be one of {sorted(BLOCKS)}")
        block = BasicBlock if depth < 50 else Bottleneck
        expansion = 1 if depth < 50 else EXPANSION
        self.stem = conv(3, width, 7, stride=2, use_bias=False, dtype=dtype, rngs=rngs)
        self.stem_norm = make_norm(norm, width)
        channels = width
        stages = []
        outputs = []
        for index, count in enumerate(BLOCKS[depth]):
            stage_width = width * 2**index
            blocks = []
            for position in range(count):
                stride = 2 if position == 0 and index > 0 else 1
                blocks.append(block(channels, stage_width, stride, norm=norm, dtype=dtype, rngs=rngs))
                channels = stage_width * expansion
            stages.append(nnx.List(blocks))
            outputs.append(channels)
        self.stages = nnx.List(stages)
        self.channels = tuple(outputs)

    def __call__(self, images: jax.Array, extent: Extent | None) -> dict[int, jax.Array]:
        """(B, H, W, 3) normalised -> {level: (B, H / 2**level, W / 2**level, channels[level - 2])}, levels 2 to 5."""
        x = self.stem(images)
        x = nnx.relu(self.stem_norm(x, None if extent is None else extent.mask(x, 2)))
        x = _max_pool(x)
        outputs = {}
        for level, stage in enumerate(self.stages, start=2):
            for position, block in enumerate(stage):
                reduced = x[:, ::2, ::2] if level > 2 and position == 0 else x
                x = block(x, None if extent is None else extent.mask(reduced, 2**level))
            outputs[level] = x
        return outputs


def _max_pool(x: jax.Array) -> jax.Array:
    """3x3/2 without padding, in ceil mode: the last window may reach past the edge."""
    pads = [(0, 0), *[(0, 1 - size % 2) for size in x.shape[1:3]], (0, 0)]
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)
