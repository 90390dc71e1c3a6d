import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.test_util import check_grads
from roi_cases import random_case

from fsis_jax import ops

GRID = jnp.arange(25.0).reshape(5, 5, 1)
"""The value at pixel (y, x) is 5 y + x, so maxima and bilinear samples can be read off."""

OPS = {"pool": ops.roi_pool, "crop": ops.roi_crop}


def read(method, features, rois, **settings):
    settings = {"spatial_scale": 1.0, "output_size": 2, **settings}
    return OPS[method](features, jnp.asarray(rois, jnp.float32), **settings)


def naive_pool(features, rois, scale, side):
    """Cell by cell, with the bounds in exact arithmetic."""
    features = np.asarray(features)
    height, width, channels = features.shape
    result = np.zeros((len(rois), side, side, channels))
    for r, roi in enumerate(np.asarray(rois) * scale):
        x1, y1, x2, y2 = (
            int(np.copysign(np.floor(abs(c) + 0.5), c)) for c in roi
        )  # halves away from zero, as C rounds
        rows, columns = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i, j in np.ndindex(side, side):
            top, below = (min(max(edge + y1, 0), height) for edge in (i * rows // side, -(-(i + 1) * rows // side)))
            left, right = (
                min(max(edge + x1, 0), width) for edge in (j * columns // side, -(-(j + 1) * columns // side))
            )
            if below > top and right > left:
                result[r, i, j] = features[top:below, left:right].max(axis=(0, 1))
    return result


def naive_crop(features, rois, scale, side):
    """Sample by sample, in float64."""
    features = np.asarray(features, np.float64)
    height, width, channels = features.shape
    result = np.zeros((len(rois), side, side, channels))
    for r, (x1, y1, x2, y2) in enumerate(np.asarray(rois, np.float64) * scale):
        shares = np.linspace(0, 1, side) if side > 1 else [0.5]
        for i, j in np.ndindex(side, side):
            y, x = y1 + shares[i] * (y2 - y1), x1 + shares[j] * (x2 - x1)
            for row, column in np.ndindex(height, width):
                weight = max(1 - abs(y - row), 0) * max(1 - abs(x - column), 0)
                result[r, i, j] += weight * features[row, column]
    return result


NAIVE = {"pool": naive_pool, "crop": naive_crop}


def test_pool_by_hand_on_a_5x5_grid():
    """The roi (1, 1)-(3, 3) has three pixels a side: cells are pixels 1 to 2 and 2 to 3."""
    np.testing.assert_array_equal(read("pool", GRID, [[1, 1, 3, 3]])[0, :, :, 0], [[12, 13], [17, 18]])
    np.testing.assert_array_equal(read("pool", -GRID, [[1, 1, 3, 3]])[0, :, :, 0], [[-6, -7], [-11, -12]])
    np.testing.assert_array_equal(
        read("pool", GRID, [[0, 1, 4, 4]], output_size=4)[0, :, :, 0], 5 * np.array([[1], [2], [3], [4]]) + [1, 2, 3, 4]
    )


def test_pool_rounds_halves_away_from_zero():
    rois = [[0.5, 1.49, 2.5, 3.4], [-0.5, -1.5, 0.4, 0.4]]
    found = read("pool", -GRID, rois, output_size=1)[:, 0, 0, 0]
    np.testing.assert_array_equal(found, [-(5 * 1 + 1), 0])
    # From pixel -1 on, of three pixels: cell 0 lies outside, and pixel 0 is cell 1.
    found = read("pool", GRID + 1, [[-0.5, 0, 0.5, 0]], output_size=3)[0, 0, :, 0]
    np.testing.assert_array_equal(found, [0, 1, 2])


def test_pool_of_less_than_a_pixel_reads_one():
    found = read("pool", GRID, [[2, 2, 2.1, 2.1], [3, 3, 1, 1]], output_size=3)
    np.testing.assert_array_equal(found[0, :, :, 0], np.full((3, 3), 12))
    np.testing.assert_array_equal(found[1, :, :, 0], np.full((3, 3), 18))


def test_pool_leaves_cells_outside_the_map_empty():
    """Also where all values are negative: 0 is not among the candidates of the other cells."""
    found = read("pool", -1 - GRID, [[3, 3, 6, 6], [20, 20, 30, 30], [-30, 0, -20, 4]])[..., 0]
    np.testing.assert_array_equal(found, [[[-19, 0], [0, 0]], np.zeros((2, 2)), np.zeros((2, 2))])


def test_pool_has_exact_cells():
    """57 pixels, 7 cells: in float32, 7 * (57 / 7) > 57, and the last cell would reach pixel 57."""
    ramp = jnp.arange(60.0)[None, :, None]
    found = read("pool", ramp, [[0, 0, 56, 0]], output_size=7)[0, 0, :, 0]
    np.testing.assert_array_equal(found, np.ceil(np.arange(1, 8) * 57 / 7) - 1)
    assert found[-1] == 56


def test_crop_by_hand_on_a_5x5_grid():
    """The corner samples lie on the roi's corners; the centre sample of side 1 on its centre."""
    np.testing.assert_allclose(read("crop", GRID, [[1, 1, 3, 3]])[0, :, :, 0], [[6, 8], [16, 18]], rtol=1e-6)
    found = read("crop", GRID, [[0.5, 1, 3.5, 2]], output_size=3)[0, :, :, 0]
    np.testing.assert_allclose(found, [[5.5, 7, 8.5], [8, 9.5, 11], [10.5, 12, 13.5]], rtol=1e-6)
    np.testing.assert_allclose(read("crop", GRID, [[1, 2, 4, 3]], output_size=1)[0, 0, 0], [15], rtol=1e-6)


def test_crop_border_by_hand():
    """Samples at -1.5, -0.5, 0.5, ... 4.5, 5.5 of ones: half of a sample half a pixel outside is zero."""
    ones = jnp.ones((5, 5, 1))
    found = read("crop", ones, [[-1.5, 1, 5.5, 2]], output_size=8)[0, 0, :, 0]
    np.testing.assert_allclose(found, [0, 0.5, 1, 1, 1, 1, 0.5, 0], atol=1e-6)
    np.testing.assert_array_equal(read("crop", ones, [[20, 20, 30, 30], [-30, 0, -20, 4]]), 0)


@pytest.mark.parametrize("method", ["pool", "crop"])
@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_against_naive(method, side):
    features, rois = random_case(side, number=30)
    found = read(method, features, rois, spatial_scale=0.25, output_size=side)
    np.testing.assert_allclose(found, NAIVE[method](features, rois, 0.25, side), atol=1e-5)


def test_pool_of_large_maps_and_many_chunks():
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.standard_normal((60, 90, 200)), jnp.float32)
    low = rng.uniform(-10, 80, (25, 2))
    rois = np.concatenate([low, low + rng.uniform(0, 70, (25, 2))], axis=1).astype(np.float32)
    np.testing.assert_array_equal(read("pool", features, rois, output_size=7), naive_pool(features, rois, 1.0, 7))


def test_pool_inside_the_map_is_adaptive_max_pooling():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: there is nothing to compare with")
    features, _ = random_case(3, height=40, width=50)
    rois = np.array([[3, 5, 30, 38], [0, 0, 49, 39], [7, 7, 9, 8], [11, 2, 24, 15]])

    def expected(features, x1, y1, x2, y2):
        return torch.nn.functional.adaptive_max_pool2d(features[:, y1 : y2 + 1, x1 : x2 + 1], 7)

    found, pull = jax.vjp(lambda f: read("pool", f, rois, output_size=7), features)
    other = torch.tensor(np.array(features).transpose(2, 0, 1), requires_grad=True)
    pooled = torch.stack([expected(other, *roi) for roi in rois])
    (pooled**2).sum().backward()
    np.testing.assert_array_equal(found, pooled.detach().numpy().transpose(0, 2, 3, 1))
    np.testing.assert_allclose(pull(2 * found)[0], other.grad.numpy().transpose(1, 2, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", [2, 7])
def test_crop_is_affine_grid_and_grid_sample(side):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: there is nothing to compare with")
    features, rois = random_case(4, number=20)
    height, width, _ = features.shape
    x1, y1, x2, y2 = np.asarray(rois).T * 0.25
    zero = np.zeros_like(x1)
    theta = np.array(
        [
            [(x2 - x1) / (width - 1), zero, (x1 + x2) / (width - 1) - 1],
            [zero, (y2 - y1) / (height - 1), (y1 + y2) / (height - 1) - 1],
        ]
    ).transpose(2, 0, 1)
    grid = torch.nn.functional.affine_grid(
        torch.tensor(theta, dtype=torch.float64), (len(rois), 1, side, side), align_corners=True
    )
    maps = torch.tensor(np.array(features, np.float64).transpose(2, 0, 1)).expand(len(rois), -1, -1, -1)
    expected = torch.nn.functional.grid_sample(maps, grid, padding_mode="zeros", align_corners=True)
    found = read("crop", features, rois, spatial_scale=0.25, output_size=side)
    np.testing.assert_allclose(found, expected.numpy().transpose(0, 2, 3, 1), atol=1e-5)


def test_pool_gradient_by_hand():
    """Cells of pixels 1 to 2 and 2 to 3 of a map with one summit, which all of them hold."""
    summit = jnp.zeros((5, 5, 1)).at[2, 2].set(1.0)
    gradient = jax.grad(lambda f: (read("pool", f, [[1, 1, 3, 3]]) * jnp.array([[[[1], [2]], [[3], [4]]]])).sum())(
        summit
    )
    np.testing.assert_array_equal(gradient[..., 0], 10 * summit[..., 0])


@pytest.mark.parametrize("value", [0.0, -jnp.inf])
def test_of_equal_maxima_the_first_receives_the_gradient(value):
    gradient = jax.grad(lambda f: read("pool", f, [[1, 2, 4, 4], [3, 3, 9, 9]], output_size=1).sum())
    expected = np.zeros((5, 5))
    expected[2, 1] = expected[3, 3] = 1
    np.testing.assert_array_equal(gradient(jnp.full((5, 5, 1), value))[..., 0], expected)


def test_empty_cells_pass_no_gradient():
    gradient = jax.grad(lambda f: read("pool", f, [[3, 3, 6, 6], [20, 20, 30, 30]]).sum())(GRID)
    expected = np.zeros((5, 5))
    expected[4, 4] = 1
    np.testing.assert_array_equal(gradient[..., 0], expected)


@pytest.mark.parametrize("method", ["pool", "crop"])
def test_gradient_against_finite_differences(method):
    _, rois = random_case(5, number=4)
    # No two values closer than the step of the differences.
    features = jnp.asarray(np.random.default_rng(5).permutation(7 * 10 * 3).reshape(7, 10, 3) * 0.1, jnp.float32)
    pooled = functools.partial(read, method, rois=rois, spatial_scale=0.25, output_size=3)
    check_grads(pooled, (features,), order=1, modes=["rev"], atol=1e-2, rtol=1e-2, eps=0.04)


def test_gradient_of_the_crop_is_the_transpose():
    """<Ax, y> = <x, A'y>."""
    features, rois = random_case(6, number=23, channels=30)
    pooled, pull = jax.vjp(lambda f: read("crop", f, rois, spatial_scale=0.25, output_size=7), features)
    other = np.random.default_rng(0).standard_normal(pooled.shape).astype(np.float32)
    np.testing.assert_allclose(np.vdot(pooled, other), np.vdot(features, pull(other)[0]), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("method", ["pool", "crop"])
def test_rois_that_are_no_numbers_read_nothing(method):
    rois = [[np.nan] * 4, [0, 0, np.inf, np.inf], [1, 1, 3, 3], [1, 1, np.nan, 3]]
    found = np.asarray(read(method, GRID, rois))
    np.testing.assert_array_equal(found[[0, 1, 3]], 0)
    np.testing.assert_allclose(found[2], read(method, GRID, [[1, 1, 3, 3]])[0])
    huge = read(method, GRID, [[-1e30, -1e30, 1e30, 1e30], [1e30, 1e30, 2e30, 2e30]])
    assert np.isfinite(huge).all()
    np.testing.assert_array_equal(huge[1], 0)


def test_pool_shows_what_is_no_number():
    found, gradient = jax.value_and_grad(lambda f: read("pool", f, [[0, 0, 3, 3]])[0, 0, 0, 0])(
        GRID.at[0, 1].set(np.nan)
    )
    assert np.isnan(found)
    assert gradient[0, 1] == 1


@pytest.mark.parametrize("method", ["pool", "crop"])
def test_under_shard_map(method):
    features, rois = random_case(9)

    def gradient(features, rois):
        return jax.grad(lambda f: (read(method, f, rois, spatial_scale=0.25) ** 2).sum())(features)

    mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,))
    batched, axis = jax.jit(jax.vmap(gradient)), PartitionSpec("batch")
    sharded = jax.jit(jax.shard_map(batched, mesh=mesh, in_specs=axis, out_specs=axis))
    np.testing.assert_allclose(sharded(features[None], rois[None]), batched(features[None], rois[None]), atol=1e-5)


def test_multilevel_names_an_unknown_method(unchecked):
    with pytest.raises(ValueError, match="'align', expected one of"):
        ops.multilevel_roi_pool({2: GRID}, jnp.zeros((1, 4)), jnp.array([2]), method="align", output_size=2)
