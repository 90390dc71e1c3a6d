"""Large images by overlapping tiles: where they lie, and one result out of the tiles' results. Pure numpy.

The *window* of a tile is what the network reads; the *cores* partition the image, with their borders in the middle of
the overlaps. A cell belongs to the tile whose core holds the centre of its box. It is whole in that tile's window if it
is not larger than the overlap.

Two tiles may disagree by a little on where a centre is, so each also gives the instances whose centre lies within a
margin of its core (`near_core`), and `merge` removes what two tiles found twice: of two instances of different tiles
whose masks share more than half of the smaller one, the one stays that its window does not cut; where neither is cut,
the one with the higher score. A piece of a cell therefore gives way to the whole cell whatever the scores, and the
instance that stays takes the higher score of the two: that the cell is there was seen, whichever outline is better.
Only instances that reach into another window are compared, and only with those nearby of the same category.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fsis_jax.inference.instances import CroppedMask, Instances, Size
from fsis_jax.inference.neighbours import Neighbours
from fsis_jax.inference.traits import raised
from fsis_jax.preprocess.windows import Window

CLEARLY = 3.0
"""Times the odds of a cell that a piece of it must have, to stay beside it whatever the areas."""
CUT = 0.25
"""An instance is taken for cut where it ends nearer than this share of the margin to a side of its window."""

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2), pixels of the image."""


@dataclasses.dataclass(frozen=True)
class Tile:
    """One of the tiles of an image."""

    window: Window
    """Whole pixels that are read."""
    core: Box
    """The part that the tile answers for."""
    alone: Box
    """The part that no other window holds; x1 > x2 or y1 > y2 if there is none."""


def tiles(size: Size, side: Size, overlap: int) -> list[Tile]:
    """Cover an image evenly by as few windows of `side` as overlap by `overlap` pixels or more.

    All windows have one size: `side`, or the image's where that is less. They are listed by rows.

    Args:
        size: height and width of the image.
        side: height and width of a window.
        overlap: less than each side that is less than the image's.
    """
    down, across = (_spans(length, extent, overlap) for length, extent in zip(size, side, strict=True))
    return [
        Tile(
            window=Window(x.window[0], y.window[0], x.window[1], y.window[1]),
            core=(x.core[0], y.core[0], x.core[1], y.core[1]),
            alone=(x.alone[0], y.alone[0], x.alone[1], y.alone[1]),
        )
        for y, x in itertools.product(down, across)
    ]


def near_core(boxes: np.ndarray, tile: Tile, margin: float) -> np.ndarray:
    """(n,) bool, which of `boxes` (n, 4) have their centre within `margin` of the tile's core.

    Boxes are in pixels of the tile's window, as a detector gives them.
    """
    x1, y1, x2, y2 = tile.core
    low = np.array([x1, y1]) - margin
    high = np.array([x2, y2]) + margin
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + (tile.window.x0, tile.window.y0)
    return np.asarray(np.all((centres >= low) & (centres <= high), axis=1))


def merge_tiles(parts: Sequence[Instances], layout: Sequence[Tile], size: Size, margin: float) -> Instances:
    """The instances of an image, each cell once, out of those of its tiles.

    Args:
        parts: of each tile the instances `near_core`, in pixels of its window.
        layout: the tiles.
        size: height and width of the image.
        margin: as for `near_core`; `CUT` is a share of it.
    """
    counts = [len(part) for part in parts]
    owners = np.repeat(np.arange(len(parts)), counts)
    corners = np.array([(tile.window.x0, tile.window.y0) * 2 for tile in layout], np.float32)
    boxes = np.concatenate([part.boxes for part in parts]) + corners[owners]
    scores = np.concatenate([part.scores for part in parts])
    told: dict[str, Any] = {
        name: np.concatenate([part.of_each()[name] for part in parts]) for name in parts[0].of_each()
    }
    if "keypoints" in told:
        told["keypoints"] = told["keypoints"] + np.pad(corners[owners, None, :2], ((0, 0), (0, 0), (0, 1)))
    # Kinds that references show compete for a cell; classes of a closed-set detector do not.
    classes = None if "kind_scores" in told else told.get("classes")
    masks = [
        CroppedMask(crop.y + tile.window.y0, crop.x + tile.window.x0, crop.mask)
        for part, tile in zip(parts, layout, strict=True)
        for crop in part.masks
    ]
    extents = np.array([crop.extent for crop in masks], np.int64).reshape(-1, 4)
    alone = np.array([tile.alone for tile in layout])[owners]
    shared = np.flatnonzero(
        np.any(extents[:, :2] < alone[:, :2], axis=1) | np.any(extents[:, 2:] > alone[:, 2:], axis=1)
    )
    free = CUT * margin
    room = np.minimum(_room(extents[shared], [layout[owner].window for owner in owners[shared]], size), free)
    areas = np.array([np.count_nonzero(crop.mask) for crop in masks], np.int64)
    # As near to a side as each other, the larger one is less cut.
    ranked = shared[np.lexsort((-scores[shared], np.where(room < free, -areas[shared], 0), -room))]
    keep, best = np.ones(len(masks), bool), np.arange(len(masks))
    for row, other in _found_twice(ranked, owners, scores, masks, extents, areas, classes):
        keep[row] = False
        if scores[row] > scores[best[other]]:
            best[other] = row
    highest = scores[best]
    if "evidence" in told:
        told["evidence"] = told["evidence"][best]
    if "kind_scores" in told:
        told["kind_scores"] = raised(told["kind_scores"], highest)
    scores, rows = highest, np.flatnonzero(keep)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    return dataclasses.replace(
        parts[0],
        boxes=boxes[rows],
        scores=scores[rows],
        masks=tuple(masks[row] for row in rows),
        size=size,
        **{name: values[rows] for name, values in told.items()},
    )


def merge_scales(scales: Sequence[Instances]) -> Instances:
    """The instances of an image, each cell once, out of those that were found in it at one or several scales.

    At the scale of small cells parts of a large one may look like them, and each may score more than the whole.
    """
    if len(scales) == 1:
        return scales[0]
    scales = _without_pieces(scales)
    size = scales[0].size
    nowhere = (float(size[1]), float(size[0]), 0.0, 0.0)
    whole = Tile(Window(0, 0, size[1], size[0]), (0.0, 0.0, float(size[1]), float(size[0])), nowhere)
    return merge_tiles(scales, [whole] * len(scales), size, 0.0)


def _without_pieces(scales: Sequence[Instances]) -> list[Instances]:
    """Each scale without what lies in an instance of another scale, of twice its area or more, that says more of it.

    That is one that counts, whose area times its score is more than the sum of its pieces', and none of whose pieces
    has `CLEARLY` its odds.
    """
    scores = np.concatenate([scale.scores for scale in scales]).astype(np.float64)
    owners = np.repeat(np.arange(len(scales)), [len(scale) for scale in scales])
    masks = [crop for scale in scales for crop in scale.masks]
    extents = np.array([crop.extent for crop in masks], np.int64).reshape(-1, 4)
    areas = np.array([np.count_nonzero(crop.mask) for crop in masks], np.int64)
    odds = scores / np.maximum(1 - scores, 1e-9)
    left = Neighbours(extents)
    for row in range(len(masks)):
        left.add(row)
    keep = np.ones(len(masks), bool)
    for row in np.flatnonzero(scores >= scales[0].min_score).tolist():
        smaller = [other for other in left.near(row) if owners[other] != owners[row] and 2 * areas[other] <= areas[row]]
        common = {other: _common(masks[other], masks[row]) for other in smaller}
        pieces = [other for other in smaller if 2 * common[other] > areas[other]]
        said = sum(scores[other] * common[other] for other in pieces)
        if scores[row] * areas[row] > said and all(odds[other] < CLEARLY * odds[row] for other in pieces):
            keep[pieces] = False
    return [scale.select(keep[owners == number]) for number, scale in enumerate(scales)]


@dataclasses.dataclass(frozen=True)
class _Span:
    """A tile along one axis, (start, stop) each."""

    window: tuple[int, int]
    core: tuple[float, float]
    alone: tuple[float, float]


def _spans(length: int, side: int, overlap: int) -> list[_Span]:
    side = min(side, length)
    if length > side and not 0 <= overlap < side:
        raise ValueError(f"an overlap of {overlap} pixels in windows of {side}")
    steps = -(-(length - side) // (side - overlap)) if length > side else 0
    starts = [step * (length - side) // max(steps, 1) for step in range(steps + 1)]
    borders = [0, *((left + side + right) / 2 for left, right in itertools.pairwise(starts)), length]
    stops = [0, *(start + side for start in starts)]
    return [
        _Span(
            window=(start, start + side),
            core=(borders[i], borders[i + 1]),
            alone=(stops[i], starts[i + 1] if i < steps else length),
        )
        for i, start in enumerate(starts)
    ]


def _room(extents: np.ndarray, windows: Sequence[Window], size: Size) -> np.ndarray:
    """(n,) pixels between an instance and the nearest side of its window that is not the image's."""
    ends = np.array([(w.x0, w.y0, w.x1, w.y1) for w in windows], np.float64).reshape(-1, 4)
    ends[:, :2][ends[:, :2] == 0] = -np.inf
    ends[:, 2:][ends[:, 2:] == size[::-1]] = np.inf
    return np.minimum(extents[:, :2] - ends[:, :2], ends[:, 2:] - extents[:, 2:]).min(axis=1)


def _found_twice(
    ranked: np.ndarray,
    owners: np.ndarray,
    scores: np.ndarray,
    masks: Sequence[CroppedMask],
    extents: np.ndarray,
    areas: np.ndarray,
    classes: np.ndarray | None,
) -> list[tuple[int, int]]:
    """Of the rows in `ranked`, best first, those that show what an earlier one of another tile shows, and that one.

    Where several do, as a detector leaves doubtful doubles beside a cell, the one with the highest score. Instances of
    different classes do not count as the same, as in an image that is read whole.
    """
    kept = Neighbours(extents)
    twice = []
    for row in ranked.tolist():
        rivals = [other for other in kept.near(row) if owners[other] != owners[row]]
        if classes is not None:
            rivals = [other for other in rivals if classes[other] == classes[row]]
        # A fragment that scores less than what it lies in does not stand for it.
        same = [
            other
            for other in rivals
            if 2 * _common(masks[other], masks[row]) > min(areas[other], areas[row])
            and (scores[other] >= scores[row] or 2 * areas[other] >= areas[row])
        ]
        if same:
            twice.append((row, max(same, key=lambda other: (scores[other], -other))))
        else:
            kept.add(row)
    return twice


def _common(one: CroppedMask, two: CroppedMask) -> int:
    """Pixels that two masks share."""
    views = one.shared(two)
    return 0 if views is None else int(np.count_nonzero(views[0] & views[1]))
