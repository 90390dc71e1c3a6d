"""The public Python interface: show one to five crops of a cell, segment every cell like it in any image.

    segmenter = Segmenter.from_checkpoint("runs/cells")
    references = segmenter.encode_references([crop])
    instances = segmenter.segment(image, references)

References are encoded once and reused for any number of images and tiles. A large image is read in tiles (`tiling.py`).
Host and device work at the same time, over the tiles of an image and over images: the device is given one batch ahead
(JAX returns at once), and the host reads, resizes and pastes meanwhile.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.config import user_path
from fsis_jax.data.from_config import transform_config
from fsis_jax.data.transforms import reference_image
from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.reading import Reading, plan_reading
from fsis_jax.inference.tiling import Tile, merge, near_core
from fsis_jax.io.levels import Image
from fsis_jax.models.detector import Detections, Detector, Pyramid
from fsis_jax.models.normalise import normalise
from fsis_jax.training.checkpoint import config_of, open_run

DEFAULT_MIN_SCORE = 0.5
"""Used where a checkpoint was never validated."""
GPU_TILE_BATCH = 4
"""Tiles in one call of a device other than a CPU, unless told otherwise."""


@dataclasses.dataclass(frozen=True)
class References:
    """k encoded references."""

    features: Pyramid
    """{level: (1, h, w, C)}, the mean over the references."""
    sides: np.ndarray
    """(k, 2) float32, height and width of the crops in pixels; they give the scale at which targets are read."""
    images: np.ndarray
    """(k, S, S, 3) uint8, as the network saw them."""


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Tiles of one image that the device is at work on."""

    reading: Reading
    tiles: list[Tile]
    detections: Detections
    """Of the tiles, and of copies of the last one up to the size of the batch."""
    parts: list[Instances]
    """What was found in all tiles of the image so far."""


class Segmenter:
    """A trained detector with its preprocessing.

    Args:
        model: the detector.
        config: the config that it was trained with.
        min_score: score from which `Instances.labels` counts an instance by default.
        tile_batch: tiles of a large image in one call of the device. 0: 1 on a CPU, else `GPU_TILE_BATCH`.
    """

    def __init__(
        self, model: Detector, config: ConfigDict, *, min_score: float = DEFAULT_MIN_SCORE, tile_batch: int = 0
    ) -> None:
        self._graph, state = nnx.split(model)
        self._state = jax.device_put(state)
        self.config = config
        self.min_score = min_score
        self.tile_batch = tile_batch or (1 if jax.default_backend() == "cpu" else GPU_TILE_BATCH)
        self._transform = transform_config(config)
        self._offset = model.offset

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> "Segmenter":
        """From a training run's folder (its best step) or one of its step folders.

        Raises:
            FsisError: if nothing is there, or the checkpoint's arrays do not fit its config.
        """
        checkpoints, step = open_run(user_path(os.fspath(path)))
        with contextlib.closing(checkpoints):
            meta = checkpoints.meta(step)
            config = config_of(meta)
            graph, shapes = nnx.split(nnx.eval_shape(lambda: Detector(config.model, rngs=nnx.Rngs(0))))
            model = nnx.merge(graph, checkpoints.restore_model(step, shapes))
        validation = meta["validation"] or {}
        return cls(model, config, min_score=validation.get("min_score", DEFAULT_MIN_SCORE))

    def encode_references(self, crops: Sequence[np.ndarray], *, names: Sequence[str] = ()) -> References:
        """Encode crops of example cells.

        Args:
            crops: each (h, w) or (h, w, 3 or 4), any dtype, one cell without much margin, at the magnification of the
                images to segment.
            names: of the crops, for messages.

        Raises:
            FsisError: no crop, or one of less than 2 pixels.
        """
        if not len(crops):
            raise FsisError("no reference given; show at least one crop of a cell")
        images = np.stack(
            [
                reference_image(crop, self._transform, name=name)
                for crop, name in zip(crops, names or [f"reference {i + 1}" for i in range(len(crops))], strict=True)
            ]
        )
        each = [_encode(self._graph, self._state, image[None, None]) for image in images]
        features = jax.tree.map(lambda *levels: sum(levels) / len(levels), *each)
        sides = np.array([crop.shape[:2] for crop in crops], np.float32)
        return References(features=features, sides=sides, images=images)

    def segment(self, image: Image, references: References | Sequence[np.ndarray], *, tile: int = 0) -> Instances:
        """Every cell like the references, of any score, with masks at the image's own resolution.

        Args:
            image: (H, W) or (H, W, 3 or 4), any dtype; an array, or what is read when it is sliced.
            references: from `encode_references`, or crops.
            tile: as for `segment_all`.
        """
        return next(self.segment_all([(image, references)], tile=tile))

    def segment_all(
        self,
        jobs: Iterable[tuple[Image, References | Sequence[np.ndarray]]],
        *,
        tile: int = 0,
        progress: Callable[[int, int], object] | None = None,
    ) -> Iterator[Instances]:
        """`segment` for one image after the other, in order, with the host and the device at work at the same time.

        An image is taken from `jobs` while the device works on the one before it, and no sooner: at most two are held.
        If that fails, the result of the one before is given first, and then the error raised.

        Where the scale follows the references, an image that is larger than the largest of `data.test_canvases` at that
        scale is read in tiles, which overlap by `data.tile_overlap` times the longest side of a reference; the limit
        `model.detections.max_instances` is then each tile's.

        Args:
            jobs: images, each with its references.
            tile: largest side of tiles in pixels of the image. Each tile is then prepared as an image of its own, apart
                from its intensities: so a model with a fixed shortest side reads large images. 0 leaves it to the
                model.
            progress: called with the number of finished tiles and of all tiles of an image, after each of them.

        Raises:
            FsisError: a shape that is no image's, a `tile` of less than 32 pixels; here and in `segment`.
        """
        before: _Batch | None = None
        batches = self._batches(jobs, tile)
        while True:
            try:
                batch = next(batches, None)
            finally:
                if before is not None:
                    yield from self._finish(before, progress)
            if batch is None:
                return
            before = batch

    def _batches(self, jobs: Iterable[tuple[Image, References | Sequence[np.ndarray]]], tile: int) -> Iterator[_Batch]:
        """Batches that the device was given, each prepared when it is asked for."""
        for image, references in jobs:
            if not isinstance(references, References):
                references = self.encode_references(references)
            reading = plan_reading(image, references.sides, self.config, self._transform, tile)
            # An image that is read whole is a batch of its own: one alone and one of many run the same program.
            size = self.tile_batch if len(reading.tiles) > 1 else 1
            parts: list[Instances] = []
            for start in range(0, len(reading.tiles), size):
                chosen = reading.tiles[start : start + size]
                yield _Batch(reading, chosen, self._dispatch(reading, chosen, references, size), parts)

    def _dispatch(self, reading: Reading, chosen: Sequence[Tile], references: References, size: int) -> Detections:
        """Prepare tiles and give them to the device, which is not waited for."""
        images = [reading.prepare(tile) for tile in chosen]
        images += images[-1:] * (size - len(images))
        return _detect(
            self._graph,
            self._state,
            np.stack(images),
            np.array([reading.extent] * size, np.int32),
            references.features,
            np.array([reading.scale] * size, np.float32),
            np.array([reading.window] * size, np.int32),
        )

    def _finish(self, batch: _Batch, progress: Callable[[int, int], object] | None) -> Iterator[Instances]:
        """Wait for a batch and paste its masks; the image's instances if these were its last tiles."""
        reading, parts, detections = batch.reading, batch.parts, jax.device_get(batch.detections)
        for row, tile in enumerate(batch.tiles):
            boxes, valid = detections.boxes[row], detections.valid[row]
            if len(reading.tiles) > 1:
                valid = valid & near_core(boxes, tile, reading.margin)
            found = Instances.from_padded(
                boxes,
                detections.scores[row],
                valid,
                detections.masks[row],
                reading.window,
                offset=self._offset,
                min_score=self.min_score,
                legacy=self.config.model.detections.legacy_pasting,
            )
            parts.append(found)
            if progress is not None:
                progress(len(parts), len(reading.tiles))
        if len(parts) == len(reading.tiles):
            whole = parts[0] if len(parts) == 1 else merge(parts, reading.tiles, reading.size, reading.margin)
            parts.clear()  # whoever gets the result may take its time
            yield whole


@functools.partial(jax.jit, static_argnums=0)
def _encode(graph: nnx.GraphDef, state: nnx.State, references: jax.Array) -> Pyramid:
    model: Detector = nnx.merge(graph, state)
    return model.encode_references(normalise(references))


@functools.partial(jax.jit, static_argnums=0)
def _detect(
    graph: nnx.GraphDef,
    state: nnx.State,
    images: jax.Array,
    sizes: jax.Array,
    references: Pyramid,
    scales: jax.Array,
    original_sizes: jax.Array,
) -> Detections:
    model: Detector = nnx.merge(graph, state)
    return model.detect(normalise(images, sizes), sizes, references, scales=scales, original_sizes=original_sizes)
