"""The empty parts of large images: what they are, and that they do not count for the stretch."""

import cv2
import numpy as np
import pytest

from fsis_jax.io.content import Content
from fsis_jax.io.intensity import find_stretch


def _cells(rng, size, level, contrast, share=1.0):
    """Discs of 28 pixels on a level with noise."""
    image = rng.normal(level, 2, size)
    for y in range(20, size[0] - 20, 40):
        for x in range(20, size[1] - 20, 40):
            if rng.random() < share:
                cv2.circle(image, (x, y), 13, level + contrast, -1)
    return image


@pytest.mark.parametrize(("level", "contrast"), [(14, 150), (243, -190)])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_few_cells_on_much_background_are_stretched_as_if_alone(level, contrast, colours):
    rng = np.random.default_rng(0)
    part = _cells(rng, (400, 500), level, contrast, share=0.4)
    whole = rng.normal(level, 2, (4000, 4000))
    whole[1200:1600, 2000:2500] = part
    part, whole = (np.clip(image, 0, 255).astype(np.uint8) for image in (part, whole))
    if colours == 3:
        part, whole = (np.stack([image] * 3, axis=2) for image in (part, whole))
    content = Content(whole, 7)
    assert 0.01 < content.shows.mean() < 0.03
    alone, beside = find_stretch(part), find_stretch(whole, bands=content.bands)
    assert abs(alone.low - beside.low) <= 8
    assert abs(alone.high - beside.high) <= 8
    everything = find_stretch(whole)
    assert everything.high - everything.low < 30  # the noise of the background


def test_all_counts_where_nothing_is_empty():
    rng = np.random.default_rng(1)
    images = [
        _cells(rng, (1500, 1700), 60, 100, share=0.7),
        cv2.GaussianBlur(rng.normal(100, 300, (1500, 1700)), (0, 0), 6),  # texture
        rng.normal(100, 5, (1500, 1700)),  # noise
        np.full((1500, 1700), 7.0),
        np.full((1500, 1700), np.nan),
    ]
    for image in (image.astype(np.float32) for image in images):
        content = Content(image, 7)
        assert content.shows.all()
        assert find_stretch(image, bands=content.bands) == find_stretch(image)


def test_a_speck_that_outshines_the_cells_does_not_hide_them():
    rng = np.random.default_rng(2)
    whole = rng.normal(100, 3, (4000, 4000))
    whole[400:1200, 400:1200] = _cells(rng, (800, 800), 100, 300)
    whole[3000:3020, 3000:3020] = 60_000
    content = Content(whole.astype(np.uint16), 7)
    assert content.shows.mean() > 0.03
    stretch = find_stretch(whole.astype(np.uint16), bands=content.bands)
    assert 350 < stretch.high < 450


def test_every_pixel_is_looked_at_once_whatever_the_size():
    rng = np.random.default_rng(3)
    for size in ((1, 1), (1, 3000), (700, 5), (333, 4000), (1000, 1001)):
        image = rng.integers(0, 60_000, size, np.uint16)
        content = Content(image, 3)
        content.shows[:] = True
        seen = np.concatenate([band.ravel() for band in content.bands()])
        np.testing.assert_array_equal(np.sort(seen), np.sort(image.ravel()))
