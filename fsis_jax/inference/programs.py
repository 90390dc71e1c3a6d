"""What the Segmenter runs on devices: two functions of a detector's architecture and arrays, compiled and kept."""

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import jax
import numpy as np

from fsis_jax.cache.executables import KeptFunction
from fsis_jax.checkpoints.architecture import Architecture, Arrays, kept_shapes
from fsis_jax.inference.augmentation import Variant
from fsis_jax.inference.references import Features, References
from fsis_jax.inference.tile_plan import TilePlan
from fsis_jax.models.arrays import Detections, Pyramid, View
from fsis_jax.ops.dispatch import default_device


@KeptFunction
def encode(architecture: Architecture, arrays: Arrays, references: jax.Array) -> Pyramid:
    """(B, K, S, S, 3) uint8 -> {level: (B, h, w, C)}, the mean over the references."""
    from fsis_jax.models.normalise import normalise

    model = architecture.model(arrays)
    return model.encode_references(normalise(references, mean=model.config.image_mean))


@KeptFunction
def find(
    architecture: Architecture, arrays: Arrays, references: Pyramid, original_sizes: jax.Array, views: Sequence[View]
) -> Detections:
    """What the views, which have uint8 images, show of B images of `original_sizes` (B, 2).

    `references` have a row (1, h, w, C) of each level for each kind.
    """
    from fsis_jax.models.detection import detect
    from fsis_jax.models.normalise import normalise

    model = architecture.model(arrays)
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
        arrays: of a detector of this architecture.
        devices: (): JAX's default one.
    """

    def __init__(self, architecture: Architecture, arrays: Arrays, devices: Sequence[jax.Device]) -> None:
        self._architecture = architecture
        self._replicas = collections.deque(
            (device, jax.device_put(dict(arrays), device)) for device in devices or [default_device()]
        )

    def __len__(self) -> int:
        """How many batches can be under way at once."""
        return len(self._replicas)

    @property
    def devices(self) -> list[jax.Device]:
        """That which gets the next batch first."""
        return [device for device, _ in self._replicas]

    @property
    def arrays(self) -> Arrays:
        """Those of the detector."""
        return self._replicas[0][1]

    def on(self, devices: Sequence[jax.Device]) -> "Network":
        """The same on other devices."""
        return Network(self._architecture, self.arrays, devices)

    def digest(self, described: str) -> str:
        """SHA-256 of a text and of the parameters, in hexadecimal digits."""
        found = hashlib.sha256(described.encode())
        for _, value in sorted(jax.device_get(self.arrays).items(), key=lambda item: _place(item[0])):
            found.update(np.ascontiguousarray(value).tobytes())
        return found.hexdigest()

    def encode(self, references: np.ndarray) -> Features:
        """As `encode`, by the device that gets the next batch: no other would have to wait for it."""
        device, arrays = self._replicas[0]
        found: Features = jax.device_get(encode(self._architecture, device, arrays, references))
        return found

    def encoded_like(self, kinds: int, size: int) -> dict[int, jax.ShapeDtypeStruct]:
        """The shapes and types of the features of references of `size` pixels that show so many kinds."""
        shaped = jax.ShapeDtypeStruct((1, 1, size, size, 3), np.uint8)

        def found() -> dict[str, jax.ShapeDtypeStruct]:
            traced = jax.eval_shape(functools.partial(encode.function, self._architecture), self.arrays, shaped)
            return {str(level): x for level, x in traced.items()}

        one = kept_shapes(f"references of {size} pixels by {self._architecture.text}", found)
        return {int(level): jax.ShapeDtypeStruct((kinds, *x.shape[1:]), x.dtype) for level, x in one.items()}

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
        device, arrays = self._replicas[0]
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
        found: Detections = find(self._architecture, device, arrays, put(kinds), put(windows), views)
        return found


def _place(name: str) -> list[str | int]:
    """Sorts flat names as the modules that they are of nest: numbers by their value."""
    return [int(part) if part.isdecimal() else part for part in name.split("/")]
