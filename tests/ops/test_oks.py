import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fsis_jax import ops

SIGMAS = np.array([0.05, 0.1], np.float32)


def people(seed, number, spread=1.0):
    """Keypoints (number, 17, 3) with flags 0 to 2, boxes (number, 4) and areas (number,)."""
    rng = np.random.default_rng(seed)
    low, sides = rng.uniform(0, 60, (number, 1, 2)), rng.uniform(20, 80, (number, 1, 2))
    places = low + rng.uniform(0, spread, (number, 17, 2)) * sides
    keypoints = np.concatenate([places, rng.integers(0, 3, (number, 17, 1))], axis=2).astype(np.float32)
    boxes = np.concatenate([low, low + sides], axis=2)[:, 0].astype(np.float32)
    return keypoints, boxes, (sides.prod(axis=(1, 2)) * rng.uniform(0.3, 0.8, number)).astype(np.float32)


def naive_oks(keypoints, gt_keypoints, gt_boxes, gt_areas, sigmas, offset=0):
    """Pair by pair, in float64."""
    result = np.zeros((len(keypoints), len(gt_keypoints)))
    for n, g in np.ndindex(result.shape):
        visible = gt_keypoints[g, :, 2] > 0
        if visible.any():
            shifts = (keypoints[n, :, :2] - gt_keypoints[g, :, :2])[visible]
        else:
            x1, y1, x2, y2 = gt_boxes[g].astype(np.float64)
            width, height = x2 - x1 + offset, y2 - y1 + offset
            nearest = np.clip(keypoints[n, :, :2], [x1 - width, y1 - height], [x1 + 2 * width, y1 + 2 * height])
            shifts, visible = keypoints[n, :, :2] - nearest, ~visible
        tolerance = 2 * (2 * sigmas.astype(np.float64)) ** 2 * (gt_areas[g] + np.spacing(1))
        result[n, g] = np.exp(-(shifts**2).sum(axis=1) / tolerance[visible]).mean()
    return result


def test_oks_by_hand():
    """Both keypoints off by 4 px, area 400: exponents 16 / (2 * 0.1^2 * 400) = 2 and 16 / (2 * 0.2^2 * 400) = 1/2."""
    detection = jnp.array([[[14, 10, 0.3], [20, 24, 0.9]]])
    truth = jnp.array([[[10, 10, 1], [20, 20, 2]], [[10, 10, 0], [20, 20, 2]]], jnp.float32)
    boxes, areas = jnp.array([[0.0, 0.0, 30.0, 30.0]] * 2), jnp.array([400.0, 400.0])
    found = ops.pairwise_oks(detection, truth, boxes, areas, sigmas=SIGMAS)
    np.testing.assert_allclose(found, [[(np.exp(-2) + np.exp(-0.5)) / 2, np.exp(-0.5)]], rtol=1e-6)


def test_oks_without_visible_keypoints_measures_from_the_enlarged_box():
    """The box (10, 10)-(20, 20) becomes (0, 0)-(30, 30), or with offset 1 (-1, -1)-(32, 32)."""
    detection = jnp.array([[[34, 15, 1.0], [5, 5, 1.0]]])
    arguments = detection, jnp.zeros((1, 2, 3)), jnp.array([[10.0, 10.0, 20.0, 20.0]]), jnp.array([400.0])
    found, legacy = (ops.pairwise_oks(*arguments, sigmas=SIGMAS, offset=offset)[0, 0] for offset in (0, 1))
    np.testing.assert_allclose([found, legacy], [(np.exp(-2) + 1) / 2, (np.exp(-0.5) + 1) / 2], rtol=1e-6)


@pytest.mark.parametrize("offset", [0, 1])
def test_oks_against_naive(offset):
    keypoints, _, _ = people(0, 8, spread=3.0)
    truth, boxes, areas = people(1, 6)
    truth[[1, 4], :, 2] = 0
    found = ops.pairwise_oks(keypoints, truth, boxes, areas, offset=offset)
    expected = naive_oks(keypoints, truth, boxes, areas, ops.COCO_SIGMAS, offset)
    assert (expected[:, [1, 4]] > 0.05).any()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_oks_against_cocoapi():
    """More than one ground truth and detection, two ground truths without visible keypoints, one of area 0."""
    truth, boxes, areas = people(2, 5)
    truth[[0, 3], :, 2], areas[2] = 0, 0
    rng = np.random.default_rng(3)
    keypoints = truth[[0, 1, 2, 3, 4, 4, 0]] + rng.normal(0, 4, (7, 17, 3)).astype(np.float32)
    keypoints[5, :, :2] += 60
    keypoints[2] = truth[2]
    scores = np.sort(rng.random(7))[::-1]  # computeOks orders its rows by them

    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": 1, "width": 200, "height": 200}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": i + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": float(areas[i]),
                "bbox": [*boxes[i, :2].tolist(), *(boxes[i, 2:] - boxes[i, :2]).tolist()],
                "keypoints": truth[i].ravel().tolist(), "num_keypoints": int((truth[i, :, 2] > 0).sum()),
            }
            for i in range(5)
        ],
    }  # fmt: skip
    coco.createIndex()
    detections = coco.loadRes(
        [
            {"image_id": 1, "category_id": 1, "score": float(score), "keypoints": rows.ravel().tolist()}
            for rows, score in zip(keypoints, scores, strict=True)
        ]
    )
    evaluation = COCOeval(coco, detections, "keypoints")
    np.testing.assert_allclose(ops.COCO_SIGMAS, evaluation.params.kpt_oks_sigmas, rtol=1e-6)
    evaluation._prepare()
    expected = evaluation.computeOks(1, 1)
    assert expected.shape == (7, 5)
    assert ((expected > 0.1) & (expected < 0.95)).sum() >= 3
    np.testing.assert_allclose(ops.pairwise_oks(keypoints, truth, boxes, areas), expected, rtol=1e-4, atol=1e-6)


def naive_nms(keypoints, boxes, scores, valid, threshold, sigmas, offset=0):
    sides = boxes[:, 2:] - boxes[:, :2] + offset
    everything = np.concatenate([keypoints[..., :2], np.ones_like(keypoints[..., :1])], axis=2)
    similarity = naive_oks(keypoints, everything, boxes, sides.prod(axis=1), sigmas)
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if valid[i] and all(similarity[i, j] <= threshold for j in kept):
            kept.append(i)
    return kept


def crowded(seed, number):
    """Detections in groups about the same few people."""
    rng = np.random.default_rng(seed)
    keypoints, boxes, _ = people(seed, 6)
    rows = rng.integers(0, 6, number)
    keypoints = keypoints[rows] + rng.normal(0, 4, (number, 17, 3))
    boxes = boxes[rows] + rng.normal(0, 4, (number, 4))
    parts = keypoints, boxes, rng.random(number)
    return *(part.astype(np.float32) for part in parts), rng.random(number) < 0.9


def kept_indices(found):
    indices, valid = (np.asarray(part) for part in found)
    assert indices.dtype == np.int32
    assert (np.diff(valid.astype(int)) <= 0).all()  # padding comes last
    assert (indices[~valid] == 0).all()
    return indices[valid]


def test_nms_by_hand():
    """Detection 1, the best, suppresses 0, whose similarity is exp(-2)/2 + exp(-1/2)/2 = 0.37 by the area of 1. 0 would
    have suppressed 2, but it is gone. 3 is padding, the score of 4 is not a number."""
    first = np.array([[10, 10, 0], [20, 20, 0]], np.float32)
    keypoints = np.stack([first] * 5)
    keypoints[:, :, 0] += np.array([4, 0, 8, 0, 0])[:, None]
    boxes = np.array([[0, 0, 30, 30], [0, 0, 20, 20], [0, 0, 20, 20], [0, 0, 20, 20], [0, 0, 20, 20]], np.float32)
    scores, valid = np.array([0.8, 0.9, 0.7, 1.0, np.nan]), np.array([True, True, True, False, True])
    arguments = keypoints, boxes, jnp.asarray(scores, jnp.float32), valid

    def kept(threshold, max_outputs=4):
        return kept_indices(ops.oks_nms(*arguments, threshold=threshold, sigmas=SIGMAS, max_outputs=max_outputs))

    np.testing.assert_array_equal(kept(0.36), [1, 2])
    np.testing.assert_array_equal(kept(0.99), [1, 0, 2])
    np.testing.assert_array_equal(kept(0.99, max_outputs=2), [1, 0])


def test_nms_takes_the_area_of_the_better_one():
    """Off by 4 px: exponents 2 and 1/2 by the area 400, an eighth of that by 3200."""
    keypoints = np.array([[[10, 10, 0], [20, 20, 0]], [[14, 10, 0], [24, 20, 0]]], np.float32)
    boxes = np.array([[0, 0, 20, 20], [0, 0, 40, 80]], np.float32)

    def kept(scores):
        arguments = keypoints, boxes, jnp.array(scores), jnp.ones(2, bool)
        return kept_indices(ops.oks_nms(*arguments, threshold=0.5, sigmas=SIGMAS, max_outputs=2))

    np.testing.assert_array_equal(kept([0.9, 0.8]), [0, 1])
    np.testing.assert_array_equal(kept([0.8, 0.9]), [1])


def test_nms_at_the_threshold_keeps_and_equal_scores_go_by_index():
    keypoints = jnp.tile(jnp.array([[[10.0, 10.0, 0.0], [20.0, 20.0, 0.0]]]), (3, 1, 1))
    arguments = keypoints, jnp.zeros((3, 4)), jnp.ones(3), jnp.ones(3, bool)
    equal, below = (
        kept_indices(ops.oks_nms(*arguments, threshold=threshold, sigmas=SIGMAS, max_outputs=3))
        for threshold in (1.0, 0.999)
    )
    np.testing.assert_array_equal(equal, [0, 1, 2])
    np.testing.assert_array_equal(below, [0])


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.6])
def test_nms_against_naive(threshold, offset):
    case = crowded(4, 60)
    expected = naive_nms(*case, threshold, ops.COCO_SIGMAS, offset)
    found = kept_indices(ops.oks_nms(*case, threshold=threshold, max_outputs=60, offset=offset))
    np.testing.assert_array_equal(found, expected)
    assert 3 < len(found) < case[3].sum()


def test_nms_vmap_and_nothing_valid():
    cases = [crowded(seed, 40) for seed in range(3)]
    cases[1][3][:] = False
    batch = [np.stack(parts) for parts in zip(*cases, strict=True)]
    indices, valid = jax.vmap(lambda *case: ops.oks_nms(*case, threshold=0.3, max_outputs=40))(*batch)
    for row, case in enumerate(cases):
        expected = naive_nms(*case, 0.3, ops.COCO_SIGMAS)
        np.testing.assert_array_equal(kept_indices((indices[row], valid[row])), expected)
    assert not valid[1].any()


def test_no_detections():
    found = ops.oks_nms(
        jnp.zeros((0, 17, 3)), jnp.zeros((0, 4)), jnp.zeros(0), jnp.zeros(0, bool), threshold=0.3, max_outputs=5
    )
    assert len(kept_indices(found)) == 0
    truth, boxes, areas = people(0, 2)
    assert ops.pairwise_oks(jnp.zeros((0, 17, 3)), truth, boxes, areas).shape == (0, 2)
    assert ops.pairwise_oks(truth, truth[:0], boxes[:0], areas[:0]).shape == (2, 0)


def test_nms_under_shard_map():
    case = [part[None] for part in crowded(5, 30)]
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,))
    batched, axis = jax.vmap(lambda *case: ops.oks_nms(*case, threshold=0.3, max_outputs=30)), PartitionSpec("batch")
    sharded = jax.jit(jax.shard_map(batched, mesh=mesh, in_specs=axis, out_specs=axis))
    jax.tree.map(np.testing.assert_array_equal, sharded(*case), batched(*case))


def test_sigmas_of_another_number_are_an_error(unchecked):
    with pytest.raises(ValueError, match=r"5 keypoints need as many sigmas; sigmas have shape \(17,\)"):
        ops.pairwise_oks(jnp.zeros((2, 5, 3)), jnp.zeros((1, 5, 3)), jnp.zeros((1, 4)), jnp.zeros(1))
