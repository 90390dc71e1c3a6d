"""Resampling of a feature map at learned offsets: one displacement per channel and position.

Follows `ConvOffset2D` of the PyTorch project (nn/modules, after oeway/pytorch-deform-conv): every channel of the map
is read bilinearly at its own displaced positions, which are moved onto the border where they leave the map. This is
not the deformable convolution of Dai et al. (arXiv 1703.06211), which displaces the taps of a kernel.

Letters: h w feature map, C channels.
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fsis_jax.ops.shapes import check_shapes

OffsetLayout = Literal["interleaved", "split"]


@functools.partial(jax.jit, static_argnames="layout")
def sample_at_offsets(
    features: Float[Array, "h w C"],
    offsets: Float[Array, "h w offsets"],
    limits: Int[Array, "2"] | None = None,
    *,
    layout: OffsetLayout,
) -> Float[Array, "h w C"]:
    """`features` (h, w, C) read at position + offset, channel by channel: (h, w, C) of the same dtype.

    Args:
      offsets: (h, w, 2C) feature pixels.
      limits: (2,) int32, rows and columns at which the map is taken to end; the result is 0 beyond. The whole if None.
      layout: "split": channel 2c holds the vertical and 2c + 1 the horizontal displacement of channel c.
        "interleaved": the PyTorch project's view of the same memory. Channels 2c and 2c + 1, one behind the other in
        row-major order, are pairs (vertical, horizontal): position p of the map takes entries 2p and 2p + 1.

    Raises:
      ValueError: an unknown layout, or offsets of another shape.
    """
    check_shapes("sample_at_offsets", features=(features, "h w C"))
    height, width, channels = features.shape
    if layout not in get_args(OffsetLayout):
        raise ValueError(f"sample_at_offsets: layout is {layout!r}, expected one of {get_args(OffsetLayout)}")
    if offsets.shape != (height, width, 2 * channels):
        raise ValueError(f"sample_at_offsets: offsets are {offsets.shape}, expected {(height, width, 2 * channels)}")
    rows, columns = (height, width) if limits is None else (limits[0], limits[1])
    y, x = jnp.mgrid[:height, :width]
    inside = ((y < rows) & (x < columns))[..., None]
    pairs = offsets.astype(jnp.float32).reshape(height, width, channels, 2)
    if layout == "interleaved":
        pairs = _interleaved(pairs, jnp.minimum(y, rows - 1), jnp.minimum(x, columns - 1), rows, columns)
    down = jnp.clip(y[..., None] + pairs[..., 0], 0, rows - 1)  # (h, w, C)
    across = jnp.clip(x[..., None] + pairs[..., 1], 0, columns - 1)
    top, left = jnp.floor(down).astype(jnp.int32), jnp.floor(across).astype(jnp.int32)
    bottom, right = jnp.ceil(down).astype(jnp.int32), jnp.ceil(across).astype(jnp.int32)
    flat = features.reshape(height * width, channels).astype(jnp.float32)

    def read(row: jax.Array, column: jax.Array) -> jax.Array:
        index = (row * width + column).reshape(height * width, channels)
        return jnp.take_along_axis(flat, index, axis=0, mode="promise_in_bounds").reshape(features.shape)

    below, aside = down - top, across - left
    upper = read(top, left) * (1 - aside) + read(top, right) * aside
    lower = read(bottom, left) * (1 - aside) + read(bottom, right) * aside
    return jnp.where(inside, upper * (1 - below) + lower * below, 0.0).astype(features.dtype)


def _interleaved(
    pairs: jax.Array, y: jax.Array, x: jax.Array, rows: jax.Array | int, columns: jax.Array | int
) -> jax.Array:
    """(h, w, C, 2) displacements of the positions (y, x), (h, w) each, from `pairs` (h, w, C, 2) as they are stored."""
    entry = 2 * (y * columns + x)[..., None] + jnp.arange(2)  # (h, w, 2), in a map of rows x columns
    half, place = entry // (rows * columns), entry % (rows * columns)
    return pairs[place // columns, place % columns, :, half].swapaxes(-1, -2)
