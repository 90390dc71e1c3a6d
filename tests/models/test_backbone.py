"""ResNet, pyramid and normalisation."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_detector import QUICK_COMPILE, randomise

from fsis_jax.models.blocks import BlockStyle
from fsis_jax.models.extent import Extent
from fsis_jax.models.fpn import FPN
from fsis_jax.models.normalise import MEAN, STD, normalise
from fsis_jax.models.resnet import ResNet, _max_pool

STYLE = {"norm": "frozen", "dtype": jnp.float32}


def empty_resnet(
    depth: int, *, width: int = 64, group_width: int = 0, padded_pool: bool = False, stages: int = 4, **style: Any
) -> ResNet:
    """Shapes only."""

    def build() -> ResNet:
        return ResNet(
            depth,
            width=width,
            group_width=group_width,
            style=BlockStyle(**STYLE | style),
            padded_pool=padded_pool,
            stages=stages,
            rngs=nnx.Rngs(0),
        )

    return nnx.eval_shape(build)


@pytest.mark.parametrize(
    ("size", "padded", "pooled"),
    [
        (8, False, [2, 4, 6, 7]), (7, False, [2, 4, 6]), (4, False, [2, 3]), (3, False, [2]),
        (8, True, [1, 3, 5, 7]), (7, True, [1, 3, 5, 6]), (4, True, [1, 3]), (3, True, [1, 2]),
    ],
)  # fmt: skip
def test_max_pool(size: int, padded: bool, pooled: list[int]) -> None:
    """3x3/2. Unpadded, windows start at 0, 2, 4 ... and the last may reach over the edge, as torch's ceil_mode lets it;
    padded by a pixel, at -1, 1, 3 ... What lies over the edge never wins."""
    x = jnp.arange(size) - 100.0
    y = _max_pool(jnp.broadcast_to(x[:, None], (size, size))[None, :, :, None], padded)
    np.testing.assert_array_equal(y[0, :, 0, 0], np.array(pooled) - 100.0)
    y = _max_pool(jnp.broadcast_to(x[None, :], (size, size))[None, :, :, None], padded)
    np.testing.assert_array_equal(y[0, 0, :, 0], np.array(pooled) - 100.0)


@pytest.mark.parametrize(
    ("depth", "channels", "blocks", "parameters"),
    [
        (10, (64, 128, 256, 512), (1, 1, 1, 1), 5_418_792 - 513_000),
        (18, (64, 128, 256, 512), (2, 2, 2, 2), 11_689_512 - 513_000),
        (34, (64, 128, 256, 512), (3, 4, 6, 3), 21_797_672 - 513_000),
        (50, (256, 512, 1024, 2048), (3, 4, 6, 3), 25_557_032 - 2_049_000),
        (101, (256, 512, 1024, 2048), (3, 4, 23, 3), 44_549_160 - 2_049_000),
        (152, (256, 512, 1024, 2048), (3, 8, 36, 3), 60_192_808 - 2_049_000),
    ],
)
def test_depths(depth: int, channels: tuple[int, ...], blocks: tuple[int, ...], parameters: int) -> None:
    """Parameters as in torchvision, where the classifier makes up the difference."""
    net = empty_resnet(depth, norm="group")
    assert net.channels == channels
    assert tuple(len(stage) for stage in net.stages) == blocks
    assert number_of_parameters(net) == parameters
    shapes = nnx.eval_shape(lambda net, image: net(image, None), net, jnp.zeros((1, 64, 96, 3)))
    for index, level in enumerate((2, 3, 4, 5)):
        assert shapes[level].shape == (1, 64 // 2**level, 96 // 2**level, channels[index])


def number_of_parameters(net: ResNet) -> int:
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(nnx.state(net, nnx.Param)))


def test_resnext() -> None:
    """ResNeXt-101 32x8d, of which torchvision counts 88,791,336 parameters with a classifier of 2,049,000."""
    net = empty_resnet(101, groups=32, group_width=8, norm="group")
    assert net.channels == (256, 512, 1024, 2048)
    for index, stage in enumerate(net.stages):
        width = 256 * 2**index
        for block in stage:
            assert block.conv1.kernel.shape[2:] == (block.conv1.in_features, width)
            assert block.conv2.kernel.shape == (3, 3, width // 32, width)
            assert block.conv2.feature_group_count == 32
            assert block.conv3.kernel.shape == (1, 1, width, net.channels[index])
    assert number_of_parameters(net) == 86_742_336


@pytest.mark.parametrize(("in_1x1", "strides"), [(True, [2, 1, 1, 2]), (False, [1, 2, 1, 2])])
def test_strides_of_the_stages(in_1x1: bool, strides: list[int]) -> None:
    """The first block of each stage but the first halves the map; where, the style says."""
    net = empty_resnet(50, stride_in_1x1=in_1x1)
    for index, stage in enumerate(net.stages):
        first = stage[0]
        found = [layer.strides for layer in (first.conv1, first.conv2, first.conv3, first.shortcut)]
        assert found == ([1, 1, 1, 1] if index == 0 else strides)
        for block in list(stage)[1:]:
            assert block.shortcut is None
            assert [layer.strides for layer in (block.conv1, block.conv2, block.conv3)] == [1, 1, 1]


def test_learned_offsets_from_the_second_stage_on() -> None:
    """Two for each channel that a convolution reads, ahead of each of a block's three."""
    net = empty_resnet(50, deformable="interleaved")
    for index, stage in enumerate(net.stages):
        for block in stage:
            assert block.deformable == ("none" if index == 0 else "interleaved")
            for name, layer in (("offsets1", block.conv1), ("offsets2", block.conv2), ("offsets3", block.conv3)):
                assert hasattr(block, name) == (index > 0)
                if index > 0:
                    offsets = getattr(block, name)
                    assert offsets.kernel.shape == (3, 3, layer.in_features, 2 * layer.in_features)
                    assert offsets.bias is None
    with pytest.raises(ValueError, match="choose a depth of 50 or more"):
        empty_resnet(34, deformable="interleaved")


def test_stages_left_out() -> None:
    net = empty_resnet(50, stages=3)
    assert net.channels == (256, 512, 1024)
    assert list(nnx.eval_shape(lambda net: net(jnp.zeros((1, 64, 64, 3)), None), net)) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("depth", "padded_pool", "changes"),
    [
        (18, False, {}),
        (18, True, {}),
        (50, True, {"deformable": "interleaved", "stride_in_1x1": False, "groups": 2, "stages": 2}),
    ],
)
def test_canvas(depth: int, padded_pool: bool, changes: dict[str, Any]) -> None:
    """Images of odd sizes on one canvas: on every level as alone, and 0 beyond."""
    graph, state = nnx.split(randomise(empty_resnet(depth, width=4, padded_pool=padded_pool, **changes)))
    sizes = [(70, 45), (61, 96), (33, 64)]
    rng = np.random.default_rng(0)
    canvas = rng.normal(size=(3, 96, 128, 3)).astype(np.float32)

    @functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
    def run(images: jax.Array, extent: Extent | None) -> dict[int, jax.Array]:
        return nnx.merge(graph, state)(images, extent)

    extent = Extent.of(jnp.array(sizes), 1, padded_pool=padded_pool)
    clean = np.zeros_like(canvas)
    for row, (height, width) in enumerate(sizes):
        clean[row, :height, :width] = canvas[row, :height, :width]
    found = run(clean, extent)
    for row, (height, width) in enumerate(sizes):
        for level, alone in run(canvas[row : row + 1, :height, :width], None).items():
            rows, columns = alone.shape[1:3]
            whole, largest = np.asarray(found[level][row]), np.abs(alone).max()
            np.testing.assert_allclose(whole[:rows, :columns], alone[0], atol=1e-4 * largest, err_msg=str(level))
            assert not whole[rows:].any()
            assert not whole[:, columns:].any()


def test_unknown_depth() -> None:
    with pytest.raises(ValueError, match=r"depth is 20; it must be one of \[10, 18, 34, 50, 101, 152\]"):
        ResNet(20, style=BlockStyle(**STYLE), rngs=nnx.Rngs(0))


def small_fpn(*, norm: str = "none", coarsest: int = 6) -> FPN:
    return nnx.eval_shape(
        lambda: FPN((3, 4, 5, 6), 2, norm=norm, coarsest=coarsest, dtype=jnp.float32, rngs=nnx.Rngs(0))
    )


def test_pyramid_by_hand() -> None:
    """With lateral maps that sum the channels and output kernels that copy, a level is the sum of all above it."""
    fpn = randomise(small_fpn())
    for layer in fpn.lateral:
        layer.kernel[...] = jnp.ones_like(layer.kernel[...])
        layer.bias[...] = jnp.zeros_like(layer.bias[...])
    for layer in fpn.output:
        layer.kernel[...] = jnp.zeros((3, 3, 2, 2)).at[1, 1].set(jnp.eye(2))
        layer.bias[...] = jnp.zeros(2)
    rng = np.random.default_rng(0)
    maps = {
        level: rng.normal(size=(1, 32 // 2**level, 64 // 2**level, level + 1)).astype(np.float32)
        for level in (2, 3, 4, 5)
    }
    found = fpn(maps, None)
    assert list(found) == [2, 3, 4, 5, 6]
    expected = np.zeros((1, 1))
    for level in (5, 4, 3, 2):
        height, width = maps[level].shape[1:3]
        expected = np.kron(expected, np.ones((2, 2)))[:height, :width] + maps[level][0].sum(-1)
        for channel in range(2):
            np.testing.assert_allclose(found[level][0, :, :, channel], expected, atol=1e-5)
    np.testing.assert_array_equal(found[6], found[5][:, ::2, ::2])


def test_pyramid_settings() -> None:
    assert len(small_fpn(norm="group").output_norm) == 4
    with pytest.raises(ValueError, match="norm is 'batch'"):
        small_fpn(norm="batch")
    with pytest.raises(ValueError, match="coarsest pyramid level is 7; it must be 5 or 6"):
        small_fpn(coarsest=7)


def test_normalise() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    expected = (images / 255.0 - MEAN) / STD
    np.testing.assert_allclose(normalise(images), expected, atol=1e-5)
    found = np.asarray(normalise(images, np.array([[4, 3], [2, 5]], np.int32)))
    np.testing.assert_allclose(found[0, :, :3], expected[0, :, :3], atol=1e-5)
    np.testing.assert_allclose(found[1, :2], expected[1, :2], atol=1e-5)
    assert not found[0, :, 3:].any()
    assert not found[1, 2:].any()
    shots = images[:, None].repeat(2, axis=1)
    np.testing.assert_allclose(normalise(shots)[:, 1], expected, atol=1e-5)
