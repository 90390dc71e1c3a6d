"""One training example: an episode made into arrays, with the functions that the Segmenter uses at test."""

import collections
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from fsis_jax.data.closed_set import class_numbers
from fsis_jax.data.copies import paste_copies
from fsis_jax.data.episodes import Episode, ReferenceBox
from fsis_jax.errors import FsisError
from fsis_jax.io.decoding import decode_image
from fsis_jax.io.intensity import Stretch
from fsis_jax.preprocess import keypoints as points
from fsis_jax.preprocess.aspect import bounded_size
from fsis_jax.preprocess.records import Annotations, Source
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import (
    Tone,
    cut_reference,
    jitter_intensity,
    own_scale,
    place,
    random_orientation,
    reference_image,
    resize,
    target_scale,
    target_stretch,
    to_8bit,
)
from fsis_jax.preprocess.windows import Window, limit_window, random_window, visible_instances


class ImageCache:
    """Decoded images of a source, the least recently used dropped first. One thread at a time may use it."""

    def __init__(self, source: Source, config: TransformConfig, *, max_bytes: int = 128 << 20) -> None:
        self._source = source
        self._config = config
        self._max_bytes = max_bytes
        self._bytes = 0
        self._images: collections.OrderedDict[tuple[int, bool], np.ndarray] = collections.OrderedDict()
        self._stretches: dict[int, Stretch | None] = {}
        self.annotations = source.annotations

    def raw(self, record: int) -> np.ndarray:
        """The image as stored, (h, w) or (h, w, 3|4) in its own dtype."""
        image = self._images.get((record, False))
        if image is None:
            stored = self._source[record]
            image = decode_image(stored.encoded, stored.annotations.file_name)
            expected = (stored.annotations.height, stored.annotations.width)
            if image.shape[:2] != expected:
                raise FsisError(
                    f"{stored.annotations.file_name}: the image is {image.shape[1]}x{image.shape[0]} pixels, its "
                    f"annotations say {expected[1]}x{expected[0]}; correct width and height or replace the image"
                )
        return self._keep((record, False), image)

    def stretched(self, record: int) -> np.ndarray:
        """The image as the network sees it (`transforms.to_8bit`)."""
        image = self._images.get((record, True))
        if image is None:
            image = to_8bit(self.raw(record), self._config, self.stretch(record))
        return self._keep((record, True), image)

    def stretch(self, record: int) -> Stretch | None:
        """How the image is stretched (`transforms.target_stretch`)."""
        if record not in self._stretches:
            self._stretches[record] = target_stretch(self.raw(record), self._config)
        return self._stretches[record]

    def _keep(self, key: tuple[int, bool], image: np.ndarray) -> np.ndarray:
        if key not in self._images:
            self._bytes += image.nbytes
        self._images[key] = image
        self._images.move_to_end(key)
        while self._bytes > self._max_bytes:
            self._bytes -= self._images.popitem(last=False)[1].nbytes
        return image


def training_example(
    cache: ImageCache,
    episode: Episode,
    config: TransformConfig,
    *,
    canvas: tuple[int, int],
    trainable: Sequence[int],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """The fields of a `Batch` for one episode, without the batch axis and without `sample_ids`.

    A target that is larger than the canvas once scaled is cropped about one of its instances (in a "present" episode,
    one of the references' category). In a mosaic it fills one panel of the canvas, and the others show crops of the
    episode's other targets: half of the time at the target's scale, else at that where their cells have the size of
    the references. Ignored instances: crowds, categories that are not `trainable`, those of which the crop shows less
    than `min_visible`, and those narrower than a pixel of the canvas. Categories, whose ids may be large, are numbered
    from 1 on in the order of `trainable` (`closed_set.class_numbers`); in a "plain" episode whatever has such a number
    is a match.
    """
    record = cache.annotations[episode.target]
    scale = _training_scale(record, episode, config, rng)
    tone = Tone.draw(rng, config)
    places = _panels(rng, canvas, 1 + len(episode.others))
    make = functools.partial(_crop, cache, config, trainable=trainable, tone=tone, rng=rng)
    limit = config.max_instances // len(places)
    wanted = episode.category if episode.kind == "present" else None
    crops = [make(episode.target, scale, size=places[0].size, wanted=wanted, limit=limit)]
    for other, panel in zip(episode.others, places[1:], strict=True):
        own = rng.random() < 0.5
        its_scale = _jittered(own_scale(cache.annotations[other], config), config, rng) if own else scale
        crops.append(make(other, its_scale, size=panel.size, wanted=None, limit=limit))

    image = np.zeros((*canvas, 3), np.uint8)
    for crop, panel in zip(crops, places, strict=True):
        image[panel.y0 : panel.y1, panel.x0 : panel.x1] = place(crop.image, panel.size)
    corners = [np.array([panel.x0, panel.y0] * 2, np.float32) for panel in places]
    boxes = np.concatenate([crop.boxes + corner for crop, corner in zip(crops, corners, strict=True)])
    boxes[:, 2:] -= config.box_offset
    classes = np.concatenate([crop.classes for crop in crops])
    ignore = np.concatenate([crop.ignore for crop in crops])
    masks = np.concatenate([crop.masks for crop in crops])
    keypoints = [
        points.scaled(crop.keypoints, 1, (panel.x0, panel.y0)) for crop, panel in zip(crops, places, strict=True)
    ]
    numbers = class_numbers(classes, trainable)
    matches = numbers > 0 if episode.kind == "plain" else (classes == episode.category) & (episode.kind == "present")
    contrast = 0 if episode.contrast_category is None else 1 + list(trainable).index(episode.contrast_category)
    reference = functools.partial(_training_reference, cache, episode, config, tone, rng)
    shape = (-1, config.reference_size, config.reference_size, 3)
    return {
        "images": image,
        "image_sizes": np.array(canvas if episode.others else crops[0].image.shape[:2], np.int32),
        "references": np.array([reference(box) for box in episode.references], np.uint8).reshape(shape),
        "contrast_references": np.array([reference(box) for box in episode.contrast], np.uint8).reshape(shape),
        "contrast_classes": np.array(contrast, np.int32),
        # A crop may show nothing of the category but slivers.
        "reference_present": np.array((matches & ~ignore).any() or episode.kind == "plain"),
        "gt_boxes": _padded(boxes, config.max_instances),
        "gt_valid": np.arange(config.max_instances) < len(boxes),
        "gt_classes": _padded(numbers, config.max_instances),
        "gt_matches": _padded(matches, config.max_instances),
        "gt_ignore": _padded(ignore, config.max_instances),
        "gt_masks": _padded(masks, config.max_instances),
        "gt_keypoints": _padded(np.concatenate(keypoints), config.max_instances),
        "targets": np.array(episode.target, np.int32),
    }


def _panels(rng: np.random.Generator, canvas: tuple[int, int], count: int) -> list[Window]:
    """The canvas in 1, 2 or 4 parts, in random order; cuts lie in the middle third."""
    height, width = canvas
    if count == 1:
        return [Window(0, 0, width, height)]
    x, y = (int(side * rng.uniform(1 / 3, 2 / 3)) for side in (width, height))
    if count == 2:
        beside = [Window(0, 0, x, height), Window(x, 0, width, height)]
        parts = beside if rng.random() < 0.5 else [Window(0, 0, width, y), Window(0, y, width, height)]
    else:
        parts = [Window(x0, y0, x1, y1) for y0, y1 in ((0, y), (y, height)) for x0, x1 in ((0, x), (x, width))]
    return [parts[row] for row in rng.permutation(len(parts))]


@dataclasses.dataclass(frozen=True)
class _Crop:
    """A part of a target as the network sees it; n instances."""

    image: np.ndarray
    """(h, w) or (h, w, 3) uint8."""
    boxes: np.ndarray
    """(n, 4) float32, in its pixels."""
    masks: np.ndarray
    """(n, m, m) uint8."""
    keypoints: np.ndarray
    """(n, P, 3) float32, in its pixels."""
    classes: np.ndarray
    """(n,) int64 category ids."""
    ignore: np.ndarray
    """(n,) bool."""


def _crop(
    cache: ImageCache,
    config: TransformConfig,
    target: int,
    scale: float,
    *,
    size: tuple[int, int],
    wanted: int | None,
    limit: int,
    trainable: Sequence[int],
    tone: Tone,
    rng: np.random.Generator,
) -> _Crop:
    """What of a target fits into `size` (height, width) and the bounds of the aspect ratio.

    It is about a cell of the `wanted` category (None: any), unless it is drawn to lie anywhere.
    """
    record = cache.annotations[target]
    whole = (record.height, record.width)
    shown = bounded_size(whole, config.aspect_bounds)
    extent = [s if round(s * scale) <= c else max(1, int(c / scale)) for s, c in zip(shown, size, strict=True)]
    learnt = ~record.crowd & np.isin(record.classes, trainable)
    about = np.flatnonzero(learnt if wanted is None else learnt & (record.classes == wanted))
    anywhere = config.anywhere > 0 and rng.random() < config.anywhere
    anchor = record.boxes[rng.choice(about)] if len(about) and not anywhere else None
    window = random_window(rng, whole, (extent[0], extent[1]), anchor)
    window = limit_window(window, record.boxes, limit, anchor=anchor, name=record.file_name)

    stored = cache.stretched(target)[window.y0 : window.y1, window.x0 : window.x1]
    instances = visible_instances(record, window, config.mask_size)
    if config.copies and not record.keypoint_names:
        stored, instances = paste_copies(
            rng,
            stored,
            record,
            window,
            instances,
            learnt[instances.rows] & (instances.visible == 1),
            count=int(rng.integers(1 + max(0, min(config.copies, limit - len(instances.rows))))),
            mask_size=config.mask_size,
        )
    image = jitter_intensity(rng, tone(resize(stored, scale, antialias=config.antialias)), config)
    height, width = image.shape[:2]
    orientation = random_orientation(rng, config, (height, width), size)
    boxes = (instances.boxes - np.array([window.x0, window.y0] * 2, np.float32)) * np.float32(scale)
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    narrow = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) < 1
    keypoints = points.scaled(record.keypoints[instances.rows], scale, (-window.x0 * scale, -window.y0 * scale))
    keypoints = points.within(keypoints, (height, width))
    return _Crop(
        image=orientation.image(image),
        boxes=orientation.boxes(boxes, (height, width)),
        masks=orientation.image(instances.masks.transpose(1, 2, 0)).transpose(2, 0, 1),
        keypoints=points.turned(keypoints, orientation, (height, width), record.keypoint_names),
        classes=record.classes[instances.rows],
        ignore=~learnt[instances.rows] | (instances.visible < config.min_visible) | narrow,
    )


def _training_scale(record: Annotations, episode: Episode, config: TransformConfig, rng: np.random.Generator) -> float:
    if not episode.references or episode.kind == "background":
        scale = own_scale(record, config)
    else:
        boxes = np.array([reference.box for reference in episode.references])
        size = bounded_size((record.height, record.width), config.aspect_bounds)
        scale = target_scale(size, boxes[:, 2:] - boxes[:, :2], config)
    return _jittered(scale, config, rng)


def _jittered(scale: float, config: TransformConfig, rng: np.random.Generator) -> float:
    scale *= config.scale_jitter ** rng.uniform(-1, 1)
    return float(np.clip(scale, config.min_scale, config.max_scale)) if config.scale == "reference" else scale


def _training_reference(
    cache: ImageCache,
    episode: Episode,
    config: TransformConfig,
    tone: Tone,
    rng: np.random.Generator,
    reference: ReferenceBox,
) -> np.ndarray:
    # A background patch that grew could take in a piece of a cell.
    context = 1.0 if episode.kind == "background" else rng.uniform(1, config.reference_context)
    crop = cut_reference(
        cache.raw(reference.record), reference.box, context=context, legacy=config.legacy_reference_crop
    )
    by_image = config.reference_stretch == "image" or (config.reference_stretch == "either" and rng.random() < 0.5)
    stretch = cache.stretch(reference.record) if by_image else None
    return reference_image(crop, config, stretch=stretch, tone=tone, rng=rng)


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    padded = np.zeros((length, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return padded
