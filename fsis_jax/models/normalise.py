"""From 8-bit pixels to what the network reads: a separate jitted function, so that the detector takes float32."""

import functools

import jax
import jax.numpy as jnp

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet, RGB; the PyTorch project's prep_im_for_blob."""


@functools.partial(jax.jit, inline=True, static_argnames="mean")
def normalise(
    images: jax.Array, image_sizes: jax.Array | None = None, *, mean: tuple[float, float, float] = MEAN
) -> jax.Array:
    """(..., H, W, 3) uint8 -> float32; with `image_sizes` (B, 2), zero outside the image, as the original pads.

    Args:
        mean: what becomes 0, of red, green and blue from 0 to 1 (the config's `model.image_mean`).
    """
    y = (images.astype(jnp.float32) / 255.0 - jnp.array(mean)) / jnp.array(STD)
    if image_sizes is None:
        return y
    rows = jnp.arange(images.shape[1])[None, :] < image_sizes[:, :1]  # (B, H)
    columns = jnp.arange(images.shape[2])[None, :] < image_sizes[:, 1:]  # (B, W)
    return y * (rows[:, :, None] & columns[:, None, :])[..., None]
