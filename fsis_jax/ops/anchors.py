"""Anchor boxes of an RPN.

Letters: A anchors per cell, h w feature map. A ratio is height / width. Sizes are the square root of an anchor's area,
in image pixels; strides are image pixels per cell.

Sources: Faster R-CNN (arXiv 1506.01497); Detectron `modeling/generate_anchors.py` for offset=1, rounding included.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Num

from fsis_jax.ops.shapes import check_shapes


def cell_anchors(
    sizes: float | Sequence[float], ratios: Sequence[float], *, stride: float, offset: int = 0
) -> Float32[np.ndarray, "A 4"]:
    """Anchors (A, 4) float32 of the cell at row 0, column 0; A = len(ratios) * len(sizes), the sizes vary fastest.

    offset=0: centred on the cell's centre (stride / 2), not rounded. offset=1: Detectron's, centred on
    (stride - 1) / 2, with the sides of the stride-sized base box rounded to whole pixels for each ratio, then scaled.
    """
    size = np.atleast_1d(np.asarray(sizes, np.float64))[None, :]
    ratio = np.asarray(ratios, np.float64)[:, None]
    if offset == 0:
        width, height = size / np.sqrt(ratio), size * np.sqrt(ratio)
    else:
        base_width = np.round(np.sqrt(stride * stride / ratio))
        base_height = np.round(base_width * ratio)
        width, height = base_width * (size / stride), base_height * (size / stride)
    centre = 0.5 * (stride - offset)
    half_width, half_height = 0.5 * (width - offset), 0.5 * (height - offset)
    sides = (centre - half_width, centre - half_height, centre + half_width, centre + half_height)
    return np.stack(sides, axis=-1).reshape(-1, 4).astype(np.float32)


def grid_anchors(
    cell: Num[Array | np.ndarray, "A 4"], feature_shape: tuple[int, int], stride: float
) -> Float32[Array, "N 4"]:
    """Anchors (h * w * A, 4) float32 of a feature map of shape (h, w): `cell` (A, 4) moved to every cell.

    Rows are ordered y, x, anchor, as a (h, w, A) prediction is when reshaped. Computed on the device, so that a large
    map does not become a large constant of the program.
    """
    check_shapes("grid_anchors", cell=(cell, "A 4"))
    height, width = feature_shape
    x = jnp.arange(width, dtype=jnp.float32) * stride
    y = jnp.arange(height, dtype=jnp.float32) * stride
    grid_y, grid_x = jnp.meshgrid(y, x, indexing="ij")
    shifts = jnp.stack([grid_x, grid_y, grid_x, grid_y], axis=-1)  # (h, w, 4)
    return (shifts[:, :, None, :] + jnp.asarray(cell, jnp.float32)).reshape(-1, 4)
