"""conv2d against XLA's convolution, forward and backward, on shapes that take each of its forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsis_jax import ops
from fsis_jax.ops import convolution


def plain(x, kernel, *, stride=1, groups=1):
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(pad, pad)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision="highest",
    )


SHAPES = [
    ((2, 6, 5, 4), (1, 1, 4, 3), 1, 1),
    ((2, 7, 5, 4), (1, 1, 4, 3), 2, 1),
    ((1, 8, 8, 4), (1, 1, 2, 6), 1, 2),
    ((2, 9, 7, 3), (7, 7, 3, 5), 2, 1),
    ((1, 4, 3, 3), (3, 3, 3, 2), 1, 1),
    ((1, 5, 6, 4), (3, 3, 4, 2), 1, 1),
    ((1, 70, 61, 3), (3, 3, 3, 2), 1, 1),
    ((1, 70, 61, 3), (3, 3, 3, 2), 2, 1),
    ((3, 70, 61, 4), (3, 3, 2, 4), 1, 2),
    ((5, 33, 35, 2), (3, 3, 2, 3), 1, 1),
    ((30, 14, 14, 2), (3, 3, 2, 3), 1, 1),
    ((2, 3, 1100, 2), (3, 3, 2, 3), 1, 1),
    ((2500, 1, 1, 2), (3, 3, 2, 3), 1, 1),
    ((1, 85, 83, 256), (3, 3, 256, 257), 1, 1),
    ((33, 14, 13, 257), (3, 3, 257, 256), 1, 1),
]
"""Inputs, kernels, strides, groups. Those in the middle have more positions than one block of the kernel's gradient,
and leave a part of the last block over along rows, images or both; the last two are wide enough for Winograd's form,
one map in strips and several together."""


@pytest.mark.parametrize(("inputs", "kernels", "stride", "groups"), SHAPES)
def test_values_and_gradients_equal_the_plain_form(inputs, kernels, stride, groups):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (inputs, kernels))
    expected, pull = jax.vjp(functools.partial(plain, stride=stride, groups=groups), x, kernel)
    found, found_pull = jax.vjp(functools.partial(ops.conv2d, stride=stride, groups=groups), x, kernel)
    cotangent = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    for a, b in zip((found, *found_pull(cotangent)), (expected, *pull(cotangent)), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())


def test_wide_maps_take_winograds_form_on_a_cpu(monkeypatch):
    """Else the test above would compare the plain form with itself."""
    monkeypatch.setattr(convolution, "conv3x3_by_chunks", lambda x, kernel: jnp.full((*x.shape[:3], 256), 7.0))
    for channels, dtype, chosen in ((256, jnp.float32, True), (255, jnp.float32, False), (256, jnp.bfloat16, False)):
        y = ops.conv2d(jnp.zeros((1, 84, 84, channels), dtype), jnp.zeros((3, 3, channels, 256), dtype))
        assert bool((y == 7).all()) == (chosen and jax.default_backend() == "cpu")
    jax.clear_caches()


def test_the_gradient_by_blocks_is_what_large_maps_take_on_a_cpu(monkeypatch):
    """Else the test above would compare the plain form with itself."""
    monkeypatch.setattr(convolution, "_kernel_gradient_3x3", lambda x, cotangent: jnp.full((3, 3, 2, 3), 7.0))
    kernel = jnp.zeros((3, 3, 2, 3))
    for shape, blocks in (((1, 46, 46, 2), True), ((1, 44, 44, 2), False)):
        gradient = jax.grad(lambda kernel, x: ops.conv2d(x, kernel).sum())(kernel, jnp.ones(shape))
        assert bool((gradient == 7).all()) == (blocks and jax.default_backend() == "cpu")
        jax.clear_caches()


def test_bfloat16_sums_are_float32():
    """4096 ones: in bfloat16 a running sum would stop at 256."""
    x, kernel = jnp.ones((1, 64, 64, 1), jnp.bfloat16), jnp.zeros((3, 3, 1, 1), jnp.bfloat16)
    gradient = jax.grad(lambda kernel: ops.conv2d(x, kernel).astype(jnp.float32).sum())(kernel)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(gradient[1, 1, 0, 0], 4096)


def test_vmap():
    rng = np.random.default_rng(1)
    x, kernel = rng.normal(size=(2, 1, 50, 50, 3)), rng.normal(size=(3, 3, 3, 2))
    x, kernel = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)

    def gradient(x):
        return jax.grad(lambda kernel: (ops.conv2d(x, kernel) ** 2).sum())(kernel)

    np.testing.assert_allclose(jax.vmap(gradient)(x), jnp.stack([gradient(part) for part in x]), rtol=1e-4, atol=1e-2)
