"""The relation heads against the concatenations that they avoid."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_detector import randomise

from fsis_jax.models.blocks import BlockStyle
from fsis_jax.models.box_head import FullyConnected, RelationBoxHead, RoiFeatures
from fsis_jax.models.layers import BatchStatistic, Training
from fsis_jax.models.mask_head import ConvMaskHead, Res5MaskHead
from fsis_jax.models.res5 import Res5
from fsis_jax.models.resnet import make_stage

BATCH, ROIS, LEVELS, SIDE, CHANNELS = 2, 5, 3, 4, 6
LEVEL_INDEX = np.array([[0, 2, 1, 1, 2], [2, 2, 0, 1, 0]], np.int32)


def box_head(relation: str, boxes: int = 2) -> RelationBoxHead:
    def build() -> RelationBoxHead:
        rngs = nnx.Rngs(0)
        embedding = FullyConnected(CHANNELS, pooled=SIDE, hidden=12, dtype=jnp.float32, rngs=rngs)
        sizes = {"channels": CHANNELS, "boxes": boxes}
        return RelationBoxHead(embedding, relation=relation, dtype=jnp.float32, rngs=rngs, **sizes)

    return randomise(nnx.eval_shape(build))


def mask_head(convs: int = 2, outputs: int = 2, *, relation: bool = True) -> ConvMaskHead:
    def build() -> ConvMaskHead:
        return ConvMaskHead(
            CHANNELS,
            relation=relation,
            channels=7,
            convs=convs,
            norm="none",
            outputs=outputs,
            dtype=jnp.float32,
            rngs=nnx.Rngs(0),
        )

    return randomise(nnx.eval_shape(build))


@pytest.fixture(scope="module")
def pooled() -> RoiFeatures:
    rng = np.random.default_rng(0)
    rois = rng.normal(size=(BATCH, ROIS, SIDE, SIDE, CHANNELS)).astype(np.float32)
    references = rng.normal(size=(BATCH, LEVELS, SIDE, SIDE, CHANNELS)).astype(np.float32)
    return RoiFeatures(rois, references, LEVEL_INDEX)


def of_each_roi(references: np.ndarray) -> np.ndarray:
    """(B, R, ...) the references' features on each roi's level: the copies that the heads never make."""
    return np.stack([references[row, LEVEL_INDEX[row]] for row in range(BATCH)])


def linear(layer: nnx.Linear, x: np.ndarray) -> np.ndarray:
    y = x @ np.asarray(layer.kernel[...])
    return y if layer.bias is None else y + np.asarray(layer.bias[...])


def embedded(head: RelationBoxHead, pooled: RoiFeatures) -> tuple[np.ndarray, np.ndarray]:
    """(B, R, hidden) of the rois, and of the references on each roi's level."""
    return np.asarray(head.embedding(pooled.rois)), of_each_roi(np.asarray(head.embedding(pooled.references)))


def test_concat_relation(pooled: RoiFeatures) -> None:
    head = box_head("concat")
    logits, deltas = jax.jit(head)(pooled)
    both = np.concatenate(embedded(head, pooled), -1)
    np.testing.assert_allclose(logits, linear(head.class_out, linear(head.class_pair, both)), atol=1e-4)
    np.testing.assert_allclose(deltas, linear(head.box_out, linear(head.box_pair, both)), atol=1e-4)


def test_compare_relation(pooled: RoiFeatures) -> None:
    head = box_head("compare", boxes=1)
    logits, deltas = jax.jit(head)(pooled)
    x, y = embedded(head, pooled)
    hidden = linear(head.pair, np.concatenate([x, y], -1)) + linear(head.difference, np.abs(x - y))
    hidden = np.maximum(hidden, 0)
    np.testing.assert_allclose(logits, linear(head.class_out, hidden), atol=1e-4)
    np.testing.assert_allclose(deltas, linear(head.box_out, hidden), atol=1e-4)


def test_bags_are_compared_as_well(pooled: RoiFeatures) -> None:
    """What occurs in the maps, wherever it is."""
    head = box_head("compare_bags", boxes=1)
    logits, _ = jax.jit(head)(pooled)
    x, y = embedded(head, pooled)
    hidden = linear(head.pair, np.concatenate([x, y], -1)) + linear(head.difference, np.abs(x - y))
    rois, references = (
        np.maximum(linear(head.bag, np.asarray(maps)), 0).mean((2, 3)) for maps in (pooled.rois, pooled.references)
    )
    references = of_each_roi(references)
    hidden += linear(head.bag_pair, np.concatenate([rois, references], -1))
    hidden += linear(head.bag_difference, np.abs(rois - references))
    np.testing.assert_allclose(logits, linear(head.class_out, np.maximum(hidden, 0)), atol=1e-4)

    turned = dataclasses.replace(pooled, rois=jnp.rot90(pooled.rois, axes=(2, 3)))
    np.testing.assert_allclose(head._bag_of(turned.rois), rois, atol=1e-5)


def test_no_relation(pooled: RoiFeatures) -> None:
    """Blind to the references."""
    head = box_head("none")
    logits, deltas = jax.jit(head)(dataclasses.replace(pooled, references=pooled.references * np.nan))
    x, _ = embedded(head, pooled)
    np.testing.assert_allclose(logits, linear(head.class_out, linear(head.class_pair, x)), atol=1e-4)
    np.testing.assert_allclose(deltas, linear(head.box_out, linear(head.box_pair, x)), atol=1e-4)


def test_embedding_reads_rows_then_columns_then_channels(pooled: RoiFeatures) -> None:
    embedding = box_head("concat").embedding
    flat = pooled.rois.reshape(BATCH, ROIS, SIDE * SIDE * CHANNELS)
    expected = np.maximum(linear(embedding.fc2, np.maximum(linear(embedding.fc1, flat), 0)), 0)
    np.testing.assert_allclose(embedding(pooled.rois), expected, atol=1e-4)


def test_the_first_rois_alone(pooled: RoiFeatures) -> None:
    first = pooled.first(2)
    np.testing.assert_array_equal(first.rois, pooled.rois[:, :2])
    np.testing.assert_array_equal(first.level_index, LEVEL_INDEX[:, :2])
    np.testing.assert_array_equal(first.references, pooled.references)


def naive_conv(layer: nnx.Conv, x: np.ndarray) -> np.ndarray:
    """(N, s, s, c) with the layer's 3x3 kernel, zero-padded."""
    kernel, side = np.asarray(layer.kernel[...]), x.shape[1]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = [(padded[:, i : i + side, j : j + side], kernel[i, j]) for i in range(3) for j in range(3)]
    return sum(window @ weights for window, weights in windows) + np.asarray(layer.bias[...])


def naive_deconvolution(head: ConvMaskHead | Res5MaskHead, x: np.ndarray) -> np.ndarray:
    """(N, s, s, c) -> (N, 2s, 2s, outputs): a transposed convolution, ReLU and a 1x1 convolution."""
    count, side = x.shape[:2]
    kernel = np.asarray(head.upsample.kernel[...]).reshape(x.shape[-1], 2, 2, -1)
    up = np.zeros((count, 2 * side, 2 * side, kernel.shape[-1]))
    for row, column in np.ndindex(side, side):  # every position writes its own 2x2 block
        block = np.einsum("nc,cijo->nijo", x[:, row, column], kernel)
        up[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += block
    up = np.maximum(up + np.asarray(head.upsample_bias[...]), 0)
    return up @ np.asarray(head.out.kernel[...])[0, 0] + np.asarray(head.out.bias[...])


def naive_mask_head(head: ConvMaskHead, x: np.ndarray) -> np.ndarray:
    """Concatenated features (N, s, s, 2C) -> (N, 2s, 2s, outputs)."""
    for layer in (head.first, *head.convs):
        x = np.maximum(naive_conv(layer, x), 0)
    return naive_deconvolution(head, x)


def side_by_side(pooled: RoiFeatures) -> np.ndarray:
    """(B * R, s, s, 2C)."""
    both = np.concatenate([np.asarray(pooled.rois), of_each_roi(np.asarray(pooled.references))], -1)
    return both.reshape(-1, *both.shape[2:])


@pytest.mark.parametrize(("convs", "outputs"), [(2, 2), (1, 1)])
def test_mask_head(pooled: RoiFeatures, convs: int, outputs: int) -> None:
    head = mask_head(convs, outputs)
    found = jax.jit(head)(pooled)
    assert found.shape == (BATCH, ROIS, 2 * SIDE, 2 * SIDE, outputs)
    expected = naive_mask_head(head, side_by_side(pooled))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-4)


def test_mask_head_without_relation(pooled: RoiFeatures) -> None:
    head = mask_head(relation=False)
    found = jax.jit(head)(dataclasses.replace(pooled, references=pooled.references * np.nan))
    expected = naive_mask_head(head, pooled.rois.reshape(-1, SIDE, SIDE, CHANNELS))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-4)


@pytest.mark.parametrize("relation", [True, False])
@pytest.mark.parametrize("outputs", [2, 1])
def test_mask_head_of_res5(pooled: RoiFeatures, relation: bool, outputs: int) -> None:
    def build() -> Res5MaskHead:
        return Res5MaskHead(
            Res5(nnx.List([]), CHANNELS),
            relation=relation,
            channels=7,
            outputs=outputs,
            dtype=jnp.float32,
            rngs=nnx.Rngs(0),
        )

    head = randomise(nnx.eval_shape(build))
    found = jax.jit(head)(pooled)
    assert found.shape == (BATCH, ROIS, 2 * SIDE, 2 * SIDE, outputs)
    both = side_by_side(pooled)
    expected = naive_deconvolution(head, both if relation else both[..., :CHANNELS])
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-4)


def res5(norm: str) -> Res5:
    def build() -> Res5:
        style = BlockStyle(norm=norm, dtype=jnp.float32)
        stage, channels = make_stage(18, 0, CHANNELS, width=8, group_width=0, stride=1, style=style, rngs=nnx.Rngs(0))
        return Res5(stage, channels)

    return randomise(nnx.eval_shape(build))


def through(trunk: Res5, x: jax.Array, training: Training | None = None) -> jax.Array:
    """(N, p, p, C) through the blocks."""
    for block in trunk.blocks:
        x = block(x, None, 1, training)
    return x


@pytest.mark.parametrize("norm", ["frozen", "group", "batch"])
def test_res5_treats_every_map_alike(pooled: RoiFeatures, norm: str) -> None:
    """Rois and references pass the same blocks, one by one; the embedding is their mean."""
    trunk = res5(norm)
    found = jax.jit(trunk.maps)(pooled)
    assert found.rois.shape == (BATCH, ROIS, SIDE, SIDE, trunk.channels)
    assert found.references.shape == (BATCH, LEVELS, SIDE, SIDE, trunk.channels)
    np.testing.assert_array_equal(found.level_index, LEVEL_INDEX)
    run = jax.jit(functools.partial(through, trunk))
    for part in ("rois", "references"):
        expected = [run(getattr(pooled, part)[:, i]) for i in range(getattr(pooled, part).shape[1])]
        np.testing.assert_allclose(getattr(found, part), jnp.stack(expected, 1), atol=1e-5)
    np.testing.assert_allclose(trunk(found.rois), np.asarray(found.rois).mean((2, 3)), atol=1e-5)


def test_res5_in_training_counts_references_once_for_each_roi(pooled: RoiFeatures) -> None:
    """The original runs res5 over the rois, then over a copy of the references for each of them. Invalid rois enter
    neither. Running statistics move twice."""
    valid = np.array([[True, True, False, True, True], [True, False, True, True, False]])
    ours, theirs = res5("batch"), res5("batch")
    found = ours.maps(pooled, jnp.asarray(valid), Training())
    rois = through(theirs, jnp.asarray(pooled.rois[valid]), Training())
    references = through(theirs, jnp.asarray(of_each_roi(pooled.references)[valid]), Training())
    np.testing.assert_allclose(np.asarray(found.rois)[valid], rois, atol=1e-4)
    np.testing.assert_allclose(of_each_roi(np.asarray(found.references))[valid], references, atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        nnx.state(ours, BatchStatistic),
        nnx.state(theirs, BatchStatistic),
    )


def test_res5_counts_all_rois_unless_told_otherwise(pooled: RoiFeatures) -> None:
    ours, theirs = res5("batch"), res5("batch")
    found = ours.maps(pooled, None, Training())
    expected = theirs.maps(pooled, jnp.ones((BATCH, ROIS), bool), Training())
    np.testing.assert_allclose(found.rois, expected.rois, atol=1e-5)
    np.testing.assert_allclose(found.references, expected.references, atol=1e-5)


@pytest.mark.parametrize("relation", ["concat", "compare", "compare_bags", "none"])
def test_every_parameter_of_the_box_head_learns(pooled: RoiFeatures, relation: str) -> None:
    graph, state = nnx.split(box_head(relation))

    @jax.jit
    @jax.grad
    def gradient(state: nnx.State) -> jax.Array:
        logits, deltas = nnx.merge(graph, state)(pooled)
        return (logits[..., 1] ** 2).sum() + (logits[..., 0] ** 3).sum() + (deltas**2).sum()

    for path, value in nnx.to_flat_state(gradient(state)):
        assert np.abs(value[...]).max() > 1e-6, path
