"""Co-attention between target and references, with the channel gate: modeling/match block of the PyTorch project.

For one level, with a the reference features and d the target features (N_a and N_d positions, C channels):
affinity f = theta(a)^T phi(d); d' = Q(f^T g(a) / N_a) + d; a' = W(f g(d) / N_d) + a. There is no softmax, so the
products re-associate: theta (phi^T g) costs (N_a + N_d) C^2 instead of N_a N_d C, and f is never stored; the
cheaper order is chosen by size when the function is traced. A gate made of a' multiplies both (CBAM, Woo et al.
2018). The RPN reads d' ungated, the heads the gated pair.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fsis_jax.models.layers import BatchNorm, GroupNorm, Training, conv, relu


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Match:
    """What one level's co-attention gives."""

    rpn: jax.Array
    """(B, h, w, C) d', for the RPN."""
    target: jax.Array
    """(B, h, w, C) gated d', for the heads."""
    reference: jax.Array | None
    """(B, hr, wr, C) gated a', for the heads; None without references."""
    gate: jax.Array | None = None
    """(B, C) in 0..1, where there is one."""


class ChannelGate(nnx.Module):
    """sigmoid(mlp(mean over positions) + mlp(max over positions)), mlp = C -> C/16 -> C."""

    def __init__(self, channels: int, *, reduction: int = 16, rngs: nnx.Rngs) -> None:
        self.fc1 = nnx.Linear(channels, max(channels // reduction, 4), rngs=rngs)
        self.fc2 = nnx.Linear(max(channels // reduction, 4), channels, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, h, w, C) -> (B, C) float32."""
        x = x.astype(jnp.float32)
        pooled = jnp.stack([x.mean((1, 2)), x.max((1, 2))])  # (2, B, C)
        return jax.nn.sigmoid(self.fc2(relu(self.fc1(pooled))).sum(0))


class CoAttention(nnx.Module):
    """One set of weights for all levels.

    Args:
        channels: C.
        norm: "batch" (the original) or "group", after the projections W and Q; their scale starts at 0.
    """

    def __init__(self, channels: int, *, norm: str, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        if norm not in ("batch", "group"):
            raise ValueError(f"co-attention norm is {norm!r}; it must be 'batch' or 'group'")
        inner = channels // 2
        init = jax.nn.initializers.lecun_normal()
        self.g = conv(channels, inner, 1, dtype=dtype, rngs=rngs, kernel_init=init)
        self.theta = conv(channels, inner, 1, dtype=dtype, rngs=rngs, kernel_init=init)
        self.phi = conv(channels, inner, 1, dtype=dtype, rngs=rngs, kernel_init=init)
        self.reference_out = conv(inner, channels, 1, dtype=dtype, rngs=rngs, kernel_init=init)  # W
        self.target_out = conv(inner, channels, 1, dtype=dtype, rngs=rngs, kernel_init=init)  # Q
        make = BatchNorm if norm == "batch" else GroupNorm
        self.reference_norm = make(channels, zero_init=True)
        self.target_norm = make(channels, zero_init=True)
        self.gate = ChannelGate(channels, rngs=rngs)

    def __call__(
        self,
        target: jax.Array,
        reference: jax.Array,
        mask: jax.Array | None = None,
        training: Training | None = None,
    ) -> Match:
        """Relate target and references of one level.

        Args:
            target: (B, h, w, C).
            reference: (B, hr, wr, C), the mean over the shots.
            mask: (B, h, w, 1), 0 where the target is padding.
            training: batch statistics in the norms.
        """
        g_target, phi = _flat(self.g(target)), _flat(self.phi(target))  # (B, N_d, C/2)
        g_reference, theta = _flat(self.g(reference)), _flat(self.theta(reference))  # (B, N_a, C/2)
        count = jnp.float32(phi.shape[1])
        if mask is not None:
            positions = _flat(mask)  # (B, N_d, 1)
            g_target, phi = g_target * positions, phi * positions
            count = positions.astype(jnp.float32).sum(1, keepdims=True)  # (B, 1, 1)
        to_reference = _attend(theta, phi, g_target) / count.astype(theta.dtype)  # (B, N_a, C/2)
        to_target = _attend(phi, theta, g_reference) / theta.shape[1]  # (B, N_d, C/2)
        to_reference = self.reference_out(to_reference.reshape(*reference.shape[:3], -1))
        to_target = self.target_out(to_target.reshape(*target.shape[:3], -1))
        reference = reference + self.reference_norm(to_reference, None, training)
        target = target + self.target_norm(to_target, mask, training)
        gate = self.gate(reference)
        scale = gate[:, None, None].astype(target.dtype)
        return Match(rpn=target, target=target * scale, reference=reference * scale, gate=gate)


def _flat(x: jax.Array) -> jax.Array:
    """(B, h, w, C) -> (B, h * w, C)."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _attend(rows: jax.Array, columns: jax.Array, values: jax.Array) -> jax.Array:
    """(rows columns^T) values for (B, N, c), (B, M, c), (B, M, c), in the cheaper order: (B, N, c)."""
    n, m, c = rows.shape[1], columns.shape[1], rows.shape[2]
    if n * m < (n + m) * c:
        return jnp.einsum("bnm,bmc->bnc", jnp.einsum("bnc,bmc->bnm", rows, columns), values)
    return jnp.einsum("bnc,bcd->bnd", rows, jnp.einsum("bmc,bmd->bcd", columns, values))
