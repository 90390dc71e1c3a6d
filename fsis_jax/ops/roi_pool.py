"""RoIPool and RoICrop, the older ways to read a roi from a feature map, differentiable in the features.

RoIPool takes the maximum over the pixels of each output cell, with corners and cells rounded to whole pixels. RoICrop
takes one bilinear sample per output cell, on a regular grid from corner to corner of the roi.

Both keep the legacy coordinates of their sources: feature pixel i lies at i, without a half-pixel shift, and both
corners belong to a roi. Unlike `roi_align` (above all with its default, `aligned=True`),
  roi_pool reads the x2 - x1 + 1 pixels from x1 to x2, scaled and rounded, and never less than one;
  roi_crop has its outermost samples on x1 and x2 themselves, not inside of them, and averages nothing: of a roi much
    larger than the grid it skips most pixels. Beyond the map lie zeros; `roi_align` repeats the border for one pixel.

Letters: R rois, h w feature map, C channels, o output side, P pixels of the flattened features.

Sources: Fast R-CNN (arXiv 1504.08083), section 2.1, rounded as by Detectron's and torchvision's `roi_pool`; spatial
transformers (arXiv 1506.02025) as in Detectron.pytorch `lib/modeling/roi_xfrom/roi_crop` and `affine_grid_gen`, which
divides rois by 16 on every level where this uses the stride of the level.
"""

import functools
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from fsis_jax.ops.roi_align import multilevel_roi_align, roi_align
from fsis_jax.ops.roi_maps import RoiMaps, one_map, pyramid_maps
from fsis_jax.ops.shapes import Scalar, check_shapes
from fsis_jax.ops.varying import varying_like

RoiPoolMethod = Literal["pool", "crop"]

_CHUNK_ELEMENTS = {"cpu": 1 << 14, "default": 1 << 24}
"""Elements of the output found at a time, per image, and of its gradient scattered. All cells of a chunk take as many
steps as its largest: on a CPU one roi or few at a time; elsewhere few large steps are quicker than many small ones."""

_PIXELS_PER_STEP = 2
"""Pixels of a row that a step looks at."""

_FARTHEST = 1 << 20
"""Corners farther from the origin than this (feature pixels) are moved there: cells are computed in int32."""


class _Spans(NamedTuple):
    """The pixels, from first to last, of every output row (or column) of each roi; (R, o) each."""

    first: jax.Array
    """int32, 0 if empty."""
    last: jax.Array
    """int32, 0 if empty."""
    empty: jax.Array
    """bool, no pixel of the map is among them."""


class _Cells(NamedTuple):
    """The pixels of the output cells of each roi within the flattened features (P, C)."""

    y: _Spans
    x: _Spans
    first: jax.Array
    """(R,) int32, row of the flattened features that holds pixel (0, 0) of the roi's map."""
    pitch: jax.Array
    """(R,) int32, rows of the flattened features from one row of the roi's map to the next."""


@functools.partial(jax.jit, static_argnames=("output_size",))
def roi_pool(
    features: Float[Array, "h w C"], rois: Num[Array, "R 4"], *, spatial_scale: Scalar, output_size: int
) -> Float[Array, "R {output_size} {output_size} C"]:
    """Maxima (R, o, o, C) over the cells of rois (R, 4) image pixels, read from one map `features` (h, w, C).

    The result has the dtype of `features`. A cell without a pixel of the map is 0. Of equal maxima the first, row by
    row, receives the gradient; none flows to the rois.

    Cell i of n pixels is [floor(i n / o), ceil((i + 1) n / o)), as in adaptive max pooling. (The sources compute these
    bounds in float32, which for few n, such as 57 with o = 7, makes a cell reach one pixel farther.)

    Args:
      spatial_scale: feature pixels per image pixel, 1 / stride.
      output_size: o.
    """
    flat, maps = one_map("roi_pool", features, rois, spatial_scale)
    return _pool(len(flat), flat.dtype, flat, _cells(rois, maps, output_size))


@functools.partial(jax.jit, static_argnames=("output_size",))
def roi_crop(
    features: Float[Array, "h w C"], rois: Num[Array, "R 4"], *, spatial_scale: Scalar, output_size: int
) -> Float[Array, "R {output_size} {output_size} C"]:
    """Bilinear samples (R, o, o, C) on grids over rois (R, 4) image pixels, read from one map `features` (h, w, C).

    The result has the dtype of `features`. The corners of a roi are those of its grid; o = 1 takes its centre. Beyond
    the map lie zeros. No gradient flows to the rois. (Detectron.pytorch by default takes a grid of twice the side and
    then the maximum of every 2 x 2 samples.)

    Args:
      spatial_scale: feature pixels per image pixel, 1 / stride.
      output_size: o.
    """
    check_shapes("roi_crop", features=(features, "h w C"), rois=(rois, "R 4"))
    return roi_align(
        _framed(features),
        _cells_about_samples(rois, jnp.float32(spatial_scale), output_size),
        spatial_scale=spatial_scale,
        output_size=output_size,
        sampling_ratio=1,
    )


@functools.partial(jax.jit, static_argnames=("method", "output_size"))
def multilevel_roi_pool(
    features: Mapping[int, Float[Array, "_ _ C"]],
    rois: Num[Array, "R 4"],
    levels: Int[Array, " R"],
    *,
    method: RoiPoolMethod,
    output_size: int,
    limits: Int[Array, "L 2"] | None = None,
) -> Float[Array, "R {output_size} {output_size} C"]:
    """`roi_pool` or `roi_crop`, (R, o, o, C), of rois (R, 4) image pixels, each from its own level of a pyramid.

    Args:
      features: level -> (h, w, C); the stride of a level is 2 ** level image pixels.
      levels: (R,) int32, see `assign_levels`; a level that `features` lacks reads the nearest one that it has.
      method: "pool" or "crop".
      output_size: o.
      limits: (L, 2) int32, rows and columns of each level, from the finest on, at which its map is taken to end; the
        whole maps if None.
    """
    if method not in get_args(RoiPoolMethod):
        raise ValueError(f"multilevel_roi_pool: method is {method!r}, expected one of {get_args(RoiPoolMethod)}")
    flat, maps = pyramid_maps("multilevel_roi_pool", features, rois, levels, limits)
    if method == "pool":
        return _pool(len(flat), flat.dtype, flat, _cells(rois, maps, output_size))
    ends = [None] * len(features) if limits is None else limits
    return multilevel_roi_align(
        {level: _framed(features[level], end) for level, end in zip(sorted(features), ends, strict=True)},
        _cells_about_samples(rois, maps.scale[:, None], output_size),
        levels,
        output_size=output_size,
        sampling_ratio=1,
        limits=None if limits is None else limits + 2,
    )


def _framed(features: jax.Array, end: jax.Array | None = None) -> jax.Array:
    """`features` (h, w, C), zero from row and column `end` (2,) on, in a frame (h + 2, w + 2, C) of zeros.

    Within a pixel of the map samples mix with the frame; beyond, `roi_align` reads the frame alone, or nothing.
    """
    if end is not None:
        rows, columns = jnp.arange(features.shape[0])[:, None, None], jnp.arange(features.shape[1])[:, None]
        features = jnp.where((rows < end[0]) & (columns < end[1]), features, 0)
    return jnp.pad(features, ((1, 1), (1, 1), (0, 0)))


def _cells_about_samples(rois: jax.Array, scale: jax.Array, output_size: int) -> jax.Array:
    """Rois (R, 4) of which `roi_align` takes one sample per cell of a `_framed` map where `roi_crop` wants it."""
    low, high = rois[:, :2].astype(jnp.float32), rois[:, 2:].astype(jnp.float32)
    half_cell = 0.5 * (high - low) / (output_size - 1) if output_size > 1 else jnp.zeros_like(low)
    shift = 1.5 / scale  # the frame's pixel and the half that `roi_align` takes off
    return jnp.concatenate([low - half_cell + shift, high + half_cell + shift], axis=1)


def _cells(rois: jax.Array, maps: RoiMaps, output_size: int) -> _Cells:
    """The cells of rois (R, 4) image pixels."""
    rois = jax.lax.stop_gradient(rois).astype(jnp.float32) * maps.scale[:, None]
    unreadable = ~jnp.isfinite(rois).all(axis=1)[:, None]
    corners = jax.lax.round(jnp.where(unreadable, 0.0, rois), jax.lax.RoundingMethod.AWAY_FROM_ZERO)
    corners = jnp.clip(corners, -_FARTHEST, _FARTHEST).astype(jnp.int32)
    cell = jnp.arange(output_size)

    def spans(low: jax.Array, high: jax.Array, size: jax.Array) -> _Spans:
        pixels = jnp.maximum(high - low + 1, 1)[:, None]
        start = low[:, None] + cell * pixels // output_size  # (R, o)
        stop = low[:, None] - (-(cell + 1) * pixels // output_size)  # rounded up
        start, stop = (jnp.clip(edge, 0, size[:, None]) for edge in (start, stop))
        empty = (stop <= start) | unreadable
        return _Spans(jnp.where(empty, 0, start), jnp.where(empty, 0, stop - 1), empty)

    y, x = spans(corners[:, 1], corners[:, 3], maps.heights), spans(corners[:, 0], corners[:, 2], maps.widths)
    return _Cells(y, x, maps.first, maps.pitch)


def _maxima(features: jax.Array, cells: _Cells, *, positions: bool) -> tuple[jax.Array, jax.Array | None]:
    """Maxima (R, o, o, C), and if asked for their rows of `features` (P, C), int32, -1 in empty cells."""
    number, output_size = cells.y.first.shape
    channels = features.shape[1]
    shape = (output_size, output_size, channels)

    def search(cells: _Cells) -> tuple[jax.Array, jax.Array | None]:
        # A cell smaller than the chunk's largest looks at its last pixels again, which changes nothing.
        y, x = cells.y, cells.x
        steps_y = jnp.max(y.last - y.first, initial=0) + 1
        steps_x = jnp.max(x.last - x.first, initial=0) // _PIXELS_PER_STEP + 1
        rows = y.first * cells.pitch[:, None] + cells.first[:, None]  # (r, o)
        corners = rows[:, :, None] + x.first[:, None, :]  # (r, o, o)

        def step(i: jax.Array, best: tuple[jax.Array, jax.Array | None]) -> tuple[jax.Array, jax.Array | None]:
            largest, where = best
            down = jnp.minimum(i // steps_x, y.last - y.first) * cells.pitch[:, None]  # (r, o)
            along = [i % steps_x * _PIXELS_PER_STEP + k for k in range(_PIXELS_PER_STEP)]
            right = [jnp.minimum(columns, x.last - x.first) for columns in along]  # (r, o) each
            # Without the barrier XLA computes them again for every channel.
            indices = jax.lax.optimization_barrier([corners + down[:, :, None] + r[:, None, :] for r in right])
            for index in indices:  # (r, o, o)
                value = features.at[index].get(mode="promise_in_bounds")
                if where is not None:
                    where = jnp.where((value > largest) | jnp.isnan(value), index[..., None], where)
                largest = jnp.maximum(largest, value)
            return largest, where

        chunk = cells.first.shape[0]
        best = (
            jnp.full((chunk, *shape), -jnp.inf, features.dtype),
            jnp.broadcast_to(corners[..., None], (chunk, *shape)) if positions else None,
        )
        best = varying_like(best, (features, cells))
        largest, where = jax.lax.fori_loop(0, steps_y * steps_x, step, best)
        empty = (y.empty[:, :, None] | x.empty[:, None, :])[..., None]
        return jnp.where(empty, 0, largest), None if where is None else jnp.where(empty, -1, where)

    def by_chunks(elements: int, features: jax.Array, cells: _Cells) -> tuple[jax.Array, jax.Array | None]:
        chunk = max(elements // max(math.prod(shape), 1), 1)
        found = jax.lax.map(search, jax.tree.map(functools.partial(_split, chunk), cells))
        return jax.tree.map(lambda value: value.reshape(-1, *shape)[:number], found)

    forms = {platform: functools.partial(by_chunks, elements) for platform, elements in _CHUNK_ELEMENTS.items()}
    return jax.lax.platform_dependent(features, cells, **forms)


def _split(chunk: int, value: jax.Array) -> jax.Array:
    """(R, ...) as chunks of rois (ceil(R / chunk), chunk, ...), the last one padded with zeros."""
    number = value.shape[0]
    chunk = min(chunk, max(number, 1))
    chunks = -(-number // chunk)
    padding = [(0, chunks * chunk - number)] + [(0, 0)] * (value.ndim - 1)
    return jnp.pad(value, padding).reshape(chunks, chunk, *value.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pool(num_pixels: int, dtype: jnp.dtype, features: jax.Array, cells: _Cells) -> jax.Array:
    """(R, o, o, C) of type `dtype` from flattened features (num_pixels, C) of the same type."""
    del num_pixels, dtype
    return _maxima(features, cells, positions=False)[0]


def _pool_forward(
    num_pixels: int, dtype: jnp.dtype, features: jax.Array, cells: _Cells
) -> tuple[jax.Array, jax.Array | None]:
    return _maxima(features, cells, positions=True)


def _pool_backward(
    num_pixels: int, dtype: jnp.dtype, positions: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, None]:
    channels = cotangent.shape[-1]
    per_roi = max(math.prod(cotangent.shape[1:]), 1)

    def scatter(total: jax.Array, rois: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        positions, cotangent = rois  # (r, o, o, C)
        # The position of an empty cell, -1, is moved beyond the last pixel: negative ones count from the end.
        rows = jnp.where(positions < 0, num_pixels, positions)
        return total.at[rows, jnp.arange(channels)].add(cotangent.astype(jnp.float32), mode="drop"), None

    def by_chunks(elements: int, total: jax.Array, *rois: jax.Array) -> jax.Array:
        split = functools.partial(_split, max(elements // per_roi, 1))
        return jax.lax.scan(scatter, total, jax.tree.map(split, rois))[0]

    forms = {platform: functools.partial(by_chunks, elements) for platform, elements in _CHUNK_ELEMENTS.items()}
    zeros = varying_like(jnp.zeros((num_pixels, channels), jnp.float32), (positions, cotangent))
    return jax.lax.platform_dependent(zeros, positions, cotangent, **forms).astype(dtype), None


_pool.defvjp(_pool_forward, _pool_backward)
