"""Relation box head: is the roi a cell like the references, and where exactly is it?

Roi features and reference features pass the same two fully connected layers. `relation="concat"` is the PyTorch
project's relation R-CNN (modeling/fast_rcnn_heads.py): two linear maps on the concatenation, without an
activation between, so that the class logit is the sum of a term of the roi and a term of the references.
`relation="compare"` is ours: a hidden layer also sees the absolute difference of the two embeddings, so that the
head itself can tell a cell like the references from another. The reference side is computed once per level, not
once per roi.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

small_normal = jax.nn.initializers.normal(0.01)
tiny_normal = jax.nn.initializers.normal(0.001)


class RelationBoxHead(nnx.Module):
    """Args:
    channels: C of the pooled features.
    pooled: side of the pooled features.
    hidden: width of the two shared layers.
    relation: "concat" or "compare".
    box_columns: 8 (background and foreground; converted weights) or 4.
    """

    def __init__(
        self,
        channels: int,
        *,
        pooled: int,
        hidden: int,
        relation: str,
        box_columns: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        if relation not in ("concat", "compare"):
            raise ValueError(f"box_head.relation is {relation!r}; it must be 'concat' or 'compare'")
        self.relation = relation
        self.fc1 = nnx.Linear(channels * pooled * pooled, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, hidden, dtype=dtype, rngs=rngs)
        if relation == "concat":
            self.class_pair = nnx.Linear(2 * hidden, 8, dtype=dtype, rngs=rngs)
            self.box_pair = nnx.Linear(2 * hidden, 32, dtype=dtype, rngs=rngs)
            class_in, box_in = 8, 32
        else:
            self.pair = nnx.Linear(2 * hidden, hidden, dtype=dtype, rngs=rngs)
            self.difference = nnx.Linear(hidden, hidden, use_bias=False, dtype=dtype, rngs=rngs)
            class_in = box_in = hidden
        self.class_out = nnx.Linear(class_in, 2, dtype=dtype, rngs=rngs, kernel_init=small_normal)
        self.box_out = nnx.Linear(box_in, box_columns, dtype=dtype, rngs=rngs, kernel_init=tiny_normal)

    def embed(self, pooled: jax.Array) -> jax.Array:
        """(..., p, p, C) -> (..., hidden)."""
        x = pooled.reshape(*pooled.shape[:-3], -1)
        return nnx.relu(self.fc2(nnx.relu(self.fc1(x))))

    def __call__(
        self, pooled: jax.Array, reference_pooled: jax.Array, level_index: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Args:
        pooled: (B, R, p, p, C) features of the rois.
        reference_pooled: (B, L, p, p, C) reference features of each level, resized to p x p.
        level_index: (B, R) int32 in 0..L-1, the level of each roi.

        Returns:
            Logits (B, R, 2), background and foreground, and deltas (B, R, box_columns), float32.
        """
        x, y = self.embed(pooled), self.embed(reference_pooled)  # (B, R, hidden), (B, L, hidden)
        if self.relation == "concat":
            class_in = _linear_of_pair(self.class_pair, x, y, level_index)
            box_in = _linear_of_pair(self.box_pair, x, y, level_index)
        else:
            gap = jnp.abs(x - jnp.take_along_axis(y, level_index[..., None], 1))
            class_in = nnx.relu(_linear_of_pair(self.pair, x, y, level_index) + self.difference(gap))
            box_in = class_in
        return self.class_out(class_in).astype(jnp.float32), self.box_out(box_in).astype(jnp.float32)


def _linear_of_pair(layer: nnx.Linear, x: jax.Array, y: jax.Array, level_index: jax.Array) -> jax.Array:
    """layer(concat(x, y[level])) without the concatenation: x (B, R, c), y (B, L, c) -> (B, R, out)."""
    width = x.shape[-1]
    kernel = layer.kernel[...].astype(x.dtype)
    of_reference = y @ kernel[width:]  # (B, L, out)
    bias = jnp.zeros((), x.dtype) if layer.bias is None else layer.bias[...].astype(x.dtype)
    return x @ kernel[:width] + jnp.take_along_axis(of_reference, level_index[..., None], 1) + bias
