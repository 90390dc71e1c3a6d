"""How an image is given to the network: at which scale, on which canvas, whole or in tiles.

An image that fits a canvas at its scale is read whole. A larger one is shrunk to the largest canvas where the scale
follows the image's own sides, as the PyTorch project does; where it follows the references it is read in tiles, since
shrinking would bring the cells out of the size that the network knows.

A tile without anything in it is not given to the network: one whose means over squares of a quarter of a cell differ by
no more than `data.background_contrast` levels, of 255 between the limits of the whole image's stretch. In a pyramid
that is seen in a coarser level, so that the empty part of a slide costs little. Without references the size of a cell
is not known: no tile is left out, and tiles overlap by a quarter.
"""

import dataclasses
import functools
import math

import cv2
import numpy as np
from ml_collections import ConfigDict

from fsis_jax.errors import FsisError
from fsis_jax.inference.augmentation import Variant
from fsis_jax.inference.instances import Size
from fsis_jax.inference.tiling import Tile, tiles
from fsis_jax.io.intensity import Image, Stretch, check_shape, coarsest
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import (
    choose_canvas,
    place,
    resize,
    scaled_size,
    target_scale,
    target_stretch,
    to_8bit,
)
from fsis_jax.preprocess.windows import Window

MIXED = 2.5
"""Times the smallest reference that the largest must be, for the image to be read at two scales."""
APART = 1.8
"""Times the size of one kind that another must have, for the two to be read at scales of their own."""
SMALLEST_TILE = 32
"""Pixels of the image."""
_CANVAS_MULTIPLE = 32
_MOST_AT_ONCE = 1 << 28
"""Pixels of an image, or of a level of a pyramid, that is read as a whole."""
_MEASURED = 1 << 22
"""Pixels of the level of a pyramid, at least, that the limits of the stretch are taken from."""


@dataclasses.dataclass(frozen=True)
class TilePlan:
    """One image and its tiles, which have one size, one scale and one canvas; a single tile is the whole image."""

    image: Image
    size: Size
    transform: TransformConfig
    scale: float
    """Canvas pixels per image pixel."""
    canvas: Size
    tiles: list[Tile]
    margin: float
    """As for `tiling.merge_tiles`."""
    grain: float
    """Image pixels of a quarter of a cell; 0 where that is not known."""
    background_contrast: float
    kinds: tuple[int, ...] = (0,)
    """Rows of the kinds of references that are looked for at this scale."""
    pixel_size: float | None = None
    """Micrometres per pixel of the image, where it is known."""
    known_stretch: Stretch | None = None
    """The stretch, where another process has found it."""

    @functools.cached_property
    def stretch(self) -> Stretch | None:
        """The whole image's, by a coarse level with enough pixels; of an image in tiles without its empty parts."""
        if self.known_stretch is not None:
            return self.known_stretch
        height, width = self.size
        level = coarsest(self.image, math.sqrt(height * width / _MEASURED))
        grain = self.grain * level.shape[0] / height if len(self.tiles) > 1 else 0.0
        return target_stretch(level, self.transform, grain=grain)

    @property
    def window(self) -> Size:
        """Height and width of a tile in image pixels."""
        return self.tiles[0].window.size

    @property
    def extent(self) -> Size:
        """Height and width of a tile on its canvas."""
        return self.extent_of(Variant())

    def prepare(self, tile: Tile) -> np.ndarray | None:
        """(H, W, 3) uint8, the canvas with a tile; None if it is of one value, or one of several and shows nothing.

        No more of the image is read or copied than the tile.
        """
        level, fine = coarsest(self.image, self.grain), _fine_enough(self.image, self.scale)
        in_coarse_level = level is not self.image and level is not fine
        if in_coarse_level and self._shows_nothing(self._stretched(level, tile.window), level):
            return None
        pixels8 = self._stretched(fine, tile.window)
        if self._shows_nothing(pixels8, fine):
            return None
        return self._placed(pixels8, fine, Variant())

    def prepare_variant(self, tile: Tile, variant: Variant) -> np.ndarray:
        """(H, W, 3) uint8, the canvas with a tile that is shown in another way, whatever it shows.

        The canvas is the usual one times the variant's scale, rounded up: so no variant asks for larger canvases in the
        config, nor for more programs than there are usual ones.
        """
        fine = _fine_enough(self.image, self.scale * variant.times)
        pixels8 = self._stretched(fine, tile.window)
        # Flipped before it is resized, so that a fraction of a pixel at the right border stays there.
        return self._placed(np.ascontiguousarray(pixels8[:, ::-1]) if variant.flipped else pixels8, fine, variant)

    def extent_of(self, variant: Variant) -> Size:
        """Height and width of a tile on the variant's canvas."""
        return scaled_size(self.window, self.scale * variant.times)

    def _placed(self, pixels8: np.ndarray, fine: Image, variant: Variant) -> np.ndarray:
        """The canvas with a tile's pixels in one of the image's levels."""
        extent = self.extent_of(variant)
        canvas = self.canvas
        if variant.times != 1:
            height, width = (_up(max(side * variant.times, e)) for side, e in zip(self.canvas, extent, strict=True))
            canvas = (height, width)
        if fine is self.image:
            return place(resize(pixels8, self.scale * variant.times, antialias=self.transform.antialias), canvas)
        return place(cv2.resize(pixels8, extent[::-1], interpolation=cv2.INTER_AREA), canvas)

    def shown(self, window: Window) -> np.ndarray:
        """(h, w) or (h, w, 3) uint8, a part of the image in its own pixels, stretched."""
        return self._stretched(self.image, window)

    def _stretched(self, image: Image, window: Window) -> np.ndarray:
        """(h, w) or (h, w, 3) uint8, a window in the pixels of one of the image's levels, stretched."""
        rows, columns = (image.shape[axis] / self.size[axis] for axis in (0, 1))
        top, left = int(window.y0 * rows), int(window.x0 * columns)
        bottom, right = math.ceil(window.y1 * rows), math.ceil(window.x1 * columns)
        return to_8bit(np.asarray(image[top:bottom, left:right]), self.transform, self.stretch)

    def _shows_nothing(self, pixels8: np.ndarray, image: Image) -> bool:
        """No square of `grain` in a window of one of the image's levels stands out; no pixel, if it is the only one."""
        if (pixels8 == pixels8[:1, :1]).all():
            return True
        if len(self.tiles) == 1 or not self.background_contrast or not self.grain:
            return False
        scale = min(self.size[0] / image.shape[0] / self.grain, 1)
        size = (max(round(pixels8.shape[1] * scale), 1), max(round(pixels8.shape[0] * scale), 1))
        means = cv2.resize(pixels8, size, interpolation=cv2.INTER_AREA).reshape(size[0] * size[1], -1)
        return bool((np.ptp(means.astype(np.int16), axis=0) <= self.background_contrast).all())


def _up(length: float) -> int:
    """A length rounded up to the sides that canvases have."""
    return _CANVAS_MULTIPLE * math.ceil(length / _CANVAS_MULTIPLE)


def _fine_enough(image: Image, scale: float) -> Image:
    """The coarsest level of a pyramid that has two pixels or more for each of the canvas; else the image."""
    return coarsest(image, 0.5 / scale)


def size_groups(
    sides: np.ndarray, transform: TransformConfig, kinds: np.ndarray | None = None
) -> list[tuple[np.ndarray, tuple[int, ...]]]:
    """Rows of references of one size, and the kinds that they show.

    A network knows cells of one size, to which the references bring an image; what is mixed is read at several scales:
    references of one kind at two where the largest has `MIXED` times the size of the smallest, parted at the widest
    gap; of several kinds those together whose medians differ by less than `APART` times.

    Args:
        sides: (k, 2), height and width of each.
        kinds: (k,) int, the row of each reference's kind; None: all show one.
    """
    each = np.sqrt(np.prod(sides, axis=1, dtype=np.float64))
    kinds = np.zeros(len(each), int) if kinds is None else kinds
    known = np.unique(kinds).tolist()
    if transform.scale != "reference" or not len(each):
        return [(np.arange(len(each)), tuple(known) or (0,))]
    if len(known) == 1:
        order = np.argsort(each, kind="stable")
        if each.max() < MIXED * each.min():
            return [(np.sort(order), (0,))]
        gap = int(np.argmax(each[order[1:]] / each[order[:-1]])) + 1
        return [(np.sort(order[:gap]), (0,)), (np.sort(order[gap:]), (0,))]
    medians = {kind: float(np.median(each[kinds == kind])) for kind in known}
    groups: list[list[int]] = []
    for kind in sorted(known, key=lambda kind: medians[kind]):
        if groups and medians[kind] < APART * medians[groups[-1][0]]:
            groups[-1].append(kind)
        else:
            groups.append([kind])
    return [(np.flatnonzero(np.isin(kinds, group)), tuple(sorted(group))) for group in groups]


def plan_each_size(
    image: Image,
    reference_sides: np.ndarray,
    config: ConfigDict,
    transform: TransformConfig,
    tile: int = 0,
    owners: np.ndarray | None = None,
    *,
    pixel_size: float | None = None,
) -> list[TilePlan]:
    """`plan_tiles` for each of the `size_groups` of the references, whose kinds are `owners` (k,)."""
    return [
        plan_tiles(image, reference_sides[rows], config, transform, tile, kinds=kinds, pixel_size=pixel_size)
        for rows, kinds in size_groups(reference_sides, transform, owners)
    ]


def plan_tiles(
    image: Image,
    reference_sides: np.ndarray,
    config: ConfigDict,
    transform: TransformConfig,
    tile: int = 0,
    *,
    kinds: tuple[int, ...] = (0,),
    pixel_size: float | None = None,
) -> TilePlan:
    """How an image is read whose references have `reference_sides` (k, 2), in pixels; (0, 2) without references.

    Args:
        image: (H, W) or (H, W, C).
        reference_sides: height and width of each reference.
        config: canvases, the overlap of tiles and the most instances that the model may give.
        transform: of the same config.
        tile: largest side of tiles in pixels of the image, which are then prepared as images of their own; 0 leaves it
            to the model.
        kinds: rows of those kinds that the references show.
        pixel_size: micrometres per pixel of the image, None where not known.

    Raises:
        FsisError: a shape that is no image's, a `tile` of less than `SMALLEST_TILE`.
    """
    check_shape(image)
    if tile and tile < SMALLEST_TILE:
        raise FsisError(f"tiles of {tile} pixels: give a side of at least {SMALLEST_TILE}")
    size = (image.shape[0], image.shape[1])
    side, scale = _window(size, reference_sides, config, transform, tile)
    tiled = [low for low, length in zip(side, size, strict=True) if low < length]
    # Between tiles of half overlap every cell is in two; more would be twice the work.
    known = len(reference_sides) > 0
    wanted = math.ceil(config.data.tile_overlap * reference_sides.max()) if known else min(side) // 4
    overlap = min([wanted, *(low // 2 for low in tiled)]) if tiled else 0
    layout = tiles(size, side, overlap)
    if len(layout) == 1 and math.prod(_fine_enough(image, scale).shape[:2]) > _MOST_AT_ONCE:
        raise FsisError(f"an image of {size[1]}x{size[0]} pixels, which this model reads as a whole: give tiles of 800")
    return TilePlan(
        image=image,
        size=size,
        transform=transform,
        scale=scale,
        canvas=choose_canvas(scaled_size(layout[0].window.size, scale), config.data.test_canvases),
        tiles=layout,
        margin=overlap / 4,
        grain=float(np.median(reference_sides)) / 4 if known else 0.0,
        background_contrast=config.data.background_contrast,
        kinds=kinds,
        pixel_size=pixel_size,
    )


def _window(
    size: Size, reference_sides: np.ndarray, config: ConfigDict, transform: TransformConfig, tile: int
) -> tuple[Size, float]:
    """Height and width that are read at once of an image of `size`, and canvas pixels per image pixel."""
    height, width = (min(tile or length, length) for length in size)
    scale = target_scale((height, width), reference_sides, transform)
    largest = max(min(rows / height, columns / width) for rows, columns in config.data.test_canvases)
    if scale <= largest or transform.scale != "reference":
        return (height, width), min(scale, largest)
    rows, columns = _tile_canvas(scale, reference_sides, config)
    return (min(int(rows / scale), height), min(int(columns / scale), width)), scale


def _tile_canvas(scale: float, reference_sides: np.ndarray, config: ConfigDict) -> Size:
    """The largest canvas on which no more cells like the references have room than the model may give; else the least.

    It does not depend on the image, so that the time and the memory of a tile do not either. Only tiles that an image's
    own side makes narrower may find room on a smaller one.
    """
    cell = np.median(np.prod(reference_sides, axis=1, dtype=np.float64)) * scale**2
    room = config.model.detections.max_instances * cell
    canvases = sorted(config.data.test_canvases, key=math.prod)
    rows, columns = [canvas for canvas in canvases if math.prod(canvas) <= room or canvas == canvases[0]][-1]
    return rows, columns
