"""What RoIAlign, RoIPool and RoICrop have in common: gradients, dtypes, vmap, memory, pyramids."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from roi_cases import random_case

from fsis_jax import ops

Op = Callable[..., jax.Array]

OPS: Mapping[str, Op] = {"align": ops.roi_align, "pool": ops.roi_pool, "crop": ops.roi_crop}
SETTINGS: Mapping[str, dict[str, Any]] = {
    "align": {},
    "align-adaptive": {"sampling_ratio": 0},
    "align-legacy": {"aligned": False},
    "align-legacy-adaptive": {"aligned": False, "sampling_ratio": 0},
    "pool": {},
    "crop": {},
}
"""What is given to both forms of an op, that of one map and that of a pyramid."""

each = pytest.mark.parametrize("op", OPS.values(), ids=OPS)
each_way = pytest.mark.parametrize("way", SETTINGS)


def one_level(way: str) -> Op:
    return functools.partial(OPS[way.partition("-")[0]], **SETTINGS[way])


def multilevel(way: str) -> Op:
    method = way.partition("-")[0]
    if method == "align":
        return functools.partial(ops.multilevel_roi_align, **SETTINGS[way])
    return functools.partial(ops.multilevel_roi_pool, method=method)


# -- one map --------------------------------------------------------------------------------------------------------


@each
def test_gradient_goes_to_the_features_only(op: Op) -> None:
    features, rois = random_case(7)
    gradient = jax.grad(lambda r: op(features, r, spatial_scale=0.25, output_size=2).sum())(rois)
    np.testing.assert_array_equal(gradient, 0)


@each
def test_no_rois_and_bfloat16(op: Op) -> None:
    features, rois = random_case(8)
    read = functools.partial(op, spatial_scale=0.25, output_size=2)
    none = jnp.zeros((0, 4))
    assert read(features, none).shape == (0, 2, 2, 3)
    np.testing.assert_array_equal(jax.grad(lambda f: read(f, none).sum())(features), 0)
    half = features.astype(jnp.bfloat16)
    found, pull = jax.vjp(lambda f: read(f, rois), half)
    assert found.dtype == jnp.bfloat16
    assert pull(jnp.ones_like(found))[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), read(features, rois), atol=0.05)


@each
def test_vmap(op: Op) -> None:
    cases = [random_case(seed) for seed in range(3)]
    features, rois = (jnp.stack(parts) for parts in zip(*cases, strict=True))

    def loss(features: jax.Array, rois: jax.Array) -> jax.Array:
        return (op(features, rois, spatial_scale=0.25, output_size=3) ** 2).sum()

    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss)))(features, rois)
    for image in range(3):
        value, gradient = jax.value_and_grad(loss)(features[image], rois[image])
        np.testing.assert_allclose(values[image], value, rtol=1e-5)
        np.testing.assert_allclose(gradients[image], gradient, atol=1e-4)


@pytest.mark.parametrize(("method", "megabytes"), [("align", 150), ("pool", 220), ("crop", 150)])
def test_a_large_case_stores_little(method: str, megabytes: int) -> None:
    """500 rois of 14x14 cells and 256 channels: 100 MB of output, and hardly anything beside it; the gradient of maxima
    needs them and their positions, 100 MB each."""
    features = jax.ShapeDtypeStruct((64, 64, 256), jnp.float32)
    rois = jax.ShapeDtypeStruct((500, 4), jnp.float32)
    pooled = functools.partial(OPS[method], spatial_scale=0.25, output_size=14)

    def gradient(features: jax.Array, rois: jax.Array, cotangent: jax.Array) -> jax.Array:
        return jax.vjp(pooled, features, rois)[1](cotangent)[0]

    forward = jax.jit(pooled).lower(features, rois).compile().memory_analysis()
    output = jax.eval_shape(pooled, features, rois)
    backward = jax.jit(gradient).lower(features, rois, output).compile().memory_analysis()
    assert forward.temp_size_in_bytes < 10e6
    assert backward.temp_size_in_bytes < megabytes * 1e6


# -- pyramids -------------------------------------------------------------------------------------------------------


def pyramid(seed: int) -> dict[int, jax.Array]:
    """Of an image of 128 x 96 pixels."""
    rng = np.random.default_rng(seed)
    sizes = {2: (24, 32), 3: (12, 16), 4: (6, 8)}
    return {k: jnp.asarray(rng.standard_normal((*size, 3)), jnp.float32) for k, size in sizes.items()}


@each_way
def test_each_roi_is_read_from_its_level(way: str) -> None:
    features = pyramid(0)
    rng = np.random.default_rng(1)
    low = rng.uniform(-10, 100, (12, 2))
    rois = jnp.asarray(np.concatenate([low, low + rng.uniform(4, 80, (12, 2))], axis=1), jnp.float32)
    levels = jnp.asarray(rng.integers(2, 5, 12), jnp.int32)

    @jax.jit
    def one_by_one(features: dict[int, jax.Array]) -> jax.Array:
        pooled = {k: one_level(way)(f, rois, spatial_scale=2.0**-k, output_size=3) for k, f in features.items()}
        return sum(
            (jnp.where((levels == k)[:, None, None, None], x, 0.0) for k, x in pooled.items()), start=jnp.zeros(())
        )

    expected, pull_expected = jax.vjp(one_by_one, features)
    found, pull = jax.vjp(lambda f: multilevel(way)(f, rois, levels, output_size=3), features)
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


@each_way
def test_limits_are_those_of_smaller_maps(way: str) -> None:
    """Two images on one canvas, with values beyond their ends: as if their maps were cut there. Every roi on every
    level; gradients too, which leave out what lies beyond."""
    canvases = [pyramid(seed) for seed in (3, 4)]
    limits = np.array([[[18, 23], [9, 12], [5, 6]], [[24, 20], [12, 10], [6, 5]]], np.int32)
    rois, levels = np.tile(BORDER_ROIS, (3, 1)), np.repeat([2, 3, 4], len(BORDER_ROIS))

    def pool(features: dict[int, jax.Array], limits: jax.Array | None = None) -> jax.Array:
        return multilevel(way)(features, rois, levels, output_size=3, limits=limits)

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


@each_way
def test_limits_of_the_whole_maps_change_nothing(way: str) -> None:
    features = pyramid(5)
    read = functools.partial(multilevel(way), features, BORDER_ROIS, np.arange(len(BORDER_ROIS)) % 3 + 2, output_size=2)
    whole = np.array([features[level].shape[:2] for level in (2, 3, 4)], np.int32)
    np.testing.assert_array_equal(read(limits=None), read(limits=whole))


@each_way
def test_the_nearest_level_that_exists_is_taken(way: str) -> None:
    rois = jnp.array([[10.0, 10.0, 60.0, 50.0]] * 2)
    read = functools.partial(multilevel(way), pyramid(2), rois, output_size=2)
    np.testing.assert_array_equal(read(jnp.array([1, 6])), read(jnp.array([2, 4])))
