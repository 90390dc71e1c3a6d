"""The smallest closed-set detector, of two of the synthetic categories; also a file for `--config`."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from tiny import get_config as tiny_config

from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.models.detector import Detector

NAMES = ("fluo_discs", "bacteria_rods")


def get_config() -> ConfigDict:
    """tests/tiny.py without references: images keep their sides of 64 pixels."""
    config = tiny_config()
    config.model.classes = NAMES
    config.model.matching.kind = "none"
    config.model.relation = "none"
    config.data.fold = 0
    config.data.transform.scale = "shortest_side"
    config.data.transform.shortest_side = 64
    config.data.transform.longest_side = 96
    config.data.train_canvases = ((64, 96), (96, 64))
    config.data.test_canvases = ((96, 96),)
    config.model.detections.nms_method = "hard"
    return config


def boxes_config() -> ConfigDict:
    """Without a mask head."""
    config = get_config()
    config.model.mask_head.kind = "none"
    return config


def keypoint_config() -> ConfigDict:
    """With three keypoints."""
    config = get_config()
    config.model.keypoint_head.kind = "convs"
    config.model.keypoint_head.keypoints = 3
    config.model.keypoint_head.channels = 8
    config.model.keypoint_head.convs = 1
    return config


def untrained(config: ConfigDict, **options: Any) -> Segmenter:
    """A detector of random parameters, all of them different from what they start from."""
    model = nnx.jit(lambda: Detector(config.model, rngs=nnx.Rngs(0)))()
    graph, state = nnx.split(model)
    rng = np.random.default_rng(1)
    state = jax.tree.map(lambda x: x + 0.08 * rng.standard_normal(x.shape, np.float32), state)
    return Segmenter(nnx.merge(graph, state), config, min_score=0.0, **options)


def discs(size: tuple[int, int] = (64, 80), seed: int = 0) -> np.ndarray:
    """(h, w) uint8: bright discs that use the whole range, on a dark, noisy ground."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = rng.integers(0, 60, size)
    for y, x in rng.uniform(10, np.array(size) - 10, (max(size[0] * size[1] // 1500, 3), 2)):
        image[(rows - y) ** 2 + (columns - x) ** 2 < rng.uniform(5, 10) ** 2] += 190
    return np.clip(image, 0, 255).astype(np.uint8)
