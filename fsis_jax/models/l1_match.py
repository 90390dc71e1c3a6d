"""The PyTorch project's ablation of co-attention (its option --close_co_atten): target features beside their
distance from the mean of the reference features."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fsis_jax.models.co_attention import Match
from fsis_jax.models.layers import Training, conv


class L1Match(nnx.Module):
    """conv1x1(concat(d, |d - mean(a)|)) with d the target and a the reference features, which stay as they are.

    Args:
        channels: C.
    """

    def __init__(self, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        init = jax.nn.initializers.lecun_normal()
        self.conv = conv(2 * channels, channels, 1, dtype=dtype, rngs=rngs, kernel_init=init)

    def __call__(
        self,
        target: jax.Array,
        reference: jax.Array,
        mask: jax.Array | None = None,
        training: Training | None = None,
    ) -> Match:
        """As `CoAttention`; nothing depends on `training`."""
        distance = jnp.abs(target - reference.mean((1, 2), keepdims=True))
        matched = self.conv(jnp.concatenate([target, distance], axis=-1))
        if mask is not None:
            matched = matched * mask
        return Match(rpn=matched, target=matched, reference=reference)
