"""Stick figures with boxes, masks and keypoints, as a COCO folder: the smallest data that a pose can be learnt from.

They face the viewer, so that a left hand is to the right of the right one in the image, and a flip that exchanges the
names gives another such figure. A keypoint that a figure in front covers is labelled as hidden. The same arguments
make the same files, byte for byte.
"""

import json
import os
import pathlib
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import write_failure

KEYPOINTS = ("head", "hip", "left_hand", "right_hand", "left_foot", "right_foot")
_SMALLEST_SIDE = 64
_ATTEMPTS = 20
_MAX_OVERLAP = 0.2
"""Share of a new figure that may lie over those already there."""


def generate_figures(root: str | os.PathLike[str], *, images: int = 8, seed: int = 0, size: int = 128) -> pathlib.Path:
    """Make a data set of the one category "person", one to three figures an image.

    Args:
        root: a folder that does not exist yet or is empty.
        images: for training; a quarter as many, at least one, are for testing.
        seed: of everything drawn.
        size: height and width of an image, pixels.

    Raises:
        FsisError: `root` exists, cannot be written, or a number makes no sense.
    """
    folder = pathlib.Path(root)
    if images < 1 or seed < 0 or size < _SMALLEST_SIDE:
        raise FsisError(f"{images} images of {size} px, seed {seed}: give at least 1, {_SMALLEST_SIDE} and 0")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FsisError(f"{folder}: exists already: delete it or choose another folder")
    splits = {"train": range(1, images + 1), "test": range(images + 1, images + 1 + max(1, images // 4))}
    try:
        for name in ("images", "annotations"):
            (folder / name).mkdir(parents=True)
        for split, numbers in splits.items():
            content = _split(folder / "images", numbers, seed, size)
            (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))
    except OSError as error:
        raise write_failure(folder, error) from error
    return folder


def _split(folder: pathlib.Path, numbers: range, seed: int, size: int) -> dict[str, Any]:
    """The content of an annotation file, whose images are written into the folder."""
    rows: list[dict[str, Any]] = []
    for number in numbers:
        pixels, figures = _draw(np.random.default_rng((seed, number)), size)
        _, data = cv2.imencode(".png", pixels)
        (folder / f"{number:04d}.png").write_bytes(data.tobytes())
        rows += [{"id": len(rows) + i, "image_id": number, **row} for i, row in enumerate(figures, start=1)]
    names = [f"{number:04d}.png" for number in numbers]
    return {
        "images": [
            {"id": number, "file_name": name, "width": size, "height": size}
            for number, name in zip(numbers, names, strict=True)
        ],
        "annotations": rows,
        "categories": [{"id": 1, "name": "person", "supercategory": "person", "keypoints": list(KEYPOINTS)}],
    }


def _draw(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """An image (size, size, 3) uint8 and the COCO annotations of its figures, without ids."""
    image = rng.uniform(20, 70) + rng.normal(0, 6, (size, size, 3))
    owner = np.full((size, size), -1)
    joints: list[np.ndarray] = []
    for _ in range(int(rng.integers(1, 4))):
        for _ in range(_ATTEMPTS):
            points, chest, thickness = _pose(rng, size)
            mask = _silhouette(points, chest, thickness, size)
            if np.count_nonzero(mask & (owner >= 0)) <= _MAX_OVERLAP * np.count_nonzero(mask):
                image[mask] = rng.uniform(120, 250, 3)
                owner[mask] = len(joints)
                joints.append(points)
                break
    rows = []
    for figure, points in enumerate(joints):
        seen = owner[points[:, 1], points[:, 0]] == figure
        rows.append(_row(owner == figure, np.column_stack([points, np.where(seen, 2, 1)])))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), rows


def _pose(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The keypoints (P, 2) and the chest (2,) of a figure as pixels x, y, and the thickness of its limbs."""
    height = rng.uniform(0.45, 0.65) * size
    arms = rng.uniform(-1.2, 1.2, 2)  # from level, up or down
    legs = rng.uniform(0.1, 0.5, 2)  # from straight down, outwards
    outwards = np.array([1, -1])  # left is to the right
    hands = np.column_stack([outwards * 0.32 * np.cos(arms), 0.3 - 0.32 * np.sin(arms)])
    feet = np.column_stack([outwards * 0.42 * np.sin(legs), 0.55 + 0.42 * np.cos(legs)])
    shape = height * np.concatenate([[[0, 0.1], [0, 0.55]], hands, feet, [[0, 0.3]]])
    margin = 0.1 * height + 2
    low, high = margin - shape.min(axis=0), size - 1 - margin - shape.max(axis=0)
    points = np.rint(shape + rng.uniform(low, high)).astype(int)
    return points[:-1], points[-1], max(3, round(height / 14))


def _silhouette(points: np.ndarray, chest: np.ndarray, thickness: int, size: int) -> np.ndarray:
    """(size, size) bool."""
    canvas = np.zeros((size, size), np.uint8)
    head, hip, *limbs = points.tolist()
    ends = [head, hip, *limbs]
    starts = [chest.tolist()] * 4 + [hip] * 2
    for start, end in zip(starts, ends, strict=True):
        cv2.line(canvas, start, end, 1, thickness)
    cv2.circle(canvas, head, round(1.5 * thickness), 1, cv2.FILLED)
    return canvas.astype(bool)


def _row(mask: np.ndarray, keypoints: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "category_id": 1,
        "iscrowd": 0,
        "area": int(np.count_nonzero(mask)),
        "bbox": coco_mask.toBbox(rle).tolist(),
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": len(keypoints),
    }
