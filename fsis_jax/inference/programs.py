"""What the Segmenter runs on devices: two jitted functions of a detector's structure and parameters."""

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from fsis_jax.inference.augmentation import Variant
from fsis_jax.inference.references import References
from fsis_jax.inference.tile_plan import TilePlan
from fsis_jax.models.detection import Detections, View, detect
from fsis_jax.models.detector import Detector, Pyramid
from fsis_jax.models.normalise import normalise


@functools.partial(jax.jit, static_argnums=0)
def encode(graph: nnx.GraphDef, state: nnx.State, references: jax.Array) -> Pyramid:
    """(B, K, S, S, 3) uint8 -> {level: (B, h, w, C)}, the mean over the references."""
    model: Detector = nnx.merge(graph, state)
    return model.encode_references(normalise(references, mean=model.config.image_mean))


@functools.partial(jax.jit, static_argnums=0)
def find(
    graph: nnx.GraphDef, state: nnx.State, references: Pyramid, original_sizes: jax.Array, views: Sequence[View]
) -> Detections:
    """What the views, which have uint8 images, show of B images of `original_sizes` (B, 2).

    `references` have a row (1, h, w, C) of each level for each kind.
    """
    model: Detector = nnx.merge(graph, state)
    count = max([len(x) for x in references.values()], default=1)
    kinds = [{level: x[row : row + 1] for level, x in references.items()} for row in range(count)]
    mean = model.config.image_mean
    normalised = [
        dataclasses.replace(view, images=normalise(view.images, view.image_sizes, mean=mean)) for view in views
    ]
    return detect(model, normalised, kinds, original_sizes=original_sizes)


class Network:
    """A detector on devices that take batches in turn.

    Args:
        devices: (): JAX's default one.
    """

    def __init__(self, graph: nnx.GraphDef, state: nnx.State, devices: Sequence[jax.Device]) -> None:
        self._graph = graph
        self._replicas = collections.deque((device, jax.device_put(state, device)) for device in devices or [None])

    def __len__(self) -> int:
        """How many batches can be under way at once."""
        return len(self._replicas)

    def digest(self, described: str) -> str:
        """SHA-256 of a text and of the parameters, in hexadecimal digits."""
        found = hashlib.sha256(described.encode())
        for value in jax.tree.leaves(jax.device_get(self._replicas[0][1])):
            found.update(np.ascontiguousarray(value).tobytes())
        return found.hexdigest()

    def encode(self, references: np.ndarray) -> Pyramid:
        """As `encode`, by the device that gets the next batch: no other would have to wait for it."""
        return encode(self._graph, self._replicas[0][1], references)

    def encoded_like(self, kinds: int, size: int) -> Pyramid:
        """The shapes and types of the features of references of `size` pixels that show so many kinds."""
        shaped = jax.ShapeDtypeStruct((kinds, 1, size, size, 3), np.uint8)
        return encode.eval_shape(self._graph, self._replicas[0][1], shaped)

    def find(
        self,
        plan: TilePlan,
        images: Sequence[Sequence[np.ndarray]],
        references: References,
        variants: Sequence[Variant],
        size: int,
    ) -> Detections:
        """Give tiles of an image to the next device, which is not waited for.

        Args:
            images: of each tile what `TilePlan` prepared for each of the `variants`.
            size: of the batch: the last tile is repeated where there are fewer.
        """
        device, state = self._replicas[0]
        self._replicas.rotate(-1)
        put = functools.partial(jax.device_put, device=device)
        rows = [*images, *[images[-1]] * (size - len(images))]
        views = [
            View(
                put(np.stack(pixels)),
                put(np.array([plan.extent_of(variant)] * size, np.int32)),
                put(np.array([plan.scale * variant.times] * size, np.float32)),
                variant.flipped,
            )
            for pixels, variant in zip(zip(*rows, strict=True), variants, strict=True)
        ]
        windows = np.array([plan.window] * size, np.int32)
        kinds = references.features_of(plan.kinds)
        return find(self._graph, state, put(kinds), put(windows), views)
