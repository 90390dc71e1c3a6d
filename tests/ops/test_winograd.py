"""Winograd's convolution against XLA's."""

import jax
import numpy as np
import pytest

from fsis_jax import ops


def convolve(x: np.ndarray, kernel: np.ndarray) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )


@pytest.mark.parametrize("size", [(14, 14), (1, 1), (2, 7), (5, 3), (9, 4)])
def test_equals_a_convolution(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 6)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 6, 4)).astype(np.float32)
    expected = convolve(x, kernel)
    found = ops.conv3x3(x, ops.transform_kernel(kernel))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_row_above_and_below_may_be_given() -> None:
    """The middle of a map, as a strip of it."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 12, 7, 4)).astype(np.float32)
    transformed = ops.transform_kernel(rng.normal(size=(3, 3, 4, 5)).astype(np.float32))
    strip = ops.conv3x3(x[:, 3:10], transformed, rows_padded=True)
    np.testing.assert_allclose(strip, ops.conv3x3(x, transformed)[:, 4:9], atol=1e-4)


def test_one_pixel_by_hand() -> None:
    """A single 1 in the middle writes the kernel turned round."""
    x = np.zeros((1, 5, 5, 1), np.float32)
    x[0, 2, 2] = 1
    kernel = np.arange(1.0, 10.0, dtype=np.float32).reshape(3, 3, 1, 1)
    found = np.asarray(ops.conv3x3(x, ops.transform_kernel(kernel)))[0, :, :, 0]
    np.testing.assert_allclose(found[1:4, 1:4], [[9, 8, 7], [6, 5, 4], [3, 2, 1]], atol=1e-5)
    assert np.abs(found).sum() == pytest.approx(45, abs=1e-4)
