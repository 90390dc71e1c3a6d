"""Detection at a scale, shapes of what comes out, and the original's mistake in matching for masks."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from tiny_detector import QUICK_COMPILE, blobs, tiny_batch, tiny_c4_config, tiny_config, tiny_detector

from fsis_jax.models.detection import Detections, View, detect, mask_confidence
from fsis_jax.models.detector import Detector
from fsis_jax.models.normalise import normalise

SIZES = np.array([[64, 80], [72, 96]], np.int32)
CANVAS = (96, 96)

Detect = Callable[..., Detections]


def six_levels() -> ConfigDict:
    config = tiny_config()
    config.model.fpn.coarsest = 6
    config.model.rpn.anchor_sizes = (8, 16, 32, 64, 128)
    return config


def detector(config: ConfigDict) -> Detect:
    """(scales, original sizes) -> detections in two images."""
    graph, state = nnx.split(tiny_detector(config, seed=3))
    images = np.zeros((2, *CANVAS, 3), np.uint8)
    for row, (height, width) in enumerate(SIZES):
        images[row, :height, :width] = blobs(row, height, width)
    references = np.stack([blobs(20, 32, 32), blobs(21, 32, 32)])[None]

    @functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
    def run(state: nnx.State, scales: jax.Array, original_sizes: jax.Array) -> Detections:
        model = nnx.merge(graph, state)
        encoded = model.encode_references(normalise(references))
        view = View(normalise(images, SIZES), SIZES, scales)
        return detect(model, [view], encoded, original_sizes=original_sizes)

    def find(scales: tuple[float, float] = (1.0, 1.0)) -> Detections:
        of_rows = np.array(scales, np.float32)
        return jax.device_get(run(state, of_rows, (SIZES / of_rows[:, None]).astype(np.int32)))

    return find


@pytest.fixture(scope="module")
def continuous() -> Detect:
    return detector(six_levels())


def test_scales_divide_the_boxes(continuous: Detect) -> None:
    """In the continuous convention nothing else depends on them; 2 and 1/4 leave every bit of a box alone."""
    plain, scaled = continuous(), continuous((2.0, 0.25))
    assert plain.valid.sum() > 8
    np.testing.assert_array_equal(scaled.valid, plain.valid)
    for row, scale in enumerate((2.0, 0.25)):
        valid = plain.valid[row]
        np.testing.assert_allclose(scaled.boxes[row, valid] * scale, plain.boxes[row, valid], atol=1e-4)
        np.testing.assert_allclose(scaled.scores[row, valid], plain.scores[row, valid], atol=1e-5)
        np.testing.assert_allclose(scaled.masks[row, valid], plain.masks[row, valid], atol=1e-4)


def test_mask_confidence_by_hand() -> None:
    """Of 0.9, 0.8, 0.4 and 0 the cut mask holds the first two: 1.7 shared of 2.4 in all. A sure one has 1, none 0."""
    masks = jnp.array([[[0.9, 0.8], [0.4, 0.0]], [[1.0, 0.0], [0.0, 0.0]], [[0.4, 0.3], [0.2, 0.1]]])
    np.testing.assert_allclose(mask_confidence(masks), [1.7 / 2.4, 1, 0], rtol=1e-6)


def test_masks_rank_what_is_found(continuous: Detect) -> None:
    """With their confidence in the score, which is sure of little here, and in the order."""
    plain = continuous()
    config = six_levels()
    config.model.detections.mask_confidence = 2.0
    ranked = detector(config)()
    np.testing.assert_array_equal(ranked.valid, plain.valid)
    for row in range(2):
        count = int(plain.valid[row].sum())
        expected = plain.scores[row] * np.asarray(mask_confidence(plain.masks[row])) ** 2
        order = np.argsort(-expected[:count], kind="stable")
        np.testing.assert_allclose(ranked.scores[row, :count], expected[:count][order], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(ranked.boxes[row, :count], plain.boxes[row, :count][order], atol=1e-3)
        np.testing.assert_allclose(ranked.masks[row, :count], plain.masks[row, :count][order], atol=1e-3)


def test_votes_rank_what_is_found() -> None:
    """Each score is lowered by what the votes say of its mask; boxes are the same, in another order."""
    config = six_levels()
    config.model.votes.kind = "dense"
    plain = detector(config)()
    config.model.detections.vote_confidence = 1.0
    ranked = detector(config)()
    valid = plain.valid[0]
    np.testing.assert_array_equal(ranked.valid[0], valid)
    assert (np.diff(ranked.scores[0, valid]) <= 0).all()
    before, after = np.lexsort(plain.boxes[0, valid].T), np.lexsort(ranked.boxes[0, valid].T)
    np.testing.assert_allclose(ranked.boxes[0, valid][after], plain.boxes[0, valid][before], atol=1e-3)
    confidence = ranked.scores[0, valid][after] / plain.scores[0, valid][before]
    assert ((confidence > 0.01) & (confidence < 0.99)).all()
    assert np.ptp(confidence) > 0.01


@pytest.mark.slow
def test_inclusive_boxes_depend_on_where_they_are_decoded() -> None:
    """A box from 0 to 10 is 11 pixels wide there, one from 0 to 20 is 21: not twice as wide."""
    config = six_levels()
    config.model.legacy_boxes = True
    legacy = detector(config)
    plain, scaled = legacy(), legacy((2.0, 2.0))
    best = plain.boxes[:, 0], scaled.boxes[:, 0] * 2
    assert 0.01 < np.abs(best[0] - best[1]).max() < 4


@pytest.mark.slow
def test_shifted_mask_references_change_the_masks_alone(continuous: Detect) -> None:
    config = six_levels()
    config.model.shifted_mask_references = True
    plain, shifted = continuous(), detector(config)()
    for name in ("boxes", "scores", "valid"):
        np.testing.assert_allclose(getattr(shifted, name), getattr(plain, name), atol=1e-5, err_msg=name)
    difference = np.abs(shifted.masks - plain.masks).max((2, 3))
    assert (difference[plain.valid] > 1e-3).all()


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize(("architecture", "pooled"), [("fpn", 14), ("c4", 14), ("c4", 7)])
def test_shapes(architecture: str, pooled: int, outputs: int) -> None:
    """Masks have twice the side of what their head pools, whatever that is."""
    config = tiny_config() if architecture == "fpn" else tiny_c4_config()
    config.model.mask_head.pooled = pooled
    config.model.background_outputs = outputs == 2
    model = nnx.eval_shape(lambda: Detector(config.model, rngs=nnx.Rngs(0)))
    batch = tiny_batch()

    def run(model: Detector) -> tuple[Detections, ...]:
        pixels = normalise(batch.images, batch.image_sizes)
        references = model.encode_references(normalise(batch.references))
        pyramid = model.pyramid(pixels, model.extent(batch.image_sizes))
        matched = model.match(pyramid, references, None)
        features = model.pool(matched, batch.gt_boxes, pooled)
        found = detect(model, [View(pixels, batch.image_sizes)], references)
        return found, pyramid, features, model.mask_head(features)

    found, pyramid, features, masks = nnx.eval_shape(run, model)
    count = config.model.detections.max_instances
    assert found.boxes.shape == (2, count, 4)
    assert found.scores.shape == found.valid.shape == (2, count)
    assert found.masks.shape == (2, count, 2 * pooled, 2 * pooled)
    assert masks.shape == (2, 3, 2 * pooled, 2 * pooled, outputs)
    assert list(pyramid) == ([4] if architecture == "c4" else [2, 3, 4, 5])
    channels, levels = (72, 1) if architecture == "c4" else (36, 4)  # twice the level's: past res5
    assert features.rois.shape == (2, 3, pooled, pooled, channels)
    assert features.references.shape == (2, levels, pooled, pooled, channels)
