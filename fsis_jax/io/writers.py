"""Writing results: label images, COCO files and pictures, each whole or not at all."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import atomic_write
from fsis_jax.io.kinds import counts
from fsis_jax.io.overlay import Judged, Segmented, draw_overlay

Path = str | os.PathLike[str]
_TILE = 512
_TILED_FROM = 1 << 26
"""Pixels beyond which a label image is written in tiles."""
_TIFF_LIMIT = (1 << 32) - (1 << 25)
_COCO_LIMIT = (1 << 32) - 1
"""Pixels of an image whose run lengths pycocotools can count."""


class Result(Segmented, Protocol):
    """What is written of `fsis_jax.inference.instances.Instances`."""

    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def category(self) -> str | None: ...
    @property
    def categories(self) -> Sequence[str | None]: ...
    @property
    def keypoint_names(self) -> Sequence[str]: ...
    def to_coco(self, image_id: int, category_id: int) -> Sequence[Mapping[str, Any]]: ...
    def without_overlaps(self) -> "Result": ...


def write_labels(path: Path, result: Result, *, pixel_size: float | None = None) -> None:
    """A label image (H, W), 0 = background and i + 1 = mask i, as an int32 TIFF with zlib compression.

    Fiji, QuPath and napari read it. It is painted a band of rows at a time. A large one is tiled, and a BigTIFF where a
    TIFF has no room for it.

    Args:
        result: masks that do not overlap.
        pixel_size: micrometres per pixel, written as the resolution.

    Raises:
        OutputError: the file cannot be written, here and below.
    """
    height, width = result.size
    options: dict[str, Any] = {"compression": "zlib", "photometric": "minisblack"}
    if pixel_size is not None:
        options |= {"resolution": (1e4 / pixel_size, 1e4 / pixel_size), "resolutionunit": "CENTIMETER"}
    with atomic_write(path) as file:
        if height * width <= _TILED_FROM:
            tifffile.imwrite(file, next(label_bands(result, height)), **options)
            return
        tiles = (band[:, left : left + _TILE] for band in label_bands(result, _TILE) for left in range(0, width, _TILE))
        tifffile.imwrite(
            file,
            tiles,
            shape=(height, width),
            dtype=np.int32,
            tile=(_TILE, _TILE),
            bigtiff=4 * height * width > _TIFF_LIMIT,
            **options,
        )


def label_bands(result: Result, rows: int, chosen: Iterable[int] | None = None) -> Iterator[np.ndarray]:
    """(rows or fewer, W) int32, the label image from top to bottom.

    Args:
        chosen: rows of the instances that are in it, whose numbers stay; None: all.
    """
    height, width = result.size
    known = range(len(result.masks)) if chosen is None else chosen
    waiting = sorted(known, key=lambda number: result.masks[number].y, reverse=True)
    active: list[int] = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        while waiting and result.masks[waiting[-1]].y < bottom:
            active.append(waiting.pop())
        band = np.zeros((bottom - top, width), np.int32)
        for number in active:
            crop = result.masks[number]
            part = crop.mask[max(top - crop.y, 0) : bottom - crop.y]
            start = max(crop.y - top, 0)
            band[start : start + part.shape[0], crop.x : crop.x + part.shape[1]][part] = number + 1
        active = [n for n in active if result.masks[n].y + result.masks[n].mask.shape[0] > bottom]
        yield band


def check_coco(file_name: str, shape: Sequence[int]) -> None:
    """Raise FsisError if an image has more pixels than pycocotools can count."""
    height, width = shape[:2]
    if height * width > _COCO_LIMIT:
        raise FsisError(f"{file_name}: {width}x{height} pixels are too many for COCO's run lengths: save geojson")


def write_coco(path: Path, results: Mapping[str, Result]) -> None:
    """All instances of some images, with their scores, as one COCO data set that pycocotools loads.

    Args:
        results: file name of each image -> its instances. Ids count from 1 in this order; a category is made for each
            kind that is wanted, in their order, and each name that the instances carry, "cell" where they carry none,
            with the names of their keypoints if known.
    """
    categories: dict[str, dict[str, Any]] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (file_name, result) in enumerate(results.items(), start=1):
        height, width = result.size
        check_coco(file_name, (height, width))
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        keypoints = {"keypoints": list(result.keypoint_names), "skeleton": (np.array(result.skeleton) + 1).tolist()}
        keypoints = keypoints if result.keypoint_names else {}
        names = [name or "cell" for name in result.categories]
        for name in [*(() if result.kind_scores is None else counts(result)), *names]:
            new = {"id": len(categories) + 1, "name": name, "supercategory": "cell", **keypoints}
            categories.setdefault(name, new)
        for row, name in zip(result.to_coco(image_id, 0), names, strict=True):
            category_id = categories[name]["id"]
            annotations.append({"id": len(annotations) + 1, **row, "category_id": category_id, "iscrowd": 0})
    # Without `info` pycocotools before 2.0.11 compares no results with it.
    info = {"description": "cells found by fsis_jax"}
    content = {"info": info, "images": images, "categories": list(categories.values()), "annotations": annotations}
    with atomic_write(path) as file:
        file.write(json.dumps(content).encode())


def write_overlay(
    path: Path,
    image: np.ndarray,
    instances: Segmented | Judged,
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
