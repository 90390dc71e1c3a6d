"""Drawing one synthetic image: an unevenly lit background, cells that touch and overlap, blur and noise."""

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

from fsis_jax.synthetic.appearances import Appearance, Background

MIN_VISIBLE = 12
"""Pixels of which an instance must show to be annotated."""
_MAX_OVERLAP = 0.15
"""Share of a new cell that may lie on cells already there."""
_ATTEMPTS = 12
_MAX_CONTACT = 0.03
"""The same for cells that are pushed against others."""
_MOST_CELLS = 40
"""Of one look, at a coverage of up to 0.40; more where it is more."""
_MARGIN = 8
"""Pixels around an outline in which its halo fades."""


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A finished image."""

    pixels: np.ndarray
    """(H, W, 3) uint8 RGB."""
    masks: list[np.ndarray]
    """Visible part of each instance, (H, W) bool."""
    appearances: list[int]
    """Position of the look of each instance."""


def draw(rng: np.random.Generator, appearances: Sequence[Appearance], height: int, width: int) -> Drawing:
    """An image with cells of all the given looks, which share a background, at least three of each if they fit."""
    image = _background(rng, appearances[0].background, height, width)
    if appearances[0].debris[1] or appearances[0].lines:
        _litter(rng, image, appearances[0])
    owner = np.full((height, width), -1, np.int32)
    grain = {scale: _noise(rng, 256, 256, scale) for scale in (2, 3, 5)}
    drawn: list[int] = []
    for position in _order(rng, appearances, height * width):
        appearance = appearances[position]
        outline = _outline(rng, appearance)
        placed = _place(rng, outline, owner, appearance)
        if placed is not None:
            _paint(rng, image, owner, placed, appearance, grain[appearance.texture_scale], len(drawn))
            drawn.append(position)
    pixels = _expose(rng, image, appearances[0].background)
    masks = [owner == instance for instance in range(len(drawn))]
    kept = [i for i, mask in enumerate(masks) if np.count_nonzero(mask) >= MIN_VISIBLE]
    return Drawing(pixels, [masks[i] for i in kept], [drawn[i] for i in kept])


def _order(rng: np.random.Generator, appearances: Sequence[Appearance], pixels: int) -> list[int]:
    """The looks of the cells to draw, one after the other: enough to cover the share of the image that they ask for."""
    order: list[int] = []
    for position, appearance in enumerate(appearances):
        area = math.pi * np.mean(appearance.radius) ** 2
        covered = rng.uniform(*appearance.coverage) * pixels / len(appearances)
        most = round(_MOST_CELLS * appearance.coverage[1] / 0.40)
        order += [position] * int(np.clip(round(covered / area), 3, most))
    return rng.permutation(order).tolist()


def _noise(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
    """(height, width) float32 smooth noise of unit variance, its grains about `scale` pixels."""
    shape = (max(2, math.ceil(height / scale)), max(2, math.ceil(width / scale)))
    field = cv2.resize(rng.standard_normal(shape, np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return field / (field.std() + 1e-6)


def _background(rng: np.random.Generator, kind: Background, height: int, width: int) -> np.ndarray:
    """(height, width, 3) float32."""
    if kind == "dark":
        level = rng.uniform(0.03, 0.09) * (1 + 0.3 * _noise(rng, height, width, 60))
        return np.repeat(np.clip(level, 0.01, 0.2)[..., None], 3, axis=2)
    if kind == "grey":
        level = rng.uniform(0.52, 0.62) + 0.012 * _noise(rng, height, width, 3) + 0.02 * _noise(rng, height, width, 40)
        return np.repeat(level[..., None], 3, axis=2).astype(np.float32)
    colour = np.array((0.90, 0.72, 0.84)) + rng.uniform(-0.03, 0.03, 3)
    # Fibres: noise stretched along one direction.
    side = max(height, width)
    fibres = _noise(rng, side, 6 * side, 5)
    fibres = cv2.resize(fibres, (side, side), interpolation=cv2.INTER_AREA)[:height, :width]
    if rng.random() < 0.5:
        fibres = cv2.resize(np.ascontiguousarray(fibres.T), (width, height))
    patches = _noise(rng, height, width, 30)
    shade = (0.035 * fibres / (fibres.std() + 1e-6) + 0.03 * patches)[..., None] * np.array((0.7, 1.0, 0.6))
    return (colour - shade).astype(np.float32)


def _outline(rng: np.random.Generator, appearance: Appearance) -> np.ndarray:
    """(P, 2) float64 x, y of an outline around the origin."""
    radius, elongation = rng.uniform(*appearance.radius), math.sqrt(rng.uniform(*appearance.elongation))
    angles = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    if appearance.elongation[0] >= 2.0:  # a rod: straight sides, round ends
        half, cap = radius * elongation, radius / elongation
        points = np.stack((np.cos(angles), np.sin(angles)), axis=1) * cap
        points[:, 0] += np.sign(points[:, 0]) * (half - cap)
        along = points[:, 0] / half
        points[:, 1] = (
            points[:, 1] * (1 - appearance.taper * np.abs(along))
            + rng.uniform(-2, 2) * appearance.bend * half * along**2
        )
    else:
        points = np.stack((np.cos(angles) * elongation, np.sin(angles) / elongation), axis=1) * radius
    waves = sum(
        rng.normal(0, appearance.irregularity / order**0.5) * np.cos(order * angles + rng.uniform(0, 2 * math.pi))
        for order in range(2, 6)
    )
    points *= 1 + np.clip(waves, -0.35, 0.35)[:, None]
    turn = rng.uniform(0, 2 * math.pi)
    return points @ np.array(((math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))))


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A cell at its place: its mask in a window of the image, before clipping."""

    x: int
    y: int
    mask: np.ndarray
    """(h, w) bool; the window starts at (x, y), which may be negative, and has a margin around the cell."""


def _litter(rng: np.random.Generator, image: np.ndarray, appearance: Appearance) -> None:
    """What is no cell: the lines of a counting chamber, and specks of one to a few pixels, lighter or darker."""
    height, width = image.shape[:2]
    if rng.random() < appearance.lines:
        level, angle = float(rng.uniform(-0.3, 0.3)), rng.uniform(0, math.pi)
        drawn = np.zeros((height, width), np.float32)
        across, along = np.array((math.sin(angle), -math.cos(angle))), np.array((math.cos(angle), math.sin(angle)))
        first, gap = rng.uniform(0, 60), rng.uniform(4, 60)
        for number in range(-8, 9):
            middle = np.array((width / 2, height / 2)) + (first + number * gap) * across
            begin, end = (np.round(middle + side * (height + width) * along).astype(int).tolist() for side in (-1, 1))
            cv2.line(drawn, begin, end, 1.0, int(rng.integers(1, 3)))
        image += level * cv2.GaussianBlur(drawn, (0, 0), 0.7)[..., None]
    rows, columns = np.ogrid[:height, :width]
    for _ in range(int(rng.integers(appearance.debris[0], appearance.debris[1] + 1))):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), math.exp(rng.uniform(0, math.log(4)))
        turn, squeeze = rng.uniform(0, math.pi), rng.uniform(0.4, 1)
        u = (columns - x) * math.cos(turn) + (rows - y) * math.sin(turn)
        v = ((rows - y) * math.cos(turn) - (columns - x) * math.sin(turn)) / squeeze
        distance = np.hypot(u, v) / radius
        ring = rng.uniform(-0.3, 0.3) * np.exp(-(((distance - 1.6) / 0.5) ** 2))
        image += (rng.uniform(-0.5, 0.5) * np.clip(1.5 - distance, 0, 1) + ring)[..., None].astype(np.float32)
    np.clip(image, 0, 1, out=image)


def _place(rng: np.random.Generator, outline: np.ndarray, owner: np.ndarray, appearance: Appearance) -> _Placed | None:
    """A place with little overlap; None if there is none after some attempts."""
    height, width = owner.shape
    low = np.floor(outline.min(axis=0)).astype(int) - _MARGIN
    size = np.ceil(outline.max(axis=0)).astype(int) + _MARGIN - low
    canvas = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillPoly(canvas, [np.round((outline - low) * 16).astype(np.int32)], 1, shift=4)
    mask = canvas.astype(bool)
    reach = 0.5 * (mask.sum() ** 0.5)
    for _ in range(_ATTEMPTS):
        taken = np.flatnonzero(owner.ravel() >= 0) if rng.random() < appearance.clustering else ()
        if len(taken):
            near, angle = int(rng.choice(taken)), rng.uniform(0, 2 * math.pi)
            # Pushed against it: the nearest place on a ray that begins inside the other one.
            distances = np.arange(0, 4 * reach) if appearance.contact else (1.6 * reach,)
            x, y = near % width, near // width
            places = [(x + distance * math.cos(angle), y + distance * math.sin(angle)) for distance in distances]
            if appearance.contact:
                places = [(x, y) for x, y in places if 0 <= x < width and 0 <= y < height]
        else:
            places = [(rng.uniform(0, width), rng.uniform(0, height))]
        most = _MAX_CONTACT if appearance.contact else _MAX_OVERLAP
        for x, y in places:
            placed = _Placed(round(x) + int(low[0]), round(y) + int(low[1]), mask)
            inside, window = _clip(placed, height, width)
            visible = placed.mask[inside]
            covered = np.count_nonzero(visible & (owner[window] >= 0))
            if np.count_nonzero(visible) >= 0.4 * np.count_nonzero(mask) and covered <= most * visible.sum():
                return placed
    return None


def _clip(placed: _Placed, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of the window that lies in the image: as slices of the window, and of the image."""
    h, w = placed.mask.shape
    y0, x0 = max(0, -placed.y), max(0, -placed.x)
    y1, x1 = max(y0, min(h, height - placed.y)), max(x0, min(w, width - placed.x))
    window = (slice(placed.y + y0, placed.y + y1), slice(placed.x + x0, placed.x + x1))
    return (slice(y0, y1), slice(x0, x1)), window


def _paint(
    rng: np.random.Generator,
    image: np.ndarray,
    owner: np.ndarray,
    placed: _Placed,
    appearance: Appearance,
    grain: np.ndarray,
    instance: int,
) -> None:
    """Draw one cell over what is there, in `image` and `owner`."""
    inside, window = _clip(placed, *owner.shape)
    mask = placed.mask
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    under = np.zeros((*mask.shape, 3), np.float32)
    under[inside] = image[window]
    gain = rng.uniform(1 - appearance.variation, 1 + appearance.variation)
    if appearance.halo is not None:
        distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
        glow = np.exp(-((distance / appearance.halo_width) ** 2))[..., None] * 0.9
        under += glow * (np.array(appearance.halo, np.float32) - under)
    body = np.array(appearance.body, np.float32) * gain * np.ones((*mask.shape, 1), np.float32)
    if appearance.texture:
        top, left = rng.integers(0, np.array(grain.shape) - mask.shape)
        patch = grain[top : top + mask.shape[0], left : left + mask.shape[1]]
        body *= 1 + appearance.texture * np.clip(patch, -1.6, 1.6)[..., None] * 0.6
    if appearance.dome:
        body += (appearance.dome * (1 - np.clip(depth / depth.max(), 0, 1)))[..., None] * (under - body)
    for _ in range(int(rng.integers(appearance.spots[0], appearance.spots[1] + 1))):
        _add_spot(rng, body, depth, appearance)
    if appearance.membrane is not None:
        ring = np.clip(1.5 - depth / appearance.membrane_width, 0, 1)[..., None]
        body += ring * (np.array(appearance.membrane, np.float32) * gain - body)
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.6)[..., None] * appearance.opacity
    image[window] = (under + alpha * (body - under))[inside]
    owner[window][mask[inside]] = instance


def _add_spot(rng: np.random.Generator, body: np.ndarray, depth: np.ndarray, appearance: Appearance) -> None:
    radius = max(0.8, appearance.spot_radius * float(np.mean(appearance.radius)) * rng.uniform(0.7, 1.3))
    places = np.argwhere(depth > min(1.5 * radius + 1, 0.7 * depth.max()))
    y, x = places[rng.integers(len(places))]
    rows, columns = np.ogrid[: depth.shape[0], : depth.shape[1]]
    strength = np.clip(radius + 0.5 - np.hypot(rows - y, columns - x), 0, 1)[..., None]
    body += strength.astype(np.float32) * (np.array(appearance.spot, np.float32) - body)


def _expose(rng: np.random.Generator, image: np.ndarray, kind: Background) -> np.ndarray:
    """Blur, uneven light, exposure and noise; (H, W, 3) uint8. A grey image stays grey."""
    height, width = image.shape[:2]
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.8))
    centre = rng.uniform(0.2, 0.8, 2) * (height, width)
    rows, columns = np.ogrid[:height, :width]
    distance = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (height**2 + width**2)
    image = image * (1 - rng.uniform(0.1, 0.5) * distance[..., None])
    if kind == "dark":
        image = image * rng.uniform(0.35, 1.0)
    grey = bool(np.ptp(image, axis=2).max() < 1e-4)
    noise = rng.standard_normal((height, width, 1 if grey else 3), np.float32)
    image = image + noise * (0.006 + 0.02 * np.sqrt(np.clip(image, 0, 1)))
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
