"""Tiles cover an image, and what is found in them becomes one result: no cell cut, doubled or lost at a seam."""

import dataclasses
import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.inference.tiling import Tile, merge_scales, merge_tiles, near_core, tiles

sizes = st.tuples(st.integers(1, 240), st.integers(1, 240))


@settings(deadline=None)
@given(size=sizes, side=st.tuples(st.integers(20, 120), st.integers(20, 120)), share=st.floats(0, 0.5))
def test_tiles_cover_the_image_evenly(size, side, share):
    overlap = int(share * min([low for low, length in zip(side, size, strict=True) if low < length], default=200))
    layout = tiles(size, side, overlap)
    assert len({tile.window.size for tile in layout}) == 1
    assert layout[0].window.size == tuple(min(pair) for pair in zip(size, side, strict=True))
    answered = np.zeros(size, int)
    read = np.zeros(size, int)
    y, x = (np.arange(length) + 0.5 for length in size)
    for tile in layout:
        window, (x1, y1, x2, y2) = tile.window, tile.core
        answered += ((y > y1) & (y < y2))[:, None] & ((x > x1) & (x < x2))
        on_a_border = np.isin(y, (y1, y2))[:, None] | np.isin(x, (x1, x2))
        answered[on_a_border] = 1
        read[window.y0 : window.y1, window.x0 : window.x1] += 1
        # The core keeps half the overlap from the sides of the window that are not the image's.
        assert all(low == 0 or inner - low >= overlap / 2 for low, inner in ((window.x0, x1), (window.y0, y1)))
        assert window.y1 == size[0] or window.y1 - y2 >= overlap / 2
        assert window.x1 == size[1] or window.x1 - x2 >= overlap / 2
    assert (answered == 1).all()
    assert (read >= 1).all()
    for tile in layout:
        x1, y1, x2, y2 = tile.alone
        if x1 < x2 and y1 < y2:
            assert (read[y1:y2, x1:x2] == 1).all()


def test_a_layout_by_hand():
    layout = tiles((100, 180), (100, 100), 20)
    assert [(tile.window.x0, tile.window.x1, tile.core, tile.alone) for tile in layout] == [
        (0, 100, (0, 0, 90, 100), (0, 0, 80, 100)),
        (80, 180, (90, 0, 180, 100), (100, 0, 180, 100)),
    ]
    assert len(tiles((100, 181), (100, 100), 20)) == 3
    assert len(tiles((101, 100), (100, 100), 99)) == 2
    assert len(tiles((200, 10), (100, 10), 50)) == 3  # an overlap of more than the image's own width
    with pytest.raises(ValueError, match="an overlap of 100 pixels in windows of"):
        tiles((300, 300), (100, 200), 100)


@dataclasses.dataclass(frozen=True)
class Cells:
    """Ellipses that touch nowhere, and a detector that finds in a window what it shows of them."""

    size: tuple[int, int]
    masks: list[CroppedMask]
    rng: np.random.Generator
    jitter: float = 0.0
    """Most that a side of a found box is off, in pixels."""

    @classmethod
    def random(cls, seed: int, size: tuple[int, int], longest: int, jitter: float = 0.0) -> "Cells":
        rng = np.random.default_rng(seed)
        taken = np.zeros(size, bool)
        masks = []
        for _ in range(30):
            height, width = rng.integers(2, longest + 1, 2)
            y, x = (int(rng.integers(-2, length)) for length in size)
            rows, columns = np.mgrid[:height, :width] + 0.5
            ellipse = ((rows / height - 0.5) ** 2 + (columns / width - 0.5) ** 2) <= 0.25
            crop = _clip(CroppedMask(y, x, ellipse), (0, 0, *size))
            if crop is not None and not (taken[crop.slices] & crop.mask).any():
                taken[crop.slices] |= crop.mask
                masks.append(crop)
        return cls(size, masks, rng, jitter)

    def find(self, tile: Tile) -> Instances:
        """In pixels of the window, with scores that say nothing of how much of a cell is visible."""
        window = tile.window
        visible = [_clip(crop, (window.y0, window.x0, window.y1, window.x1)) for crop in self.masks]
        crops = [CroppedMask(c.y - window.y0, c.x - window.x0, c.mask) for c in visible if c is not None]
        boxes = np.array([(c.x, c.y, c.x + c.mask.shape[1], c.y + c.mask.shape[0]) for c in crops]).reshape(-1, 4)
        boxes = boxes + self.rng.uniform(-self.jitter, self.jitter, boxes.shape)
        scores = self.rng.uniform(0.3, 1, len(crops)).astype(np.float32)
        order = np.argsort(-scores)
        return Instances(
            boxes[order].astype(np.float32), scores[order], tuple(crops[i] for i in order), window.size, "cell", 0.25
        )


def _clip(crop: CroppedMask, bounds: tuple[int, int, int, int]) -> CroppedMask | None:
    """The part of a mask inside (y0, x0, y1, x1), cut to its pixels; None if there is none."""
    y0, x0, y1, x1 = bounds
    inside = crop.mask[max(y0 - crop.y, 0) : max(y1 - crop.y, 0), max(x0 - crop.x, 0) : max(x1 - crop.x, 0)]
    if not inside.any():
        return None
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    y, x = max(crop.y, y0) + int(rows[0]), max(crop.x, x0) + int(columns[0])
    return CroppedMask(y, x, inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _merged(cells: Cells, layout: list[Tile], margin: float) -> Instances:
    parts = []
    for tile in layout:
        found = cells.find(tile)
        parts.append(found.select(near_core(found.boxes, tile, margin)))
    return merge_tiles(parts, layout, cells.size, margin)


def _check_same(cells: Cells, found: Instances) -> None:
    """Each cell was found once: with an IoU of 0.95 at least."""
    assert len(found) == len(cells.masks)
    truth = np.zeros(cells.size, int)
    for number, crop in enumerate(cells.masks, start=1):
        truth[crop.slices][crop.mask] = number
    seen = set()
    for crop in found.masks:
        number = np.bincount(truth[crop.slices][crop.mask]).argmax()
        common = np.count_nonzero(truth[crop.slices][crop.mask] == number)
        union = np.count_nonzero(crop.mask) + np.count_nonzero(cells.masks[number - 1].mask) - common
        assert common >= 0.95 * union
        seen.add(number)
    assert len(seen) == len(cells.masks)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=sizes,
    longest=st.integers(4, 40),
    extra=st.integers(0, 20),
    room=st.tuples(st.integers(12, 80), st.integers(12, 80)),
)
def test_the_merged_result_is_that_of_the_whole_image(seed, size, longest, extra, room):
    """For any overlap from the largest cell on, whatever the scores of pieces are."""
    cells = Cells.random(seed, size, longest)
    overlap = longest + extra
    layout = tiles(size, (overlap + room[0], overlap + room[1]), overlap)
    found = _merged(cells, layout, overlap / 4)
    _check_same(cells, found)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.size, found.category, found.min_score) == (size, "cell", 0.25)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=sizes,
    longest=st.integers(16, 40),
    room=st.tuples(st.integers(20, 80), st.integers(20, 80)),
)
def test_boxes_that_are_off_lose_no_cell_and_double_none(seed, size, longest, room):
    """Two tiles may put the centre of a cell on different sides of a border."""
    cells = Cells.random(seed, size, longest, jitter=2.0)
    overlap = 2 * longest
    layout = tiles(size, (overlap + room[0], overlap + room[1]), overlap)
    _check_same(cells, _merged(cells, layout, overlap / 4))


def _square(y: int, x: int, side: int) -> CroppedMask:
    return CroppedMask(y, x, np.ones((side, side), bool))


def _found(window: tuple[int, int], *rows: tuple[float, CroppedMask]) -> Instances:
    boxes = [(c.x, c.y, c.x + c.mask.shape[1], c.y + c.mask.shape[0]) for _, c in rows]
    return Instances(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([score for score, _ in rows]),
        tuple(c for _, c in rows),
        window,
    )


def test_who_stays_of_two_by_hand():
    """Two windows of 100 pixels that overlap by 40: the second begins at pixel 60, the border is at 80."""
    layout, size = tiles((100, 160), (100, 100), 40), (100, 160)
    nothing = _found((100, 100))

    def scores(left, right):
        return merge_tiles([left, right], layout, size, 10).scores.tolist()

    whole_left, whole_right = _square(30, 70, 20), _square(30, 10, 20)
    assert scores(_found((100, 100), (0.9, whole_left)), _found((100, 100), (0.8, whole_right))) == [0.9]
    assert scores(_found((100, 100), (0.8, whole_left)), _found((100, 100), (0.9, whole_right))) == [0.9]
    assert scores(_found((100, 100), (0.8, whole_left)), nothing) == [0.8]
    # A piece gives way to the whole cell, though it scores more, but not to a fragment.
    piece = CroppedMask(30, 85, np.ones((20, 15), bool))
    assert scores(_found((100, 100), (0.9, piece)), _found((100, 100), (0.5, _square(30, 25, 20)))) == [0.9]
    fragment = _found((100, 100), (0.1, _square(35, 27, 5)))
    assert scores(_found((100, 100), (0.9, piece)), fragment) == pytest.approx([0.9, 0.1])
    # What one tile says twice is its own affair, and so is what lies beside.
    assert scores(_found((100, 100), (0.9, whole_left), (0.7, whole_left)), nothing) == pytest.approx([0.9, 0.7])
    beside = _found((100, 100), (0.8, _square(30, 25, 20)))
    assert scores(_found((100, 100), (0.9, whole_left)), beside) == pytest.approx([0.9, 0.8])


def test_what_two_scales_find_of_a_cell_is_one():
    """Across scales the better stays; what lies apart, and what one scale gives alone, stays as well."""
    size = (100, 160)
    near = _found(size, (0.9, _square(30, 70, 20)), (0.6, _square(2, 2, 5)))
    far = _found(size, (0.8, _square(31, 71, 18)), (0.7, _square(60, 100, 30)))
    assert merge_scales([near, far]).scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert merge_scales([far, near]).scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert merge_scales([near, _found(size)]).scores.tolist() == pytest.approx([0.9, 0.6])
    # A doubtful fragment does not take the place of the cell that it lies in.
    piece = _found(size, (0.3, _square(35, 75, 6)))
    assert merge_scales([near, piece]).scores.tolist() == pytest.approx([0.9, 0.6])


@pytest.mark.parametrize(
    ("cell", "pieces", "kept"),
    [
        (0.4, (0.45, 0.35), [0.4]),  # two halves of a cell look like small ones: it says more of the pixels
        (0.2, (0.45, 0.35), [0.45, 0.35]),  # it does not count, from 0.25 on
        (0.3, (0.45, 0.35), [0.45, 0.35]),  # they say more
        (0.6, (0.85, 0.31), [0.85, 0.31]),  # one of them is clearly a cell
    ],
)
def test_a_cell_does_not_give_way_to_pieces_that_look_like_smaller_ones(cell, pieces, kept):
    size = (100, 160)
    whole = _found(size, (cell, _square(30, 70, 20)))
    halves = [CroppedMask(30 + 10 * row, 70, np.ones((10, 19), bool)) for row in range(2)]
    parts = _found(size, *zip(pieces, halves, strict=True), (0.3, _square(60, 100, 10)))
    whole, parts = (dataclasses.replace(found, min_score=0.25) for found in (whole, parts))
    expected = pytest.approx(sorted([*kept, 0.3], reverse=True))
    assert merge_scales([whole, parts]).scores.tolist() == expected
    assert merge_scales([parts, whole]).scores.tolist() == expected


def test_no_certain_cell_is_lost_to_a_doubtful_one():
    """Detectors give instances of scores down to 1e-4, so that outlines and scores must be chosen apart."""
    layout, size = tiles((100, 160), (100, 100), 40), (100, 160)

    def rows(left, right):
        merged = merge_tiles([_found((100, 100), *left), _found((100, 100), *right)], layout, size, 10)
        assert (np.diff(merged.scores) <= 0).all()
        found = zip(merged.scores.tolist(), merged.masks, strict=True)
        return [(score, crop.x, crop.mask.shape) for score, crop in found]

    # Five pixels from a side nothing is cut: the higher score decides.
    doubtful = CroppedMask(30, 18, np.ones((20, 14), bool))
    assert rows([(0.99, _square(30, 75, 20))], [(0.001, doubtful)]) == [(0.99, 75, (20, 20))]
    # A piece leaves its score to the whole cell, which may bring that before others ...
    piece, whole = CroppedMask(30, 85, np.ones((20, 15), bool)), _square(30, 25, 20)
    other = (0.6, _square(70, 70, 20))
    assert rows([(0.9, piece)], [other, (0.3, whole)]) == [(0.9, 85, (20, 20)), (0.6, 130, (20, 20))]
    # ... and none to the doubtful double that soft-NMS leaves of it.
    double = CroppedMask(30, 25, np.ones((20, 15), bool))
    assert rows([(0.9, piece)], [(0.7, whole), (0.02, double)]) == [(0.9, 85, (20, 20)), (0.02, 85, (20, 15))]


def test_a_hundred_thousand_instances_are_merged_in_seconds():
    """Compared by place, not each with each."""
    size, layout = (8192, 8192), tiles((8192, 8192), (512, 512), 56)
    grid = [(y, x) for y, x in itertools.product(range(4, 500, 26), repeat=2)]
    crops = tuple(_square(y, x, 20) for y, x in grid)
    boxes = np.array([(x, y, x + 20, y + 20) for y, x in grid], np.float32)
    part = Instances(boxes, np.linspace(0.9, 0.5, len(grid)).astype(np.float32), crops, (512, 512))
    parts = [part.select(near_core(boxes, tile, 14)) for tile in layout]
    assert sum(map(len, parts)) > 100_000
    start = time.process_time()
    found = merge_tiles(parts, layout, size, 14)
    assert time.process_time() - start < 30
    assert 70_000 < len(found) < 110_000
