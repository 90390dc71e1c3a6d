"""ResNet (He et al. 2015) and ResNeXt (Xie et al. 2017), the backbone; siamese: target and references share it.

Follows the PyTorch project's modeling/ResNet.py: the stem is 7x7/2 and an unpadded 3x3/2 max pool in ceil mode, where
torchvision pads by one pixel. Depth 18 with a small width is the compact variant for CPUs.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from fsis_jax.models.blocks import EXPANSION, BasicBlock, Block, BlockStyle, Bottleneck
from fsis_jax.models.depths import BLOCKS
from fsis_jax.models.extent import Extent
from fsis_jax.models.layers import Training, conv, make_norm, relu


def make_stage(
    depth: int,
    index: int,
    channels_in: int,
    *,
    width: int,
    group_width: int,
    stride: int,
    style: BlockStyle,
    rngs: nnx.Rngs,
) -> tuple[nnx.List[Block], int]:
    """The blocks of stage `index` (0 is res2) and the number of their output channels.

    Args:
        depth: of the network: 10, 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        channels_in: channels that the stage reads.
        width: channels of the stem; 64 in the paper.
        group_width: channels of a group of the first stage's 3x3 convolutions; 0 for the width.
        stride: of the first block.
        style: of the blocks.
    """
    block, expansion = (BasicBlock, 1) if depth < 50 else (Bottleneck, EXPANSION)
    inner = style.groups * (group_width or width) * 2**index
    channels = width * 2**index * expansion
    blocks: list[Block] = []
    for position in range(BLOCKS[depth][index]):
        inputs, step = (channels_in, stride) if position == 0 else (channels, 1)
        blocks.append(block(inputs, inner, channels, step, style=style, rngs=rngs))
    return nnx.List(blocks), channels


def run_stage(
    stage: Sequence[Block],
    x: jax.Array,
    extent: Extent | None,
    pixels: int,
    training: Training | None = None,
    *,
    remat: bool = False,
) -> jax.Array:
    """The blocks one after the other.

    Args:
        stage: the blocks.
        x, extent, training: as for a block.
        pixels: image pixels per pixel of x.
        remat: keep nothing of a block but its input, and compute it again for the gradient.
    """

    def run(block: Block, x: jax.Array, pixels: int) -> jax.Array:
        return block(x, extent, pixels, training)

    call = nnx.remat(run, static_argnums=2) if remat else run
    for block in stage:
        x = call(block, x, pixels)
        pixels *= block.stride
    return x


class ResNet(nnx.Module):
    """The backbone: a stem and up to four stages of residual blocks.

    Args:
        depth, width, group_width: see `make_stage`.
        style: of the blocks. Offsets, if any, are learned from the second stage on. Dilated is the fourth stage alone,
            which then keeps the stride of the third.
        padded_pool: pad the stem's max pool by one pixel.
        stages: how many; 4 down to stride 32.
        remat: see `run_stage`.
    """

    def __init__(
        self,
        depth: int,
        *,
        width: int = 64,
        group_width: int = 0,
        style: BlockStyle,
        padded_pool: bool = False,
        stages: int = 4,
        remat: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        if depth not in BLOCKS:
            raise ValueError(f"backbone depth is {depth}; it must be one of {sorted(BLOCKS)}")
        self.padded_pool = padded_pool
        self.remat = remat
        self.stem = conv(3, width, 7, stride=2, use_bias=False, dtype=style.dtype, rngs=rngs)
        self.stem_norm = make_norm(style.norm, width)
        channels = width
        made, outputs = [], []
        for index in range(stages):
            stage, channels = make_stage(
                depth,
                index,
                channels,
                width=width,
                group_width=group_width,
                stride=1 if index == 0 or (index == 3 and style.dilation > 1) else 2,
                style=dataclasses.replace(
                    style,
                    deformable=style.deformable if index > 0 else "none",
                    dilation=style.dilation if index == 3 else 1,
                ),
                rngs=rngs,
            )
            made.append(stage)
            outputs.append(channels)
        self.stages = nnx.List(made)
        self.channels = tuple(outputs)

    def __call__(self, images: jax.Array, extent: Extent | None) -> dict[int, jax.Array]:
        """(B, H, W, 3) normalised -> {level: (B, H / 2**level, W / 2**level, channels[level - 2])}, levels 2 to 5.

        Level 1 is the stem, of `width` channels. A dilated last stage gives level 4, in the place of the one before it.
        """
        x = self.stem(images)
        x = relu(self.stem_norm(x, None if extent is None else extent.mask(x, 2)))
        outputs = {1: x}
        x = _max_pool(x, self.padded_pool)
        if extent is not None:
            x = x * extent.mask(x, 4)
        level = 2
        for stage in self.stages:
            x = run_stage(stage, x, extent, 2**level, remat=self.remat)
            level += stage[0].stride == 2
            outputs[level] = x
        return outputs


def _max_pool(x: jax.Array, padded: bool) -> jax.Array:
    """3x3/2: padded by one pixel, or without padding in ceil mode, where the last window may reach past the edge."""
    sides = ((1, 1), (1, 1)) if padded else tuple((0, 1 - size % 2) for size in x.shape[1:3])
    pads = [(0, 0), *sides, (0, 0)]
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)
