"""The relation heads against the concatenations that they avoid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_detector import randomise

from fsis_jax.models.box_head import RelationBoxHead
from fsis_jax.models.mask_head import RelationMaskHead

BATCH, ROIS, LEVELS, SIDE, CHANNELS = 2, 5, 3, 4, 6
LEVEL_INDEX = np.array([[0, 2, 1, 1, 2], [2, 2, 0, 1, 0]], np.int32)


def box_head(relation: str, box_columns: int = 8) -> RelationBoxHead:
    def build() -> RelationBoxHead:
        return RelationBoxHead(
            CHANNELS,
            pooled=SIDE,
            hidden=12,
            relation=relation,
            box_columns=box_columns,
            dtype=jnp.float32,
            rngs=nnx.Rngs(0),
        )

    return randomise(nnx.eval_shape(build))


def mask_head(convs: int = 2, outputs: int = 2) -> RelationMaskHead:
    def build() -> RelationMaskHead:
        return RelationMaskHead(CHANNELS, channels=7, convs=convs, outputs=outputs, dtype=jnp.float32, rngs=nnx.Rngs(0))

    return randomise(nnx.eval_shape(build))


@pytest.fixture(scope="module")
def pooled() -> tuple[np.ndarray, np.ndarray]:
    """Features of the rois, and of the references on each level."""
    rng = np.random.default_rng(0)
    rois = rng.normal(size=(BATCH, ROIS, SIDE, SIDE, CHANNELS)).astype(np.float32)
    references = rng.normal(size=(BATCH, LEVELS, SIDE, SIDE, CHANNELS)).astype(np.float32)
    return rois, references


def of_each_roi(references: np.ndarray) -> np.ndarray:
    """(B, R, ...) the references' features on each roi's level: the copies that the heads never make."""
    return np.stack([references[row, LEVEL_INDEX[row]] for row in range(BATCH)])


def linear(layer: nnx.Linear, x: np.ndarray) -> np.ndarray:
    y = x @ np.asarray(layer.kernel[...])
    return y if layer.bias is None else y + np.asarray(layer.bias[...])


def test_concat_relation(pooled: tuple[np.ndarray, np.ndarray]) -> None:
    head = box_head("concat")
    logits, deltas = jax.jit(head)(*pooled, LEVEL_INDEX)
    x, y = np.asarray(head.embed(pooled[0])), of_each_roi(np.asarray(head.embed(pooled[1])))
    both = np.concatenate([x, y], -1)
    np.testing.assert_allclose(logits, linear(head.class_out, linear(head.class_pair, both)), atol=1e-4)
    np.testing.assert_allclose(deltas, linear(head.box_out, linear(head.box_pair, both)), atol=1e-4)


def test_compare_relation(pooled: tuple[np.ndarray, np.ndarray]) -> None:
    head = box_head("compare", box_columns=4)
    logits, deltas = jax.jit(head)(*pooled, LEVEL_INDEX)
    x, y = np.asarray(head.embed(pooled[0])), of_each_roi(np.asarray(head.embed(pooled[1])))
    hidden = linear(head.pair, np.concatenate([x, y], -1)) + linear(head.difference, np.abs(x - y))
    hidden = np.maximum(hidden, 0)
    np.testing.assert_allclose(logits, linear(head.class_out, hidden), atol=1e-4)
    np.testing.assert_allclose(deltas, linear(head.box_out, hidden), atol=1e-4)


def test_embedding_reads_rows_then_columns_then_channels(pooled: tuple[np.ndarray, np.ndarray]) -> None:
    head = box_head("concat")
    flat = pooled[0].reshape(BATCH, ROIS, SIDE * SIDE * CHANNELS)
    expected = np.maximum(linear(head.fc2, np.maximum(linear(head.fc1, flat), 0)), 0)
    np.testing.assert_allclose(head.embed(pooled[0]), expected, atol=1e-4)


def test_unknown_relation() -> None:
    with pytest.raises(ValueError, match=r"box_head\.relation is 'product'; it must be 'concat' or 'compare'"):
        box_head("product")


def naive_conv(layer: nnx.Conv, x: np.ndarray) -> np.ndarray:
    """(N, s, s, c) with the layer's 3x3 kernel, zero-padded."""
    kernel, side = np.asarray(layer.kernel[...]), x.shape[1]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = [(padded[:, i : i + side, j : j + side], kernel[i, j]) for i in range(3) for j in range(3)]
    return sum(window @ weights for window, weights in windows) + np.asarray(layer.bias[...])


def naive_mask_head(head: RelationMaskHead, x: np.ndarray) -> np.ndarray:
    """Concatenated features (N, s, s, 2C) -> (N, 2s, 2s, outputs)."""
    for layer in (head.first, *head.convs):
        x = np.maximum(naive_conv(layer, x), 0)
    count, side = x.shape[:2]
    kernel = np.asarray(head.upsample.kernel[...]).reshape(x.shape[-1], 2, 2, -1)
    up = np.zeros((count, 2 * side, 2 * side, kernel.shape[-1]))
    for i in range(2):
        for j in range(2):  # as a transposed convolution: every position writes its own 2x2 block
            up[:, i::2, j::2] = x @ kernel[:, i, j]
    up = np.maximum(up + np.asarray(head.upsample_bias[...]), 0)
    return up @ np.asarray(head.out.kernel[...])[0, 0] + np.asarray(head.out.bias[...])


@pytest.mark.parametrize(("convs", "outputs"), [(2, 2), (1, 1)])
def test_mask_head(pooled: tuple[np.ndarray, np.ndarray], convs: int, outputs: int) -> None:
    head = mask_head(convs, outputs)
    found = jax.jit(head)(*pooled, LEVEL_INDEX)
    assert found.shape == (BATCH, ROIS, 2 * SIDE, 2 * SIDE, outputs)
    both = np.concatenate([pooled[0], of_each_roi(pooled[1])], -1).reshape(-1, SIDE, SIDE, 2 * CHANNELS)
    np.testing.assert_allclose(found.reshape(-1, *found.shape[2:]), naive_mask_head(head, both), atol=1e-4)


@pytest.mark.parametrize("relation", ["concat", "compare"])
def test_every_parameter_of_the_box_head_learns(pooled: tuple[np.ndarray, np.ndarray], relation: str) -> None:
    graph, state = nnx.split(box_head(relation))

    @jax.jit
    @jax.grad
    def gradient(state: nnx.State) -> jax.Array:
        logits, deltas = nnx.merge(graph, state)(*pooled, LEVEL_INDEX)
        return (logits[..., 1] ** 2).sum() + (logits[..., 0] ** 3).sum() + (deltas**2).sum()

    for path, value in nnx.to_flat_state(gradient(state)):
        assert np.abs(value[...]).max() > 1e-6, path
