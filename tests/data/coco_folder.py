"""A tiny COCO folder that tests write and then damage."""

import json
import pathlib
from typing import Any

import cv2
import numpy as np

HEIGHT, WIDTH = 24, 32


def square(x: int, y: int, side: int) -> list[list[float]]:
    """A polygon that covers exactly side x side pixels."""
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def annotation(annotation_id: int, **changes: Any) -> dict[str, Any]:
    """A valid annotation of image 1: the 6 x 6 square at (4, 8), category 1."""
    row = {
        "id": annotation_id, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 36,
        "bbox": [4, 8, 6, 6], "segmentation": square(4, 8, 6),
    }  # fmt: skip
    return row | changes


def content(annotations: list[dict[str, Any]], *, first_image: int = 1, images: int = 2) -> dict[str, Any]:
    """An annotation file with two categories."""
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH}
            for i in range(first_image, first_image + images)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "round"}, {"id": 2, "name": "long"}],
    }


def write_folder(root: pathlib.Path, annotations: list[dict[str, Any]]) -> pathlib.Path:
    """`annotations` are those of train, images 1 and 2; test has image 3 with one cell."""
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    for i in (1, 2, 3):
        cv2.imwrite(str(root / "images" / f"{i}.png"), np.full((HEIGHT, WIDTH), 40 * i, np.uint8))
    write_json(root / "annotations/train.json", content(annotations))
    write_json(root / "annotations/test.json", content([annotation(900, image_id=3)], first_image=3, images=1))
    write_json(root / "folds.json", {"1": [1], "2": [2]})
    return root


def write_json(path: pathlib.Path, data: object) -> None:
    path.write_text(json.dumps(data))
