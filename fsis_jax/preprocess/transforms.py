"""From stored images to network input, on the host: scale, canvas, reference crops, flips and intensity.

Training and test share these functions. Every random one takes its numpy Generator. Images are (h, w) or (h, w, 3)
uint8 here; a grey image stays one channel until it is placed on the canvas. Sources: `lib/utils/blob.py` (resize,
square crop) and `lib/roi_data/loader.py` (augmentation of references) of the PyTorch project. Beyond it:
percentile stretch of every image, and a scale that follows the size of the references.
"""

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.content import Content
from fsis_jax.io.decoding import to_rgb8
from fsis_jax.io.intensity import Image, Stretch, find_stretch
from fsis_jax.preprocess.aspect import bounded_size
from fsis_jax.preprocess.records import Annotations
from fsis_jax.preprocess.transform_config import TransformConfig

Canvases = Sequence[tuple[int, int]]
"""Allowed canvas shapes (height, width)."""


def shortest_side_scale(size: tuple[int, int], config: TransformConfig) -> float:
    """Scale of an image of `size` (height, width) by the length of its sides."""
    scale = config.shortest_side / min(size)
    if round(scale * max(size)) > config.longest_side:
        scale = config.longest_side / max(size)
    return scale


def target_scale(size: tuple[int, int], reference_sizes: np.ndarray, config: TransformConfig) -> float:
    """Scale of a target of `size` (height, width) whose references have `reference_sizes` (n, 2), in pixels.

    By the sides of the target, or so that the references get a median side of `reference_pixels`, within the bounds;
    with no reference, 1 within the bounds.
    """
    if config.scale == "shortest_side":
        return shortest_side_scale(size, config)
    sides = np.sqrt(np.prod(reference_sizes, axis=1, dtype=np.float64))
    scale = config.reference_pixels / np.median(sides) if len(sides) else 1.0
    return float(np.clip(scale, config.min_scale, config.max_scale))


def own_scale(annotations: Annotations, config: TransformConfig) -> float:
    """Scale in training of an image whose own cells are the references, as in an episode with background patches."""
    boxes = annotations.boxes[~annotations.crowd]
    size = bounded_size((annotations.height, annotations.width), config.aspect_bounds)
    return target_scale(size, boxes[:, 2:] - boxes[:, :2], config)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width that `resize` gives."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def choose_canvas(size: tuple[int, int], canvases: Canvases) -> tuple[int, int]:
    """The canvas of least area that holds `size` (height, width); the first of equals."""
    fitting = [canvas for canvas in canvases if canvas[0] >= size[0] and canvas[1] >= size[1]]
    if not fitting:
        raise FsisError(
            f"no canvas of {list(canvases)} holds an image resized to {size[0]}x{size[1]}; add a larger one"
        )
    canvas = min(fitting, key=math.prod)
    return canvas[0], canvas[1]


def resize(image: np.ndarray, scale: float, *, antialias: bool = True) -> np.ndarray:
    """Bilinear to `scaled_size`; pixel centres map by the exact scale. `antialias`: below 1/2 pixels are averaged."""
    if scale == 1:
        return image
    if min(image.shape[:2]) * scale < 1:
        return cv2.resize(image, scaled_size(image.shape[:2], scale)[::-1], interpolation=cv2.INTER_AREA)
    interpolation = cv2.INTER_AREA if antialias and scale < 0.5 else cv2.INTER_LINEAR
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation)


def place(image: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 canvas with `image` (h, w[, 3]) at its top left, zero outside."""
    placed = np.zeros((*canvas, 3), np.uint8)
    placed[: image.shape[0], : image.shape[1]] = image if image.ndim == 3 else image[..., None]
    return placed


def to_8bit(image: np.ndarray, config: TransformConfig, stretch: Stretch | None = None) -> np.ndarray:
    """A decoded image of any dtype as uint8: (h, w) if its channels are equal, else (h, w, 3).

    Args:
        stretch: `target_stretch` of the whole image, where this is a part of it.
    """
    wanted = config.intensity == "percentile" if stretch is None else stretch
    pixels8 = to_rgb8(image, stretch=wanted, percentiles=config.percentiles)
    grey = image.ndim == 2 or np.array_equal(pixels8[..., :2], pixels8[..., 1:])
    return np.ascontiguousarray(pixels8[..., 0]) if grey else pixels8


def target_stretch(image: Image, config: TransformConfig, *, grain: float = 0.0) -> Stretch | None:
    """How `to_8bit` stretches an image; None if it does not.

    Args:
        grain: pixels of a quarter of a cell, to leave out what is empty of a large image (`io/content.py`); 0: nothing.
    """
    stretched = config.intensity == "percentile" or image.dtype != np.uint8
    if not stretched:
        return None
    return find_stretch(image, config.percentiles, Content(image, grain).bands if grain else None)


def cut_reference(image: Image, box: Sequence[float], *, context: float = 1.0, legacy: bool = False) -> np.ndarray:
    """The part of a decoded image inside `box` (x1, y1, x2, y2), which first grows about its centre by `context`.

    Every pixel that the box touches is part of it; at least one. `legacy`: x2 and y2 name the last pixel inside, and
    coordinates are truncated.
    """
    x1, y1, x2, y2 = box
    if legacy:
        x2, y2 = x2 - 1, y2 - 1
    grow_x, grow_y = (context - 1) / 2 * (x2 - x1), (context - 1) / 2 * (y2 - y1)
    upper = math.floor if legacy else math.ceil
    height, width = image.shape[:2]
    left, top = (min(max(math.floor(v), 0), limit - 1) for v, limit in ((x1 - grow_x, width), (y1 - grow_y, height)))
    right, bottom = max(upper(x2 + grow_x), left + 1), max(upper(y2 + grow_y), top + 1)
    return np.asarray(image[top:bottom, left:right])


def reference_image(
    crop: np.ndarray,
    config: TransformConfig,
    *,
    stretch: Stretch | None = None,
    tone: "Tone | None" = None,
    rng: np.random.Generator | None = None,
    name: str = "reference",
) -> np.ndarray:
    """(S, S, 3) uint8 from a crop of a decoded image, any dtype: stretch, zero-pad to a square, resize.

    Args:
        stretch: of the image that the crop comes from, as `reference_stretch` finds it; None: the crop's own.
        tone: given in training: that of the example.
        rng: given in training: intensity and orientation are drawn with it.
        name: of the crop, for messages.

    Raises:
        FsisError: the crop is less than 2 pixels wide or high.
    """
    crop = np.asarray(crop)
    if min(crop.shape[:2]) < 2:
        raise FsisError(
            f"{name}: a reference of {crop.shape[1]}x{crop.shape[0]} pixels shows no cell; give a crop around one cell"
        )
    pixels8 = to_8bit(crop, config, stretch)
    if tone is not None:
        pixels8 = tone(pixels8)
    if rng is not None:
        pixels8 = jitter_intensity(rng, pixels8, config)
    square = pad_to_square(pixels8, legacy=config.legacy_reference_crop)
    square = resize_square(square, config.reference_size, antialias=config.antialias)
    if rng is not None:
        square = random_orientation(rng, config, square.shape[:2], square.shape[:2]).image(square)
    return place(square, square.shape[:2])


def pad_to_square(image: np.ndarray, *, legacy: bool = False) -> np.ndarray:
    """The image in the middle of a zero square; `legacy` drops the last row or column of an odd longest side."""
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = side // 2 - height // 2, side // 2 - width // 2
    if legacy and side % 2:
        image = image[: side - 1 if height == side else height, : side - 1 if width == side else width]
    padded = np.zeros((side, side, *image.shape[2:]), image.dtype)
    padded[top : top + image.shape[0], left : left + image.shape[1]] = image
    return padded


def resize_square(image: np.ndarray, size: int, *, antialias: bool = True) -> np.ndarray:
    """A square image to `size`, as `resize`."""
    interpolation = cv2.INTER_AREA if antialias and size < image.shape[0] / 2 else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=interpolation)


@dataclasses.dataclass(frozen=True)
class Orientation:
    """A flip (mirror x) followed by quarter turns against the clock."""

    flip: bool = False
    turns: int = 0

    def image(self, image: np.ndarray) -> np.ndarray:
        """(h, w, ...) turned; also the masks of instances, one by one."""
        return np.rot90(image[:, ::-1] if self.flip else image, self.turns)

    def boxes(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(n, 4) in an image of `size` (height, width) before turning."""
        x1, y1, x2, y2 = boxes.T
        height, width = size
        if self.flip:
            x1, x2 = width - x2, width - x1
        for _ in range(self.turns):
            x1, y1, x2, y2 = y1, width - x2, y2, width - x1
            height, width = width, height
        return np.stack([x1, y1, x2, y2], axis=-1)


def random_orientation(
    rng: np.random.Generator, config: TransformConfig, size: tuple[int, int], canvas: tuple[int, int]
) -> Orientation:
    """Flip and turn of an image of `size`; no quarter turn that would leave the canvas."""
    flip = bool(rng.random() < config.flip)
    turns = int(rng.integers(4)) if config.rot90 else 0
    if turns % 2 and not (size[1] <= canvas[0] and size[0] <= canvas[1]):
        turns -= 1
    return Orientation(flip, turns)


@dataclasses.dataclass(frozen=True)
class Tone:
    """What is done to the colours of a whole example, target and references: its cells must go on looking alike."""

    invert: bool = False
    grey: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator, config: TransformConfig) -> "Tone":
        """At random, as the config says."""
        return cls(*(probability > 0 and rng.random() < probability for probability in (config.invert, config.grey)))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(h, w) or (h, w, 3) uint8; grey images have one channel."""
        if self.grey and image.ndim == 3:
            image = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        return 255 - image if self.invert else image


def jitter_intensity(rng: np.random.Generator, image: np.ndarray, config: TransformConfig) -> np.ndarray:
    """Random gamma, contrast, brightness, colour and noise, as the config says; of the same shape."""
    pixels8 = np.arange(256, dtype=np.float32) / 255
    exponent = config.gamma ** rng.uniform(-1, 1)
    contrast = 1 + config.contrast * rng.uniform(-1, 1)
    shift = config.brightness * rng.uniform(-1, 1)
    gains = 1 + config.colour * rng.uniform(-1, 1, 3 if image.ndim == 3 else 1)
    sigma = config.noise * rng.random()
    table = ((pixels8**exponent - 0.5) * contrast + 0.5 + shift)[:, None] * (gains if image.ndim == 3 else 1.0)
    if sigma == 0:
        codes = np.rint(255 * np.clip(table, 0, 1)).astype(np.uint8)
        return cv2.LUT(image, codes.reshape(1, 256, -1))
    values = 255 * table.astype(np.float32)
    mapped = np.stack([values[image[..., c], c] for c in range(3)], axis=-1) if image.ndim == 3 else values[image, 0]
    noise = rng.standard_normal(image.shape[:2], dtype=np.float32) * np.float32(255 * sigma)
    mapped += noise[..., None] if image.ndim == 3 else noise
    return np.rint(np.clip(mapped, 0, 255)).astype(np.uint8)
