"""Writing results: label images, COCO files and pictures, each whole or not at all."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import tifffile

from fsis_jax.io.files import atomic_write
from fsis_jax.io.overlay import Segmented, draw_overlay

Path = str | os.PathLike[str]


class Result(Segmented, Protocol):
    """What is written of `fsis_jax.inference.instances.Instances`."""

    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def category(self) -> str | None: ...
    def to_coco(self, image_id: int, category_id: int) -> Sequence[Mapping[str, Any]]: ...


def write_labels(path: Path, labels: np.ndarray) -> None:
    """A label image (H, W), 0 = background, as an int32 TIFF with zlib compression (Fiji, QuPath, napari read it).

    Raises:
        FsisError: the file cannot be written, here and below.
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels of shape {labels.shape} and type {labels.dtype}: give (H, W) integers")
    with atomic_write(path) as file:
        tifffile.imwrite(file, labels.astype(np.int32, copy=False), compression="zlib", photometric="minisblack")


def write_coco(path: Path, results: Mapping[str, Result]) -> None:
    """All instances of some images, with their scores, as one COCO data set that pycocotools loads.

    Args:
        results: file name of each image -> its instances. Ids count from 1 in this order; a category is made for each
            name that the instances carry, "cell" where they carry none.
    """
    category_ids: dict[str, int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (file_name, result) in enumerate(results.items(), start=1):
        height, width = result.size
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        category_id = category_ids.setdefault(result.category or "cell", len(category_ids) + 1)
        for row in result.to_coco(image_id, category_id):
            annotations.append({"id": len(annotations) + 1, **row, "iscrowd": 0})
    categories = [{"id": number, "name": name, "supercategory": "cell"} for name, number in category_ids.items()]
    content = {"images": images, "categories": categories, "annotations": annotations}
    with atomic_write(path) as file:
        file.write(json.dumps(content).encode())


def write_overlay(
    path: Path,
    image: np.ndarray,
    instances: Segmented,
    references: Sequence[np.ndarray] = (),
    *,
    text: Literal["number", "score"] | None = "number",
    scale: float = 1.0,
) -> None:
    """The picture of `draw_overlay`, which describes the arguments, as a PNG."""
    write_png(path, draw_overlay(image, instances, references=references, text=text, scale=scale))


def write_png(path: Path, image: np.ndarray) -> None:
    """An image (H, W), (H, W, 3) RGB or (H, W, 4) RGBA of uint8 or uint16 as a PNG."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[image.shape[2]])
    data = cv2.imencode(".png", image)[1]
    with atomic_write(path) as file:
        file.write(data.tobytes())
