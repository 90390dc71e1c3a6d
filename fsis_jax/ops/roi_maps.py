"""Which part of the feature maps each roi reads: of one map, or of the levels of a pyramid, laid end to end.

An op for the many rois of a pyramid then costs as much as one for a single map: every roi reads from where its level
begins. What RoIAlign and RoIPool share.

Letters: R rois, h w feature map, C channels, L levels, P pixels of all maps.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, Num

from fsis_jax.ops.shapes import Scalar, check_shapes


class RoiMaps(NamedTuple):
    """The map of each roi within the flattened features (P, C); (R,) each."""

    scale: Float32[Array, " R"]
    """float32, feature pixels per image pixel."""
    heights: Int32[Array, " R"]
    """int32, rows at which the map is taken to end."""
    widths: Int32[Array, " R"]
    """int32, columns."""
    first: Int32[Array, " R"]
    """int32, row of the flattened features that holds pixel (0, 0)."""
    pitch: Int32[Array, " R"]
    """int32, rows of the flattened features from one row of the map to the next."""


def one_map(
    op: str, features: Float[Array, "h w C"], rois: Num[Array, "R 4"], spatial_scale: Scalar
) -> tuple[Float[Array, "P C"], RoiMaps]:
    """(P, C) and the maps of the rois, which all read `features`. Raises ValueError in the name of `op`."""
    check_shapes(op, features=(features, "h w C"), rois=(rois, "R 4"))
    number = rois.shape[0]
    height, width, channels = features.shape
    rows, columns, zero = (jnp.full(number, value, jnp.int32) for value in (height, width, 0))
    scale = jnp.full(number, spatial_scale, jnp.float32)
    return features.reshape(-1, channels), RoiMaps(scale, rows, columns, first=zero, pitch=columns)


def pyramid_maps(
    op: str,
    features: Mapping[int, Float[Array, "_ _ C"]],
    rois: Num[Array, "R 4"],
    levels: Int[Array, " R"],
    limits: Int[Array, "L 2"] | None,
) -> tuple[Float[Array, "P C"], RoiMaps]:
    """(P, C) of all levels and the maps of rois of `levels`; arguments as for `multilevel_roi_align`. Raises ValueError
    in the name of `op`."""
    check_shapes(
        op,
        rois=(rois, "R 4"),
        levels=(levels, "R"),
        **{f"features[{level}]": (x, f"h{level} w{level} C") for level, x in features.items()},
    )
    if limits is not None:
        check_shapes(op, limits=(limits, f"{len(features)} 2"))
    keys = sorted(features)
    maps = [features[level] for level in keys]
    sizes = np.array([feature.shape[:2] for feature in maps], np.int32)  # (L, 2)
    first = np.concatenate([[0], np.cumsum(sizes.prod(axis=1))[:-1]]).astype(np.int32)
    ends = jnp.asarray(sizes) if limits is None else limits
    row = jnp.argmin(jnp.abs(levels[:, None] - jnp.asarray(keys)), axis=1)  # (R,) row of the tables above
    flat = jnp.concatenate([feature.reshape(-1, feature.shape[-1]) for feature in maps])
    scale = jnp.asarray([2.0**-level for level in keys], jnp.float32)
    return flat, RoiMaps(
        scale[row], ends[row, 0], ends[row, 1], first=jnp.asarray(first)[row], pitch=jnp.asarray(sizes[:, 1])[row]
    )
