import dataclasses

import cv2
import numpy as np
import pytest
from memory_source import MemorySource, annotate, disc, disc_source

from fsis_jax.data.episodes import Episode, ReferenceBox
from fsis_jax.data.examples import ImageCache, training_example
from fsis_jax.errors import FsisError
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import (
    Tone,
    cut_reference,
    place,
    reference_image,
    resize,
    target_scale,
    to_8bit,
)

SIZE = (96, 128)
CONFIG = TransformConfig(
    scale="reference",
    max_scale=8.0,
    intensity="percentile",
    antialias=True,
    reference_size=32,
    mask_size=14,
    max_instances=8,
    reference_context=1.0,
    flip=0.0,
)


@pytest.fixture(scope="module")
def source():
    return disc_source(4)


def _example(source, episode, config=CONFIG, *, canvas=(256, 256), trainable=(1, 2), seed=0):
    return training_example(
        ImageCache(source, config),
        episode,
        config,
        canvas=canvas,
        trainable=trainable,
        rng=np.random.default_rng(seed),
    )


def _present(source, target, reference):
    record = source.annotations[reference]
    box = ReferenceBox(reference, tuple(record.boxes[0].tolist()))
    return Episode(target, "present", int(record.classes[0]), (box,))


def _rebuilt(example, canvas=(256, 256)):
    """Union of the instances' masks, pasted back from their own boxes."""
    union = np.zeros(canvas, bool)
    for box, mask, valid in zip(example["gt_boxes"], example["gt_masks"], example["gt_valid"], strict=True):
        if valid:
            x1, y1, x2, y2 = np.rint(box).astype(int)
            pasted = cv2.resize(mask, (max(1, x2 - x1), max(1, y2 - y1)), interpolation=cv2.INTER_LINEAR) > 127
            union[y1:y2, x1:x2] |= pasted
    return union


def test_a_whole_target_is_scaled_to_its_references(source):
    example = _example(source, _present(source, 0, 2))  # discs of radius 7: 14 px to 32
    np.testing.assert_array_equal(example["image_sizes"], [round(96 * 32 / 14), 256])  # 128 px are cropped to 112
    assert example["reference_present"]
    assert example["gt_valid"].sum() >= 2
    widths = (example["gt_boxes"][:, 2] - example["gt_boxes"][:, 0])[example["gt_valid"]]
    assert widths.max() == pytest.approx(32, abs=0.1)


@pytest.mark.parametrize("copies", [0, 3])
@pytest.mark.parametrize("seed", range(6))
def test_masks_lie_on_the_bright_discs_whatever_the_crop_and_the_turn(source, seed, copies):
    config = dataclasses.replace(CONFIG, flip=0.5, rot90=True, scale_jitter=2.0, mask_size=28, copies=copies)
    example = _example(source, _present(source, 1, 3), config, canvas=(160, 160), seed=seed)
    bright = example["images"][..., 0] > 128
    height, width = example["image_sizes"]
    assert not example["images"][height:].any()
    assert not example["images"][:, width:].any()
    rebuilt = _rebuilt(example, (160, 160))
    assert (bright & rebuilt).sum() / (bright | rebuilt).sum() > 0.9
    valid = example["gt_valid"]
    assert (example["gt_boxes"][valid][:, 2:] <= [width, height]).all()
    assert (example["gt_boxes"][~valid] == 0).all()
    assert (example["gt_matches"] & ~example["gt_ignore"]).any()


def test_copies_are_instances_of_their_kind_and_leave_room_for_no_more_than_fit(source):
    counts = set()
    for seed in range(12):
        example = _example(source, _present(source, 0, 2), dataclasses.replace(CONFIG, copies=9), seed=seed)
        counts.add(int(example["gt_valid"].sum()))
        np.testing.assert_array_equal(example["gt_matches"], example["gt_valid"])
    assert max(counts) == CONFIG.max_instances
    assert len(counts) > 2


def test_a_crop_that_lies_anywhere_may_show_no_cell(source):
    crop = {"canvas": (64, 64), "config": dataclasses.replace(CONFIG, anywhere=1.0)}
    present = [_example(source, _present(source, 1, 3), **crop, seed=seed)["reference_present"] for seed in range(20)]
    assert set(map(bool, present)) == {True, False}
    about = {"canvas": (64, 64)}
    assert all(_example(source, _present(source, 1, 3), **about, seed=seed)["reference_present"] for seed in range(20))


def test_kinds_decide_what_matches(source):
    present = _example(source, _present(source, 0, 2))
    np.testing.assert_array_equal(present["gt_matches"], present["gt_valid"])
    absent = _example(source, dataclasses.replace(_present(source, 1, 2), kind="absent"))
    assert not absent["reference_present"]
    assert not absent["gt_matches"].any()
    assert absent["gt_valid"].any()
    assert not absent["gt_ignore"].any()
    patch = Episode(0, "background", None, (ReferenceBox(0, (50.0, 40.0, 64.0, 54.0)),))
    background = _example(source, patch)
    assert not background["reference_present"]
    assert not background["gt_matches"].any()


def test_crowds_held_out_categories_and_slivers_are_ignored():
    masks = [disc(SIZE, 20, 20, 8), disc(SIZE, 60, 20, 8), disc(SIZE, 100, 20, 8), np.zeros(SIZE, bool)]
    masks[3][90, 100] = True
    image = np.full(SIZE, 20, np.uint8)
    record = annotate(masks, [1, 1, 2, 1], size=SIZE, crowd=[False, True, False, False])
    source = MemorySource([image], [record])
    config = dataclasses.replace(CONFIG, reference_pixels=8)
    example = _example(source, _present(source, 0, 0), config, trainable=[1])
    np.testing.assert_array_equal(example["gt_classes"][:4], [1, 1, 0, 1])
    np.testing.assert_array_equal(example["gt_ignore"][:5], [False, True, True, True, False])
    np.testing.assert_array_equal(example["gt_valid"].sum(), 4)
    assert example["reference_present"]


def test_a_target_without_visible_matches_counts_as_absent():
    record = annotate([disc(SIZE, 20, 20, 8)], [1], size=SIZE, crowd=[True])
    source = MemorySource([np.full(SIZE, 20, np.uint8)], [record])
    assert not _example(source, _present(source, 0, 0))["reference_present"]


def test_box_offset(source):
    episode = _present(source, 0, 2)
    plain, legacy = (_example(source, episode, dataclasses.replace(CONFIG, box_offset=o)) for o in (0, 1))
    difference = (plain["gt_boxes"] - legacy["gt_boxes"])[plain["gt_valid"]]
    np.testing.assert_allclose(difference, np.tile([0, 0, 1, 1], (len(difference), 1)), atol=1e-4)


def test_a_crowded_target_shows_less_of_itself():
    masks = [disc(SIZE, x, y, 3) for x in range(6, 126, 8) for y in range(6, 94, 8)]
    record = annotate(masks, [1] * len(masks), size=SIZE)
    image = np.full(SIZE, 10, np.uint8)
    image[np.any(masks, axis=0)] = 200
    source = MemorySource([image], [record])
    config = dataclasses.replace(CONFIG, max_instances=30, reference_pixels=6)
    example = _example(source, _present(source, 0, 0), config)
    assert 5 <= example["gt_valid"].sum() <= 30
    bright = example["images"][..., 0] > 128
    rebuilt = _rebuilt(example)
    assert (bright & rebuilt).sum() / (bright | rebuilt).sum() > 0.8


def test_a_16_bit_colour_or_grey_target_gives_the_same_arrays(source):
    grey = ImageCache(source, CONFIG).raw(0)
    for image in (np.stack([grey] * 3, axis=-1), grey.astype(np.uint16) * 200):
        same = MemorySource([image], source.annotations[:1])
        episode = _present(same, 0, 0)
        for name, value in _example(source, episode).items():
            # Stretched values of 16-bit pixels may round the other way.
            rounding = int(name in ("images", "references"))
            np.testing.assert_allclose(_example(same, episode)[name].astype(float), value, atol=rounding)


def test_the_cache_is_bounded_and_checks_the_size(source):
    cache = ImageCache(source, CONFIG, max_bytes=3 * SIZE[0] * SIZE[1])
    for record in (0, 1, 2, 3, 0):
        np.testing.assert_array_equal(cache.stretched(record), ImageCache(source, CONFIG).stretched(record))
        assert sum(image.nbytes for image in cache._images.values()) == cache._bytes <= 3 * SIZE[0] * SIZE[1]
    wrong = MemorySource([np.zeros((10, 12), np.uint8)], source.annotations[:1])
    with pytest.raises(FsisError, match=r"1\.png: the image is 12x10 pixels, its annotations say 128x96"):
        ImageCache(wrong, CONFIG).raw(0)


def test_without_augmentation_training_sees_what_a_test_sees(source):
    config = dataclasses.replace(CONFIG, reference_pixels=16)
    episode = _present(source, 0, 2)
    example = _example(source, episode, config, canvas=(128, 160))
    cache = ImageCache(source, config)
    crop = cut_reference(cache.raw(2), episode.references[0].box)
    scale = target_scale(SIZE, np.array([crop.shape[:2]]), config)
    assert scale == pytest.approx(16 / 14)
    image = resize(to_8bit(cache.raw(0), config), scale)
    np.testing.assert_array_equal(example["image_sizes"], image.shape[:2])
    np.testing.assert_array_equal(example["images"], place(image, (128, 160)))
    np.testing.assert_array_equal(example["references"][0], reference_image(crop, config))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [1, 3])
def test_every_panel_of_a_mosaic_shows_its_cells_where_their_boxes_are(count, seed):
    source = disc_source(6, categories=3)
    config = dataclasses.replace(CONFIG, flip=0.5, rot90=True, scale_jitter=1.3, mask_size=28, max_instances=32)
    episode = dataclasses.replace(_present(source, 0, 3), others=(1, 2, 4)[:count])
    example = _example(source, episode, config, trainable=(1, 2, 3), seed=seed)
    np.testing.assert_array_equal(example["image_sizes"], [256, 256])
    bright = example["images"][..., 0] > 127
    union = _rebuilt(example)
    assert (bright & union).sum() > 0.85 * (bright | union).sum()
    assert set(example["gt_classes"][example["gt_valid"]]) == {1, 2, 3}.intersection(
        {int(source.annotations[target].classes[0]) for target in (0, *episode.others)}
    )
    np.testing.assert_array_equal(example["gt_matches"], (example["gt_classes"] == 1) & example["gt_valid"])
    assert example["gt_valid"].sum() <= config.max_instances


def test_colours_change_in_the_target_and_its_references_alike(source):
    episode = dataclasses.replace(
        _present(source, 0, 2), contrast_category=2, contrast=_present(source, 1, 3).references
    )
    plain, inverted = (_example(source, episode, dataclasses.replace(CONFIG, invert=p)) for p in (1e-9, 1.0))
    height, width = plain["image_sizes"]
    np.testing.assert_array_equal(inverted["images"][:height, :width], 255 - plain["images"][:height, :width])
    inner = np.s_[:, 4:-4, 4:-4]  # the padding to a square stays black
    for name in ("references", "contrast_references"):
        # Resized before and after, so rounded on the other side.
        np.testing.assert_allclose(inverted[name][inner], 255.0 - plain[name][inner], atol=1)


def test_colour_is_taken_away():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    grey = Tone(grey=True)(image)
    assert grey.shape == (40, 40)
    np.testing.assert_array_equal(Tone(invert=True, grey=True)(image), 255 - grey)
    np.testing.assert_array_equal(Tone(grey=True)(grey), grey)
    draws = [Tone.draw(np.random.default_rng(i), dataclasses.replace(CONFIG, invert=0.3, grey=0.2)) for i in range(500)]
    assert 0.22 < np.mean([tone.invert for tone in draws]) < 0.38
    assert 0.13 < np.mean([tone.grey for tone in draws]) < 0.27
