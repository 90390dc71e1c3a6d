"""A small data set of synthetic cells in one of the layouts that the rest of the project reads.

Every image shows one category, or two on a shared background. The same seed and arguments make the same files, byte
for byte, and an image depends on its own number only.
"""

import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from fsis_jax import fis_cell
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import check_unused, new_folder
from fsis_jax.synthetic.appearances import APPEARANCES, FIS_CELL_APPEARANCES, FOLDS, Appearance
from fsis_jax.synthetic.drawing import Drawing, draw
from fsis_jax.synthetic.random_appearances import crowded_appearance, flat_appearance, random_appearance

SyntheticLayout = Literal["coco", "fis_cell"]
Split = Literal["train", "val", "test"]

_SMALLEST_SIDE = 64
# Streams of random numbers beside those of the images, which are their numbers.
_LOOK_STREAM, _PAIR_STREAM = 1 << 32, 2 << 32
_DRAWN_LOOKS = {
    "random": (_LOOK_STREAM, random_appearance),
    "crowded": (3 << 32, crowded_appearance),
    "flat": (4 << 32, flat_appearance),
}


@dataclasses.dataclass(frozen=True)
class _Plan:
    """One image to draw."""

    categories: tuple[int, ...]
    split: Split


def generate(
    output: str | os.PathLike[str],
    *,
    seed: int = 0,
    layout: SyntheticLayout = "coco",
    images_per_category: int = 20,
    two_category_images: int = 90,
    sides: tuple[int, int] = (128, 192),
    random_categories: int = 0,
    crowded_categories: int = 0,
    flat_categories: int = 0,
) -> pathlib.Path:
    """Make a data set: 9 categories in 3 folds ("coco"), or the 14 categories and 5 folds of FIS-Cell ("fis_cell").

    A quarter of the images of every category, and of every pair of categories, are test images. FIS-Cell's train_val
    also comes in its two parts. The folder is written under another name and renamed when it is complete.

    Args:
        output: a folder that does not exist yet or is empty.
        images_per_category: images that show this category alone, of all splits: at least 2, or 3 for FIS-Cell.
        two_category_images: images with two categories in the whole data set.
        sides: least and largest height and width of an image; landscape, portrait and square all occur.
        random_categories: further ones of layout "coco", of looks drawn at random, spread over the folds.
        crowded_categories: further ones of cells that touch, many of them long (`crowded_appearance`).
        flat_categories: further ones of spread cells in transmitted light, among debris (`flat_appearance`).

    Raises:
        FsisError: `output` exists, cannot be written, or a number makes no sense.
    """
    target = pathlib.Path(output)
    if layout not in ("coco", "fis_cell"):
        raise FsisError(f"layout '{layout}': choose 'coco' or 'fis_cell'")
    if seed < 0:
        raise FsisError(f"seed {seed}: give 0 or more")
    splits = 3 if layout == "fis_cell" else 2
    if images_per_category < splits or two_category_images < 0:
        raise FsisError(
            f"{images_per_category} images per category and {two_category_images} with two categories: "
            f"give at least {splits} (one for each split) and 0"
        )
    drawn = {"random": random_categories, "crowded": crowded_categories, "flat": flat_categories}
    for kind, count in drawn.items():
        if count < 0 or (count and layout != "coco"):
            raise FsisError(f"{count} {kind} categories: give 0 or more, of layout 'coco'")
    if not _SMALLEST_SIDE <= sides[0] <= sides[1]:
        raise FsisError(f"image sides {sides[0]} to {sides[1]}: give {_SMALLEST_SIDE} or more, the smaller first")
    check_unused(target)
    with new_folder(target) as folder:
        (folder / "images").mkdir()
        _write(folder, layout, seed, images_per_category, two_category_images, sides, drawn)
    return target


def _write(
    folder: pathlib.Path,
    layout: SyntheticLayout,
    seed: int,
    images_per_category: int,
    two_category_images: int,
    sides: tuple[int, int],
    drawn: Mapping[str, int],
) -> None:
    if layout == "coco":
        named = dict(APPEARANCES)
        for kind, (stream, appearance) in _DRAWN_LOOKS.items():
            for number in range(1, drawn[kind] + 1):
                named[f"{kind}_{number:03d}"] = appearance(np.random.default_rng((seed, stream, number)))
        appearances: Mapping[int, Appearance] = dict(enumerate(named.values(), start=1))
        names: Mapping[int, str] = dict(enumerate(named, start=1))
    else:
        appearances, names = FIS_CELL_APPEARANCES, fis_cell.CATEGORIES
    images: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    annotations: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    plans = _plan(appearances, images_per_category, two_category_images, seed, with_validation=layout == "fis_cell")
    annotation_ids = itertools.count(1)
    for image_id, plan in enumerate(plans, start=1):
        rng = np.random.default_rng((seed, image_id))
        drawing = draw(rng, [appearances[category] for category in plan.categories], *_size(rng, sides))
        name = f"{'_'.join(names[category] for category in plan.categories)}_{image_id:04d}.png"
        (folder / "images" / name).write_bytes(_png(drawing.pixels))
        height, width = drawing.pixels.shape[:2]
        file_name = name if layout == "coco" else f"images/{name}"
        images[plan.split].append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        annotations[plan.split] += [
            {"id": next(annotation_ids), "image_id": image_id} | row
            for row in _rows(drawing, plan.categories, polygons=layout == "fis_cell")
        ]
    if layout == "coco":
        files = {"annotations/train.json": ["train"], "annotations/test.json": ["test"]}
    else:
        parts = {"train": ["train", "val"], "train_only": ["train"], "val": ["val"], "test": ["test"]}
        files = {fis_cell.ANNOTATION_FILES[split]: part for split, part in parts.items()}
    for file, splits in files.items():
        content = {
            "info": {
                "description": "synthetic cells, made by `fsis data synthetic`",
                "seed": seed,
                "layout": layout,
                "images_per_category": images_per_category,
                "two_category_images": two_category_images,
                "sides": list(sides),
                **{f"{kind}_categories": count for kind, count in drawn.items()},
            },
            "images": [row for split in splits for row in images[split]],
            "annotations": [row for split in splits for row in annotations[split]],
            "categories": [{"id": i, "name": names[i], "supercategory": "cell"} for i in appearances],
        }
        _write_json(folder / file, content)
    if layout == "coco":
        further = range(len(APPEARANCES) + 1, len(appearances) + 1)
        folds = {str(fold): [*ids, *(i for i in further if i % 3 + 1 == fold)] for fold, ids in FOLDS.items()}
        _write_json(folder / "folds.json", folds)


def _plan(
    appearances: Mapping[int, Appearance],
    images_per_category: int,
    two_category_images: int,
    seed: int,
    *,
    with_validation: bool,
) -> list[_Plan]:
    """Which categories each image shows, and its split: every fourth image of a group is for testing."""
    pairs = [
        pair
        for pair in itertools.combinations(appearances, 2)
        if appearances[pair[0]].background == appearances[pair[1]].background
    ]
    if len(pairs) > two_category_images:
        pairs = [pairs[i] for i in np.random.default_rng((seed, _PAIR_STREAM)).permutation(len(pairs))]
    groups: list[tuple[tuple[int, ...], int]] = [((category,), images_per_category) for category in appearances]
    # Pairs take turns, so that a few images already show many of them.
    shares = [len(range(position, two_category_images, len(pairs))) for position in range(len(pairs))]
    groups += list(zip(pairs, shares, strict=True))
    plans: list[_Plan] = []
    for number, (categories, count) in enumerate(groups):
        # A pair with fewer than four images gives its only test image, or none, in turn.
        offset = 0 if len(categories) == 1 else number
        for i in range(count):
            turn = (i + offset) % 4
            split: Split = "test" if turn == 1 else "val" if with_validation and turn == 2 else "train"
            plans.append(_Plan(categories, split))
    return plans


def _size(rng: np.random.Generator, sides: tuple[int, int]) -> tuple[int, int]:
    """Height and width, multiples of 16 where the range has one."""
    choices = np.arange(-(-sides[0] // 16) * 16, sides[1] + 1, 16)
    if not len(choices):
        choices = np.array([sides[0]])
    short, long = np.sort(rng.choice(choices, 2))
    shape = rng.integers(3)
    return (int(short), int(long)) if shape == 0 else (int(long), int(short)) if shape == 1 else (int(long), int(long))


def _png(pixels: np.ndarray) -> bytes:
    grey = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
    stored = pixels[..., 0] if grey else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".png", stored)
    return data.tobytes()


def _rows(drawing: Drawing, categories: Sequence[int], *, polygons: bool) -> list[dict[str, Any]]:
    """COCO annotations without their ids."""
    rows = []
    for mask, appearance in zip(drawing.masks, drawing.appearances, strict=True):
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        outline = _polygons(mask, rle) if polygons else None
        rows.append(
            {
                "category_id": categories[appearance],
                "iscrowd": 0,
                "area": int(np.count_nonzero(mask)),
                "bbox": [float(value) for value in coco_mask.toBbox(rle)],
                "segmentation": outline or {"size": list(rle["size"]), "counts": rle["counts"].decode()},
            }
        )
    return rows


def _polygons(mask: np.ndarray, rle: Mapping[str, Any]) -> list[list[float]] | None:
    """Polygons that give exactly this mask back; None where there are none (an instance with a hole)."""
    x, y, w, h = (int(value) for value in coco_mask.toBbox(rle))
    # Outlines run through the centres of border pixels. On a grid three times finer these lie inside the pixel's edge
    # and outside its centre, so that the centre stays covered.
    fine = np.kron(mask[y : y + h, x : x + w], np.ones((3, 3), np.uint8)).astype(np.uint8)
    outlines, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = [((outline[:, 0] + 0.5) / 3 + (x, y)).round(2).ravel().tolist() for outline in outlines]
    back = coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape))
    return polygons if back["counts"] == rle["counts"] else None


def _write_json(path: pathlib.Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
