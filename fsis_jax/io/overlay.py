"""Pictures of a result: instances outlined on the image with their keypoints, the references beside it.

Small images are enlarged first, so that an outline of two pixels does not cover a cell of ten. Cells have the colour
of their kind, which a legend names; without kinds, neighbours get colours that are easily told apart. A dark rim keeps
every colour visible on bright and on dark images.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import cv2
import numpy as np

from fsis_jax.io.kinds import PALETTE, Named, counts, kind_colour, kind_rows


class Mask(Protocol):
    """Where one instance lies; `fsis_jax.inference.instances.CroppedMask`."""

    @property
    def y(self) -> int: ...
    @property
    def x(self) -> int: ...
    @property
    def mask(self) -> np.ndarray: ...


class Segmented(Named, Protocol):
    """What is drawn of `fsis_jax.inference.instances.Instances`."""

    @property
    def masks(self) -> Sequence[Mask]: ...
    @property
    def keypoints(self) -> np.ndarray | None: ...
    @property
    def skeleton(self) -> Sequence[tuple[int, int]]: ...


Judgement = Literal["hit", "missed", "false"]


@dataclasses.dataclass(frozen=True)
class Judged:
    """N instances in the colours of what became of them: those that were found, and behind them the missed ones."""

    masks: Sequence[Mask]
    scores: np.ndarray
    """(N,)."""
    judgements: Sequence[Judgement]
    names: Sequence[str]
    """Of the category of each that was found; () where there is but one."""
    keypoints: np.ndarray | None
    """(M, P, 3) of the M that were found."""
    skeleton: Sequence[tuple[int, int]]


JUDGED: Mapping[Judgement, tuple[int, int, int]] = {
    "hit": (74, 222, 128),
    "missed": (255, 221, 74),
    "false": (255, 99, 99),
}
"""Colours of pictures of a test."""
_LEAST_SIDE = 800
"""Images are enlarged by whole factors until their longer side has this many pixels."""
_LARGEST_FACTOR = 8
_TILE = 120
_MARGIN = 16
_MOST_SHOWN = 10
_BACKGROUND = (24, 26, 31)
_FRAME = (230, 230, 230)
_TEXT = 0.42
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LINE = 22
"""Height of a line of the legend."""
_SWATCH = 10


def draw_overlay(
    image: np.ndarray,
    instances: Segmented | Judged,
    *,
    references: Sequence[np.ndarray] = (),
    text: Literal["number", "score"] | None = "number",
    scale: float = 1.0,
) -> np.ndarray:
    """A picture (H', W', 3) uint8 of the instances on the image, enlarged by a whole factor if it is small.

    Args:
        image: (H, W, 3) uint8, already stretched (`to_rgb8(..., stretch=True)`): dark cells stay dark otherwise.
        instances: neighbours in different colours; or judged ones in those of `JUDGED`, with a legend that counts them.
        references: crops (h, w, 3) uint8, of which the first ten are shown in a column on the left.
        text: written on every cell that has room for it: its number (from 1, the id in `Instances.labels` if these
            are `Instances.without_overlaps`), its score, or nothing. After it, room permitting, the name of its class.
            On the left of cells of several kinds stands, whatever the text, how many there are of each.
        scale: pixels of `image` per pixel that the masks lie in, where the image was shrunk (`overview`).
    """
    factor = min(max(-(-_LEAST_SIDE // max(image.shape[:2])), 1), _LARGEST_FACTOR)
    size = (image.shape[1] * factor, image.shape[0] * factor)
    picture = image if factor == 1 else cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    judged = instances.judgements if isinstance(instances, Judged) else None
    colours, legend = _meant_colours(instances)
    zoom = factor * scale
    outlines = [_outline(mask, zoom) for mask in instances.masks]
    fills = picture.copy()
    for contours, colour in zip(outlines, colours, strict=True):
        cv2.drawContours(fills, contours, -1, colour, cv2.FILLED)
    picture = _mix(picture, fills, 0.14)
    thickness = 2 if factor > 1 else 1
    rims = picture.copy()
    for contours in outlines:
        cv2.drawContours(rims, contours, -1, (0, 0, 0), thickness + 2, cv2.LINE_AA)
    picture = _mix(picture, rims, 0.7)
    for contours, colour in zip(outlines, colours, strict=True):
        cv2.drawContours(picture, contours, -1, colour, thickness, cv2.LINE_AA)
    if instances.keypoints is not None:
        for points, colour in zip(instances.keypoints, colours, strict=judged is None):
            _draw_pose(picture, points[:, :2] * zoom, instances.skeleton, colour, thickness)
    if text is not None:
        for row, (mask, score) in enumerate(zip(instances.masks, instances.scores.tolist(), strict=True)):
            if judged is not None and judged[row] == "missed":
                break
            told = str(row + 1) if text == "number" else f"{score:.2f}"
            name = _name(instances, row)
            _write(picture, mask, zoom, [told] if name is None else [f"{told} {name}", told])
    if legend or len(references):
        return _beside(_strip(legend, references, picture.shape[0]), picture)
    return picture


def _name(instances: Segmented | Judged, row: int) -> str | None:
    """The category of an instance, where there are several."""
    if isinstance(instances, Judged):
        return instances.names[row] if instances.names else None
    return None if instances.classes is None else instances.names[instances.classes[row]]


def _meant_colours(
    instances: Segmented | Judged,
) -> tuple[list[tuple[int, int, int]], list[tuple[str, int, tuple[int, int, int]]]]:
    """The colour of each instance, and what colours mean: a name, the number of instances, the colour."""
    if isinstance(instances, Judged):
        number = Counter(instances.judgements)
        legend = [(str(name), number[name], colour) for name, colour in JUDGED.items()]
        return [JUDGED[judgement] for judgement in instances.judgements], legend
    rows = kind_rows(instances)
    if rows is None:
        return _colours(instances.masks), []
    kinds = counts(instances).items()
    legend = [(name, count, kind_colour(instances.names.index(name))) for name, count in kinds]
    return [kind_colour(row) for row in rows.tolist()], legend


def _outline(mask: Mask, zoom: float) -> Sequence[np.ndarray]:
    """Contours of a mask in the enlarged or shrunk picture, without the stairs of its pixels."""
    if not mask.mask.any():
        return []
    cover = np.pad(mask.mask, 1).astype(np.float32)
    height, width = (max(round(side * zoom), 1) for side in cover.shape)
    interpolation = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    inside = cv2.resize(cover, (width, height), interpolation=interpolation) > 0.5
    offset = (round((mask.x - 1) * zoom), round((mask.y - 1) * zoom))
    return cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=offset)[0]


def _draw_pose(
    picture: np.ndarray,
    points: np.ndarray,
    skeleton: Sequence[tuple[int, int]],
    colour: tuple[int, int, int],
    thickness: int,
) -> None:
    """Points (P, 2) in pixels of the picture, and lines between those that the skeleton joins."""
    places = [(round(x - 0.5), round(y - 0.5)) for x, y in points.tolist()]
    for width, ink in ((thickness + 2, (0, 0, 0)), (thickness, colour)):
        for start, end in skeleton:
            cv2.line(picture, places[start], places[end], ink, width, cv2.LINE_AA)
    for place in places:
        cv2.circle(picture, place, thickness + 2, (0, 0, 0), cv2.FILLED, cv2.LINE_AA)
        cv2.circle(picture, place, thickness + 1, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)


def _colours(masks: Sequence[Mask]) -> list[tuple[int, int, int]]:
    """One colour per mask: as far on the circle of hues from its nearest neighbours as it can be."""
    if not masks:
        return []
    count = len(PALETTE)
    steps = np.abs(np.arange(count)[:, None] - np.arange(count))
    apart = np.minimum(steps, count - steps)
    centres = np.array([(m.y + m.mask.shape[0] / 2, m.x + m.mask.shape[1] / 2) for m in masks])
    # Neighbours are looked for in squares of a few cells, not among all the thousands of a large image.
    squares = (centres // max(4 * np.median([max(m.mask.shape) for m in masks]), 32)).astype(int).tolist()
    earlier: dict[tuple[int, int], list[int]] = {}
    chosen = np.zeros(len(masks), np.int64)
    used = np.zeros(count)
    for row, (y, x) in enumerate(squares):
        near = [other for dy in (-1, 0, 1) for dx in (-1, 0, 1) for other in earlier.get((y + dy, x + dx), ())]
        distances = np.sum((centres[near] - centres[row]) ** 2, axis=1)
        nearest = chosen[near][np.argsort(distances)[:4]]
        contrast = apart[:, nearest].min(axis=1, initial=count)
        chosen[row] = np.lexsort((used, -contrast))[0]
        used[chosen[row]] += 1
        earlier.setdefault((y, x), []).append(row)
    return [tuple(PALETTE[colour].tolist()) for colour in chosen]


def _write(picture: np.ndarray, mask: Mask, zoom: float, texts: Sequence[str]) -> None:
    """The first of some texts that fits where a cell is widest, if one does."""
    if not mask.mask.any():
        return
    sizes = [cv2.getTextSize(text, _FONT, _TEXT, 1)[0] for text in texts]
    needed = [np.hypot(width, height) / 2 for width, height in sizes]
    if min(needed) > min(mask.mask.shape) / 2 * zoom - 1:
        return
    depths = cv2.distanceTransform(np.pad(mask.mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
    row, column = np.unravel_index(np.argmax(depths), depths.shape)
    room = (depths[row, column] - 0.5) * zoom - 1  # within the outline
    fitting = [i for i, half in enumerate(needed) if half <= room]
    if not fitting:
        return
    text, (width, height) = texts[fitting[0]], sizes[fitting[0]]
    x = round((mask.x + int(column) - 0.5) * zoom - width / 2)
    y = round((mask.y + int(row) - 0.5) * zoom + height / 2)
    for dx, dy in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        cv2.putText(picture, text, (x + dx, y + dy), _FONT, _TEXT, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(picture, text, (x, y), _FONT, _TEXT, (255, 255, 255), 1, cv2.LINE_AA)


def _mix(picture: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """The result, in the memory of `other`."""
    return cv2.addWeighted(picture, 1 - share, other, share, 0, dst=other).astype(np.uint8, copy=False)


def _strip(
    legend: Sequence[tuple[str, int, tuple[int, int, int]]], references: Sequence[np.ndarray], height: int
) -> np.ndarray:
    """A column at least `height` high: the name, count and colour of each kind, and of the references the first few."""
    tiles = []
    for crop in references[:_MOST_SHOWN]:
        scale = _TILE / max(crop.shape[:2])
        size = (max(round(crop.shape[1] * scale), 1), max(round(crop.shape[0] * scale), 1))
        tiles.append(cv2.resize(crop, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA))
    top = _LINE * len(legend) + _MARGIN * bool(legend)
    y = top + 3 * _MARGIN - 8
    needed = y + sum(tile.shape[0] + _MARGIN for tile in tiles)
    strip = np.empty((max(height, needed), _TILE + 2 * _MARGIN, 3), np.uint8)
    strip[:] = _BACKGROUND
    for line, (name, count, colour) in enumerate(legend):
        base = 26 + _LINE * line
        strip[base - _SWATCH : base, _MARGIN : _MARGIN + _SWATCH] = colour
        cv2.putText(strip, _shortened(name, count), (_MARGIN + _SWATCH + 8, base), _FONT, _TEXT, _FRAME, 1, cv2.LINE_AA)
    if not tiles:
        return strip
    heading = "reference" if len(references) == 1 else f"{len(references)} references"
    cv2.putText(strip, heading, (_MARGIN - 1, top + 26), _FONT, 0.5, _FRAME, 1, cv2.LINE_AA)
    for tile in tiles:
        x = _MARGIN + (_TILE - tile.shape[1]) // 2
        strip[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        cv2.rectangle(strip, (x - 1, y - 1), (x + tile.shape[1], y + tile.shape[0]), _FRAME, 1)
        y += tile.shape[0] + _MARGIN
    return strip


def _shortened(name: str, count: int) -> str:
    """A line of the legend that has room in the strip."""
    room = _TILE - _SWATCH - 8
    for kept in range(len(name), 0, -1):
        text = f"{name[:kept]}{'..' * (kept < len(name))} {count}"
        if cv2.getTextSize(text, _FONT, _TEXT, 1)[0][0] <= room:
            break
    return text


def _beside(strip: np.ndarray, picture: np.ndarray) -> np.ndarray:
    missing = strip.shape[0] - picture.shape[0]
    filled = cv2.copyMakeBorder(picture, 0, missing, 0, 0, cv2.BORDER_CONSTANT, value=_BACKGROUND)
    return np.concatenate([strip, filled], axis=1)
