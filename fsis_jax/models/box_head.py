"""Relation box head: is the roi a cell like the references, and where exactly is it?

`relation="concat"` is the PyTorch
project's relation R-CNN (modeling/fast_rcnn_heads.py): two linear maps on the concatenation, without an
activation between, so that the class logit is the sum of a term of the roi and a term of the references.
`relation="compare"` is ours: a hidden layer also sees the absolute difference of the two embeddings, so that the
head itself can tell a cell like the references from another. `relation="none"` is the original's ablation, blind to
the references. The reference side is computed once per level, not once per roi.

Both sides pass the same embedding: two fully connected layers with a pyramid, the backbone's last stage (res5) without.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fsis_jax.models.blocks import Block
from fsis_jax.models.layers import Training
from fsis_jax.models.resnet import run_stage

small_normal = jax.nn.initializers.normal(0.01)
tiny_normal = jax.nn.initializers.normal(0.001)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RoiFeatures:
    """What a head reads of R rois of each of B images. With C4 it has passed res5."""

    rois: jax.Array
    """(B, R, p, p, C)."""
    references: jax.Array
    """(B, L, p, p, C), the reference features of each level, resized to p x p."""
    level_index: jax.Array
    """(B, R) int32 in 0..L-1, the level of each roi."""

    def first(self, count: int) -> "RoiFeatures":
        """Of the first rois of each image."""
        return RoiFeatures(self.rois[:, :count], self.references, self.level_index[:, :count])


class FullyConnected(nnx.Module):
    """Two fully connected layers.

    Args:
        channels: C of the pooled features.
        pooled: side of the pooled features.
        hidden: width of the layers.
    """

    def __init__(self, channels: int, *, pooled: int, hidden: int, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.fc1 = nnx.Linear(channels * pooled * pooled, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, hidden, dtype=dtype, rngs=rngs)
        self.channels = hidden

    def __call__(self, maps: jax.Array) -> jax.Array:
        """(B, N, p, p, C) -> (B, N, hidden)."""
        x = maps.reshape(*maps.shape[:-3], -1)
        return nnx.relu(self.fc2(nnx.relu(self.fc1(x))))


class Res5(nnx.Module):
    """The last stage of a ResNet at the stride of its input (`maps`, which the mask head reads too), then the mean.

    Args:
        stage: its blocks.
        channels: that the stage gives.
        remat: see `run_stage`.
    """

    def __init__(self, stage: nnx.List[Block], channels: int, *, remat: bool = False) -> None:
        self.blocks = stage
        self.channels = channels
        self.remat = remat

    def maps(
        self, features: RoiFeatures, valid: jax.Array | None = None, training: Training | None = None
    ) -> RoiFeatures:
        """The stage's output on both sides, C becoming `channels`.

        Args:
            features: pooled rois and references.
            valid: (B, R) bool, rois that enter batch statistics; all if None.
            training: for the norms. The original repeats the references for every roi: they count as often.
        """
        valid = jnp.ones(features.level_index.shape, bool) if valid is None else valid
        levels = features.references.shape[1]
        rois_of_level = (jax.nn.one_hot(features.level_index, levels) * valid[..., None]).sum(1)  # (B, L)
        return dataclasses.replace(
            features,
            rois=self._run(features.rois, valid.astype(jnp.float32), training),
            references=self._run(features.references, rois_of_level, training),
        )

    def _run(self, x: jax.Array, weights: jax.Array, training: Training | None) -> jax.Array:
        """(B, N, p, p, C), each counted as often as (B, N) weights say."""
        if training is not None:
            training = dataclasses.replace(training, weights=weights.reshape(-1))
        y = run_stage(self.blocks, x.reshape(-1, *x.shape[2:]), None, 1, training, remat=self.remat)
        return y.reshape(*x.shape[:2], *y.shape[1:])

    def __call__(self, maps: jax.Array) -> jax.Array:
        """(B, N, p, p, channels) -> (B, N, channels)."""
        return maps.mean((2, 3))


class RelationBoxHead(nnx.Module):
    """Args:
    embedding: of pooled features.
    relation: "concat", "compare" or "none".
    box_columns: 8 (background and foreground; converted weights) or 4.
    """

    def __init__(
        self,
        embedding: FullyConnected | Res5,
        *,
        relation: str,
        box_columns: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.relation = relation
        self.embedding = embedding
        hidden = embedding.channels
        if relation == "compare":
            self.pair = nnx.Linear(2 * hidden, hidden, dtype=dtype, rngs=rngs)
            self.difference = nnx.Linear(hidden, hidden, use_bias=False, dtype=dtype, rngs=rngs)
            class_in = box_in = hidden
        else:
            inputs = hidden if relation == "none" else 2 * hidden
            self.class_pair = nnx.Linear(inputs, 8, dtype=dtype, rngs=rngs)
            self.box_pair = nnx.Linear(inputs, 32, dtype=dtype, rngs=rngs)
            class_in, box_in = 8, 32
        self.class_out = nnx.Linear(class_in, 2, dtype=dtype, rngs=rngs, kernel_init=small_normal)
        self.box_out = nnx.Linear(box_in, box_columns, dtype=dtype, rngs=rngs, kernel_init=tiny_normal)

    def __call__(self, features: RoiFeatures) -> tuple[jax.Array, jax.Array]:
        """Logits (B, R, 2), background and foreground, and deltas (B, R, box_columns), float32."""
        x = self.embedding(features.rois)  # (B, R, hidden)
        if self.relation == "none":
            class_in, box_in = self.class_pair(x), self.box_pair(x)
        else:
            y, level_index = self.embedding(features.references), features.level_index  # (B, L, hidden)
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
