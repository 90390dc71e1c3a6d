"""The score from which an instance counts, by how surely a model finds the very cells that it is shown.

The scores of what is like a reference differ from kind to kind of image: low for flat cells in phase contrast, high for
bright nuclei; and so does the best threshold. The references are laid on one more canvas, each at the size that the
network knows, and searched for with themselves as references; the threshold follows what they reach.
"""

import dataclasses

import cv2
import jax
import numpy as np

from fsis_jax.inference.augmentation import Variant
from fsis_jax.inference.instances import Size
from fsis_jax.inference.programs import Network
from fsis_jax.inference.references import References
from fsis_jax.inference.tile_plan import TilePlan
from fsis_jax.inference.tiling import tiles

_LIMITS = (0.05, 0.95)
"""Least and most that a threshold can be."""

_ROOM = 1.5
"""Side of the square that a reference gets, over its longer side; around it its border goes on."""
_OVERLAP = 0.5
"""IoU from which a box is that of a reference."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The threshold as a straight line over the references' own score, as scripts/calibrate.py fits it."""

    slope: float
    offset: float
    known: dict[tuple[str, Size], float] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    """Own scores that were measured, by the references' digest and the canvas."""

    def threshold(
        self, network: Network, references: References, plan: TilePlan, size: int, *, default: float
    ) -> float:
        """Score from which what is found with these references counts.

        Args:
            network: that finds it.
            references: at least one.
            plan: of an image that they are looked for in: its canvas is compiled for already.
            size: of a batch, as for `Network.find`.
            default: the threshold where not one of the references is found.
        """
        key = (references.digest, plan.canvas)
        if key not in self.known:
            pixels = plan.transform.reference_pixels
            laid, boxes = lay_out(references.images, references.sides, pixels, plan.canvas)
            shown = dataclasses.replace(plan, size=plan.canvas, scale=1.0, tiles=tiles(plan.canvas, plan.canvas, 0))
            found = jax.device_get(network.find(shown, [[laid]], references, [Variant()], size))
            valid = found.valid[0]
            self.known[key] = own_score(boxes, found.boxes[0][valid], found.scores[0][valid])
        own = self.known[key]
        return float(np.clip(self.slope * own + self.offset, *_LIMITS)) if own else default


def lay_out(images: np.ndarray, sides: np.ndarray, pixels: float, canvas: Size) -> tuple[np.ndarray, np.ndarray]:
    """References on a canvas, as many as have room.

    Args:
        images: (k, S, S, 3) uint8, each in the middle of a square (`preprocess.transforms.reference_image`).
        sides: (k, 2), height and width of the cells, in any unit.
        pixels: sqrt(height x width) that each is brought to.
        canvas: height and width.

    Returns:
        (H, W, 3) uint8; (n, 4) the boxes of the n references on it.
    """
    laid = np.zeros((*canvas, 3), np.uint8)
    boxes: list[tuple[float, float, float, float]] = []
    top = left = row = 0
    for image, (height, width) in zip(images, sides.astype(np.float64).tolist(), strict=True):
        scale = pixels / np.sqrt(height * width)
        h, w = (max(round(side * scale), 2) for side in (height, width))
        slot = round(_ROOM * max(h, w))
        if left + slot > canvas[1]:
            top, left, row = top + row, 0, 0
        if top + slot > canvas[0] or left + slot > canvas[1]:
            continue
        y, x = (slot - h) // 2, (slot - w) // 2
        cell = cv2.resize(_content(image, height / width), (w, h), interpolation=cv2.INTER_LINEAR)
        framed = cv2.copyMakeBorder(cell, y, slot - h - y, x, slot - w - x, cv2.BORDER_REPLICATE)
        laid[top : top + slot, left : left + slot] = framed
        boxes.append((left + x, top + y, left + x + w, top + y + h))
        left, row = left + slot, max(row, slot)
    return laid, np.array(boxes, np.float32).reshape(-1, 4)


def own_score(references: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> float:
    """The median of the best scores that references reach, of those that were found; 0 if none was.

    Args:
        references: (n, 4) their boxes.
        boxes: (D, 4) what was found.
        scores: (D,).
    """
    low = np.maximum(references[:, None, :2], boxes[None, :, :2])
    high = np.minimum(references[:, None, 2:], boxes[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(x[:, 2:] - x[:, :2], axis=1) for x in (references, boxes)]
    iou = common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)
    best = np.where(iou >= _OVERLAP, scores, 0.0).max(axis=1, initial=0.0)
    return float(np.median(best[best > 0])) if (best > 0).any() else 0.0


def _content(image: np.ndarray, ratio: float) -> np.ndarray:
    """The part of a square that its crop of height / width `ratio` fills."""
    side = image.shape[0]
    h, w = (max(round(side * min(share, 1)), 1) for share in (ratio, 1 / ratio))
    return image[(side - h) // 2 : (side - h) // 2 + h, (side - w) // 2 : (side - w) // 2 + w]
