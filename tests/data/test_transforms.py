import dataclasses

import ml_collections
import numpy as np
import pytest
from memory_source import annotate, disc

from fsis_jax.errors import FsisError
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import (
    Orientation,
    choose_canvas,
    cut_reference,
    jitter_intensity,
    own_scale,
    place,
    random_orientation,
    reference_image,
    resize,
    resize_square,
    scaled_size,
    shortest_side_scale,
    target_scale,
    to_8bit,
)

PLAIN = TransformConfig(antialias=True)
STRETCHED = TransformConfig(intensity="percentile", antialias=True)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (33, 47, 3)).astype(np.uint8)


def test_config_from_a_config_dict():
    config = TransformConfig.from_config(ml_collections.ConfigDict({"max_instances": 50, "percentiles": (2.0, 98.0)}))
    assert config == dataclasses.replace(TransformConfig(), max_instances=50, percentiles=(2.0, 98.0))
    with pytest.raises(FsisError, match="unknown key 'max_instance'"):
        TransformConfig.from_config({"max_instance": 50})


def test_scales():
    config = TransformConfig()
    assert shortest_side_scale((300, 400), config) == 2
    assert shortest_side_scale((300, 600), config) == pytest.approx(1000 / 600)
    assert target_scale((400, 300), np.zeros((1, 2)), config) == 2
    by_reference = TransformConfig(scale="reference", reference_pixels=32, min_scale=0.5, max_scale=4)
    assert target_scale((300, 400), np.array([[16, 16], [4, 9], [10, 40]]), by_reference) == 2
    assert target_scale((300, 400), np.array([[2, 2]]), by_reference) == 4
    assert target_scale((300, 400), np.array([[200, 200]]), by_reference) == 0.5
    assert target_scale((300, 400), np.zeros((0, 2)), by_reference) == 1


def test_own_scale_follows_the_cells_of_the_image_without_crowds():
    size = (64, 64)
    masks = [disc(size, 20, 20, 8), disc(size, 44, 44, 16)]
    record = annotate(masks, [1, 1], size=size, crowd=[False, True])
    assert own_scale(record, TransformConfig(scale="reference", reference_pixels=32)) == 2
    assert own_scale(record, TransformConfig()) == 600 / 64


def test_choose_canvas():
    canvases = [(600, 1000), (600, 800), (1000, 600)]
    assert choose_canvas((600, 800), canvases) == (600, 800)
    assert choose_canvas((600, 801), canvases) == (600, 1000)
    assert choose_canvas((900, 600), canvases) == (1000, 600)
    with pytest.raises(FsisError, match="700x700"):
        choose_canvas((700, 700), canvases)


def test_resize_keeps_the_exact_scale():
    ramp = np.tile(np.arange(64, dtype=np.float32), (64, 1))
    for scale in (0.7, 1.3, 2.0):
        resized = resize(ramp, scale)
        assert resized.shape == scaled_size((64, 64), scale)
        inner = slice(4, -4)
        expected = (np.arange(resized.shape[1]) + 0.5) / scale - 0.5
        np.testing.assert_allclose(resized[3, inner], expected[inner], atol=0.02)
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    np.testing.assert_allclose(resize(checks.astype(np.float32), 0.25), 127.5)
    assert resize(np.zeros((2, 40), np.uint8), 0.125).shape == (1, 5)


def test_without_antialiasing_pixels_are_skipped():
    """To a quarter, bilinear sampling reads two pixels of every four: their centres are 1.5, 5.5, 9.5 ..."""
    columns = np.zeros((64, 64), np.float32)
    columns[:, ::4] = 100  # which it never reads
    np.testing.assert_array_equal(resize(columns, 0.25, antialias=False), 0)
    np.testing.assert_allclose(resize(columns, 0.25), 25)
    np.testing.assert_array_equal(resize_square(columns, 16, antialias=False), 0)
    np.testing.assert_allclose(resize_square(columns, 16), 25)
    ramp = np.tile(np.arange(64, dtype=np.float32), (64, 1))
    np.testing.assert_allclose(resize(ramp, 0.25, antialias=False)[0], np.arange(16) * 4 + 1.5)
    for size, scale in ((32, 0.5), (48, 0.75), (100, 1.5625)):  # above, both are the same
        np.testing.assert_array_equal(resize(columns, scale, antialias=False), resize(columns, scale))
        np.testing.assert_array_equal(resize_square(columns, size, antialias=False), resize_square(columns, size))


def test_references_are_shrunk_as_the_config_says():
    crop = np.zeros((64, 64, 3), np.uint8)
    crop[:, ::4] = 200
    for antialias, level in ((False, 0), (True, 50)):
        config = dataclasses.replace(PLAIN, reference_size=16, antialias=antialias)
        np.testing.assert_array_equal(reference_image(crop, config), level)


def test_place(image):
    canvas = place(image, (40, 50))
    assert canvas.shape == (40, 50, 3)
    np.testing.assert_array_equal(canvas[:33, :47], image)
    assert canvas.sum() == image.sum()
    assert place(image[..., 0], (40, 50))[:33, :47, 2].sum() == image[..., 0].sum()


def test_to_levels_keeps_grey_images_single():
    grey = np.random.default_rng(0).integers(0, 60, (20, 30)).astype(np.uint8)
    np.testing.assert_array_equal(to_8bit(grey, PLAIN), grey)
    np.testing.assert_array_equal(to_8bit(np.stack([grey] * 3 + [grey * 0], axis=-1), PLAIN), grey)
    stretched = to_8bit(grey, STRETCHED)
    assert (stretched.min(), stretched.max()) == (0, 255)
    sixteen = to_8bit(grey.astype(np.uint16) * 100, PLAIN)
    assert (sixteen.min(), sixteen.max()) == (0, 255)


def test_cut_reference_takes_every_pixel_that_the_box_touches(image):
    np.testing.assert_array_equal(cut_reference(image, (3.5, 4, 10.2, 9)), image[4:9, 3:11])
    np.testing.assert_array_equal(cut_reference(image, (3.5, 4, 11.2, 10), legacy=True), image[4:9, 3:10])
    np.testing.assert_array_equal(cut_reference(image, (10, 10, 20, 30), context=1.2), image[8:32, 9:21])
    np.testing.assert_array_equal(cut_reference(image, (40, -3, 60, 5)), image[0:5, 40:47])
    assert cut_reference(image, (47, 33, 48, 34)).size == 3


def test_reference_image_is_square_padded_and_independent_of_the_rest_of_the_image(image):
    config = dataclasses.replace(STRETCHED, reference_size=64)
    reference = reference_image(image[4:20, 3:11], config)
    assert reference.shape == (64, 64, 3)
    assert reference.dtype == np.uint8
    assert reference[:, :14].max() == 0
    assert reference[:, 50:].max() == 0
    assert reference[:, 17:47].max() > 240
    np.testing.assert_array_equal(reference, reference_image(image[4:20, 3:11].copy(), config))
    with pytest.raises(FsisError, match=r"ref\.png: a reference of 1x1 pixels"):
        reference_image(image[:1, :1], config, name="ref.png")


def test_augmented_references_are_flipped_with_their_probability(image):
    config = dataclasses.replace(PLAIN, flip=1.0)
    crop = image[:20, :20]
    plain = reference_image(crop, config)
    flipped = reference_image(crop, config, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(flipped, plain[:, ::-1])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_boxes_turn_with_the_image(flip, turns):
    image = np.zeros((30, 50), np.uint8)
    image[4:9, 20:36] = 1
    orientation = Orientation(flip, turns)
    x1, y1, x2, y2 = orientation.boxes(np.array([[20.0, 4, 36, 9]]), (30, 50))[0].astype(int)
    turned = orientation.image(image)
    assert turned.sum() == turned[y1:y2, x1:x2].sum() == (x2 - x1) * (y2 - y1) == 80


def test_random_orientation_stays_on_the_canvas():
    rng = np.random.default_rng(0)
    config = TransformConfig(rot90=True)
    drawn = {random_orientation(rng, config, (30, 50), (32, 64)) for _ in range(100)}
    assert {o.turns for o in drawn} == {0, 2}
    assert {random_orientation(rng, config, (30, 50), (64, 64)).turns for _ in range(100)} == {0, 1, 2, 3}
    assert {random_orientation(rng, TransformConfig(), (30, 50), (64, 64)).turns for _ in range(50)} == {0}


def test_jitter_changes_nothing_by_default(image):
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(jitter_intensity(rng, image, TransformConfig()), image)
    np.testing.assert_array_equal(jitter_intensity(rng, image[..., 0], TransformConfig()), image[..., 0])


@pytest.mark.parametrize("field", ["gamma", "contrast", "brightness", "colour", "noise"])
def test_jitter_is_moderate_and_seeded(field, image):
    config = TransformConfig(**{field: 1.5 if field == "gamma" else 0.2})
    for pixels in (image, image[..., 0]):
        first = jitter_intensity(np.random.default_rng(5), pixels, config)
        np.testing.assert_array_equal(first, jitter_intensity(np.random.default_rng(5), pixels, config))
        change = np.abs(first.astype(int) - pixels).mean()
        assert first.shape == pixels.shape
        if field == "colour" and pixels.ndim == 2:
            assert change == 0
        else:
            assert 0 < change < 60
