import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsis_jax import ops
from fsis_jax.ops import IGNORE, NEGATIVE, POSITIVE

BOXES = jnp.array(
    [
        [0.0, 0.0, 10.0, 10.0],  # is instance 0
        [0.0, 0.0, 10.0, 5.0],  # IoU 0.5 with instance 0
        [0.0, 0.0, 10.0, 2.0],  # IoU 0.2 with instance 0
        [20.0, 20.0, 30.0, 24.0],  # IoU 0.4 with instance 1, the most of all
        [20.0, 26.0, 30.0, 30.0],  # as much
        [60.0, 60.0, 70.0, 70.0],  # alone
    ]
)
GT = jnp.array([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0], [0.0, 0.0, 0.0, 0.0]])
VALID = jnp.array([True, True, False])


def test_thresholds_by_hand():
    found = ops.assign(BOXES, GT, VALID, positive_iou=0.7, negative_iou=0.3)
    np.testing.assert_array_equal(found.labels, [POSITIVE, IGNORE, NEGATIVE, IGNORE, IGNORE, NEGATIVE])
    np.testing.assert_array_equal(found.matched, [0, 0, 0, 1, 1, 0])
    np.testing.assert_allclose(found.iou, [1, 0.5, 0.2, 0.4, 0.4, 0], atol=1e-6)
    # A box right at a threshold is positive; right at the lower one, not negative.
    found = ops.assign(BOXES, GT, VALID, positive_iou=0.5, negative_iou=0.5)
    np.testing.assert_array_equal(found.labels, [POSITIVE, POSITIVE, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE])


def test_force_best_takes_ties_and_nothing_for_unmatched_instances():
    gt = GT.at[2].set(jnp.array([200.0, 200.0, 210.0, 210.0]))
    found = ops.assign(BOXES, gt, jnp.ones(3, bool), positive_iou=0.7, negative_iou=0.3, force_best=True)
    np.testing.assert_array_equal(found.labels, [POSITIVE, IGNORE, NEGATIVE, POSITIVE, POSITIVE, NEGATIVE])


def test_ignored_instances():
    ignore = jnp.array([False, True, False])
    found = ops.assign(BOXES, GT, VALID, positive_iou=0.7, negative_iou=0.3, force_best=True, gt_ignore=ignore)
    np.testing.assert_array_equal(found.labels, [POSITIVE, IGNORE, NEGATIVE, IGNORE, IGNORE, NEGATIVE])
    np.testing.assert_array_equal(found.matched, 0)
    # A small box inside a large ignored instance has a low IoU and is still no negative.
    inside = jnp.array([[40.0, 40.0, 42.0, 42.0]])
    crowd = jnp.array([[0.0, 0.0, 100.0, 100.0]])
    yes, no = jnp.array([True]), jnp.array([False])
    assert ops.assign(inside, crowd, yes, positive_iou=0.5, negative_iou=0.5, gt_ignore=yes).labels[0] == IGNORE
    assert ops.assign(inside, crowd, no, positive_iou=0.5, negative_iou=0.5, gt_ignore=yes).labels[0] == NEGATIVE


@pytest.mark.parametrize("gt", [jnp.zeros((3, 4)), jnp.zeros((0, 4))])
def test_no_instance_at_all(gt):
    valid = jnp.zeros(len(gt), bool)
    found = ops.assign(BOXES, gt, valid, positive_iou=0.7, negative_iou=0.3, force_best=True)
    np.testing.assert_array_equal(found.labels, NEGATIVE)
    np.testing.assert_array_equal(found.matched, 0)
    np.testing.assert_array_equal(found.iou, 0)


def test_boxes_valid():
    valid = jnp.array([True, True, True, False, True, True])
    found = ops.assign(BOXES, GT, VALID, positive_iou=0.7, negative_iou=0.3, force_best=True, boxes_valid=valid)
    np.testing.assert_array_equal(found.labels, [POSITIVE, IGNORE, NEGATIVE, IGNORE, POSITIVE, NEGATIVE])


def naive(boxes, gt, valid, positive_iou, negative_iou, offset=0):
    iou = np.where(valid[None], np.asarray(ops.pairwise_iou(boxes, gt, offset=offset)), 0.0)
    best = iou.max(axis=1)
    labels = np.where(best >= positive_iou, POSITIVE, np.where(best < negative_iou, NEGATIVE, IGNORE))
    for column in range(len(gt)):
        if iou[:, column].max() > 0:
            labels[iou[:, column] == iou[:, column].max()] = POSITIVE
    return labels, np.where(best > 0, iou.argmax(axis=1), 0), best


def test_vmap_against_naive():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 80, (3, 307, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 40, low.shape)], -1).astype(np.float32)
    gt, valid = boxes[:, :7] + 1.5, rng.random((3, 7)) < 0.7

    @jax.jit
    @jax.vmap
    def batched(boxes, gt, valid):
        return ops.assign(boxes, gt, valid, positive_iou=0.6, negative_iou=0.3, force_best=True)

    found = batched(boxes, gt, valid)
    for image in range(3):
        labels, matched, iou = naive(boxes[image], gt[image], valid[image], 0.6, 0.3)
        np.testing.assert_array_equal(found.labels[image], labels)
        np.testing.assert_array_equal(found.matched[image], matched)
        np.testing.assert_allclose(found.iou[image], iou, atol=1e-6)


@pytest.mark.parametrize("offset", [0, 1])
def test_vmap_with_ignored_instances_and_invalid_boxes(offset):
    """Each image has another number of either."""
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 80, (3, 307, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 40, low.shape)], -1).astype(np.float32)
    gt, valid = boxes[:, :9] + 1.5, rng.random((3, 9)) < [[0.4], [0.7], [1.0]]
    ignore, boxes_valid = rng.random((3, 9)) < 0.5, rng.random((3, 307)) < 0.8
    assert len({int(row.sum()) for row in valid & ignore}) == len({int(row.sum()) for row in valid & ~ignore}) == 3

    @jax.jit
    @jax.vmap
    def batched(boxes, gt, valid, ignore, boxes_valid):
        return ops.assign(
            boxes,
            gt,
            valid,
            positive_iou=0.6,
            negative_iou=0.3,
            force_best=True,
            gt_ignore=ignore,
            boxes_valid=boxes_valid,
            offset=offset,
        )

    found = batched(boxes, gt, valid, ignore, boxes_valid)
    for image in range(3):
        there = np.flatnonzero(boxes_valid[image])
        own, shadows = valid[image] & ~ignore[image], gt[image][valid[image] & ignore[image]]
        labels, matched, iou = naive(boxes[image][there], gt[image], own, 0.6, 0.3, offset)
        over = np.asarray(ops.pairwise_iou(boxes[image][there], shadows, offset=offset)) >= 0.3
        over |= np.asarray(ops.pairwise_ioa(boxes[image][there], shadows, offset=offset)) >= 0.5
        labels[(labels == NEGATIVE) & over.any(axis=1)] = IGNORE
        np.testing.assert_array_equal(found.labels[image][there], labels)
        np.testing.assert_array_equal(found.matched[image][there], matched)
        np.testing.assert_allclose(found.iou[image][there], iou, atol=1e-6)
        assert (np.delete(found.labels[image], there) == IGNORE).all()
