"""Resampling at learned offsets against a loop over every value, in both layouts of the offsets."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fsis_jax import ops

HEIGHT, WIDTH, CHANNELS = 5, 7, 3
LAYOUTS = ("interleaved", "split")


def random_case(seed: int, *, reach: float = 2.0, height: int = HEIGHT, width: int = WIDTH) -> tuple[np.ndarray, ...]:
    """A map (h, w, C) and offsets (h, w, 2C), some of which lead out of the map."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((height, width, CHANNELS)).astype(np.float32)
    return features, rng.uniform(-reach, reach, (height, width, 2 * CHANNELS)).astype(np.float32)


def displacements(offsets: np.ndarray, layout: str) -> np.ndarray:
    """(C, h, w, 2): down and to the right."""
    height, width, channels = offsets.shape
    memory = np.ascontiguousarray(offsets.transpose(2, 0, 1))  # (2C, h, w), as PyTorch has it
    if layout == "interleaved":
        return memory.reshape(-1).reshape(channels // 2, height, width, 2)
    return memory.reshape(channels // 2, 2, height, width).transpose(0, 2, 3, 1)


def naive(features: np.ndarray, offsets: np.ndarray, layout: str) -> np.ndarray:
    """Value by value, in float64."""
    height, width, channels = features.shape
    result = np.zeros(features.shape)
    moves = displacements(offsets, layout).astype(np.float64)
    for row, column, channel in np.ndindex(height, width, channels):
        down, right = moves[channel, row, column]
        y, x = np.clip(row + down, 0, height - 1), np.clip(column + right, 0, width - 1)
        for i, j in np.ndindex(2, 2):
            near_y, near_x = min(int(y) + i, height - 1), min(int(x) + j, width - 1)
            weight = (y - int(y) if i else 1 - y + int(y)) * (x - int(x) if j else 1 - x + int(x))
            result[row, column, channel] += weight * features[near_y, near_x, channel]
    return result


@pytest.mark.parametrize("layout", LAYOUTS)
def test_against_naive(layout: str) -> None:
    features, offsets = random_case(0)
    found = ops.sample_at_offsets(features, offsets, layout=layout)
    np.testing.assert_allclose(found, naive(features, offsets, layout), atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_offset_changes_nothing(layout: str) -> None:
    features, offsets = random_case(1)
    np.testing.assert_array_equal(ops.sample_at_offsets(features, offsets * 0, layout=layout), features)


def test_split_by_hand() -> None:
    """Channel 0 reads half a pixel further down, channel 1 a pixel to the left, where there is one."""
    features = np.arange(24.0, dtype=np.float32).reshape(3, 4, 2)  # (y, x, c) holds 8 y + 2 x + c
    offsets = np.broadcast_to(np.array([0.5, 0, 0, -1], np.float32), (3, 4, 4))
    found = np.asarray(ops.sample_at_offsets(features, offsets, layout="split"))
    np.testing.assert_array_equal(found[..., 0] - features[..., 0], [[4] * 4, [4] * 4, [0] * 4])
    np.testing.assert_array_equal(found[..., 1] - features[..., 1], [[0, -2, -2, -2]] * 3)


def test_interleaved_by_hand() -> None:
    """One channel on 2 x 2 pixels: the eight offsets, first channel first, are four pairs, one for each pixel."""
    features = np.array([[10.0, 20], [30, 40]], np.float32)[..., None]
    memory = np.array([[[1.0, 0], [0, -1]], [[-1, 0], [0, 0]]], np.float32)  # (2, h, w)
    found = ops.sample_at_offsets(features, memory.transpose(1, 2, 0), layout="interleaved")
    # Down by one, left by one, up by one, stay.
    np.testing.assert_array_equal(found[..., 0], [[30, 10], [10, 40]])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_far_offsets_end_on_the_border(layout: str) -> None:
    features, offsets = random_case(2)
    offsets = np.where(offsets < 0, -1e4, 1e4).astype(np.float32)
    found = np.asarray(ops.sample_at_offsets(features, offsets, layout=layout))
    np.testing.assert_array_equal(found, naive(features, offsets, layout).astype(np.float32))
    assert set(found[..., 0].ravel()) <= {features[y, x, 0] for y in (0, -1) for x in (0, -1)}


@functools.cache
def sampled(layout: str) -> Callable[..., jax.Array]:
    """Of a batch."""
    return jax.jit(jax.vmap(functools.partial(ops.sample_at_offsets, layout=layout)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_limits_are_those_of_a_smaller_map(layout: str) -> None:
    """Two images of their own sizes on one canvas; values and offsets beyond are arbitrary. Nothing is left there."""
    canvas, sizes = (8, 9), np.array([[5, 7], [8, 2]], np.int32)
    features, offsets = (
        np.stack(parts) for parts in zip(*(random_case(s, height=8, width=9) for s in (3, 4)), strict=True)
    )
    cases = [random_case(seed, height=h, width=w) for seed, (h, w) in enumerate(sizes.tolist())]
    for row, (own, own_offsets) in enumerate(cases):
        height, width = sizes[row]
        features[row, :height, :width], offsets[row, :height, :width] = own, own_offsets
    found, pull = jax.vjp(lambda f, o: sampled(layout)(f, o, sizes), jnp.asarray(features), jnp.asarray(offsets))
    gradients = pull(found)
    for row, case in enumerate(cases):
        height, width = sizes[row]
        outside = np.ones(canvas, bool)
        outside[:height, :width] = False
        expected, pull = jax.vjp(functools.partial(ops.sample_at_offsets, layout=layout), *map(jnp.asarray, case))
        np.testing.assert_allclose(found[row, :height, :width], expected, atol=1e-6)
        assert not np.asarray(found[row])[outside].any()
        for ours, theirs in zip(gradients, pull(expected), strict=True):
            np.testing.assert_allclose(ours[row, :height, :width], theirs, atol=1e-5)
            assert not np.asarray(ours[row])[outside].any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_against_finite_differences(layout: str) -> None:
    """Away from whole pixels, where the slope jumps; some positions are held at the border, where there is none."""
    features, _ = random_case(5)
    rng = np.random.default_rng(6)
    offsets = rng.integers(-2, 2, (HEIGHT, WIDTH, 2 * CHANNELS)) + rng.uniform(0.2, 0.8, (HEIGHT, WIDTH, 2 * CHANNELS))
    sample = functools.partial(ops.sample_at_offsets, layout=layout)
    check_grads(sample, (features, offsets.astype(np.float32)), order=1, modes=["rev"], eps=1e-2, atol=1e-2, rtol=1e-2)


def test_bfloat16_features_and_offsets() -> None:
    """Positions and sums are float32, the result has the type of the features."""
    features, offsets = random_case(7)
    half = jnp.asarray(features, jnp.bfloat16)
    found = ops.sample_at_offsets(half, jnp.asarray(offsets, jnp.bfloat16), layout="split")
    assert found.dtype == jnp.bfloat16
    rounded = np.asarray(jnp.asarray(offsets, jnp.bfloat16), np.float32)
    expected = naive(np.asarray(half, np.float32), rounded, "split")
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, rtol=1e-2, atol=1e-6)


def test_what_does_not_fit_is_refused(unchecked) -> None:
    features, offsets = random_case(8)
    with pytest.raises(ValueError, match=r"layout is 'pairs', expected one of \('interleaved', 'split'\)"):
        ops.sample_at_offsets(features, offsets, layout="pairs")
    with pytest.raises(ValueError, match=r"offsets are \(5, 7, 5\), expected \(5, 7, 6\)"):
        ops.sample_at_offsets(features, offsets[..., :5], layout="split")
