"""Which part of a padded canvas belongs to the image.

Images of many sizes share a few canvas shapes, so that nothing recompiles; the results must not depend on
the canvas. The extent of an image is its size rounded up to a multiple of 32: exactly the shape to which the
PyTorch project zero-pads an image alone, so that its numbers are reproduced on any canvas. Beyond the extent
activations are zeroed before a convolution reads them, and sums and statistics leave them out.
"""

import dataclasses

import jax
import jax.numpy as jnp

MULTIPLE = 32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Extent:
    """The extents of B images."""

    sizes: jax.Array
    """(B, 2) int32, height and width in pixels, multiples of 32."""

    @classmethod
    def of(cls, image_sizes: jax.Array) -> "Extent":
        """From (B, 2) image sizes in pixels."""
        return cls((image_sizes + MULTIPLE - 1) // MULTIPLE * MULTIPLE)

    def mask(self, features: jax.Array, stride: int) -> jax.Array:
        """(B, h, w, 1) of 0 and 1 in the dtype of `features` (B, h, w, C), which has the given stride."""
        limits = self._limits(stride)
        rows = jnp.arange(features.shape[1])[None, :] < limits[:, :1]  # (B, h)
        columns = jnp.arange(features.shape[2])[None, :] < limits[:, 1:]  # (B, w)
        return (rows[:, :, None] & columns[:, None, :])[..., None].astype(features.dtype)

    def repeat_edge(self, features: jax.Array, stride: int) -> jax.Array:
        """`features` (B, h, w, C) with the last row and column of the extent once more right beyond it.

        RoIAlign repeats the border where a map ends. This gives it the same pixels to read where the map goes on.
        """
        limits = self._limits(stride)
        rows = jnp.arange(features.shape[1])[None, :] == limits[:, :1]  # (B, h)
        columns = jnp.arange(features.shape[2])[None, :] == limits[:, 1:]  # (B, w)
        y = jnp.where(rows[:, :, None, None], jnp.roll(features, 1, axis=1), features)
        return jnp.where(columns[:, None, :, None], jnp.roll(y, 1, axis=2), y)

    def _limits(self, stride: int) -> jax.Array:
        """(B, 2) int32, rows and columns of a map of this stride that lie in the extent."""
        return -(-self.sizes // stride)
