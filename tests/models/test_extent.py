"""Which part of a canvas counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fsis_jax.models.blocks import BlockStyle
from fsis_jax.models.extent import Extent
from fsis_jax.models.resnet import ResNet

SIZES = [(32 + i, 100 - i) for i in range(69)]
"""Heights and widths; every number from 32 to 100 is among both."""


def test_sizes_are_rounded_up() -> None:
    sizes = jnp.array([[1, 32], [33, 64]])
    np.testing.assert_array_equal(Extent.of(sizes, 32).sizes, [[32, 32], [64, 64]])
    np.testing.assert_array_equal(Extent.of(sizes, 1).sizes, sizes)


@pytest.mark.parametrize("padded_pool", [False, True])
def test_limits_are_the_shapes_of_a_network_on_the_image_alone(padded_pool: bool) -> None:
    """Of the stem, and of every stage."""

    def build() -> ResNet:
        style = BlockStyle(norm="frozen", dtype=jnp.float32)
        return ResNet(18, width=1, style=style, padded_pool=padded_pool, rngs=nnx.Rngs(0))

    graph, state = nnx.split(nnx.eval_shape(build))

    def maps(state: nnx.State, image: jax.Array) -> dict[int, jax.Array]:
        net = nnx.merge(graph, state)
        return {0: image, 1: net.stem(image), **net(image, None)}

    extent = Extent.of(jnp.array(SIZES), 1, padded_pool=padded_pool)
    for level in range(6):
        assert extent.limits(2**level).shape == (len(SIZES), 2)
    limits = {level: np.asarray(extent.limits(2**level)) for level in range(6)}
    for row, size in enumerate(SIZES):
        shapes = jax.eval_shape(maps, state, jax.ShapeDtypeStruct((1, *size, 3), jnp.float32))
        for level, map_ in shapes.items():
            assert map_.shape[1:3] == tuple(limits[level][row]), (size, level)


@pytest.mark.parametrize("padded_pool", [False, True])
def test_limits_of_multiples_of_32_are_plain_quotients(padded_pool: bool) -> None:
    """Those of the pyramid's coarsest level, whose stride is 64, are rounded up."""
    extent = Extent.of(jnp.array(SIZES), 32, padded_pool=padded_pool)
    rounded = -(-np.array(SIZES) // 32) * 32
    for stride in (1, 2, 4, 8, 16, 32):
        np.testing.assert_array_equal(extent.limits(stride), rounded // stride)
    np.testing.assert_array_equal(extent.limits(64), -(-rounded // 64))


def test_mask() -> None:
    extent = Extent.of(jnp.array([[32, 96], [64, 20]]), 32)
    mask = np.asarray(extent.mask(jnp.zeros((2, 4, 4, 7), jnp.bfloat16), 32))
    assert mask.shape == (2, 4, 4, 1)
    assert extent.mask(jnp.zeros((2, 4, 4, 7), jnp.bfloat16), 32).dtype == jnp.bfloat16
    np.testing.assert_array_equal(mask[0, :, :, 0], [[1, 1, 1, 0], [0] * 4, [0] * 4, [0] * 4])
    np.testing.assert_array_equal(mask[1, :, :, 0], [[1, 0, 0, 0], [1, 0, 0, 0], [0] * 4, [0] * 4])
    coarse = np.asarray(extent.mask(jnp.zeros((2, 2, 2, 1)), 64))[..., 0]  # 96 pixels reach into the second column
    np.testing.assert_array_equal(coarse, [[[1, 1], [0, 0]], [[1, 0], [0, 0]]])


def test_mask_of_a_size_that_is_no_multiple() -> None:
    """37 pixels: 19 at stride 2, then 9 or 10 by how the stem's pool rounds, 5 at stride 8 in both."""
    for padded_pool, quarter in ((False, 9), (True, 10)):
        extent = Extent.of(jnp.array([[37, 37]]), 1, padded_pool=padded_pool)
        for stride, size in ((2, 19), (4, quarter), (8, 5)):
            mask = np.asarray(extent.mask(jnp.zeros((1, 40 // stride, 40 // stride, 1)), stride))[0, :, :, 0]
            assert mask.sum() == size**2
            assert mask[:size, :size].all()
