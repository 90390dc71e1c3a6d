import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsis_jax import ops

BOXES = jnp.array([[0.0, 0, 10, 10], [0, 0, 10, 6], [50, 50, 60, 60]])
SCORES = jnp.array([0.9, 0.8, 0.5])
VALID = jnp.ones(3, bool)


@pytest.mark.parametrize(
    ("method", "share"), [("linear", 0.4), ("gaussian", float(np.exp(-0.36 / 0.5))), ("hard", 0.0)]
)
def test_by_hand(method, share):
    """Box 1 overlaps box 0 with IoU 0.6, so it comes after box 2 with the share that the method leaves."""
    indices, scores, valid = ops.soft_nms(BOXES, SCORES, VALID, method=method, max_outputs=4)
    expected = 3 if share > 0 else 2
    np.testing.assert_array_equal(valid, np.arange(4) < expected)
    np.testing.assert_array_equal(indices, [0, 2, 1 if share > 0 else 0, 0])
    np.testing.assert_allclose(scores, [0.9, 0.5, 0.8 * share, 0.0], atol=1e-6)


def test_stops_at_max_outputs_and_at_the_score_threshold():
    indices, _, valid = ops.soft_nms(BOXES, SCORES, VALID, max_outputs=2)
    np.testing.assert_array_equal(indices, [0, 2])
    assert valid.all()
    _, _, valid = ops.soft_nms(BOXES, SCORES, VALID, score_threshold=0.4, max_outputs=3)
    assert valid.sum() == 2  # 0.8 * 0.4 < 0.4
    _, scores, valid = ops.soft_nms(BOXES, SCORES, jnp.zeros(3, bool), max_outputs=3)
    assert not valid.any()
    assert not scores.any()


def naive(boxes, scores, valid, threshold):
    iou = np.asarray(ops.pairwise_iou(boxes, boxes))
    left, taken = {i: scores[i] for i in np.flatnonzero(valid)}, []
    while left:
        best = max(left, key=lambda i: left[i])
        taken.append((best, left.pop(best)))
        left = {i: s * (1 - iou[best, i] if iou[best, i] > threshold else 1) for i, s in left.items()}
        left = {i: s for i, s in left.items() if s >= 1e-4}
    return taken


def test_vmap_against_naive():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 60, (3, 120, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 40, low.shape)], axis=-1).astype(np.float32)
    scores, valid = rng.random((3, 120)).astype(np.float32), rng.random((3, 120)) < 0.8
    batched = jax.jit(jax.vmap(lambda *image: ops.soft_nms(*image, iou_threshold=0.3, max_outputs=120)))
    indices, found_scores, found = batched(boxes, scores, valid)
    for image in range(3):
        expected = naive(boxes[image], scores[image], valid[image], 0.3)
        count = int(found[image].sum())
        np.testing.assert_array_equal(indices[image, :count], [i for i, _ in expected])
        np.testing.assert_allclose(found_scores[image, :count], [s for _, s in expected], rtol=1e-4)


def test_unknown_method(unchecked):
    with pytest.raises(ValueError, match="'median'"):
        ops.soft_nms(BOXES, SCORES, VALID, method="median", max_outputs=3)
    with pytest.raises(ValueError, match="'median'"):
        ops.box_voting(BOXES, SCORES, BOXES, SCORES, VALID, iou_threshold=0.5, method="median")


def test_voting_by_hand():
    """Boxes 0 and 1 vote for box 0 with weights 0.9 and 0.8; an invalid row has no vote; box 2 stays alone."""
    voters = jnp.concatenate([BOXES, BOXES[:1]])
    voter_scores, valid = jnp.append(SCORES, 1.0), jnp.array([True, True, True, False])
    kept, kept_scores = BOXES[jnp.array([0, 2])], jnp.array([0.9, 0.5])

    def vote(**settings):
        return ops.box_voting(kept, kept_scores, voters, voter_scores, valid, iou_threshold=0.5, **settings)

    boxes, scores = vote()
    np.testing.assert_allclose(boxes, [[0, 0, 10, (0.9 * 10 + 0.8 * 6) / 1.7], [50, 50, 60, 60]], rtol=1e-6)
    np.testing.assert_array_equal(scores, kept_scores)
    np.testing.assert_allclose(vote(method="avg")[1], [0.85, 0.5], rtol=1e-6)
    np.testing.assert_allclose(vote(method="iou_avg")[1], [(0.9 + 0.6 * 0.8) / 1.6, 0.5], rtol=1e-6)
    np.testing.assert_allclose(vote(method="quasi_sum", beta=0.5)[1], [1.7 / np.sqrt(2), 0.5], rtol=1e-6)
    root = vote(method="generalized_avg", beta=2.0)[1]
    np.testing.assert_allclose(root, [np.sqrt((0.81 + 0.64) / 2), 0.5], rtol=1e-6)
    squares = (0.81 / 0.82 + 0.64 / 0.68) / 2
    np.testing.assert_allclose(vote(method="temp_avg", beta=0.5)[1], [squares, 0.5], rtol=1e-6)


def test_voting_without_voters_changes_nothing():
    boxes, scores = ops.box_voting(BOXES, SCORES, BOXES, SCORES, ~VALID, iou_threshold=0.5, method="avg")
    np.testing.assert_array_equal(boxes, BOXES)
    np.testing.assert_array_equal(scores, SCORES)
