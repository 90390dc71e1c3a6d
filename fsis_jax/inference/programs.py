"""What the Segmenter runs on a device: two jitted functions of a detector's structure and parameters."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
from flax import nnx

from fsis_jax.models.detection import Detections, View, detect
from fsis_jax.models.detector import Detector, Pyramid
from fsis_jax.models.normalise import normalise


@dataclasses.dataclass(frozen=True)
class Replica:
    """The parameters of a detector on a device."""

    device: jax.Device | None
    """None: JAX's default one."""
    state: nnx.State


@functools.partial(jax.jit, static_argnums=0)
def encode(graph: nnx.GraphDef, state: nnx.State, references: jax.Array) -> Pyramid:
    """(B, K, S, S, 3) uint8 -> {level: (B, h, w, C)}, the mean over the references."""
    model: Detector = nnx.merge(graph, state)
    return model.encode_references(normalise(references))


@functools.partial(jax.jit, static_argnums=0)
def find(
    graph: nnx.GraphDef, state: nnx.State, references: Pyramid, original_sizes: jax.Array, views: Sequence[View]
) -> Detections:
    """What the views, which have uint8 images, show of B images of `original_sizes` (B, 2)."""
    model: Detector = nnx.merge(graph, state)
    normalised = [dataclasses.replace(view, images=normalise(view.images, view.image_sizes)) for view in views]
    return detect(model, normalised, references, original_sizes=original_sizes)
