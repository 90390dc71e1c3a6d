"""A detector small enough to compile in seconds, with random values everywhere.

Fresh parameters would hide faults: scales that start at 0 switch whole branches off.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.batch import Batch
from fsis_jax.models.detector import Detector
from fsis_jax.recipes import compact_config


def tiny_config() -> ConfigDict:
    """The compact recipe with few channels. 36 channels make group-norm groups of two, so that a bias in front of
    the norm matters."""
    config = compact_config()
    model = config.model
    model.backbone.depth = 10
    model.backbone.width = 8
    model.fpn.channels = 36
    model.rpn.train_pre_nms = 64
    model.rpn.train_post_nms = 32
    model.rpn.test_pre_nms = 64
    model.rpn.test_post_nms = 32
    model.box_head.hidden = 24
    model.box_head.samples = 16
    model.mask_head.channels = 12
    model.detections.max_instances = 16
    return config


def tiny_c4_config() -> ConfigDict:
    """The same without a pyramid; its level has 36 channels too."""
    config = tiny_config()
    model = config.model
    model.architecture = "c4"
    model.box_head.kind = "res5"
    model.mask_head.kind = "shared_res5"
    model.backbone.width = 9
    model.box_head.norm = "group"
    return config


QUICK_COMPILE = {"xla_backend_optimization_level": 0}
"""For jax.jit's compiler_options: compiling takes far longer than running anything this small."""

_GAINS = {
    "norm2": 0.2, "norm3": 0.2, "offsets1": 0.3, "offsets2": 0.3, "offsets3": 0.3,
    "output": 0.2, "theta": 0.3, "phi": 0.3, "target_out": 0.3, "reference_out": 0.3,
    "objectness": 0.3, "deltas": 0.1, "class_out": 0.3, "box_out": 0.1, "out": 0.3,
}  # fmt: skip
"""Layers whose outputs must stay small for plausible boxes, and for scores strictly between 0 and 1."""


def randomise(module: nnx.Module, seed: int = 0) -> Any:
    """The module (concrete or from nnx.eval_shape) with random values of sensible size in every variable."""
    rng = np.random.default_rng(seed)
    graph, state = nnx.split(module)
    filled = {}
    for path, variable in nnx.to_flat_state(state):
        shape, name = variable.shape, str(path[-1])
        gain = next((gain for layer, gain in _GAINS.items() if layer in path), 1.0)
        if name == "kernel":
            value = gain * rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
        elif name in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, shape) * (gain if name == "scale" else 1.0)
        else:
            value = 0.1 * rng.normal(size=shape)
        filled[path] = variable.replace(jnp.asarray(value, jnp.float32))
    return nnx.merge(graph, nnx.from_flat_state(filled))


def tiny_detector(config: ConfigDict, seed: int = 0) -> Detector:
    """A random detector of `config.model`, without running any initialiser."""
    return randomise(nnx.eval_shape(lambda: Detector(config.model, rngs=nnx.Rngs(0))), seed)


def blobs(seed: int, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 with bright discs on a dark, noisy ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = rng.normal(60, 12, (height, width, 3))
    for _ in range(6):
        centre_y, centre_x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(5, 12)
        image[(y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2] += rng.uniform(40, 130, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def tiny_batch(images: int = 2, side: int = 64, instances: int = 3) -> Batch:
    """Episodes with three instances each, the last of another category than the references'."""
    boxes = np.array([[4, 6, 26, 30], [34, 30, 58, 56], [36, 4, 56, 22]], np.float32)[:instances]
    shape = (images, instances)
    return Batch(
        images=np.stack([blobs(i, side, side) for i in range(images)]),
        image_sizes=np.full((images, 2), side, np.int32),
        references=np.stack([blobs(10 + i, 32, 32)[None] for i in range(images)]),
        contrast_references=np.zeros((images, 0, 32, 32, 3), np.uint8),
        contrast_classes=np.zeros(images, np.int32),
        reference_present=np.ones(images, bool),
        gt_boxes=np.broadcast_to(boxes, (*shape, 4)).copy(),
        gt_valid=np.ones(shape, bool),
        gt_classes=np.broadcast_to(np.array([1, 1, 2], np.int32)[:instances], shape).copy(),
        gt_matches=np.broadcast_to(np.array([True, True, False])[:instances], shape).copy(),
        gt_ignore=np.zeros(shape, bool),
        gt_masks=np.full((*shape, 28, 28), 255, np.uint8),
        gt_keypoints=np.zeros((*shape, 0, 3), np.float32),
        targets=np.arange(images, dtype=np.int32),
        sample_ids=np.arange(images, dtype=np.int32),
    )
