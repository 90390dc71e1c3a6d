"""Feature pyramid network (Lin et al. 2017), as modeling/FPN.py of the PyTorch project.

Lateral 1x1 convolutions, nearest x2 top-down sums, one 3x3 convolution a level; P6 is every second row and
column of P5. Levels are dictionary keys, 2 (stride 4) to 6 (stride 64).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fsis_jax.models.extent import Extent
from fsis_jax.models.layers import GroupNorm, conv

lecun_uniform = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


class FPN(nnx.Module):
    """The feature pyramid: all levels with the same number of channels.

    Args:
        channels_in: channels of the backbone's levels, from level 2 on.
        channels: C, the same at all levels.
        norm: "none", or "group" for training from scratch.
        coarsest: 6 to append P6, or the backbone's last level.
        finest_only: give level 2 alone (the P2only bodies).
    """

    def __init__(
        self,
        channels_in: Sequence[int],
        channels: int,
        *,
        norm: str,
        coarsest: int,
        finest_only: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        if norm not in ("none", "group"):
            raise ValueError(f"fpn norm is {norm!r}; it must be 'none' or 'group'")
        last = 1 + len(channels_in)
        if coarsest not in (last, last + 1):
            raise ValueError(f"coarsest pyramid level is {coarsest}; it must be {last} or {last + 1}")
        self.levels = (2,) if finest_only else tuple(range(2, last + 1))
        self.coarsest = 2 if finest_only else coarsest
        self.lateral = nnx.List(
            conv(inputs, channels, 1, dtype=dtype, rngs=rngs, kernel_init=lecun_uniform) for inputs in channels_in
        )
        self.output = nnx.List(
            conv(channels, channels, 3, dtype=dtype, rngs=rngs, kernel_init=lecun_uniform) for _ in self.levels
        )
        group = norm == "group"
        self.lateral_norm = nnx.List(GroupNorm(channels) for _ in channels_in if group)
        self.output_norm = nnx.List(GroupNorm(channels) for _ in self.levels if group)

    def __call__(self, features: dict[int, jax.Array], extent: Extent | None) -> dict[int, jax.Array]:
        """{level: (B, h, w, C_level)} -> {level: (B, h, w, C)}, zero outside the extent."""
        outputs: dict[int, jax.Array] = {}
        above: jax.Array | None = None
        for index in reversed(range(len(self.lateral))):
            level = 2 + index
            x = self.lateral[index](features[level])
            mask = None if extent is None else extent.mask(x, 2**level)
            if self.lateral_norm:
                x = self.lateral_norm[index](x, mask)
            if above is not None:
                x = x + _upsample(above, x.shape[1], x.shape[2])
            x = x if mask is None else x * mask
            above = x
            if level not in self.levels:
                continue
            x = self.output[index](x)
            if self.output_norm:
                x = self.output_norm[index](x, mask)
            outputs[level] = x if mask is None else x * mask
        if self.coarsest > self.levels[-1]:
            outputs[self.coarsest] = outputs[self.levels[-1]][:, ::2, ::2]
        return dict(sorted(outputs.items()))


def _upsample(x: jax.Array, height: int, width: int) -> jax.Array:
    """Nearest x2, cut to (height, width) where a level has an odd side."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, :height, :width]
