"""RoIAlign over one feature map or over a pyramid, differentiable in the features (in reverse mode; it is linear in
them, so that the derivative along a tangent is the op of the tangent).

Every output cell averages bilinear samples. Bilinear interpolation is separable, so per roi and per output row (or
column) a few *taps* suffice: feature rows (columns) with their weights. A cell is then the sum over pairs of taps,
written as a chain of gathers that XLA fuses into one loop: nothing but the output is stored. (On CPU this is some
twenty times faster than gathering the samples and averaging them, or than a dense einsum.) The gradient scatters the
same taps back, a few rois at a time, so that its temporaries stay in cache.

Letters: R rois, h w feature map, C channels, o output side, T taps per output row or column.

Sources: Mask R-CNN (arXiv 1703.06870), section 3; borders and the legacy convention (`aligned=False`: no half-pixel
shift, rois at least one feature pixel wide and high) as in Detectron's and torchvision's CUDA kernels; level assignment
from FPN (arXiv 1612.03144), equation 1.

On a GPU that has them, the kernels of `kernels/roi_align.py` add up the same taps; see dispatch.py.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int32, Num

from fsis_jax.ops import dispatch
from fsis_jax.ops.boxes import area
from fsis_jax.ops.roi_maps import RoiMaps, one_map, pyramid_maps
from fsis_jax.ops.shapes import Scalar, check_shapes
from fsis_jax.ops.varying import varying_like

_UNROLLED_SAMPLES = 2
"""Up to this sampling ratio all pairs of taps are unrolled; above, a loop runs over the samples."""

_SCATTER_ELEMENTS = {"cpu": 1 << 18, "default": 1 << 22}
"""Elements scattered at a time, per image, in the gradient: on a CPU 1 MiB, since larger temporaries leave its cache;
elsewhere as many as memory is no trouble for, since few large scatters are quicker than many small ones."""


class _Axis(NamedTuple):
    """Where the samples of each roi lie along one axis, in feature pixels; (R,) each."""

    start: jax.Array
    """Low edge of the roi, on the scale where pixel i has its centre at i."""
    cell: jax.Array
    """Length of an output cell."""
    samples: jax.Array
    """Samples per output cell, int32."""
    size: jax.Array
    """Pixels of the feature map that the roi reads, int32."""


class _Grid(NamedTuple):
    """The samples of each roi within the flattened features (P, C)."""

    y: _Axis
    x: _Axis
    first: jax.Array
    """(R,) int32, row of the flattened features that holds pixel (0, 0) of the roi's map."""
    pitch: jax.Array
    """(R,) int32, rows of the flattened features from one row of the roi's map to the next."""


@functools.partial(jax.jit, static_argnames=("output_size", "sampling_ratio", "aligned", "backend"))
def roi_align(
    features: Float[Array, "h w C"],
    rois: Num[Array, "R 4"],
    *,
    spatial_scale: Scalar,
    output_size: int,
    sampling_ratio: int = 2,
    aligned: bool = True,
    backend: dispatch.Backend = "xla",
) -> Float[Array, "R {output_size} {output_size} C"]:
    """Features (R, o, o, C) of rois (R, 4) image pixels, read from one map `features` (h, w, C).

    The result has the dtype of `features`; sums are float32. No gradient flows to the rois.

    Args:
      spatial_scale: feature pixels per image pixel, 1 / stride.
      output_size: o.
      sampling_ratio: samples per cell and axis; 0 means ceil(roi side / o), roi by roi.
      aligned: False gives the legacy convention.
      backend: see dispatch.py.
    """
    flat, maps = one_map("roi_align", features, rois, spatial_scale)
    grid = _grid(rois, maps, output_size=output_size, sampling_ratio=sampling_ratio, aligned=aligned)
    return _dispatch(flat, grid, output_size, sampling_ratio, backend)


@functools.partial(jax.jit, static_argnames=("output_size", "sampling_ratio", "aligned", "backend"))
def multilevel_roi_align(
    features: Mapping[int, Float[Array, "_ _ C"]],
    rois: Num[Array, "R 4"],
    levels: Int[Array, " R"],
    *,
    output_size: int,
    sampling_ratio: int = 2,
    aligned: bool = True,
    limits: Int[Array, "L 2"] | None = None,
    backend: dispatch.Backend = "xla",
) -> Float[Array, "R {output_size} {output_size} C"]:
    """Features (R, o, o, C) of rois (R, 4) image pixels, each read from its own level of a pyramid.

    Costs as much as one `roi_align`; see roi_maps.py.

    Args:
      features: level -> (h, w, C); the stride of a level is 2 ** level image pixels.
      levels: (R,) int32, see `assign_levels`; a level that `features` lacks reads the nearest one that it has.
      limits: (L, 2) int32, rows and columns of each level, from the finest on, at which its map is taken to end; the
        whole maps if None.
      backend: see dispatch.py.
    """
    flat, maps = pyramid_maps("multilevel_roi_align", features, rois, levels, limits)
    grid = _grid(rois, maps, output_size=output_size, sampling_ratio=sampling_ratio, aligned=aligned)
    return _dispatch(flat, grid, output_size, sampling_ratio, backend)


@functools.partial(jax.jit, static_argnames=("min_level", "max_level", "offset"))
def assign_levels(
    rois: Num[Array, "*batch 4"],
    *,
    min_level: int,
    max_level: int,
    canonical_size: Scalar = 224.0,
    canonical_level: Scalar = 4,
    offset: int = 0,
) -> Int32[Array, "*batch"]:
    """Pyramid level (...) int32 of each roi (..., 4): a roi of `canonical_size` px goes to `canonical_level`, twice the
    side one level up; clipped to [min_level, max_level]."""
    check_shapes("assign_levels", rois=(rois, "... 4"))
    side = jnp.sqrt(area(rois, offset=offset))
    level = jnp.floor(canonical_level + jnp.log2(side / canonical_size + 1e-6))
    return jnp.clip(level, min_level, max_level).astype(jnp.int32)


def _grid(rois: jax.Array, maps: RoiMaps, *, output_size: int, sampling_ratio: int, aligned: bool) -> _Grid:
    rois = jax.lax.stop_gradient(rois).astype(jnp.float32) * maps.scale[:, None]

    def axis(low: jax.Array, high: jax.Array, sizes: jax.Array) -> _Axis:
        side = high - low if aligned else jnp.maximum(high - low, 1.0)
        if sampling_ratio > 0:
            samples = jnp.full(side.shape, sampling_ratio, jnp.int32)
        else:
            # The upper limit only stops a roi far larger than its map from holding up all others.
            samples = jnp.clip(jnp.ceil(side / output_size), 1, 2 * sizes).astype(jnp.int32)
        return _Axis(low - 0.5 if aligned else low, side / output_size, samples, sizes)

    y, x = axis(rois[:, 1], rois[:, 3], maps.heights), axis(rois[:, 0], rois[:, 2], maps.widths)
    return _Grid(y, x, maps.first, maps.pitch)


class _Taps(NamedTuple):
    """What one pass reads for every roi: rows and columns, (R, o, T) each, of the flattened features."""

    rows: jax.Array
    """int32, flat position of the first pixel of the row."""
    row_weights: jax.Array
    columns: jax.Array
    """int32, position within the row."""
    column_weights: jax.Array


def _axis_taps(axis: _Axis, output_size: int, samples: Sequence[jax.Array | int]) -> tuple[jax.Array, jax.Array]:
    """Pixels and weights (R, o, 2 * len(samples)) of these samples of every output row (or column)."""
    start, cell, count, size = (value[:, None] for value in axis)
    pixels, weights = [], []
    for sample in samples:
        position = start + jnp.arange(output_size) * cell + (sample + 0.5) * cell / count  # (R, o)
        inside = (position >= -1.0) & (position <= size) & (sample < count)
        position = jnp.clip(position, 0.0, size - 1)
        low = jnp.floor(position).astype(jnp.int32)
        fraction = position - low
        share = jnp.where(inside, 1.0 / count, 0.0)
        # Pixel 0 where no sample is inside: a roi of NaN or infinity must not become an address outside the map.
        pixels += [jnp.where(inside, low, 0), jnp.where(inside, jnp.minimum(low + 1, size - 1), 0)]
        weights += [jnp.where(inside, (1.0 - fraction) * share, 0.0), jnp.where(inside, fraction * share, 0.0)]
    return jnp.stack(pixels, axis=-1), jnp.stack(weights, axis=-1)


def _taps(grid: _Grid, output_size: int, y: Sequence[jax.Array | int], x: Sequence[jax.Array | int]) -> _Taps:
    """The taps of these samples along y and x."""
    rows, row_weights = _axis_taps(grid.y, output_size, y)
    rows = rows * grid.pitch[:, None, None] + grid.first[:, None, None]
    return _Taps(rows, row_weights, *_axis_taps(grid.x, output_size, x))


def _for_each_pass(
    grid: _Grid, output_size: int, sampling_ratio: int, add: Callable[[jax.Array, _Taps], jax.Array], total: jax.Array
) -> jax.Array:
    """`add`s the taps of all samples to `total`: in one pass if they are few, else in one pass per sample."""

    def one_pass(total: jax.Array, y: Sequence[jax.Array | int], x: Sequence[jax.Array | int]) -> jax.Array:
        # Without the barrier XLA computes the taps again for every channel of every output cell.
        return add(total, jax.lax.optimization_barrier(_taps(grid, output_size, y, x)))

    if 0 < sampling_ratio <= _UNROLLED_SAMPLES:
        return one_pass(total, range(sampling_ratio), range(sampling_ratio))
    most_y, most_x = jnp.max(grid.y.samples, initial=0), jnp.max(grid.x.samples, initial=0)
    return jax.lax.fori_loop(0, most_y * most_x, lambda i, t: one_pass(t, [i // most_x], [i % most_x]), total)


def _dispatch(
    features: Float[Array, "P C"], grid: _Grid, output_size: int, sampling_ratio: int, backend: dispatch.Backend
) -> Float[Array, "R {output_size} {output_size} C"]:
    kernels = None
    if 0 < sampling_ratio <= _UNROLLED_SAMPLES and grid.first.size:
        kernels = dispatch.choose(backend, "roi_align", features.shape[1], features.dtype)
    return _pool(output_size, sampling_ratio, features.shape[0], features.dtype, kernels, features, grid)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3, 4))
def _pool(
    output_size: int,
    sampling_ratio: int,
    num_pixels: int,
    dtype: jnp.dtype,
    kernels: dispatch.Kernels | None,
    features: jax.Array,
    grid: _Grid,
) -> jax.Array:
    """(R, o, o, C) of type `dtype` from flattened features (num_pixels, C) of the same type."""
    del num_pixels
    if kernels is not None:
        taps = _taps(grid, output_size, range(sampling_ratio), range(sampling_ratio))
        by_kernel: jax.Array = kernels.module.pool(features, taps, interpret=kernels.interpret)
        return by_kernel

    def add(total: jax.Array, taps: _Taps) -> jax.Array:
        for i, j in itertools.product(range(taps.rows.shape[-1]), range(taps.columns.shape[-1])):
            index = taps.rows[:, :, None, i] + taps.columns[:, None, :, j]  # (R, o, o)
            weight = taps.row_weights[:, :, None, i] * taps.column_weights[:, None, :, j]
            total = total + weight[..., None] * features.at[index].get(mode="promise_in_bounds")
        return total

    shape = (grid.first.shape[0], output_size, output_size, features.shape[1])
    zeros = varying_like(jnp.zeros(shape, jnp.float32), (features, grid))
    pooled = _for_each_pass(grid, output_size, sampling_ratio, add, zeros).astype(dtype)
    # Without the barrier XLA adds up again for each reader, and for that stores what each pair of taps gathers.
    return jax.lax.optimization_barrier(pooled)


def _pool_forward(
    output_size: int,
    sampling_ratio: int,
    num_pixels: int,
    dtype: jnp.dtype,
    kernels: dispatch.Kernels | None,
    features: jax.Array,
    grid: _Grid,
) -> tuple[jax.Array, _Grid]:
    return _pool(output_size, sampling_ratio, num_pixels, dtype, kernels, features, grid), grid


def _pool_backward(
    output_size: int,
    sampling_ratio: int,
    num_pixels: int,
    dtype: jnp.dtype,
    kernels: dispatch.Kernels | None,
    grid: _Grid,
    cotangent: jax.Array,
) -> tuple[jax.Array, None]:
    if kernels is not None:
        taps = _taps(grid, output_size, range(sampling_ratio), range(sampling_ratio))
        return kernels.module.scatter(cotangent, taps, num_pixels, dtype, interpret=kernels.interpret), None
    number, channels = cotangent.shape[0], cotangent.shape[-1]

    def scatter(total: jax.Array, rois: tuple[jax.Array, _Taps]) -> tuple[jax.Array, None]:
        cotangent, taps = rois  # (r, o, o, C), (r, o, T)
        index = taps.rows[:, :, None, :, None] + taps.columns[:, None, :, None, :]  # (r, o, o, T, T)
        weight = taps.row_weights[:, :, None, :, None] * taps.column_weights[:, None, :, None, :]
        update = weight[..., None] * cotangent[:, :, :, None, None, :].astype(jnp.float32)
        return total.at[index.reshape(-1)].add(update.reshape(-1, channels), mode="promise_in_bounds"), None

    def add_by_chunks(elements: int, total: jax.Array, cotangent: jax.Array, taps: _Taps) -> jax.Array:
        per_roi = output_size**2 * taps.rows.shape[-1] * taps.columns.shape[-1] * channels
        chunk = min(max(elements // per_roi, 1), max(number, 1))
        chunks = -(-number // chunk)

        def split(value: jax.Array) -> jax.Array:
            # Rows of padding have index 0 and weight 0.
            padding = [(0, chunks * chunk - number)] + [(0, 0)] * (value.ndim - 1)
            return jnp.pad(value, padding).reshape(chunks, chunk, *value.shape[1:])

        return jax.lax.scan(scatter, total, jax.tree.map(split, (cotangent, taps)))[0]

    forms = {platform: functools.partial(add_by_chunks, elements) for platform, elements in _SCATTER_ELEMENTS.items()}

    def add(total: jax.Array, taps: _Taps) -> jax.Array:
        return jax.lax.platform_dependent(total, cotangent, taps, **forms)

    zeros = varying_like(jnp.zeros((num_pixels, channels), jnp.float32), (cotangent, grid))
    return _for_each_pass(grid, output_size, sampling_ratio, add, zeros).astype(dtype), None


_pool.defvjp(_pool_forward, _pool_backward)
