"""One example: an episode made into arrays for training, or an image and its references made ready for a test."""

import collections
import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from fsis_jax.data.episodes import Episode, ReferenceBox
from fsis_jax.data.records import Annotations, Source
from fsis_jax.data.transforms import (
    Canvases,
    TransformConfig,
    choose_canvas,
    cut_reference,
    jitter_intensity,
    own_scale,
    place,
    random_orientation,
    reference_image,
    reference_scale,
    resize,
    scaled_size,
    shortest_side_scale,
    to_levels,
)
from fsis_jax.data.windows import Window, limit_window, random_window, visible_instances
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
            check_size(image, stored.annotations)
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
