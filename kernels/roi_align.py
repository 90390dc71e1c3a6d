"""RoIAlign over a flattened pyramid on a GPU: forward, and a backward pass without atomics.

Both take the taps that `fsis_jax.ops.roi_align` makes, with the borders, the limits and the legacy convention already
in them, so a kernel only gathers and adds; all sums are float32. A vector is a chunk of the channels of one pixel.

Forward: a block per roi, output row and chunk; each output cell is the sum of T x T feature vectors.

Backward: a block per pixel and chunk, which gathers the cells that read the pixel. XLA sorts the taps by pixel
beforehand (stable, so the order of addition is that of the taps). Against adding into the pixels atomically this costs
a sort of R * o * o * T * T numbers, and buys the same bits in every run, float32 sums for bfloat16 features without a
second array, and no contention where rois crowd.

Letters: R rois, o output side, T taps per output row or column, P pixels of all levels, C channels.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from .launch import LANES, launch, zeros_like

_CHUNKS = (256, LANES)
"""Channels per block, the first that divides their number: 8 bytes of float32 per CUDA thread and load."""

_UNROLL = 4
"""Cells that a pixel's block reads at a time."""


class Taps(Protocol):
    """What is read for every roi, (R, o, T) each; see `fsis_jax.ops.roi_align`."""

    rows: jax.Array
    row_weights: jax.Array
    columns: jax.Array
    column_weights: jax.Array


def supported(channels: int, dtype: jnp.dtype) -> bool:
    """Whether there is a kernel for features of this kind."""
    return channels > 0 and channels % LANES == 0 and dtype in (jnp.float32, jnp.bfloat16)


def pool(features: jax.Array, taps: Taps, *, interpret: Any = False) -> jax.Array:
    """Pooled features (R, o, o, C) of the dtype of `features` (P, C), which is one that is `supported`."""
    channels = features.shape[1]
    number, side, count = taps.rows.shape
    chunk = _chunk(channels)
    chunks = channels // chunk

    def roi_align_row(
        block: Any, features: Any, rows: Any, row_weights: Any, columns: Any, weights: Any, out: Any
    ) -> None:
        cell, part = lax.div(block, chunks), pl.ds(lax.rem(block, chunks) * chunk, chunk)
        roi, row = lax.div(cell, side), lax.rem(cell, side)
        starts = [rows[roi, row, i] for i in range(count)]
        shares = [row_weights[roi, row, i] for i in range(count)]

        def one_column(column: Any, nothing: None) -> None:
            total = jnp.zeros(chunk, jnp.float32)
            for j in range(count):
                offset, weight = columns[roi, column, j], weights[roi, column, j]
                for start, share in zip(starts, shares, strict=True):
                    total = total + share * weight * features[start + offset, part].astype(jnp.float32)
            out[roi, row, column, part] = total.astype(out.dtype)

        lax.fori_loop(0, side, one_column, None)

    run = launch(
        roi_align_row,
        jax.ShapeDtypeStruct((number, side, side, channels), features.dtype),
        blocks=number * side * chunks,
        barriers=False,
        interpret=interpret,
    )
    return run(features, taps.rows, taps.row_weights, taps.columns, taps.column_weights)


def scatter(
    cotangent: jax.Array, taps: Taps, num_pixels: int, dtype: jnp.dtype, *, interpret: Any = False
) -> jax.Array:
    """Gradient (P, C) of type `dtype` in the features, from the cotangent (R, o, o, C) of `pool`'s result."""
    channels = cotangent.shape[-1]
    chunk = _chunk(channels)
    chunks = channels // chunk
    cells, weights, first = _by_pixel(taps, num_pixels)

    def roi_align_pixel(block: Any, cotangent: Any, cells: Any, weights: Any, first: Any, out: Any) -> None:
        pixel, part = lax.div(block, chunks), pl.ds(lax.rem(block, chunks) * chunk, chunk)
        begin, end = first[pixel], first[pixel + 1]

        def some_cells(step: Any, total: Any) -> Any:
            for k in range(_UNROLL):
                entry = begin + step * _UNROLL + k
                # Past the end the last is read again, for nothing: another pixel's cell might be infinite.
                own = jnp.minimum(entry, end - 1)
                weight = jnp.where(entry < end, weights[own], 0.0)
                total = total + weight * cotangent[cells[own], part].astype(jnp.float32)
            return total

        steps = lax.div(end - begin + (_UNROLL - 1), _UNROLL)
        total = lax.fori_loop(0, steps, some_cells, zeros_like(cotangent[0, part], jnp.float32))
        out[pixel, part] = total.astype(out.dtype)

    run = launch(
        roi_align_pixel,
        jax.ShapeDtypeStruct((num_pixels, channels), dtype),
        blocks=num_pixels * chunks,
        barriers=False,
        interpret=interpret,
    )
    return run(cotangent.reshape(-1, channels), cells, weights, first)


def _chunk(channels: int) -> int:
    return next(chunk for chunk in _CHUNKS if channels % chunk == 0)


def _by_pixel(taps: Taps, num_pixels: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All taps in the order of their pixels.

    Returns cells (n,) int32, which output cell a tap belongs to; weights (n,) float32; and first (P + 1,) int32, where
    the taps of each pixel begin. Taps of weight 0 belong to no pixel, or the many of rois outside the image would all
    fall on the first.
    """
    read = taps.rows[:, :, None, :, None] + taps.columns[:, None, :, None, :]  # (R, o, o, T, T)
    weights = taps.row_weights[:, :, None, :, None] * taps.column_weights[:, None, :, None, :]
    per_cell = read.shape[-1] * read.shape[-2]
    keys = jnp.where(weights != 0.0, read, num_pixels).reshape(-1)
    keys, order = lax.sort_key_val(keys, jnp.arange(keys.size, dtype=jnp.int32), is_stable=True)
    pixels = jnp.arange(num_pixels + 1, dtype=jnp.int32)
    first = jnp.searchsorted(keys, pixels, method="scan_unrolled").astype(jnp.int32)
    return order // per_cell, weights.reshape(-1)[order], first
