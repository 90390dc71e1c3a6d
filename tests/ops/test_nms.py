import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsis_jax import ops

tiling = sys.modules["fsis_jax.ops.nms"]  # the name in the package is the function's


def naive(boxes, scores, valid, threshold, offset=0):
    iou = np.asarray(ops.pairwise_iou(boxes, boxes, offset=offset))
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if valid[i] and all(iou[i, j] < threshold for j in kept):
            kept.append(i)
    return kept


def crowded(seed, number, shape=()):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (*shape, number, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 30, low.shape)], axis=-1).astype(np.float32)
    return boxes, rng.random((*shape, number)).astype(np.float32), rng.random((*shape, number)) < 0.9


def kept_indices(found):
    indices, valid = (np.asarray(part) for part in found)
    assert (np.diff(valid.astype(int)) <= 0).all()  # padding comes last
    assert (indices[~valid] == 0).all()
    return indices[valid]


def test_by_hand():
    # 1 suppresses 0 (IoU 0.6); 0 would have suppressed 2 (IoU 0.6), but it is gone; 3 is padding.
    boxes = jnp.array([[2.5, 0, 12.5, 10], [0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 10]])
    scores, valid = jnp.array([0.8, 0.9, 0.7, 1.0]), jnp.array([True, True, True, False])
    found = ops.nms(boxes, scores, valid, iou_threshold=0.55, max_outputs=4)
    np.testing.assert_array_equal(kept_indices(found), [1, 2])


def test_threshold_itself_suppresses():
    boxes, scores = jnp.array([[0.0, 0, 4, 4], [0.0, 0, 4, 2]]), jnp.array([0.9, 0.8])
    valid = jnp.ones(2, bool)
    assert len(kept_indices(ops.nms(boxes, scores, valid, iou_threshold=0.5, max_outputs=2))) == 1
    assert len(kept_indices(ops.nms(boxes, scores, valid, iou_threshold=0.501, max_outputs=2))) == 2


def test_equal_scores_by_lower_index():
    boxes = jnp.tile(jnp.array([[0.0, 0, 4, 4]]), (5, 1)).at[3].add(50.0)
    found = ops.nms(boxes, jnp.ones(5), jnp.ones(5, bool), iou_threshold=0.5, max_outputs=5)
    np.testing.assert_array_equal(kept_indices(found), [0, 3])


def test_a_chain_needs_many_rounds():
    """Each box overlaps the next only: every second one survives, and the last is settled after 200 others."""
    start = jnp.arange(201.0)[:, None] * 6
    boxes = jnp.concatenate([start, 0 * start, start + 10, 0 * start + 10], axis=1)
    found = ops.nms(boxes, -jnp.arange(201.0), jnp.ones(201, bool), iou_threshold=0.2, max_outputs=201)
    np.testing.assert_array_equal(kept_indices(found), np.arange(0, 201, 2))


def test_vmap_against_naive():
    boxes, scores, valid = crowded(0, 333, (3,))
    scores = np.round(scores, 1)  # many ties
    thresholds = np.array([0.1, 0.5, 0.9], np.float32)

    @jax.jit
    @jax.vmap
    def batched(boxes, scores, valid, threshold):
        return ops.nms(boxes, scores, valid, iou_threshold=threshold, max_outputs=333)

    indices, kept = batched(boxes, scores, valid, thresholds)
    for image in range(3):
        expected = naive(boxes[image], scores[image], valid[image], thresholds[image])
        np.testing.assert_array_equal(kept_indices((indices[image], kept[image])), expected)


@pytest.mark.parametrize(("tile", "most"), [(16, 100), (16, 4), (200, 8)])
def test_over_several_tiles(monkeypatch, tile, most):
    """Random boxes, and a chain in which each box overlaps its neighbours alone, over the borders of tiles."""
    monkeypatch.setattr(tiling, "_TILE", tile)
    monkeypatch.setattr(tiling, "_MOST_TILES", most)
    jax.clear_caches()
    boxes, scores, valid = crowded(3, 150)
    found = ops.nms(boxes, scores, valid, iou_threshold=0.3, max_outputs=150)
    np.testing.assert_array_equal(kept_indices(found), naive(boxes, scores, valid, 0.3))
    start = np.arange(150.0)[:, None] * 6
    chain = np.concatenate([start, 0 * start, start + 10, 0 * start + 10], axis=1).astype(np.float32)
    found = ops.nms(chain, -np.arange(150.0), np.ones(150, bool), iou_threshold=0.2, max_outputs=150)
    np.testing.assert_array_equal(kept_indices(found), np.arange(0, 150, 2))
    jax.clear_caches()


def test_fewer_outputs_are_the_best_ones():
    boxes, scores, valid = crowded(1, 100)
    expected = naive(boxes, scores, valid, 0.5)
    assert len(expected) > 10
    found = ops.nms(boxes, scores, valid, iou_threshold=0.5, max_outputs=10)
    np.testing.assert_array_equal(kept_indices(found), expected[:10])


def test_nothing_valid_and_nan():
    boxes, scores, valid = crowded(2, 40)
    assert len(kept_indices(ops.nms(boxes, scores, valid & False, iou_threshold=0.5, max_outputs=40))) == 0
    found = kept_indices(
        ops.nms(boxes, np.where(valid, scores, np.nan), valid | True, iou_threshold=0.5, max_outputs=40)
    )
    np.testing.assert_array_equal(found, naive(boxes, scores, valid, 0.5))


def test_batched_by_hand():
    """All four boxes are one: in each class the best stays, over all classes in the order of scores."""
    boxes, scores = jnp.tile(jnp.array([[0.0, 0, 4, 4]]), (5, 1)), jnp.array([0.5, 0.6, 0.9, 0.7, 0.95])
    classes, valid = jnp.array([3, 3, -1, 0, 0]), jnp.array([True, True, True, True, False])
    found = ops.batched_nms(boxes, scores, classes, valid, iou_threshold=0.5, max_outputs=5)
    np.testing.assert_array_equal(kept_indices(found), [2, 3, 1])


def test_batched_is_exact_for_many_classes():
    """IoU 0.5 is reached exactly, in class 1000000 as in class 0: boxes moved by class would be rounded here."""
    boxes = jnp.tile(jnp.array([[0.25, 0, 1000.25, 1], [0.25, 0, 500.25, 1]]), (2, 1))
    classes = jnp.array([0, 0, 1_000_000, 1_000_000])
    arguments = boxes, jnp.array([0.9, 0.8, 0.7, 0.6]), classes, jnp.ones(4, bool)
    found = ops.batched_nms(*arguments, iou_threshold=0.5, max_outputs=4)
    np.testing.assert_array_equal(kept_indices(found), [0, 2])
    found = ops.batched_nms(*arguments, iou_threshold=0.5001, max_outputs=4)
    np.testing.assert_array_equal(kept_indices(found), [0, 1, 2, 3])


@pytest.mark.parametrize("tile", [16, 512])
def test_batched_against_each_class_alone(monkeypatch, tile):
    """Under vmap, over several tiles and within one."""
    monkeypatch.setattr(tiling, "_TILE", tile)
    jax.clear_caches()
    boxes, scores, valid = crowded(4, 120, (2,))
    classes = np.random.default_rng(5).integers(0, 4, (2, 120))

    @jax.jit
    @jax.vmap
    def batched(*arguments):
        return ops.batched_nms(*arguments, iou_threshold=0.3, max_outputs=120)

    indices, kept = batched(boxes, scores, classes, valid)
    for image in range(2):
        own = [
            naive(boxes[image], scores[image], valid[image] & (classes[image] == number), 0.3) for number in range(4)
        ]
        expected = sorted(np.concatenate(own), key=lambda i: -scores[image, i])
        assert len(expected) > len(naive(boxes[image], scores[image], valid[image], 0.3))
        np.testing.assert_array_equal(kept_indices((indices[image], kept[image])), expected)
    jax.clear_caches()


def test_batched_with_inclusive_boxes_and_few_outputs():
    boxes, scores, valid = crowded(6, 60)
    classes = np.zeros(60, np.int32)
    found = ops.batched_nms(boxes, scores, classes, valid, iou_threshold=0.3, max_outputs=5, offset=1)
    np.testing.assert_array_equal(kept_indices(found), naive(boxes, scores, valid, 0.3, offset=1)[:5])
    none = ops.batched_nms(boxes[:0], scores[:0], classes[:0], valid[:0], iou_threshold=0.3, max_outputs=5)
    assert len(kept_indices(none)) == 0
