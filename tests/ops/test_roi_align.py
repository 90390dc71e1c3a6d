import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

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


def random_case(seed, number=9, height=7, width=10, channels=3):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-8, 36, (number, 2))
    rois = np.concatenate([low, low + rng.uniform(0.5, 40, (number, 2))], axis=1).astype(np.float32)
    return jnp.asarray(rng.standard_normal((height, width, channels)), jnp.float32), jnp.asarray(rois)


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


def test_gradient_goes_to_the_features_only():
    features, rois = random_case(7)
    gradient = jax.grad(lambda r: ops.roi_align(features, r, spatial_scale=0.25, output_size=2).sum())(rois)
    np.testing.assert_array_equal(gradient, 0)


def test_no_rois_and_bfloat16():
    features, rois = random_case(8)
    none = jnp.zeros((0, 4))
    assert align(features, none).shape == (0, 2, 2, 3)
    np.testing.assert_array_equal(jax.grad(lambda f: align(f, none).sum())(features), 0)
    half = features.astype(jnp.bfloat16)
    found, pull = jax.vjp(lambda f: align(f, rois, spatial_scale=0.25), half)
    assert found.dtype == jnp.bfloat16
    assert pull(jnp.ones_like(found))[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), align(features, rois, spatial_scale=0.25), atol=0.05)


def test_vmap():
    cases = [random_case(seed) for seed in range(3)]
    features, rois = (jnp.stack(parts) for parts in zip(*cases, strict=True))

    def loss(features, rois):
        return (align(features, rois, spatial_scale=0.25, output_size=3) ** 2).sum()

    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss)))(features, rois)
    for image in range(3):
        value, gradient = jax.value_and_grad(loss)(features[image], rois[image])
        np.testing.assert_allclose(values[image], value, rtol=1e-5)
        np.testing.assert_allclose(gradients[image], gradient, atol=1e-4)


def test_a_large_case_stores_no_samples():
    """500 rois of 14x14 cells and 256 channels: 100 MB of output, and hardly anything beside it."""
    features = jax.ShapeDtypeStruct((64, 64, 256), jnp.float32)
    rois = jax.ShapeDtypeStruct((500, 4), jnp.float32)

    def pooled(features, rois):
        return ops.roi_align(features, rois, spatial_scale=0.25, output_size=14)

    def gradient(features, rois, cotangent):
        return jax.vjp(pooled, features, rois)[1](cotangent)[0]

    forward = jax.jit(pooled).lower(features, rois).compile().memory_analysis()
    output = jax.eval_shape(pooled, features, rois)
    backward = jax.jit(gradient).lower(features, rois, output).compile().memory_analysis()
    assert forward.temp_size_in_bytes < 10e6
    assert backward.temp_size_in_bytes < 150e6


def pyramid(seed, channels=3):
    rng = np.random.default_rng(seed)
    sizes = {2: (24, 32), 3: (12, 16), 4: (6, 8)}
    return {k: jnp.asarray(rng.standard_normal((*size, channels)), jnp.float32) for k, size in sizes.items()}


@pytest.mark.parametrize("ratio", [0, 2])
def test_multilevel_reads_each_roi_from_its_level(ratio):
    features = pyramid(0)
    rng = np.random.default_rng(1)
    low = rng.uniform(-10, 100, (12, 2))
    rois = jnp.asarray(np.concatenate([low, low + rng.uniform(4, 80, (12, 2))], axis=1), jnp.float32)
    levels = jnp.asarray(rng.integers(2, 5, 12), jnp.int32)

    @jax.jit
    def one_by_one(features):
        pooled = {
            k: ops.roi_align(f, rois, spatial_scale=2.0**-k, output_size=3, sampling_ratio=ratio)
            for k, f in features.items()
        }
        return sum(jnp.where((levels == k)[:, None, None, None], value, 0.0) for k, value in pooled.items())

    def together(features):
        return ops.multilevel_roi_align(features, rois, levels, output_size=3, sampling_ratio=ratio)

    expected, pull_expected = jax.vjp(one_by_one, features)
    found, pull = jax.vjp(together, features)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), pull(found), pull_expected(found))


BORDER_ROIS = np.array(
    [
        [0, 0, 128, 96], [64, 40, 100, 80], [70, 60, 128, 96], [84, 66, 90, 71], [88, 70, 120, 90], [100, 80, 126, 94],
        [-20, -30, 30, 20], [-60, 10, -20, 60], [89.5, 0, 90, 71.9], [60, 30, 400, 300],
    ],
    np.float32,
)  # fmt: skip
"""Boxes inside, across and beyond the border of an image of 90 x 72 pixels on a canvas of 128 x 96."""


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_limits_are_those_of_smaller_maps(aligned, ratio):
    """Two images on one canvas, with values beyond their ends: as if their maps were cut there. Every roi on every
    level; gradients too, which leave out what lies beyond."""
    canvases = [pyramid(seed) for seed in (3, 4)]
    limits = np.array([[[18, 23], [9, 12], [5, 6]], [[24, 20], [12, 10], [6, 5]]], np.int32)
    rois, levels = np.tile(BORDER_ROIS, (3, 1)), np.repeat([2, 3, 4], len(BORDER_ROIS))

    def pool(features, limits=None):
        return ops.multilevel_roi_align(
            features, rois, levels, output_size=3, sampling_ratio=ratio, aligned=aligned, limits=limits
        )

    batch = jax.tree.map(lambda *maps: jnp.stack(maps), *canvases)
    found, pull = jax.jit(lambda f: jax.vjp(jax.vmap(pool), f, limits))(batch)
    gradients, _ = pull(found)
    changed = 0
    for row, canvas in enumerate(canvases):
        ends = dict(zip((2, 3, 4), limits[row].tolist(), strict=True))
        cut = {level: canvas[level][:height, :width] for level, (height, width) in ends.items()}
        expected, pull_expected = jax.vjp(pool, cut)
        np.testing.assert_allclose(found[row], expected, atol=1e-5)
        changed += np.abs(np.asarray(found[row]) - pool(canvas)).max(axis=(1, 2, 3)) > 1e-2
        (expected_gradients,) = pull_expected(expected)
        for level, (height, width) in ends.items():
            padding = [(0, canvas[level].shape[0] - height), (0, canvas[level].shape[1] - width), (0, 0)]
            np.testing.assert_allclose(gradients[level][row], np.pad(expected_gradients[level], padding), atol=1e-4)
    assert changed.sum() > 10  # elsewhere the values beyond would have been read


def test_limits_of_the_whole_maps_change_nothing():
    features = pyramid(5)
    rois, levels = BORDER_ROIS, np.arange(len(BORDER_ROIS)) % 3 + 2
    whole = np.array([features[level].shape[:2] for level in (2, 3, 4)], np.int32)
    plain, limited = (
        ops.multilevel_roi_align(features, rois, levels, output_size=2, limits=limits) for limits in (None, whole)
    )
    np.testing.assert_array_equal(plain, limited)


def test_multilevel_takes_the_nearest_level_that_exists():
    features = pyramid(2)
    rois = jnp.array([[10.0, 10.0, 60.0, 50.0]] * 2)
    low, high = (
        ops.multilevel_roi_align(features, rois, jnp.array(levels), output_size=2) for levels in ([1, 6], [2, 4])
    )
    np.testing.assert_array_equal(low, high)


def test_assign_levels_by_hand():
    sides = jnp.array([10.0, 111.0, 112.0, 223.0, 225.0, 448.0, 5000.0])
    rois = jnp.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    np.testing.assert_array_equal(ops.assign_levels(rois, min_level=2, max_level=5), [2, 2, 3, 3, 4, 5, 5])
    small = ops.assign_levels(rois, min_level=2, max_level=5, canonical_size=56.0)
    np.testing.assert_array_equal(small, [2, 4, 5, 5, 5, 5, 5])
    np.testing.assert_array_equal(ops.assign_levels(jnp.zeros((1, 4)), min_level=2, max_level=5), [2])
