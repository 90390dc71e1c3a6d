import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsis_jax import ops


def random_boxes(seed: int, number: int, extent: float = 100.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, extent, (number, 2))
    return np.concatenate([low, low + rng.uniform(1, extent / 2, (number, 2))], axis=1).astype(np.float32)


def test_area_by_hand():
    boxes = jnp.array([[0.0, 0.0, 4.0, 3.0], [5.0, 5.0, 5.0, 9.0], [3.0, 3.0, 1.0, 1.0]])
    np.testing.assert_array_equal(ops.area(boxes), [12, 0, 0])
    np.testing.assert_array_equal(ops.area(boxes, offset=1), [20, 5, 0])


def test_iou_and_ioa_by_hand():
    a = jnp.array([[0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
    b = jnp.array([[2.0, 0.0, 6.0, 4.0], [4.0, 4.0, 8.0, 8.0], [0.0, 0.0, 2.0, 2.0]])
    np.testing.assert_allclose(ops.pairwise_iou(a, b), [[8 / 24, 0, 4 / 16], [0, 0, 0]])
    np.testing.assert_allclose(ops.pairwise_ioa(a, b), [[0.5, 0, 0.25], [0, 0, 0]])
    # Inclusive: 5 x 5 boxes that share 3 x 5 pixels; corner pixels shared with the second.
    np.testing.assert_allclose(ops.pairwise_iou(a[:1], b[:2], offset=1), [[15 / 35, 1 / 49]])
    assert ops.pairwise_iou(a[1:], a[1:]).item() == 0.0  # two empty boxes
    np.testing.assert_allclose(ops.paired_iou(a[0], b), [8 / 24, 0, 4 / 16])
    np.testing.assert_allclose(ops.paired_iou(a, b[:2], offset=1), [15 / 35, 0])
    assert ops.paired_iou(a[1], a[1]).item() == 0.0


def test_iou_properties():
    a, b = random_boxes(0, 20), random_boxes(1, 30)
    iou = np.asarray(ops.pairwise_iou(a, b))
    assert iou.min() >= 0
    assert iou.max() <= 1
    np.testing.assert_allclose(iou, ops.pairwise_iou(b, a).T, atol=1e-6)
    np.testing.assert_allclose(np.diag(ops.pairwise_iou(a, a)), 1.0, atol=1e-6)
    np.testing.assert_allclose(iou, ops.pairwise_iou(a + 7, b + 7), atol=1e-4)  # does not depend on the origin


def test_encode_by_hand():
    anchor = jnp.array([0.0, 0.0, 10.0, 20.0])
    box = jnp.array([5.0, 0.0, 25.0, 20.0])  # centre (15, 10), 20 x 20; the anchor's is (5, 10), 10 x 20
    np.testing.assert_allclose(ops.encode(box, anchor), [1.0, 0.0, np.log(2.0), 0.0], atol=1e-6)
    weighted = ops.encode(box, anchor, weights=(10.0, 10.0, 5.0, 5.0))
    np.testing.assert_allclose(weighted, [10.0, 0.0, 5 * np.log(2.0), 0.0], atol=1e-6)


def test_decode_by_hand():
    anchor = jnp.array([0.0, 0.0, 9.0, 9.0])
    np.testing.assert_allclose(ops.decode(jnp.zeros(4), anchor, offset=1), anchor)
    shifted = ops.decode(jnp.array([0.5, 0.0, 0.0, np.log(2.0)]), anchor, offset=1)
    np.testing.assert_allclose(shifted, [5.0, -5.0, 14.0, 14.0], atol=1e-5)
    huge = ops.decode(jnp.array([0.0, 0.0, 50.0, 0.0]), anchor)
    np.testing.assert_allclose(huge[2] - huge[0], 9 * 1000 / 16, rtol=1e-5)


@pytest.mark.parametrize("offset", [0, 1])
def test_decode_inverts_encode(offset):
    boxes, anchors = random_boxes(2, 50), random_boxes(3, 50)
    weights = (10.0, 10.0, 5.0, 5.0)
    deltas = ops.encode(boxes, anchors, weights=weights, offset=offset)
    np.testing.assert_allclose(ops.decode(deltas, anchors, weights=weights, offset=offset), boxes, atol=1e-3)


def test_padding_encodes_to_finite_numbers():
    zero = jnp.zeros((1, 4))
    assert np.isfinite(ops.encode(zero, zero)).all()
    gradient = jax.grad(lambda box: ops.encode(box, zero).sum())(zero)
    assert np.isfinite(gradient).all()


def test_clip():
    boxes = jnp.array([[-5.0, -5.0, 50.0, 50.0], [3.0, 4.0, 5.0, 6.0]])
    np.testing.assert_array_equal(ops.clip(boxes, (20, 30)), [[0, 0, 30, 20], [3, 4, 5, 6]])
    np.testing.assert_array_equal(ops.clip(boxes, jnp.array([20, 30]), offset=1), [[0, 0, 29, 19], [3, 4, 5, 6]])
    sizes = jnp.array([[20, 30], [5, 4]])
    batched = jax.jit(jax.vmap(ops.clip, in_axes=(None, 0)))(boxes, sizes)
    np.testing.assert_array_equal(batched[1], [[0, 0, 4, 5], [3, 4, 4, 5]])
