"""The public Python interface: show one to five crops of a cell, segment every cell like it in any image.

    segmenter = Segmenter.from_checkpoint("runs/cells")
    references = segmenter.encode_references([crop])
    instances = segmenter.segment(image, references)

References are encoded once and reused for any number of images.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.config import user_path
from fsis_jax.data.from_config import transform_config
from fsis_jax.data.transforms import choose_canvas, place, reference_image, resize, target_scale, to_levels
from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.models.detector import Detections, Detector, Pyramid
from fsis_jax.models.normalise import normalise
from fsis_jax.training.checkpoint import config_of, open_run

DEFAULT_MIN_SCORE = 0.5
"""Used where a checkpoint was never validated."""


@dataclasses.dataclass(frozen=True)
class References:
    """k encoded references."""

    features: Pyramid
    """{level: (1, h, w, C)}, the mean over the references."""
    sides: np.ndarray
    """(k, 2) float32, height and width of the crops in pixels; they give the scale at which targets are read."""
    images: np.ndarray
    """(k, S, S, 3) uint8, as the network saw them."""


class Segmenter:
    """A trained detector with its preprocessing.

    Args:
        model: the detector.
        config: the config that it was trained with.
        min_score: score from which `Instances.labels` counts an instance by default.
    """

    def __init__(self, model: Detector, config: ConfigDict, *, min_score: float = DEFAULT_MIN_SCORE) -> None:
        self._graph, self._state = nnx.split(model)
        self.config = config
        self.min_score = min_score
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

    def segment(self, image: np.ndarray, references: References | Sequence[np.ndarray]) -> Instances:
        """Every cell like the references, of any score, with masks at the image's own resolution.

        Args:
            image: (H, W) or (H, W, 3 or 4), any dtype.
            references: from `encode_references`, or crops.
        """
        if not isinstance(references, References):
            references = self.encode_references(references)
        scale = self._scale(image.shape[:2], references)
        resized = resize(to_levels(image, self._transform), scale, antialias=self._transform.antialias)
        canvas = choose_canvas(resized.shape[:2], self.config.data.test_canvases)
        detections = jax.device_get(
            _detect(
                self._graph,
                self._state,
                place(resized, canvas)[None],
                np.array([resized.shape[:2]], np.int32),
                references.features,
                np.array([scale], np.float32),
                np.array([image.shape[:2]], np.int32),
            )
        )
        return Instances.from_padded(
            detections.boxes[0],
            detections.scores[0],
            detections.valid[0],
            detections.masks[0],
            image.shape[:2],
            offset=self._offset,
            min_score=self.min_score,
            legacy=self.config.model.detections.legacy_pasting,
        )

    def _scale(self, size: tuple[int, ...], references: References) -> float:
        """Canvas pixels per image pixel: what the references ask for, or what the largest canvas still holds."""
        height, width = size[:2]
        scale = target_scale((height, width), references.sides, self._transform)
        largest = max(min(rows / height, columns / width) for rows, columns in self.config.data.test_canvases)
        return min(scale, largest)


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
