import cv2
import numpy as np
import pytest
from memory_source import annotate, disc

from fsis_jax.data.copies import paste_copies
from fsis_jax.preprocess.windows import Window, visible_instances

SIZE = (80, 120)
WINDOW = Window(20, 10, 110, 80)
GRID = 28


def _cells():
    """Image (80, 120) uint8 and annotations: an L, a disc, and a disc that the image's lower edge cuts."""
    shape = np.zeros(SIZE, bool)
    shape[20:36, 40:44] = shape[32:36, 40:52] = True
    masks = [shape, disc(SIZE, 80, 40, 7), disc(SIZE, 60, 79, 6)]
    image = np.random.default_rng(0).integers(10, 30, SIZE).astype(np.uint8)
    for mask, value in zip(masks, (120, 180, 240), strict=True):
        image[mask] = value
    return image, annotate(masks, [1, 2, 2], size=SIZE)


def _pasted(seed, *, count=4, colour=False):
    image, annotations = _cells()
    part = image[WINDOW.y0 : WINDOW.y1, WINDOW.x0 : WINDOW.x1]
    if colour:
        part = np.stack([part, part // 2, 255 - part], -1)
    before = part.copy()
    shown = visible_instances(annotations, WINDOW, GRID)
    rng = np.random.default_rng(seed)
    pixels, after = paste_copies(rng, part, annotations, WINDOW, shown, np.ones(3, bool), count=count, mask_size=GRID)
    np.testing.assert_array_equal(part, before)
    return part, shown, pixels, after


def _drawn(instances):
    """(n, h, w) bool, the instances in the window, from their boxes and grids."""
    masks = np.zeros((len(instances.rows), *WINDOW.size), bool)
    for mask, box, grid in zip(masks, instances.boxes, instances.masks, strict=True):
        x1, y1, x2, y2 = np.rint(box - [WINDOW.x0, WINDOW.y0] * 2).astype(int)
        mask[y1:y2, x1:x2] = cv2.resize(grid, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA) > 127
    return masks


@pytest.mark.parametrize("seed", range(8))
def test_a_copy_touches_a_cell_and_covers_none(seed):
    _, shown, pixels, after = _pasted(seed)
    count = len(shown.rows)
    assert len(after.rows) > count
    for name in ("rows", "boxes", "visible", "masks"):
        np.testing.assert_array_equal(getattr(after, name)[:count], getattr(shown, name))
    masks = _drawn(after)
    values = {0: 120, 1: 180}
    for number in range(count, len(masks)):
        mask, row = masks[number], after.rows[number]
        assert row in values, "the image's edge cuts the third, so it is no source"
        assert mask.sum() == pytest.approx(masks[list(shown.rows).index(row)].sum(), rel=0.05)
        inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3))).astype(bool)
        if inner.any():
            assert abs(int(np.median(pixels[inner])) - values[row]) <= 1
        others = masks[:number].any(0)  # what was there when it was pasted
        assert (mask & others).sum() <= 2, "the grid rounds its edge"
        near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))).astype(bool)
        assert (near & others).any()


def test_what_is_no_copy_stays_as_it_was():
    part, shown, pixels, after = _pasted(0, colour=True)
    new = _drawn(after)[len(shown.rows) :].any(0)
    ring = cv2.dilate(new.astype(np.uint8), np.ones((5, 5))).astype(bool)
    np.testing.assert_array_equal(pixels[~ring], part[~ring])
    assert (pixels[ring] != part[ring]).any()


def test_copies_differ_in_turn_and_place():
    found = {tuple(_pasted(seed, count=1)[3].boxes[-1]) for seed in range(12)}
    assert len(found) > 8


def test_no_copy_where_nothing_may_be_copied_or_no_place_is_left():
    image, annotations = _cells()
    whole = Window(0, 0, SIZE[1], SIZE[0])
    shown = visible_instances(annotations, whole, GRID)
    rng = np.random.default_rng(0)
    cut = np.array([False, False, True])
    pixels, after = paste_copies(rng, image, annotations, whole, shown, cut, count=3, mask_size=GRID)
    assert after is shown
    np.testing.assert_array_equal(pixels, image)
    full = np.zeros((30, 30), bool)
    full[2:28, 2:28] = True
    annotations = annotate([full], [1], size=(30, 30))
    window = Window(0, 0, 30, 30)
    shown = visible_instances(annotations, window, GRID)
    image = np.full((30, 30), 9, np.uint8)
    _, after = paste_copies(rng, image, annotations, window, shown, np.array([True]), count=3, mask_size=GRID)
    assert after is shown
