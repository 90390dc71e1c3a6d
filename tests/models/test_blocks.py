"""Residual blocks against the same thing written out: strides, groups, learned offsets, extents."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_detector import QUICK_COMPILE, randomise

from fsis_jax import ops
from fsis_jax.models.blocks import BasicBlock, BlockStyle, Bottleneck
from fsis_jax.models.extent import Extent
from fsis_jax.models.layers import Training

CHANNELS_IN, WIDTH, CHANNELS = 6, 4, 8


def style(**changes: Any) -> BlockStyle:
    return BlockStyle(**{"norm": "frozen", "dtype": jnp.float32, **changes})


def bottleneck(stride: int = 2, channels_in: int = CHANNELS_IN, **changes: Any) -> Bottleneck:
    def build() -> Bottleneck:
        return Bottleneck(channels_in, WIDTH, CHANNELS, stride, style=style(**changes), rngs=nnx.Rngs(0))

    return randomise(nnx.eval_shape(build))


def features(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*shape, CHANNELS_IN)).astype(np.float32)


def naive_conv(layer: nnx.Conv, x: np.ndarray, stride: int, groups: int = 1) -> np.ndarray:
    """(B, h, w, c), zero-padded by kernel // 2, tap by tap and group by group."""
    kernel = np.asarray(layer.kernel[...], np.float64)
    size, inputs, outputs = kernel.shape[0], kernel.shape[2], kernel.shape[3] // groups
    pad = size // 2
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    parts = []
    for group in range(groups):
        of_group = padded[..., group * inputs : (group + 1) * inputs]
        weights = kernel[..., group * outputs : (group + 1) * outputs]
        taps = [of_group[:, i : i + height, j : j + width] @ weights[i, j] for i, j in np.ndindex(size, size)]
        parts.append(sum(taps)[:, ::stride, ::stride])
    return np.concatenate(parts, -1)


def normed(layer: nnx.Module, x: np.ndarray) -> np.ndarray:
    scale, bias, mean, var = (np.asarray(getattr(layer, name)[...]) for name in ("scale", "bias", "mean", "var"))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def displaced(block: Bottleneck, name: str, x: np.ndarray, layout: str) -> np.ndarray:
    offsets = naive_conv(getattr(block, name), x, 1).astype(np.float32)
    maps = [ops.sample_at_offsets(a.astype(np.float32), b, layout=layout) for a, b in zip(x, offsets, strict=True)]
    return np.stack([np.asarray(a) for a in maps])


def naive(block: Bottleneck, x: np.ndarray, strides: tuple[int, int], groups: int = 1, layout: str = "") -> np.ndarray:
    """The bottleneck with frozen norms, with the strides of its first and second convolution."""

    def moved(name: str, y: np.ndarray) -> np.ndarray:
        return displaced(block, name, y, layout) if layout else y

    y = np.maximum(normed(block.norm1, naive_conv(block.conv1, moved("offsets1", x), strides[0])), 0)
    y = np.maximum(normed(block.norm2, naive_conv(block.conv2, moved("offsets2", y), strides[1], groups)), 0)
    y = normed(block.norm3, naive_conv(block.conv3, moved("offsets3", y), 1))
    if block.shortcut is not None:
        x = normed(block.shortcut_norm, naive_conv(block.shortcut, x, strides[0] * strides[1]))
    return np.maximum(x + y, 0)


@functools.partial(jax.jit, static_argnums=(0, 4), compiler_options=QUICK_COMPILE)
def run(graph: nnx.GraphDef, state: nnx.State, x: jax.Array, extent: Extent | None, pixels: int) -> jax.Array:
    return nnx.merge(graph, state)(x, extent, pixels)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("in_1x1", "strides"), [(True, (2, 1)), (False, (1, 2))])
def test_where_the_stride_sits(in_1x1: bool, strides: tuple[int, int], groups: int) -> None:
    block = bottleneck(stride_in_1x1=in_1x1, groups=groups)
    x = features(0, 2, 7, 6)
    found = run(*nnx.split(block), x, None, 1)
    assert found.shape == (2, 4, 3, CHANNELS)
    np.testing.assert_allclose(found, naive(block, x, strides, groups), atol=1e-4)


def test_without_stride_and_shortcut() -> None:
    block = bottleneck(stride=1, channels_in=CHANNELS)
    assert block.shortcut is None
    x = np.random.default_rng(1).normal(size=(1, 5, 4, CHANNELS)).astype(np.float32)
    np.testing.assert_allclose(run(*nnx.split(block), x, None, 1), naive(block, x, (1, 1)), atol=1e-4)


@pytest.mark.parametrize("layout", ["interleaved", "split"])
@pytest.mark.parametrize(("in_1x1", "strides"), [(True, (2, 1)), (False, (1, 2))])
def test_learned_offsets(layout: str, in_1x1: bool, strides: tuple[int, int]) -> None:
    """Ahead of each of the three convolutions, from its own input; the shortcut has none."""
    block = bottleneck(deformable=layout, stride_in_1x1=in_1x1)
    x = features(2, 2, 6, 7)
    found = run(*nnx.split(block), x, None, 1)
    np.testing.assert_allclose(found, naive(block, x, strides, layout=layout), atol=1e-4)
    assert np.abs(found - naive(block, x, strides)).max() > 0.1


@pytest.mark.parametrize("deformable", ["none", "interleaved", "split"])
@pytest.mark.parametrize("in_1x1", [True, False])
@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_what_lies_beyond_the_extent_changes_nothing(deformable: str, in_1x1: bool, norm: str) -> None:
    """A block from stride 8 to 16; the maps of images of 61 x 44 and 40 x 75 pixels have 8 x 6 and 5 x 10 pixels."""
    graph, state = nnx.split(bottleneck(deformable=deformable, stride_in_1x1=in_1x1, norm=norm))
    extent = Extent.of(jnp.array([[61, 44], [40, 75]]), 1)
    alone = [features(3, 1, 8, 6), features(4, 1, 5, 10)]
    canvas = np.zeros((2, 11, 13, CHANNELS_IN), np.float32)
    for row, x in enumerate(alone):
        canvas[row, : x.shape[1], : x.shape[2]] = x
    found = np.asarray(run(graph, state, canvas, extent, 8))
    for row, x in enumerate(alone):
        expected = np.asarray(run(graph, state, x, None, 8))[0]
        height, width = expected.shape[:2]
        assert (height, width) == tuple(extent.limits(16)[row].tolist())
        np.testing.assert_allclose(found[row, :height, :width], expected, atol=1e-4)
        assert not found[row, height:].any()
        assert not found[row, :, width:].any()


def test_batch_norms_of_a_block_see_the_training() -> None:
    """Each of the four moves its running statistics towards those of what it reads; without `training` none does."""
    block = bottleneck(norm="batch")
    before = jax.tree.map(np.asarray, nnx.state(block))
    x = features(5, 3, 6, 6)
    block(x, None, 1)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(block))
    block(x, None, 1, Training())
    after = nnx.state(block)
    for name in ("norm1", "norm2", "norm3", "shortcut_norm"):
        for statistic in ("mean", "var"):
            assert not np.array_equal(after[name][statistic][...], before[name][statistic][...]), name
    read = naive_conv(block.conv1, x, 2)
    expected = 0.9 * before["norm1"]["mean"][...] + 0.1 * read.mean((0, 1, 2))
    np.testing.assert_allclose(after["norm1"]["mean"][...], expected, atol=1e-5)


@pytest.mark.parametrize("changes", [{"deformable": "split"}, {"groups": 2}, {"dilation": 2}])
def test_basic_blocks_are_plain(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="deformable, grouped and dilated blocks are bottlenecks"):
        BasicBlock(4, 4, 4, 1, style=style(**changes), rngs=nnx.Rngs(0))


def test_basic_block() -> None:
    def build() -> BasicBlock:
        return BasicBlock(CHANNELS_IN, CHANNELS, CHANNELS, 2, style=style(), rngs=nnx.Rngs(0))

    block = randomise(nnx.eval_shape(build))
    x = features(6, 2, 7, 6)
    y = np.maximum(normed(block.norm1, naive_conv(block.conv1, x, 2)), 0)
    y = normed(block.norm2, naive_conv(block.conv2, y, 1))
    y = np.maximum(y + normed(block.shortcut_norm, naive_conv(block.shortcut, x, 2)), 0)
    np.testing.assert_allclose(run(*nnx.split(block), x, None, 1), y, atol=1e-4)
