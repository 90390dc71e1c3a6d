"""A source of records in memory, for tests that need images with exactly known instances."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from pycocotools import mask as rle_masks

from fsis_jax.preprocess.records import Annotations, Record


def annotate(
    masks: Sequence[np.ndarray],
    classes: Sequence[int],
    *,
    size: tuple[int, int],
    crowd: Sequence[bool] | None = None,
    image_id: int = 1,
) -> Annotations:
    """Annotations of boolean masks, with tight boxes."""
    rles = [rle_masks.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    boxes = np.array([rle_masks.toBbox(rle) for rle in rles], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Annotations(
        image_id=image_id,
        file_name=f"{image_id}.png",
        height=size[0],
        width=size[1],
        boxes=boxes,
        classes=np.array(classes, np.int32),
        crowd=np.zeros(len(masks), bool) if crowd is None else np.array(crowd),
        areas=np.array([mask.sum() for mask in masks], np.float32),
        annotation_ids=np.arange(len(masks), dtype=np.int64) + 100 * image_id,
        rles=tuple(rle["counts"] for rle in rles),
    )


def disc(size: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2


class MemorySource:
    """Images (h, w[, 3]) with their annotations."""

    def __init__(self, images: Sequence[np.ndarray], annotations: Sequence[Annotations]) -> None:
        self.annotations = list(annotations)
        self.categories: Mapping[int, str] = {int(c): f"category {c}" for a in annotations for c in a.classes}
        self.folds: Mapping[int, tuple[int, ...]] = {}
        self._encoded = [cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1] for image in images]

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Record:
        return Record(self.annotations[index], self._encoded[index].tobytes())


def disc_source(count: int, *, size: tuple[int, int] = (96, 128), categories: int = 2, seed: int = 0) -> MemorySource:
    """Images of four separate bright discs; category c has radius 4 + 3 c, and image i holds category 1 + i % n."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for i in range(count):
        category = 1 + i % categories
        places = [(x + rng.uniform(-4, 4), y + rng.uniform(-4, 4)) for x in (32, 96) for y in (24, 72)]
        masks = [disc(size, x, y, 4 + 3 * category) for x, y in places]
        image = rng.integers(10, 40, size).astype(np.uint8)
        for mask in masks:
            image[mask] = 150 + 30 * category
        images.append(image)
        annotations.append(annotate(masks, [category] * 4, size=size, image_id=i + 1))
    return MemorySource(images, annotations)
