"""Mosaics of test images, and what they tell of a model."""

import numpy as np
import pytest
from memory_source import MemorySource, annotate, disc, disc_source
from oracle import Certain, Oracle, of_two_kinds

from fsis_jax.data.opening import open_source
from fsis_jax.errors import FsisError
from fsis_jax.evaluation.mosaics import Mosaics
from fsis_jax.evaluation.predictions import read_target
from fsis_jax.evaluation.protocol import (
    format_selectivity,
    run_selectivity,
)
from fsis_jax.evaluation.selectivity import measure_selectivity
from fsis_jax.inference.instances import Instances
from fsis_jax.preprocess.records import Subset
from fsis_jax.preprocess.windows import decode_columns


@pytest.fixture(scope="module")
def sources(tiny_data):
    return open_source(tiny_data, "test"), open_source(tiny_data, "train")


def test_mosaics_show_four_categories_with_their_cells(sources):
    targets, _ = sources
    mosaics = Mosaics(targets, 9, seed=3)
    assert len(mosaics) == len(mosaics.annotations) == 9
    held = [set(annotations.classes.tolist()) for annotations in mosaics.annotations]
    assert all(len(categories) == 4 for categories in held)
    times = [sum(category in categories for categories in held) for category in targets.categories]
    assert max(times) - min(times) <= 1
    for position, annotations in enumerate(mosaics.annotations):
        image = read_target(mosaics, position)
        assert image.shape[:2] == (annotations.height, annotations.width)
        truth = Instances.from_rles(annotations.rles, image.shape[:2])
        np.testing.assert_array_equal(np.sort(truth.areas()), np.sort(annotations.areas))
        half = image.shape[0] // 2
        for y1, x1, y2, x2 in annotations.boxes[:, [1, 0, 3, 2]]:
            assert y1 // half == (y2 - 1) // half
            assert x1 // half == (x2 - 1) // half
    again = Mosaics(targets, 9, seed=3)
    assert all(mosaics[i].encoded == again[i].encoded for i in range(9))
    assert any(mosaics[i].encoded != Mosaics(targets, 9, seed=4)[i].encoded for i in range(9))


def test_masks_of_a_mosaic_lie_on_their_pixels_and_a_panel_has_the_class_of_its_image():
    size, places = (80, 120), [(20, 20), (60, 22), (100, 20), (24, 60), (64, 58), (98, 62)]
    images, annotations = [], []
    for number in range(10):
        category = 1 + number % 5
        masks = [disc(size, x, y, 4 + 2 * category) for x, y in places]
        images.append(np.where(np.any(masks, axis=0), 60 + 10 * category, 20).astype(np.uint8))
        annotations.append(annotate(masks, [category] * len(masks), size=size, image_id=1 + number))
    area_of = {int(a.classes[0]): a.areas[0] for a in annotations}
    mosaics = Mosaics(MemorySource(images, annotations), 8, seed=1)
    for position, record in enumerate(mosaics.annotations):
        bright = read_target(mosaics, position)[..., 0] > 128
        assert bright.shape == (160, 160)
        masks = [decode_columns(rle, 160, 0, 160).astype(bool) for rle in record.rles]
        union = np.any(masks, axis=0)
        assert bright[union].all()
        assert (bright & union).sum() > 0.97 * bright.sum()  # slivers at the border count as background
        panels, whole = {}, set()
        for (x1, y1, x2, y2), category, mask in zip(record.boxes.astype(int), record.classes, masks, strict=True):
            panel = (y1 // 80, x1 // 80)
            assert panels.setdefault(panel, category) == category
            if all(edge % 80 for edge in (x1, y1, x2, y2)):
                assert mask.sum() == area_of[category]
                whole.add(panel)
        assert len(set(panels.values())) == len(panels) == len(whole) == 4


def test_mosaics_need_four_categories(sources):
    targets, _ = sources
    few = Subset(targets, [i for i, a in enumerate(targets.annotations) if set(a.classes.tolist()) <= {1, 2, 3}])
    with pytest.raises(FsisError, match=r"images of four categories, each showing one alone; there are 3"):
        Mosaics(few, 2)


def test_selectivity_of_one_that_knows_and_of_one_that_finds_all(sources):
    targets, train = sources
    mosaics = Mosaics(targets, 6)
    every = sorted(targets.categories)
    knows = measure_selectivity(Certain(targets, mosaics, train), mosaics, train, every)
    assert (knows.images, knows.mask_ap50) == (6, pytest.approx(1))
    assert (knows.on_other, knows.found_absent, knows.absent_ratio) == (0, 0, 0)

    class Heedless(Oracle):
        def category_of(self, crops):
            return -1

    heedless = measure_selectivity(Heedless(targets, mosaics, train), mosaics, train, every)
    assert heedless.mask_ap50 == pytest.approx(heedless.wrong_mask_ap50, abs=0.02)
    assert heedless.on_other > 0.5
    assert heedless.absent_ratio == pytest.approx(1)
    repeats = run_selectivity(Certain(targets, mosaics, train), mosaics, train, every, shots=1, repeats=2, seed=0)
    assert repeats["mean"]["mask_ap50"] == pytest.approx(1)
    assert format_selectivity(repeats).splitlines()[1].split() == ["mask_ap50", "1.000", "±", "0.000"]


def test_selectivity_needs_several_categories_and_an_absent_one():
    targets, train = of_two_kinds(), disc_source(4)
    with pytest.raises(
        FsisError, match=r"shows all of \[1, 2\]: none can be absent; test more categories \(eval\.split\)$"
    ):
        measure_selectivity(Oracle(targets, train), targets, train, [1, 2])
    with pytest.raises(
        FsisError, match=r"^none of the 4 images shows several categories with one of \[1, 2\] among them"
    ):
        measure_selectivity(Oracle(train), train, train, [1, 2])
