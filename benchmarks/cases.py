"""What is measured: the models, with random weights of a sensible scale, and their inputs.

"r50" is the recipe of the PyTorch project (R50-FPN, 600x800), "compact" the detector for CPUs (512x512). Thresholds are
0, so that with random weights as many instances come out as a model may give: the work of a crowded image.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.batch import Batch
from fsis_jax.config import base_config
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.models.detector import Detector
from fsis_jax.recipes import compact_config

CELL_SIDE = 28
"""Pixels of a random cell."""

CELLS = 100
"""On an image of a training batch, if it has as many rows."""

RESIDUAL_SCALE = 0.2
"""Of the last norm of each residual branch with frozen statistics: with 1, activations double from block to block."""


@dataclasses.dataclass(frozen=True)
class Case:
    """What a part of the suite is given."""

    model: str
    """Name of the model."""
    config: ConfigDict
    image_size: tuple[int, int]
    quick: bool

    @property
    def repeats(self) -> int:
        """Turns of each contender."""
        return 3 if self.quick else 7


def models(quick: bool) -> list[Case]:
    """The two models."""
    r50, compact = base_config(), compact_config()
    r50.training.batch_size = 1
    r50.data.train_canvases = r50.data.test_canvases = ((608, 800),)
    compact.data.test_canvases = ((512, 512), (1024, 1024))
    return [Case("r50", r50, (600, 800), quick), Case("compact", compact, (512, 512), quick)]


def custom(name: str, config: ConfigDict, quick: bool) -> Case:
    """A model of a config file, on images of its first canvas."""
    return Case(name, config, config.data.test_canvases[0], quick)


def detector(config: ConfigDict) -> Detector:
    """With random weights that keep activations in range, from the config with its thresholds at 0."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.detections.score_threshold = 0.0
        config.model.detections.decayed_score_threshold = 0.0
    model = Detector(config.model, rngs=nnx.Rngs(config.seed))
    for _, module in nnx.iter_modules(model.backbone):
        norm = getattr(module, "norm3", None)
        if norm is not None and config.model.backbone.norm == "frozen":
            norm.scale.set_value(jnp.full_like(norm.scale.get_value(), RESIDUAL_SCALE))
    return model


def segmenter(config: ConfigDict) -> Segmenter:
    """As a user has it."""
    return Segmenter(detector(config), config)


def image(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8, coarse noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (-(-size[0] // 8), -(-size[1] // 8), 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]])


def crops(shots: int) -> list[np.ndarray]:
    """References (s, s, 3) uint8, of the size of the cells."""
    return list(np.random.default_rng(1).integers(0, 256, (shots, CELL_SIDE, CELL_SIDE, 3), np.uint8))


def cell_boxes(rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """(count, 4) float32: boxes of 16 to 96 pixels inside an image of `size`, most of them small."""
    sides = np.exp(rng.uniform(np.log(16), np.log(96), (count, 2)))
    corners = rng.uniform(0, 1, (count, 2)) * (np.array(size[::-1]) - sides)
    return np.concatenate([corners, corners + sides], 1).astype(np.float32)


def random_batch(config: ConfigDict, canvas: tuple[int, int], batch_size: int) -> Batch:
    """Noise, with `CELLS` boxes an image, half of them of another category than the references'."""
    rng = np.random.default_rng(config.seed)
    transform = config.data.transform
    rows, side, cells = transform.max_instances, transform.reference_size, transform.mask_size
    corners = rng.uniform(0, np.array(canvas[::-1]) - CELL_SIDE, (batch_size, rows, 2))
    return Batch(
        images=rng.integers(0, 256, (batch_size, *canvas, 3), np.uint8),
        image_sizes=np.full((batch_size, 2), canvas, np.int32),
        references=rng.integers(0, 256, (batch_size, config.data.shots, side, side, 3), np.uint8),
        contrast_references=np.zeros((batch_size, 0, side, side, 3), np.uint8),
        contrast_classes=np.zeros(batch_size, np.int32),
        reference_present=np.ones(batch_size, bool),
        gt_boxes=np.concatenate([corners, corners + CELL_SIDE], -1).astype(np.float32),
        gt_valid=np.tile(np.arange(rows) < CELLS, (batch_size, 1)),
        gt_classes=np.ones((batch_size, rows), np.int32),
        gt_matches=rng.random((batch_size, rows)) < 0.5,
        gt_ignore=np.zeros((batch_size, rows), bool),
        gt_masks=np.full((batch_size, rows, cells, cells), 255, np.uint8),
        gt_keypoints=np.zeros((batch_size, rows, 0, 3), np.float32),
        targets=np.arange(batch_size, dtype=np.int32),
        sample_ids=np.arange(batch_size, dtype=np.int32),
    )
