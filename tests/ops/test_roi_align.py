import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from roi_cases import random_case

from fsis_jax import ops

GRID = jnp.arange(25.0).reshape(5, 5, 1)
"""The value at pixel (y, x) is 5 y + x, so bilinear samples can be read off."""


def align(features, rois, **settings):
    settings = {"spatial_scale": 1.0, "output_size": 2, **settings}
    return ops.roi_align(features, jnp.asarray(rois, jnp.float32), **settings)


def test_by_hand_on_a_5x5_grid():
    """Cells of the roi (1, 1)-(3, 3) are centred at 1.5 and 2.5: pixel 1 and 2, with the half-pixel shift."""
    np.testing.assert_allclose(align(GRID, [[1, 1, 3, 3]])[0, :, :, 0], [[6, 7], [11, 12]])
    np.testing.assert_allclose(align(GRID, [[1, 1, 3, 3]], aligned=False)[0, :, :, 0], [[9, 10], [14, 15]])


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
def test_any_number_of_samples_is_exact_on_a_linear_map(sampling_ratio):
    found = align(GRID, [[1, 1, 3, 4]], sampling_ratio=sampling_ratio)[0, :, :, 0]
    y, x = 1 + np.array([0.75, 2.25])[:, None] - 0.5, 1 + np.array([0.5, 1.5])[None, :] - 0.5
    np.testing.assert_allclose(found, 5 * y + x, rtol=1e-6)


def test_spatial_scale():
    small = align(GRID, [[1, 1, 3, 3]])
    np.testing.assert_allclose(align(GRID, [[8, 8, 24, 24]], spatial_scale=1 / 8), small)


def test_legacy_rois_are_at_least_one_pixel():
    tiny, full = align(GRID, [[2, 2, 2.1, 2.1], [2, 2, 3, 3]], aligned=False)
    np.testing.assert_allclose(tiny, full)


def test_border_by_hand():
    ones = jnp.ones((4, 4, 1))
    # One sample per cell, at pixels -2, -1, 0, 1 in x: up to one pixel outside, the border pixel counts.
    found = align(ones, [[-1.5, 1, 2.5, 2]], output_size=4, sampling_ratio=1)[0, 0, :, 0]
    np.testing.assert_allclose(found, [0, 1, 1, 1])
    np.testing.assert_array_equal(align(ones, [[20, 20, 30, 30], [-30, 0, -20, 4]]), 0)


def test_rois_that_are_no_numbers_read_nothing():
    rois = [[np.nan] * 4, [0, 0, np.inf, np.inf], [-np.inf, 0, np.inf, 4], [1, 1, 3, 3]]
    for ratio in (0, 2):
        found = np.asarray(align(GRID, rois, sampling_ratio=ratio))
        np.testing.assert_array_equal(found[:2], 0)
        np.testing.assert_allclose(found[3, :, :, 0], [[6, 7], [11, 12]])


def test_gradient_by_hand():
    """One sample at (1.5, 1.5): a quarter goes to each of the four pixels around it."""
    gradient = jax.grad(lambda f: align(f, [[1, 1, 2, 2]], output_size=1, sampling_ratio=1, aligned=False).sum())(GRID)
    expected = np.zeros((5, 5))
    expected[1:3, 1:3] = 0.25
    np.testing.assert_allclose(gradient[..., 0], expected)


def naive(features, rois, scale, side, ratio, aligned):
    """Sample by sample, in float64."""
    features, rois = np.asarray(features, np.float64), np.asarray(rois, np.float64)
    height, width, channels = features.shape
    result = np.zeros((len(rois), side, side, channels))

    def sample(y, x):
        if not (-1 <= y <= height and -1 <= x <= width):
            return 0.0
        y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
        top, left = int(y), int(x)
        below, right = min(top + 1, height - 1), min(left + 1, width - 1)
        upper = (1 - (x - left)) * features[top, left] + (x - left) * features[top, right]
        lower = (1 - (x - left)) * features[below, left] + (x - left) * features[below, right]
        return (1 - (y - top)) * upper + (y - top) * lower

    for r, roi in enumerate(rois * scale):
        x1, y1, x2, y2 = roi - 0.5 if aligned else roi
        roi_height, roi_width = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1), max(x2 - x1, 1))
        rows = ratio or int(np.ceil(roi_height / side))
        columns = ratio or int(np.ceil(roi_width / side))
        for i, j, a, b in np.ndindex(side, side, rows, columns):
            y = y1 + (i + (a + 0.5) / rows) * roi_height / side
            x = x1 + (j + (b + 0.5) / columns) * roi_width / side
            result[r, i, j] += sample(y, x) / (rows * columns)
    return result


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
def test_against_naive(ratio, aligned):
    features, rois = random_case(ratio)
    found = align(features, rois, spatial_scale=0.25, output_size=3, sampling_ratio=ratio, aligned=aligned)
    np.testing.assert_allclose(found, naive(features, rois, 0.25, 3, ratio, aligned), atol=1e-4)


@pytest.mark.parametrize("ratio", [0, 2])
def test_gradient_against_finite_differences(ratio):
    features, rois = random_case(5, number=4)

    def pooled(features):
        return align(features, rois, spatial_scale=0.25, output_size=3, sampling_ratio=ratio)

    check_grads(pooled, (features,), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


def test_gradient_of_many_rois_is_the_transpose():
    """Enough channels that the scatter runs in several chunks, the last of them padded: <Ax, y> = <x, A'y>."""
    features, rois = random_case(6, number=23, channels=300)
    pooled, pull = jax.vjp(lambda f: align(f, rois, spatial_scale=0.25, output_size=7), features)
    rng = np.random.default_rng(0)
    other = rng.standard_normal(pooled.shape).astype(np.float32)
    (gradient,) = pull(other)
    np.testing.assert_allclose(np.vdot(pooled, other), np.vdot(features, gradient), rtol=1e-3, atol=1e-1)


def test_assign_levels_by_hand():
    sides = jnp.array([10.0, 111.0, 112.0, 223.0, 225.0, 448.0, 5000.0])
    rois = jnp.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    np.testing.assert_array_equal(ops.assign_levels(rois, min_level=2, max_level=5), [2, 2, 3, 3, 4, 5, 5])
    small = ops.assign_levels(rois, min_level=2, max_level=5, canonical_size=56.0)
    np.testing.assert_array_equal(small, [2, 4, 5, 5, 5, 5, 5])
    np.testing.assert_array_equal(ops.assign_levels(jnp.zeros((1, 4)), min_level=2, max_level=5), [2])
