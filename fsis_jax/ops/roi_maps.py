"""Which part of the feature maps each roi reads: of one map, or of the levels of a pyramid, laid end to end.

An op for the many rois of a pyramid then costs as much as one for a single map: every roi reads from where its level
begins. What RoIAlign and RoIPool share.

Letters: R rois, h w feature map, C channels, L levels, P pixels of all maps.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class RoiMaps(NamedTuple):
    """The map of each roi within the flattened features (P, C); (R,) each."""

    scale: jax.Array
    """float32, feature pixels per image pixel."""
    heights: jax.Array
    """int32, rows at which the map is taken to end."""
    widths: jax.Array
    """int32, columns."""
    first: jax.Array
    """int32, row of the flattened features that holds pixel (0, 0)."""
    pitch: jax.Array
    """int32, rows of the flattened features from one row of the map to the next."""


def one_map(features: jax.Array, number: int, spatial_scale: float) -> tuple[jax.Array, RoiMaps]:
    """(P, C) and the maps of `number` rois, which all read `features` (h, w, C)."""
    height, width, channels = features.shape
    rows, columns, zero = (jnp.full(number, value, jnp.int32) for value in (height, width, 0))
    scale = jnp.full(number, spatial_scale, jnp.float32)
    return features.reshape(-1, channels), RoiMaps(scale, rows, columns, first=zero, pitch=columns)


def pyramid_maps(
    features: Mapping[int, jax.Array], levels: jax.Array, limits: jax.Array | None
) -> tuple[jax.Array, RoiMaps]:
    """(P, C) of all levels and the maps of rois of `levels` (R,); arguments as for `multilevel_roi_align`."""
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
