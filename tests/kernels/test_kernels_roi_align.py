"""The RoIAlign kernels against XLA's form: values and gradients, on a CPU.

A kernel body runs in Pallas's own interpreter, which is quick but knows no GPU; a few cases run in JAX's interpreter of
Mosaic GPU kernels, which is private in JAX 0.10 (see conftest.py).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fsis_jax.kernels import roi_align as kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, PartitionSpec
from mosaic import mosaic_interpreter  # noqa: F401 (a fixture)

from fsis_jax import ops


class Taps(NamedTuple):
    """As the op hands them over."""

    rows: jax.Array
    row_weights: jax.Array
    columns: jax.Array
    column_weights: jax.Array


SIZES = {2: (6, 8), 3: (3, 4), 4: (2, 2)}
"""Levels of the pyramid: an image of 24 x 32 pixels."""

ROIS = 5

SPECIAL = [
    [0.0, 0.0, 32.0, 24.0],  # the whole image
    [-500.0, -500.0, -400.0, -450.0],  # outside
    [30.0, 20.0, 300.0, 200.0],  # across the border
    [5.0, 5.0, 5.0, 5.0],  # empty
    [20.0, 18.0, 4.0, 2.0],  # turned inside out
    [-3.9, -4.0, 0.0, 0.0],
    [np.nan] * 4,
    [0.0, np.nan, 8.0, 8.0],
    [0.0, 0.0, np.inf, np.inf],
    [-np.inf, 0.0, np.inf, 4.0],
    [1e30, 1e30, 2e30, 2e30],
]


@functools.partial(jax.jit, static_argnames=("backend", "output_size", "ratio", "aligned"))
def values_and_gradients(features, rois, levels, limits, cotangent, *, backend, output_size=2, ratio=2, aligned=True):
    def pooled(features):
        return ops.multilevel_roi_align(
            features,
            rois,
            levels,
            output_size=output_size,
            sampling_ratio=ratio,
            aligned=aligned,
            limits=limits,
            backend=backend,
        )

    found, pull = jax.vjp(pooled, features)
    return found, pull(cotangent.astype(found.dtype))[0]


def pyramid(seed: int, channels: int = 128, dtype: Any = jnp.float32) -> dict[int, jax.Array]:
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.standard_normal((*size, channels)), dtype) for k, size in SIZES.items()}


def case(seed: int, channels: int = 128, dtype: Any = jnp.float32, output_size: int = 2) -> tuple[Any, ...]:
    """Features, rois, levels, limits and a cotangent."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(-12, 36, (ROIS, 2))
    rois = np.concatenate([low, low + rng.uniform(-4, 30, (ROIS, 2))], axis=1).astype(np.float32)
    rois[: seed % 3] = np.array(SPECIAL, np.float32)[rng.integers(0, len(SPECIAL), seed % 3)]
    whole = np.array(list(SIZES.values()), np.int32)
    limits = np.maximum(whole - rng.integers(0, 3, whole.shape), 1).astype(np.int32)
    cotangent = rng.standard_normal((ROIS, output_size, output_size, channels)).astype(np.float32)
    return pyramid(seed, channels, dtype), rois, rng.integers(1, 6, ROIS).astype(np.int32), limits, cotangent


def assert_close(found: Any, expected: Any, atol: float = 1e-5) -> None:
    def same(a: jax.Array, b: jax.Array) -> None:
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), atol=atol, rtol=1e-5)

    jax.tree.map(same, found, expected)


def compare(arguments: tuple[Any, ...], atol: float = 1e-5, **kinds: Any) -> None:
    found, expected = (values_and_gradients(*arguments, backend=backend, **kinds) for backend in ("pallas", "xla"))
    assert_close(found, expected, atol)


coordinate = st.one_of(
    st.floats(-20, 60, width=32), st.sampled_from([0.0, 8.0, 24.0, 32.0, np.nan, np.inf, -np.inf, 1e30, -1e30])
)
roi = st.one_of(st.lists(coordinate, min_size=4, max_size=4), st.sampled_from(SPECIAL))


def check_random(data: Any) -> None:
    rois = np.array(data.draw(st.lists(roi, min_size=ROIS, max_size=ROIS)), np.float32)
    levels = np.array(data.draw(st.lists(st.integers(0, 7), min_size=ROIS, max_size=ROIS)), np.int32)
    limits = [[data.draw(st.integers(1, side)) for side in size] for size in SIZES.values()]
    aligned, seed = data.draw(st.booleans()), data.draw(st.integers(0, 2**31))
    features, _, _, _, cotangent = case(seed)
    compare((features, rois, levels, np.array(limits, np.int32), cotangent), aligned=aligned)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_random_cases(data: Any) -> None:
    check_random(data)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(st.data())
def test_many_random_cases(data: Any) -> None:
    check_random(data)


@pytest.mark.parametrize("channels", [128, 256, 384])
@pytest.mark.parametrize("ratio", [1, 2])
def test_shapes(channels: int, ratio: int) -> None:
    compare(case(1, channels, output_size=3), output_size=3, ratio=ratio)


def test_bfloat16_features_have_float32_sums() -> None:
    """Only the result is rounded: it is within half a unit in its last place, 2^-9, of the float32 result."""
    features, *rest = case(2, dtype=jnp.bfloat16)
    found, gradients = values_and_gradients(features, *rest, backend="pallas")
    assert found.dtype == jnp.bfloat16
    wide = {level: x.astype(jnp.float32) for level, x in features.items()}
    rest[-1] = jnp.asarray(rest[-1], jnp.bfloat16).astype(jnp.float32)
    expected, expected_gradients = values_and_gradients(wide, *rest, backend="xla")
    for a, b in zip(jax.tree.leaves((found, gradients)), jax.tree.leaves((expected, expected_gradients)), strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(a, np.float32), b, rtol=2**-8, atol=1e-6)


def test_all_rois_on_one_pixel() -> None:
    """The longest list of taps that a pixel can have."""
    features, _, _, limits, cotangent = case(3)
    rois = np.tile(np.array([[8.0, 8.0, 8.0, 8.0]], np.float32), (ROIS, 1))
    compare((features, rois, np.full(ROIS, 3, np.int32), limits, cotangent))


def test_the_gradient_has_the_same_bits_in_any_order_of_other_pixels() -> None:
    """Rois that touch other pixels change nothing here, not even the last bit."""
    features, _, _, _, cotangent = case(4)
    whole = np.array(list(SIZES.values()), np.int32)
    rois = np.array([[4, 4, 12, 12], [5, 3, 13, 11], [6, 5, 10, 12], [24, 16, 32, 24], [25, 17, 31, 23]], np.float32)
    levels = np.full(ROIS, 2, np.int32)
    _, all_rois = values_and_gradients(features, rois, levels, whole, cotangent, backend="pallas")
    rois[3:] = -500.0
    _, few_rois = values_and_gradients(features, rois, levels, whole, cotangent, backend="pallas")
    np.testing.assert_array_equal(all_rois[2][:4, :4], few_rois[2][:4, :4])


def test_an_infinite_cotangent_reaches_its_own_pixels_only() -> None:
    features, _, levels, limits, cotangent = case(5)
    rois = np.random.default_rng(5).uniform(1.1, 11.9, (ROIS, 4)).astype(np.float32)
    cotangent[1, 0, 1] = np.inf
    found, expected = (
        values_and_gradients(features, rois, levels, limits, cotangent, backend=backend)[1]
        for backend in ("pallas", "xla")
    )
    infinite = [np.asarray(~jnp.isfinite(part)) for part in jax.tree.leaves(expected)]
    assert 0 < sum(part.sum() for part in infinite) < 128 * 17
    jax.tree.map(np.testing.assert_array_equal, [np.asarray(~jnp.isfinite(x)) for x in found.values()], infinite)


MESH = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,))
BATCH = PartitionSpec("batch")


def test_vmap_and_shard_map() -> None:
    cases = [case(seed) for seed in (5, 6)]
    arguments = jax.tree.map(lambda *parts: jnp.stack(parts), *cases)
    expected = [values_and_gradients(*one, backend="xla") for one in cases]
    batched = jax.vmap(functools.partial(values_and_gradients, backend="pallas"))
    assert_close(batched(*arguments), jax.tree.map(lambda *parts: jnp.stack(parts), *expected))
    # JAX's quick interpreter does not pass the check; the compiled kernels do, see test_dispatch.py.
    sharded = jax.jit(jax.shard_map(batched, mesh=MESH, in_specs=BATCH, out_specs=BATCH, check_vma=False))
    assert_close(sharded(*arguments), jax.tree.map(lambda *parts: jnp.stack(parts), *expected))


@pytest.mark.parametrize("batched", [False, True])
def test_in_the_interpreter_of_mosaic_gpu(mosaic_interpreter: Any, batched: bool) -> None:  # noqa: F811
    rng = np.random.default_rng(8)
    flat = jnp.asarray(rng.standard_normal((2, 12, 128)), jnp.float32)
    rows = jnp.asarray(rng.integers(0, 3, (2, 2, 2, 4)) * 4, jnp.int32)
    columns = jnp.asarray(rng.integers(0, 4, (2, 2, 2, 4)), jnp.int32)
    weights = jnp.asarray(rng.random((2, 2, 2, 2, 4)), jnp.float32)
    taps = Taps(rows, weights[0], columns, weights[1])
    cotangent = jnp.asarray(rng.standard_normal((2, 2, 2, 2, 128)), jnp.float32)

    def run(interpret: Any) -> tuple[jax.Array, jax.Array]:
        def both(flat: jax.Array, taps: Taps, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
            gradient = kernels.scatter(cotangent, taps, 12, jnp.dtype("float32"), interpret=interpret)
            return kernels.pool(flat, taps, interpret=interpret), gradient

        arguments = (flat, taps, cotangent)
        if batched:
            return jax.jit(jax.vmap(both))(*arguments)
        return jax.jit(both)(*jax.tree.map(lambda x: x[0], arguments))

    assert_close(run(mosaic_interpreter), run(True))
