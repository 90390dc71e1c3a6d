"""Random rois for the tests of RoIAlign, RoIPool and RoICrop."""

import jax
import jax.numpy as jnp
import numpy as np


def random_case(
    seed: int, number: int = 9, height: int = 7, width: int = 10, channels: int = 3
) -> tuple[jax.Array, jax.Array]:
    """A map, and rois of an image four times as large, some across its border or beyond it."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(-12, 44, (number, 2))
    rois = np.concatenate([low, low + rng.uniform(0.5, 50, (number, 2))], axis=1).astype(np.float32)
    return jnp.asarray(rng.standard_normal((height, width, channels)), jnp.float32), jnp.asarray(rois)
