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


def test_identical_boxes_of_any_type_have_iou_1():
    """In float16 the area of the first is infinite: 300 x 300 pixels are more than 65504."""
    box = np.array([[0, 0, 300, 300], [10, 20, 40, 60]])
    for dtype in (jnp.float16, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.float32):
        boxes = jnp.asarray(np.minimum(box, 255 if dtype == jnp.uint8 else 300), dtype)
        iou = ops.pairwise_iou(boxes, boxes)
        assert iou.dtype == jnp.float32
        np.testing.assert_array_equal(np.diag(iou), 1.0)
        for paired in (ops.paired_iou, ops.paired_giou, ops.paired_diou, ops.paired_ciou):
            np.testing.assert_array_equal(paired(boxes, boxes), 1.0)
        assert ops.clip(boxes, (50, 50)).dtype == ops.area(boxes).dtype == jnp.float32
        assert ops.encode(boxes, boxes).dtype == ops.decode(boxes, boxes).dtype == jnp.float32
    assert ops.area(jnp.asarray(box, jnp.float16))[0] == 90000.0


A = jnp.array([0.0, 0.0, 4.0, 4.0])
B = jnp.array([2.0, 0.0, 8.0, 4.0])
"""6 x 4, shares 2 x 4 with A; union 16 + 24 - 8 = 32, around both 8 x 4 = 32; the centres are 3 apart."""
C = jnp.array([6.0, 4.0, 8.0, 8.0])
"""2 x 4, shares nothing with A; around both 8 x 8, union 24; centres (2, 2) and (7, 6), 25 + 16 apart."""


def test_giou_diou_ciou_by_hand():
    others = jnp.stack([B, C, A])
    np.testing.assert_allclose(ops.paired_giou(A, others), [8 / 32 - 0 / 32, 0 - (64 - 24) / 64, 1])
    distance = np.array([9 / (64 + 16), 41 / (64 + 64), 0])
    np.testing.assert_allclose(ops.paired_diou(A, others), [0.25 - distance[0], -distance[1], 1], rtol=1e-6)
    v = (2 / np.pi * (np.arctan(4 / 4) - np.arctan([6 / 4, 2 / 4, 4 / 4]))) ** 2
    alpha = v[:2] / (1 - np.array([0.25, 0]) + v[:2])
    expected = [0.25 - distance[0] - alpha[0] * v[0], -distance[1] - alpha[1] * v[1], 1]
    np.testing.assert_allclose(ops.paired_ciou(A, others), expected, rtol=1e-6)


def test_giou_diou_ciou_of_inclusive_boxes():
    """With offset 1 a box is what it is with offset 0 and x2 and y2 one pixel farther."""
    a, b = random_boxes(4, 30), random_boxes(5, 30)
    farther = np.array([0, 0, 1, 1], np.float32)
    for paired in (ops.paired_giou, ops.paired_diou, ops.paired_ciou):
        np.testing.assert_allclose(paired(a, b, offset=1), paired(a + farther, b + farther), rtol=1e-4, atol=1e-5)


def test_pairs_and_partners_agree():
    a, b = random_boxes(6, 7), random_boxes(7, 9)
    np.testing.assert_array_equal(ops.paired_iou(a[:, None], b), ops.pairwise_iou(a, b))
    for paired in (ops.paired_giou, ops.paired_diou, ops.paired_ciou):
        all_pairs = paired(a[:, None], b)
        assert all_pairs.shape == (7, 9)
        np.testing.assert_allclose(jax.jit(jax.vmap(paired, in_axes=(0, None)))(a, b), all_pairs, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(all_pairs, paired(b[:, None], a).T, rtol=1e-5, atol=1e-6)
        assert (all_pairs <= ops.pairwise_iou(a, b) + 1e-6).all()
        assert (all_pairs >= -1 - (paired is ops.paired_ciou)).all()


def test_gradient_of_giou_by_hand():
    """C moves to the left by t: the box around both is 8 - t wide, so giou = 24 / (8 (8 - t)) - 1."""
    gradient = jax.grad(lambda t: ops.paired_giou(A, C - t * jnp.array([1.0, 0, 1, 0])))(0.0)
    np.testing.assert_allclose(gradient, 24 / 8 / 64, rtol=1e-5)


def test_gradient_of_diou_by_hand():
    """No IoU: minus the derivative of ((5 - t)^2 + 16) / ((8 - t)^2 + 64) at 0, (10 * 128 - 16 * 41) / 128^2."""
    gradient = jax.grad(lambda t: ops.paired_diou(A, C - t * jnp.array([1.0, 0, 1, 0])))(0.0)
    np.testing.assert_allclose(gradient, (10 * 128 - 16 * 41) / 128**2, rtol=1e-5)


def test_no_gradient_through_alpha_of_ciou():
    """B gets wider on its right by t; d(v) / dt with alpha as a constant, beside that of the distance IoU."""

    def wider(t):
        return B + t * jnp.array([0.0, 0, 1, 0])

    v = (2 / np.pi * (np.pi / 4 - np.arctan(1.5))) ** 2
    alpha = v / (0.75 + v)
    of_v = 2 * (2 / np.pi) ** 2 * (np.pi / 4 - np.arctan(1.5)) * -(1 / 4) / (1 + 1.5**2)
    found = jax.grad(lambda t: ops.paired_ciou(A, wider(t)) - ops.paired_diou(A, wider(t)))(0.0)
    np.testing.assert_allclose(found, -alpha * of_v, rtol=1e-4)


def test_padding_has_finite_overlaps_and_gradients():
    zero = jnp.zeros((1, 4))
    for paired in (ops.paired_iou, ops.paired_giou, ops.paired_diou, ops.paired_ciou):
        np.testing.assert_array_equal(paired(zero, zero), 0.0)
        assert np.isfinite(jax.grad(lambda box, paired=paired: paired(box, zero).sum())(zero)).all()
        assert np.isfinite(jax.grad(lambda box, paired=paired: paired(box, A).sum())(zero)).all()
        assert paired(jnp.zeros((0, 4)), jnp.zeros((0, 4))).shape == (0,)


FORMATS = {"xyxy": [10.0, 20, 14, 30], "xywh": [10.0, 20, 4, 10], "cxcywh": [12.0, 25, 4, 10]}
INCLUSIVE = {"xyxy": [10.0, 20, 13, 29], "xywh": [10.0, 20, 4, 10], "cxcywh": [12.0, 25, 4, 10]}


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_convert_by_hand(source, target):
    for offset, table in enumerate((FORMATS, INCLUSIVE)):
        found = ops.box_convert(jnp.array(table[source]), source, target, offset=offset)
        np.testing.assert_array_equal(found, table[target])


def test_convert_any_type_and_number():
    boxes = jnp.array([FORMATS["xyxy"]] * 3, jnp.int32)[None]
    convert = jax.jit(jax.vmap(lambda boxes: ops.box_convert(boxes, "xyxy", "cxcywh")))
    assert convert(boxes).dtype == jnp.float32
    np.testing.assert_array_equal(convert(boxes), [[FORMATS["cxcywh"]] * 3])
    jacobian = jax.jacobian(lambda box: ops.box_convert(box, "cxcywh", "xyxy"))(jnp.zeros(4))
    np.testing.assert_array_equal(jacobian, [[1, 0, -0.5, 0], [0, 1, 0, -0.5], [1, 0, 0.5, 0], [0, 1, 0, 0.5]])


def test_convert_names_an_unknown_format(unchecked):
    with pytest.raises(ValueError, match=r"format is 'xyx', expected one of \('xyxy', 'xywh', 'cxcywh'\)"):
        ops.box_convert(A, "xyxy", "xyx")


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
