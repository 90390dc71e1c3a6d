"""Reading a split of a folder with COCO annotations: what its file says, and what is wrong with it.

The images themselves are not looked at here. What cannot be used is left out and listed as a problem; what makes the
whole folder unusable raises.

Without `folds.json` there is one fold, 1, which holds out nothing: every category is learnt.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fsis_jax import fis_cell
from fsis_jax.data.coco_files import (
    AS_COCO_COMES,
    annotation_files,
    check_others,
    distinct_names,
    find_layout,
    read_instance_file,
    read_json,
    stated_categories,
)
from fsis_jax.data.instance import Instance, read_instance
from fsis_jax.errors import FsisError
from fsis_jax.preprocess.keypoints import read_keypoints, read_names
from fsis_jax.preprocess.records import Annotations
from fsis_jax.preprocess.segmentation import InvalidAnnotationError

_MOST_PIXELS = 1 << 31
"""The most pixels of an image of which run lengths can count the pixels."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something wrong with a data set that does not keep us from reading the rest."""

    file: str
    """The file to correct: annotations or image."""
    annotation_id: int | None
    """None where the problem is not one annotation's, or the annotation has no id."""
    what: str
    remedy: str
    skipped: bool = True
    """Whether the annotation is left out; false where it is used with a correction."""

    def __str__(self) -> str:
        where = self.file if self.annotation_id is None else f"{self.file}: annotation {self.annotation_id}"
        return f"{where}: {self.what}: {self.remedy}"


@dataclasses.dataclass(frozen=True)
class Index:
    """A split of a folder."""

    file: pathlib.Path
    """The annotation file."""
    annotations: tuple[Annotations, ...]
    """What is known of each image, by ascending image id."""
    images: tuple[pathlib.Path, ...]
    """Path of each image, whether or not it exists."""
    categories: dict[int, str]
    folds: dict[int, tuple[int, ...]]
    unassigned: dict[int, int]
    """Category ids that annotations have and no fold names, and an annotation of each."""
    problems: tuple[Problem, ...]


def read_index(root: str | os.PathLike[str], split: str, *, keypoints: bool = False) -> Index:
    """Read and check the annotations of a split of a COCO or FIS-Cell folder; `keypoints` as for `annotation_files`.

    Raises:
        FsisError: a file is missing, is not JSON, or is not a COCO file; or the files of the splits mean different
            categories by an id.
    """
    folder, files = pathlib.Path(root), annotation_files(root, keypoints=keypoints)
    if split not in files:
        raise FsisError(f"{folder}: no annotations of a split '{split}', only of: {', '.join(files) or 'none'}")
    file = files[split]
    is_fis_cell = find_layout(folder) == "fis_cell"
    data = read_instance_file(file)
    images = _images(data["images"], file)
    stated = stated_categories(data["categories"], file)
    check_others(files, split, stated)
    categories = distinct_names(stated)
    folds = fis_cell.FOLDS if is_fis_cell else _folds(folder / "folds.json")
    names, with_keypoints = read_names(data["categories"])
    instances, problems = _instances(data["annotations"], images, categories, str(file))
    problems += _add_keypoints(data["annotations"], instances, with_keypoints, len(names), str(file))
    as_it_comes = file.stem.endswith(AS_COCO_COMES.get(split, "/"))
    images_folder = folder / (AS_COCO_COMES[split] if as_it_comes else "images")
    first, second = (folder, images_folder) if is_fis_cell else (images_folder, folder)
    order = sorted(images)
    return Index(
        file=file,
        annotations=tuple(_annotations(images[image_id], instances[image_id], names) for image_id in order),
        images=tuple(_image_path(images[image_id]["file_name"], first, second) for image_id in order),
        categories=categories,
        folds={1: ()} if folds is None else folds,
        unassigned={} if folds is None else _unassigned(data["annotations"], folds),
        problems=tuple(problems),
    )


def _images(rows: Sequence[Mapping[str, Any]], file: pathlib.Path) -> dict[int, Mapping[str, Any]]:
    images: dict[int, Mapping[str, Any]] = {}
    for position, row in enumerate(rows):
        name, image_id = row.get("file_name"), row.get("id")
        if type(image_id) is not int or image_id in images:
            raise FsisError(
                f"{file}: image {name or position} has the id {image_id!r}: give every image a whole number of its own"
            )
        if not isinstance(name, str) or not name or not _is_inside(name):
            raise FsisError(
                f"{file}: image {image_id} has the file_name {name!r}: give the name of its file, inside the folder"
            )
        for key in ("width", "height"):
            if type(row.get(key)) is not int or not 0 < row[key] <= _MOST_PIXELS:
                raise FsisError(f"{file}: image {name} has the {key} {row.get(key)!r}: give its size in pixels")
        if row["width"] * row["height"] > _MOST_PIXELS:
            raise FsisError(f"{file}: image {name} has {row['width']}x{row['height']} pixels: cut it into parts")
        images[image_id] = row
    return images


def _is_inside(name: str) -> bool:
    """Whether a name can be that of a file, and does not lead out of the folder, on any system."""
    with contextlib.suppress(UnicodeEncodeError):
        os.fsencode(name)
        windows = pathlib.PureWindowsPath(name)  # it takes / too
        return "\0" not in name and not windows.anchor and ".." not in windows.parts
    return False


def _folds(path: pathlib.Path) -> dict[int, tuple[int, ...]] | None:
    if not path.exists():
        return None
    data = read_json(path)
    try:
        return {int(fold): tuple(int(category) for category in ids) for fold, ids in data.items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise FsisError(f'{path}: not folds: write {{"1": [category ids held out], "2": [...], ...}}') from error


def _instances(
    rows: Sequence[Mapping[str, Any]], images: Mapping[int, Mapping[str, Any]], categories: Mapping[int, str], file: str
) -> tuple[dict[int, list[Instance]], list[Problem]]:
    """The usable annotations of every image, and what is wrong with the others."""
    instances: dict[int, list[Instance]] = {image_id: [] for image_id in images}
    problems: list[Problem] = []
    used: set[int] = set()
    for position, row in enumerate(rows):
        annotation_id, image_id, category = row.get("id"), row.get("image_id"), row.get("category_id")
        if type(annotation_id) is not int or annotation_id in used:
            what = f"annotation number {position + 1} of the file has the id {annotation_id!r}"
            problems.append(Problem(file, None, what, "skipped; give every annotation a whole number of its own"))
            continue
        used.add(annotation_id)
        if type(image_id) is not int or image_id not in images:
            problems.append(Problem(file, annotation_id, f"unknown image id {image_id!r}", "skipped; correct it"))
            continue
        if type(category) is not int or category not in categories:
            remedy = "skipped; correct it or add it to the file's categories"
            problems.append(Problem(file, annotation_id, f"unknown category id {category!r}", remedy))
            continue
        image = images[image_id]
        try:
            instance, correction = read_instance(row, image["height"], image["width"])
        except InvalidAnnotationError as error:
            what = f"{error.what} (image {image['file_name']})"
            problems.append(Problem(file, annotation_id, what, f"skipped; {error.remedy}"))
            continue
        instances[image_id].append(instance)
        if correction is not None:
            what = f"{correction.what} (image {image['file_name']})"
            problems.append(Problem(file, annotation_id, what, correction.remedy, skipped=False))
    return instances, problems


def _unassigned(rows: Sequence[Mapping[str, Any]], folds: Mapping[int, tuple[int, ...]]) -> dict[int, int]:
    named = {category for ids in folds.values() for category in ids}
    unassigned: dict[int, int] = {}
    for row in rows:
        annotation_id, category = row.get("id"), row.get("category_id")
        if type(category) is int and type(annotation_id) is int and category not in named:
            unassigned.setdefault(category, annotation_id)
    return unassigned


def _add_keypoints(
    rows: Sequence[Mapping[str, Any]],
    instances: Mapping[int, list[Instance]],
    categories: Collection[int],
    count: int,
    file: str,
) -> list[Problem]:
    """Put the `count` keypoints of an instance into it, none of them labelled in other categories than these."""
    if not count:
        return []
    problems: list[Problem] = []
    given = {row["id"]: row.get("keypoints") for row in rows if type(row.get("id")) is int}
    for found in instances.values():
        for position, instance in enumerate(found):
            value = given[instance.annotation_id] if instance.category in categories else None
            try:
                keypoints = read_keypoints(value, count)
            except InvalidAnnotationError as error:
                problems.append(Problem(file, instance.annotation_id, error.what, error.remedy, skipped=False))
                keypoints = read_keypoints(None, count)
            found[position] = dataclasses.replace(instance, keypoints=keypoints)
    return problems


def _annotations(image: Mapping[str, Any], instances: Sequence[Instance], names: tuple[str, ...]) -> Annotations:
    return Annotations(
        image_id=image["id"],
        file_name=image["file_name"],
        height=image["height"],
        width=image["width"],
        boxes=np.array([instance.box for instance in instances], np.float32).reshape(-1, 4),
        classes=np.array([instance.category for instance in instances], np.int64),
        crowd=np.array([instance.crowd for instance in instances], bool),
        areas=np.array([instance.area for instance in instances], np.float32),
        annotation_ids=np.array([instance.annotation_id for instance in instances], object),
        rles=tuple(instance.counts for instance in instances),
        keypoints=np.array([instance.keypoints for instance in instances], np.float32).reshape(
            len(instances), len(names), 3
        ),
        keypoint_names=names,
    )


def _image_path(name: str, first: pathlib.Path, second: pathlib.Path) -> pathlib.Path:
    """File names are relative to `first`; some exports write them relative to `second`, or as Windows does."""
    names = dict.fromkeys((name, name.replace("\\", "/")))
    paths = [folder / written for written in names for folder in (first, second)]
    return next((path for path in paths if os.path.isfile(path)), paths[0])
