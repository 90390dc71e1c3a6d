"""Which part of a padded canvas belongs to the image.

Images of many sizes share a few canvas shapes, so that nothing recompiles; the results must not depend on
the canvas. The extent of an image is what the PyTorch project would give to its network: with a pyramid the image's
size rounded up to a multiple of 32, without one the size itself. Beyond the extent activations are zeroed before a
convolution reads them, sums and statistics leave them out, and RoIAlign takes the map to end.

All divisors are powers of two, so sizes are shifted: a division rounded down is a dozen operations, which the compiler
copies into each of the hundreds of kernels that read a mask.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Extent:
    """The extents of B images."""

    sizes: jax.Array
    """(B, 2) int32, height and width in pixels."""
    padded_pool: bool = dataclasses.field(default=False, metadata={"static": True})
    """How the backbone's stem rounds, see `limits`."""

    @classmethod
    def of(cls, image_sizes: jax.Array, multiple: int, *, padded_pool: bool = False) -> "Extent":
        """From (B, 2) image sizes in pixels, rounded up to a multiple, a power of two."""
        return cls((image_sizes + multiple - 1) & -multiple, padded_pool)

    def limits(self, stride: int) -> jax.Array:
        """(B, 2) int32, rows and columns of a backbone's map of this stride that lie in the extent.

        Every halving rounds up, but for a stem's max pool without padding, which needs two pixels for one.
        """
        if stride == 1:
            return self.sizes
        half = (self.sizes + 1) >> 1
        if stride == 2:
            return half
        quarter = (half + 1) >> 1 if self.padded_pool else half >> 1
        further = stride // 4
        return (quarter + further - 1) >> (further.bit_length() - 1)

    def mask(self, features: jax.Array, stride: int) -> jax.Array:
        """(B, h, w, 1) of 0 and 1 in the dtype of `features` (B, h, w, C), which has the given stride."""
        limits = self.limits(stride)
        rows = jnp.arange(features.shape[1])[None, :] < limits[:, :1]  # (B, h)
        columns = jnp.arange(features.shape[2])[None, :] < limits[:, 1:]  # (B, w)
        return (rows[:, :, None] & columns[:, None, :])[..., None].astype(features.dtype)
