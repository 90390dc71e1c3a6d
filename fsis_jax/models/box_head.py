"""Box heads: what is the roi, and where exactly is it? Each reads an embedding of the pooled features.

`RelationBoxHead` tells a cell like the references from everything else. `relation="concat"` is the PyTorch project's
relation R-CNN (modeling/fast_rcnn_heads.py): two linear maps on the concatenation, without an activation between, so
that the class logit is the sum of a term of the roi and a term of the references. `relation="compare"` is ours: a
hidden layer also sees the absolute difference of the two embeddings, so that the head itself can tell a cell like the
references from another. "compare_bags" compares in the same way what occurs in the two maps wherever it is (bags of
features), since cells lie turned and the mean of several references blurs where things are. `relation="none"` is the
original's ablation, blind to the references. The reference side is computed once per level, not once per roi.
`ClassBoxHead` is that of a closed-set detector: C categories, no references.

Both sides pass the same embedding: two fully connected layers, convolutions and one, or a stage of the backbone.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fsis_jax.models.layers import GroupNorm, conv, relu, small_normal

tiny_normal = jax.nn.initializers.normal(0.001)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RoiFeatures:
    """What a head reads of R rois of each of B images; that of a trunk (`res5.py`) has passed it."""

    rois: jax.Array
    """(B, R, p, p, C)."""
    references: jax.Array | None
    """(B, L, p, p, C), the reference features of each level, resized to p x p; None without references."""
    level_index: jax.Array
    """(B, R) int32 in 0..L-1, the level of each roi."""
    votes: jax.Array | None = None
    """(B, R, p, p, 7), see `pooled_votes` of votes.py; None where there are none."""

    def first(self, count: int) -> "RoiFeatures":
        """The features of the first rois of each image."""
        return RoiFeatures(
            self.rois[:, :count],
            self.references,
            self.level_index[:, :count],
            None if self.votes is None else self.votes[:, :count],
        )

    @classmethod
    def chosen(cls, each: Sequence["RoiFeatures"], kinds: jax.Array) -> "RoiFeatures":
        """Of the same rois matched with K kinds of references, those features of each roi that its kind (B, R) has."""

        def of_kind(*values: jax.Array) -> jax.Array:
            rows = kinds.reshape(*kinds.shape, *[1] * (values[0].ndim - 2))
            return jnp.select([rows == kind for kind in range(len(values))], values)

        shown = [features.references for features in each if features.references is not None]
        levels = shown[0].shape[1] if shown else 0
        voted = [features.votes for features in each if features.votes is not None]
        return cls(
            of_kind(*(features.rois for features in each)),
            jnp.concatenate(shown, axis=1) if shown else None,
            each[0].level_index + levels * kinds,
            of_kind(*voted) if voted else None,
        )


class Embedding(Protocol):
    """From pooled features to a vector."""

    channels: int
    """c of the vectors."""

    def __call__(self, maps: jax.Array, /) -> jax.Array:
        """(B, N, p, p, C) -> (B, N, c)."""


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
        return relu(self.fc2(relu(self.fc1(x))))


class Convolutions(nnx.Module):
    """3x3 convolutions and one fully connected layer: roi_Xconv1fc_head and its form with group norm (Wu & He 2018).

    Args:
        channels_in: C of the pooled features.
        pooled: side of the pooled features.
        channels: of the convolutions.
        convs: their number.
        norm: "none" or "group".
        hidden: width of the fully connected layer.
    """

    def __init__(
        self,
        channels_in: int,
        *,
        pooled: int,
        channels: int,
        convs: int,
        norm: str,
        hidden: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        inputs = [channels_in, *[channels] * (convs - 1)]
        group = norm == "group"
        self.convs = nnx.List(conv(c, channels, 3, use_bias=not group, dtype=dtype, rngs=rngs) for c in inputs)
        self.norms = nnx.List(GroupNorm(channels) for _ in inputs if group)
        self.fc = nnx.Linear(channels * pooled * pooled, hidden, dtype=dtype, rngs=rngs)
        self.channels = hidden

    def __call__(self, maps: jax.Array) -> jax.Array:
        """(B, N, p, p, C) -> (B, N, hidden)."""
        x = maps.reshape(-1, *maps.shape[2:])
        for row, layer in enumerate(self.convs):
            x = layer(x)
            x = relu(self.norms[row](x) if self.norms else x)
        return relu(self.fc(x.reshape(*maps.shape[:2], -1)))


class ClassBoxHead(nnx.Module):
    """The outputs of a closed-set detector: Fast R-CNN's two (fast_rcnn_outputs of modeling/fast_rcnn_heads.py).

    Args:
        embedding: of pooled features.
        classes: number of categories C.
        boxes: of box outputs, four columns each.
    """

    def __init__(self, embedding: Embedding, *, classes: int, boxes: int, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.embedding = embedding
        hidden = embedding.channels
        self.class_out = nnx.Linear(hidden, classes + 1, dtype=dtype, rngs=rngs, kernel_init=small_normal)
        self.box_out = nnx.Linear(hidden, 4 * boxes, dtype=dtype, rngs=rngs, kernel_init=tiny_normal)

    def __call__(self, features: RoiFeatures) -> tuple[jax.Array, jax.Array]:
        """Logits (B, R, C + 1), background first, and deltas (B, R, 4 * boxes), float32."""
        x = self.embedding(features.rois)  # (B, R, hidden)
        return self.class_out(x).astype(jnp.float32), self.box_out(x).astype(jnp.float32)


class RelationBoxHead(nnx.Module):
    """Class scores and boxes of rois, by comparing their features with the references'.

    Args:
        embedding: of pooled features.
        channels: C of the maps that the embedding reads.
        relation: "concat", "compare", "compare_bags" or "none".
        boxes: box outputs: 2 (background and foreground; converted weights) or 1.
        votes: values of the pooled votes of a roi, which "compare" and "compare_bags" read too; 0: there are none.
    """

    def __init__(
        self,
        embedding: Embedding,
        *,
        channels: int,
        relation: str,
        boxes: int,
        votes: int = 0,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.relation = relation
        self.embedding = embedding
        hidden = embedding.channels
        if relation in ("compare", "compare_bags"):
            self.pair = nnx.Linear(2 * hidden, hidden, dtype=dtype, rngs=rngs)
            self.difference = nnx.Linear(hidden, hidden, use_bias=False, dtype=dtype, rngs=rngs)
            class_in = box_in = hidden
            if votes:
                self.vote_fc1 = nnx.Linear(votes, hidden, dtype=dtype, rngs=rngs)
                self.vote_fc2 = nnx.Linear(hidden, hidden, use_bias=False, dtype=dtype, rngs=rngs)
            if relation == "compare_bags":
                self.bag = nnx.Linear(channels, hidden, dtype=dtype, rngs=rngs)
                self.bag_pair = nnx.Linear(2 * hidden, hidden, use_bias=False, dtype=dtype, rngs=rngs)
                self.bag_difference = nnx.Linear(hidden, hidden, use_bias=False, dtype=dtype, rngs=rngs)
        else:
            inputs = hidden if relation == "none" else 2 * hidden
            self.class_pair = nnx.Linear(inputs, 8, dtype=dtype, rngs=rngs)
            self.box_pair = nnx.Linear(inputs, 32, dtype=dtype, rngs=rngs)
            class_in, box_in = 8, 32
        self.class_out = nnx.Linear(class_in, 2, dtype=dtype, rngs=rngs, kernel_init=small_normal)
        self.box_out = nnx.Linear(box_in, 4 * boxes, dtype=dtype, rngs=rngs, kernel_init=tiny_normal)

    def __call__(self, features: RoiFeatures) -> tuple[jax.Array, jax.Array]:
        """Logits (B, R, 2), background and foreground, and deltas (B, R, 4 * boxes), float32."""
        x = self.embedding(features.rois)  # (B, R, hidden)
        if self.relation == "none":
            class_in, box_in = self.class_pair(x), self.box_pair(x)
        else:
            assert features.references is not None
            y, level_index = self.embedding(features.references), features.level_index  # (B, L, hidden)
            if self.relation == "concat":
                class_in = _linear_of_pair(self.class_pair, x, y, level_index)
                box_in = _linear_of_pair(self.box_pair, x, y, level_index)
            else:
                mixed = _compared(self.pair, self.difference, x, y, level_index)
                if self.relation == "compare_bags":
                    x, y = self._bag_of(features.rois), self._bag_of(features.references)
                    mixed += _compared(self.bag_pair, self.bag_difference, x, y, level_index)
                if features.votes is not None:
                    flat = features.votes.reshape(*features.votes.shape[:2], -1)
                    mixed += self.vote_fc2(relu(self.vote_fc1(flat)))
                class_in = box_in = relu(mixed)
        return self.class_out(class_in).astype(jnp.float32), self.box_out(box_in).astype(jnp.float32)

    def _bag_of(self, maps: jax.Array) -> jax.Array:
        """(B, N, p, p, C) -> (B, N, hidden): what occurs in the maps, wherever it is."""
        return relu(self.bag(maps)).mean((2, 3))


def _compared(
    pair: nnx.Linear, difference: nnx.Linear, x: jax.Array, y: jax.Array, level_index: jax.Array
) -> jax.Array:
    gap = jnp.abs(x - jnp.take_along_axis(y, level_index[..., None], 1))
    return _linear_of_pair(pair, x, y, level_index) + difference(gap)


def _linear_of_pair(layer: nnx.Linear, x: jax.Array, y: jax.Array, level_index: jax.Array) -> jax.Array:
    """layer(concat(x, y[level])) without the concatenation: x (B, R, c), y (B, L, c) -> (B, R, out)."""
    width = x.shape[-1]
    kernel = layer.kernel[...].astype(x.dtype)
    of_reference = y @ kernel[width:]  # (B, L, out)
    bias = jnp.zeros((), x.dtype) if layer.bias is None else layer.bias[...].astype(x.dtype)
    return x @ kernel[:width] + jnp.take_along_axis(of_reference, level_index[..., None], 1) + bias
