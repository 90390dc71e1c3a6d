"""One training example: an episode made into arrays, with the functions that the Segmenter uses at test."""

import collections
from collections.abc import Collection

import numpy as np

from fsis_jax.data.episodes import Episode, ReferenceBox
from fsis_jax.data.records import Annotations, Source
from fsis_jax.data.transforms import (
    TransformConfig,
    cut_reference,
    jitter_intensity,
    own_scale,
    place,
    random_orientation,
    reference_image,
    resize,
    target_scale,
    to_levels,
)
from fsis_jax.data.windows import limit_window, random_window, visible_instances
from fsis_jax.errors import FsisError
from fsis_jax.io.images import decode_image


class ImageCache:
    """Decoded images of a source, the least recently used dropped first. One thread at a time may use it."""

    def __init__(self, source: Source, config: TransformConfig, *, max_bytes: int = 128 << 20) -> None:
        self._source = source
        self._config = config
        self._max_bytes = max_bytes
        self._bytes = 0
        self._images: collections.OrderedDict[tuple[int, bool], np.ndarray] = collections.OrderedDict()

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

    def levels(self, record: int) -> np.ndarray:
        """The image as the network sees it (`transforms.to_levels`)."""
        image = self._images.get((record, True))
        return self._keep((record, True), to_levels(self.raw(record), self._config) if image is None else image)

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
    record: Annotations,
    episode: Episode,
    config: TransformConfig,
    *,
    canvas: tuple[int, int],
    trainable: Collection[int],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """The fields of a `Batch` for one episode, without the batch axis and without `sample_ids`.

    A target that is larger than the canvas once scaled is cropped about one of its instances (in a "present" episode,
    one of the references' category). Ignored instances: crowds, categories that are not `trainable`, those of which the
    crop shows less than `min_visible`, and those narrower than a pixel of the canvas.

    Args:
        record: annotations of the episode's target.
    """
    size = (record.height, record.width)
    scale = _training_scale(record, episode, config, rng)
    extent = [s if round(s * scale) <= c else max(1, int(c / scale)) for s, c in zip(size, canvas, strict=True)]
    learnt = ~record.crowd & np.isin(record.classes, list(trainable))
    wanted = np.flatnonzero(learnt & (record.classes == episode.category) if episode.kind == "present" else learnt)
    anchor = record.boxes[rng.choice(wanted)] if len(wanted) else None
    window = random_window(rng, size, (extent[0], extent[1]), anchor)
    window = limit_window(window, record.boxes, config.max_instances, anchor=anchor, name=record.file_name)

    stored = cache.levels(episode.target)[window.y0 : window.y1, window.x0 : window.x1]
    image = jitter_intensity(rng, resize(stored, scale, antialias=config.antialias), config)
    height, width = image.shape[:2]
    orientation = random_orientation(rng, config, (height, width), canvas)
    image = orientation.image(image)

    instances = visible_instances(record, window, config.mask_size)
    boxes = (instances.boxes - np.array([window.x0, window.y0] * 2, np.float32)) * np.float32(scale)
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    narrow = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) < 1
    boxes = orientation.boxes(boxes, (height, width))
    boxes[:, 2:] -= config.box_offset
    masks = orientation.image(instances.masks.transpose(1, 2, 0)).transpose(2, 0, 1)
    classes = record.classes[instances.rows]
    ignore = ~learnt[instances.rows] | (instances.visible < config.min_visible) | narrow
    matches = (classes == episode.category) & (episode.kind == "present")
    return {
        "images": place(image, canvas),
        "image_sizes": np.array(image.shape[:2], np.int32),
        "references": np.stack([_training_reference(cache, r, episode, config, rng) for r in episode.references]),
        "contrast_references": np.array(
            [_training_reference(cache, r, episode, config, rng) for r in episode.contrast], np.uint8
        ).reshape(-1, config.reference_size, config.reference_size, 3),
        "contrast_classes": np.array(episode.contrast_category or 0, np.int32),
        # A crop may show nothing of the category but slivers.
        "reference_present": np.array((matches & ~ignore).any()),
        "gt_boxes": _padded(boxes, config.max_instances),
        "gt_valid": np.arange(config.max_instances) < len(boxes),
        "gt_classes": _padded(classes, config.max_instances),
        "gt_matches": _padded(matches, config.max_instances),
        "gt_ignore": _padded(ignore, config.max_instances),
        "gt_masks": _padded(masks, config.max_instances),
        "image_ids": np.array(record.image_id, np.int32),
    }


def _training_scale(record: Annotations, episode: Episode, config: TransformConfig, rng: np.random.Generator) -> float:
    if episode.kind == "background":
        scale = own_scale(record, config)
    else:
        boxes = np.array([reference.box for reference in episode.references])
        scale = target_scale((record.height, record.width), boxes[:, 2:] - boxes[:, :2], config)
    scale *= config.scale_jitter ** rng.uniform(-1, 1)
    return float(np.clip(scale, config.min_scale, config.max_scale)) if config.scale == "reference" else scale


def _training_reference(
    cache: ImageCache, reference: ReferenceBox, episode: Episode, config: TransformConfig, rng: np.random.Generator
) -> np.ndarray:
    # A background patch that grew could take in a piece of a cell.
    context = 1.0 if episode.kind == "background" else rng.uniform(1, config.reference_context)
    crop = cut_reference(
        cache.raw(reference.record), reference.box, context=context, legacy=config.legacy_reference_crop
    )
    return reference_image(crop, config, rng=rng)


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    padded = np.zeros((length, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return padded
