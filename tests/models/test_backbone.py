"""ResNet, pyramid, extents and normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_detector import randomise

from fsis_jax.models.extent import Extent
from fsis_jax.models.fpn import FPN
from fsis_jax.models.normalise import MEAN, STD, normalise
from fsis_jax.models.resnet import ResNet, _max_pool, make_norm


@pytest.mark.parametrize(("size", "pooled"), [(8, [2, 4, 6, 7]), (7, [2, 4, 6]), (4, [2, 3]), (3, [2])])
def test_max_pool_in_ceil_mode(size: int, pooled: list[int]) -> None:
    """3x3/2 unpadded: windows start at 0, 2, 4 ...; the last may reach over the edge, as torch's ceil_mode lets it."""
    x = jnp.arange(float(size))
    y = _max_pool(jnp.broadcast_to(x[:, None], (size, size))[None, :, :, None] - 100.0)
    np.testing.assert_array_equal(y[0, :, 0, 0], np.array(pooled) - 100.0)
    y = _max_pool(jnp.broadcast_to(x[None, :], (size, size))[None, :, :, None])
    np.testing.assert_array_equal(y[0, 0, :, 0], pooled)


@pytest.mark.parametrize(
    ("depth", "channels", "blocks"),
    [
        (18, (64, 128, 256, 512), (2, 2, 2, 2)),
        (34, (64, 128, 256, 512), (3, 4, 6, 3)),
        (50, (256, 512, 1024, 2048), (3, 4, 6, 3)),
        (101, (256, 512, 1024, 2048), (3, 4, 23, 3)),
    ],
)
def test_depths(depth: int, channels: tuple[int, ...], blocks: tuple[int, ...]) -> None:
    def build_and_run(image: jax.Array) -> dict[int, jax.Array]:
        net = ResNet(depth, norm="frozen", dtype=jnp.float32, rngs=nnx.Rngs(0))
        assert net.channels == channels
        assert tuple(len(stage) for stage in net.stages) == blocks
        return net(image, None)

    shapes = jax.eval_shape(build_and_run, jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32))
    for index, level in enumerate((2, 3, 4, 5)):
        assert shapes[level].shape == (1, 64 // 2**level, 96 // 2**level, channels[index])


def test_bottleneck_stride_is_on_the_first_convolution() -> None:
    net = nnx.eval_shape(lambda: ResNet(50, norm="frozen", dtype=jnp.float32, rngs=nnx.Rngs(0)))
    block = net.stages[1][0]
    strides = [layer.strides for layer in (block.conv1, block.conv2, block.conv3, block.shortcut)]
    assert strides == [2, 1, 1, 2]
    assert net.stages[1][1].shortcut is None


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="norm is 'batch'; it must be 'frozen'"):
        make_norm("batch", 8)
    with pytest.raises(ValueError, match=r"depth is 20; it must be one of \[18, 34, 50, 101, 152\]"):
        ResNet(20, norm="group", dtype=jnp.float32, rngs=nnx.Rngs(0))


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


def test_extent_rounds_up_to_32() -> None:
    extent = Extent.of(jnp.array([[1, 32], [33, 64]]))
    np.testing.assert_array_equal(extent.sizes, [[32, 32], [64, 64]])


def test_extent_mask() -> None:
    extent = Extent.of(jnp.array([[32, 96], [64, 20]]))
    mask = np.asarray(extent.mask(jnp.zeros((2, 4, 4, 7), jnp.bfloat16), 32))
    assert mask.shape == (2, 4, 4, 1)
    np.testing.assert_array_equal(mask[0, :, :, 0], [[1, 1, 1, 0], [0] * 4, [0] * 4, [0] * 4])
    np.testing.assert_array_equal(mask[1, :, :, 0], [[1, 0, 0, 0], [1, 0, 0, 0], [0] * 4, [0] * 4])
    coarse = np.asarray(extent.mask(jnp.zeros((2, 2, 2, 1)), 64))[..., 0]  # 96 pixels reach into the second column
    np.testing.assert_array_equal(coarse, [[[1, 1], [0, 0]], [[1, 0], [0, 0]]])


def test_extent_repeats_its_edge_once() -> None:
    extent = Extent.of(jnp.array([[64, 32], [96, 96]]))
    x = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    found = extent.repeat_edge(jnp.concatenate([x, x]), 32)[..., 0]
    # Two rows and one column of the first image are its own; the second fills the map.
    np.testing.assert_array_equal(found[0], [[1, 1, 3], [4, 4, 6], [4, 4, 6]])
    np.testing.assert_array_equal(found[1], x[0, :, :, 0])


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
