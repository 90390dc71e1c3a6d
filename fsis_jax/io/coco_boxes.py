"""Boxes of cells out of a COCO file, as annotation tools export it: the boxes of one image, with their categories."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.geojson import read_json
from fsis_jax.io.outlines import Box, box_around

_PARTS = ("images", "annotations", "categories")
_EXPORT = "export the annotations as COCO again"


def is_coco(path: str | os.PathLike[str]) -> bool:
    """Whether a JSON file is one of COCO.

    Raises:
        FsisError: it cannot be read, or is no JSON.
    """
    content = read_json(os.fspath(path))
    return isinstance(content, dict) and all(part in content for part in _PARTS)


def read_coco_boxes(path: str | os.PathLike[str], image: str, size: tuple[int, int]) -> list[tuple[Box, str]]:
    """The boxes of an image's annotations and the names of their categories, in the order of the file.

    Crowds are left out.

    Args:
        path: the COCO file.
        image: path of the image. Of a file with several the one of its name counts, whatever its folder.
        size: height and width of the image.

    Raises:
        FsisError: a file that is not as COCO's are, or has no such image, one of another size or no box of it.
    """
    name = os.fspath(path)
    content = read_json(name)
    parts: dict[str, Any] = {part: content.get(part) for part in _PARTS} if isinstance(content, dict) else {}
    for part in _PARTS:
        rows = parts.get(part)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise FsisError(f"{name}: no list of objects under '{part}': {_EXPORT}")
    row = _image(name, parts["images"], image)
    sides = row.get("height"), row.get("width")
    if None not in sides and sides != size:
        raise FsisError(
            f"{name}: {sides[1]}x{sides[0]} pixels of {row.get('file_name')}, and {image} has {size[1]}x{size[0]}: "
            "name its own image by --reference-image"
        )
    names = {category.get("id"): category.get("name") for category in parts["categories"] if _is_id(category)}
    found = []
    for number, annotation in enumerate(parts["annotations"], start=1):
        if annotation.get("image_id") == row.get("id") and not annotation.get("iscrowd"):
            found.append(_box(annotation, names, f"{name}: annotation {number}"))
    if not found:
        raise FsisError(f"{name}: no annotation of {image}: annotate at least one cell of it")
    return found


def _image(name: str, images: list[dict[str, Any]], path: str) -> dict[str, Any]:
    """The row of an image: the only one, or the one of its name."""
    if len(images) == 1:
        return images[0]
    own = pathlib.PurePath(path).name
    found = [row for row in images if pathlib.PurePosixPath(str(row.get("file_name"))).name == own]
    if len(found) != 1:
        what = f"{len(found)} images are called {own}" if found else f"no image {own} among its {len(images)}"
        raise FsisError(f"{name}: {what}: name one that it has by --reference-image")
    return found[0]


def _is_id(category: Mapping[str, Any]) -> bool:
    return isinstance(category.get("id"), int)


def _box(annotation: Mapping[str, Any], names: Mapping[int, Any], where: str) -> tuple[Box, str]:
    box, category = annotation.get("bbox"), annotation.get("category_id")
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
        raise FsisError(f"{where}: no bbox of four numbers x, y, width, height: {_EXPORT}")
    if not isinstance(category, int) or category not in names:
        raise FsisError(f"{where}: category {category!r} is none of the file's: {_EXPORT}")
    try:
        x, y, width, height = (float(value) for value in box)
    except OverflowError as error:
        raise FsisError(f"{where}: a number that is not finite: {_EXPORT}") from error
    if width <= 0 or height <= 0:
        raise FsisError(f"{where}: no extent, its bbox is {width:g} wide and {height:g} high: {_EXPORT}")
    stated = names[category]
    return box_around(np.array([(x, y), (x + width, y + height)]), where), str(category if stated is None else stated)
