import numpy as np
import pytest
from memory_source import annotate, disc

from fsis_jax.errors import FsisError
from fsis_jax.preprocess.windows import Window, decode_columns, limit_window, random_window, touching, visible_instances

SIZE = (40, 60)
WHOLE = Window(0, 0, 60, 40)


def test_decode_columns():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = rng.random(SIZE) < share
        counts = annotate([mask], [1], size=SIZE).rles[0]
        for x0, x1 in ((0, 60), (7, 31), (59, 60)):
            np.testing.assert_array_equal(decode_columns(counts, SIZE[0], x0, x1), mask[:, x0:x1])


def test_touching():
    boxes = np.array([[0, 0, 5, 5], [5, 5, 10, 10], [9, 9, 20, 20], [30, 0, 40, 8]], np.float32)
    np.testing.assert_array_equal(touching(boxes, Window(5, 5, 10, 10)), [False, True, True, False])


def test_random_window_holds_its_anchor_or_lies_within_it():
    rng = np.random.default_rng(0)
    small, large = np.array([50.2, 3.0, 57.7, 12.5]), np.array([4.0, 0.0, 52.0, 40.0])
    for _ in range(50):
        window = random_window(rng, SIZE, (16, 20), small)
        assert window.size == (16, 20)
        assert window.x0 <= 50.2
        assert 57.7 <= window.x1 <= 60
        assert 0 <= window.y0 <= 3
        assert window.y1 >= 12.5
        window = random_window(rng, SIZE, (16, 20), large)
        assert 4 <= window.x0 < window.x1 <= 52
        assert 0 <= window.y0 < window.y1 <= 40
    assert len({random_window(rng, SIZE, (16, 20)) for _ in range(50)}) > 40
    assert random_window(rng, SIZE, SIZE, small) == WHOLE


def test_limit_window_shows_less_and_keeps_the_anchor():
    boxes = np.array([[x, y, x + 3, y + 3] for x in range(0, 60, 4) for y in range(0, 40, 4)], np.float32)
    assert limit_window(WHOLE, boxes, 200) == WHOLE
    window = limit_window(WHOLE, boxes, 20, anchor=boxes[-1])
    assert touching(boxes, window).sum() <= 20
    assert touching(boxes[-1:], window)[0]
    assert WHOLE.x0 <= window.x0 < window.x1 <= WHOLE.x1
    assert WHOLE.y0 <= window.y0 < window.y1 <= WHOLE.y1
    with pytest.raises(FsisError, match=r"a\.png: over 3 instances.*max_instances"):
        limit_window(WHOLE, np.repeat(boxes[:1] + 20, 4, axis=0), 3, anchor=boxes[0] + 20, name="a.png")


def test_a_whole_instance_keeps_its_box_and_its_coverage_is_exact():
    mask = np.zeros(SIZE, bool)
    mask[10:18, 20:24] = True
    mask[10:14, 20:22] = False  # an L: the upper left quarter is missing
    found = visible_instances(annotate([mask], [1], size=SIZE), WHOLE, 4)
    np.testing.assert_array_equal(found.boxes, [[20, 10, 24, 18]])
    np.testing.assert_array_equal(found.visible, [1])
    expected = np.full((4, 4), 255)
    expected[:2, :2] = 0
    np.testing.assert_array_equal(found.masks[0], expected)


def test_coarse_cells_average_and_fine_cells_interpolate():
    mask = np.zeros(SIZE, bool)
    mask[0:4, 0:3] = True
    mask[0:4, 3] = [True, False, False, False]
    found = visible_instances(annotate([mask], [1], size=SIZE), WHOLE, 2)
    np.testing.assert_array_equal(found.masks[0], [[255, np.rint(255 * 0.75)], [255, np.rint(255 * 0.5)]])
    pixel = np.zeros(SIZE, bool)
    pixel[5, 5:7] = True
    found = visible_instances(annotate([pixel], [1], size=SIZE), WHOLE, 4)
    # Along y every cell is centred within half a pixel of the border: 0.5 + distance from it.
    np.testing.assert_array_equal(found.masks[0][:, 1], np.rint(255 * np.array([0.625, 0.875, 0.875, 0.625])))


def test_a_cut_instance_gets_the_tight_box_of_what_is_visible():
    mask = disc(SIZE, 30, 20, 10)
    window = Window(34, 0, 60, 40)
    found = visible_instances(annotate([mask, disc(SIZE, 10, 10, 5)], [1, 1], size=SIZE), window, 28)
    np.testing.assert_array_equal(found.rows, [0])
    rows = np.flatnonzero(mask[:, 34:].any(axis=1))
    np.testing.assert_array_equal(found.boxes, [[34, rows[0], 40, rows[-1] + 1]])
    assert found.visible[0] == pytest.approx(mask[:, 34:].sum() / mask.sum())
    assert (found.masks[0] > 127).mean() == pytest.approx(mask[rows[0] : rows[-1] + 1, 34:40].mean(), abs=0.04)


def test_an_instance_whose_box_but_not_whose_mask_is_in_the_window_is_not_visible():
    mask = np.zeros(SIZE, bool)
    mask[0:30, 0:3] = mask[27:30, 0:30] = True
    found = visible_instances(annotate([mask], [1], size=SIZE), Window(10, 0, 30, 20), 7)
    assert len(found.rows) == 0
    assert found.boxes.shape == (0, 4)
    assert found.masks.shape == (0, 7, 7)
