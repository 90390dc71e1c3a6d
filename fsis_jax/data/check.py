"""Validation of a whole data folder: every image is decoded, every annotation checked, everything wrong listed."""

import dataclasses
import io
import os
import pathlib
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from fsis_jax.config import base_config
from fsis_jax.data.coco_files import annotation_files, find_layout
from fsis_jax.data.episodes import can_be_shown
from fsis_jax.data.index import Problem, read_index
from fsis_jax.errors import FsisError, printable
from fsis_jax.io.atomic import open_file
from fsis_jax.io.decoding import decode_image
from fsis_jax.preprocess.records import Annotations

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class CategoryRow:
    """One line of the table. Images and instances by split; crowds count as instances."""

    category: int
    name: str
    images: Mapping[str, int]
    """Images that show the category."""
    instances: Mapping[str, int]
    median_area: float
    """Pixels of a mask, over all splits; NaN where there is no instance."""
    median_side: float
    """Square root of the area of a box, pixels."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What `check` found."""

    root: str
    rows: tuple[CategoryRow, ...]
    images: Mapping[str, int]
    """All images of a split, each once, also those with two categories or none. FIS-Cell's train_only and val are parts
    of its train and are not counted again."""
    empty: Mapping[str, int]
    """Images without a usable annotation."""
    problems: tuple[Problem, ...]


def check(root: str | os.PathLike[str]) -> Report:
    """Read a folder of any layout completely.

    Raises:
        FsisError: nothing can be read at all: no such folder, or an annotation file is not a COCO file.
    """
    read = _read_prepared if find_layout(root) == "prepared" else _read_folder
    annotations, categories, problems = read(root)
    problems += [problem for split, items in annotations.items() for problem in _without_cells(root, split, items)]
    return Report(
        root=os.fspath(root),
        rows=tuple(_row(category, name, annotations) for category, name in sorted(categories.items())),
        images={split: len(items) for split, items in annotations.items()},
        empty={split: sum(not len(item.classes) for item in items) for split, items in annotations.items()},
        problems=tuple(problems),
    )


def format_report(report: Report) -> str:
    """The table of categories, then every problem on a line of its own."""
    splits = list(report.images)
    heading = ("id", "category", f"images {'/'.join(splits)} (total)", f"instances {'/'.join(splits)}")
    table = [(*heading, "median area, px", "median box side, px")]
    for row in report.rows:
        area, side = (f"{value:.0f}" if np.isfinite(value) else "-" for value in (row.median_area, row.median_side))
        table.append((str(row.category), row.name, _counts(row.images, total=True), _counts(row.instances), area, side))
    if any(report.empty.values()):
        table.append(("", "(no cell)", _counts(report.empty, total=True), "", "", ""))
    instances = {split: sum(row.instances[split] for row in report.rows) for split in splits}
    table.append(("", "all", _counts(report.images, total=True), _counts(instances), "", ""))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
    count = len(report.problems)
    lines.append(f"{report.root}: {count or 'no'} problem{'' if count == 1 else 's'}")
    if "test" not in splits:
        lines.append(f"{report.root}: to train on; no split 'test', which `fsis evaluate` needs")
    told = [line.rstrip() for line in lines] + [str(problem) for problem in report.problems]
    return "\n".join(map(printable, told))


_Contents = tuple[dict[str, tuple[Annotations, ...]], dict[int, str], list[Problem]]
"""Annotations by split, categories, problems."""


def _read_folder(root: str | os.PathLike[str]) -> _Contents:
    files = annotation_files(root)
    problems = _without_train(root, files)
    annotations: dict[str, tuple[Annotations, ...]] = {}
    categories: dict[int, str] = {}
    folds: dict[int, tuple[int, ...]] = {}
    seen: dict[pathlib.Path, str] = {}
    for split, file in files.items():
        index = read_index(root, split)
        categories |= index.categories
        folds = index.folds
        problems += index.problems
        for category, annotation_id in index.unassigned.items():
            remedy = f"add it to {pathlib.Path(root) / 'folds.json'} or correct it"
            problems.append(Problem(str(file), annotation_id, f"category id {category}, which no fold names", remedy))
        is_part = _is_part(split, files)
        if not is_part:
            annotations[split] = index.annotations
        for path, item in zip(_shown(index.images, split), index.annotations, strict=True):
            if path not in seen:
                seen[path] = split
                problems += _check_file(path, item)
            elif not is_part:
                what = f"image {item.file_name} is in the split '{seen[path]}' too"
                problems.append(Problem(str(file), None, what, "remove it from one: tests need images never learnt"))
    if find_layout(root) == "coco":
        problems += _unlisted(pathlib.Path(root) / "folds.json", folds, categories)
    return annotations, categories, problems


def _read_prepared(root: str | os.PathLike[str]) -> _Contents:
    from fsis_jax.data.prepared import PreparedSource, prepared_splits  # tensorflow_datasets takes a second to import

    splits = prepared_splits(root)
    problems = _without_train(root, splits)
    annotations: dict[str, tuple[Annotations, ...]] = {}
    categories: dict[int, str] = {}
    for split in splits:
        source = PreparedSource(root, split)
        categories |= source.categories
        if not _is_part(split, splits):
            annotations[split] = source.annotations
        for position in _shown(range(len(source)), split):
            record = source[position]
            name = f"{os.fspath(root)}: {record.annotations.file_name}"
            found = _check_image(record.encoded, name, record.annotations)
            problems += [problem for problem in found if problem not in problems]  # a part has what its whole has
    return annotations, categories, problems


def _without_train(root: str | os.PathLike[str], splits: Collection[str]) -> list[Problem]:
    if "train" in splits:
        return []
    return [Problem(os.fspath(root), None, "no annotations of a split 'train'", "add some")]


def _is_part(split: str, splits: Collection[str]) -> bool:
    """Whether a split is a part of another one."""
    return "train" in splits and split in ("train_only", "val")


def _unlisted(file: pathlib.Path, folds: Mapping[int, Sequence[int]], categories: Collection[int]) -> list[Problem]:
    """Ids of folds that no annotation file has among its categories."""
    return [
        Problem(
            str(file),
            None,
            f"fold {fold} names the category id {category}, which no file lists",
            "correct it or take it out",
        )
        for fold, ids in folds.items()
        for category in ids
        if category not in categories
    ]


def _shown(items: Sequence[_T], split: str) -> Iterator[_T]:
    """Items of a split, with a progress bar on a terminal."""
    # A program with a window has no standard error.
    yield from tqdm(items, f"images of {split}", disable=None, file=sys.stderr or io.StringIO())


def _check_file(path: pathlib.Path, item: Annotations) -> list[Problem]:
    try:
        with open_file(path) as file:
            data = file.read()
    except FileNotFoundError:
        return [Problem(str(path), None, "no such image", "restore it or remove it from the annotation file")]
    except (OSError, ValueError) as error:  # ValueError of a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        return [Problem(str(path), None, f"cannot be read ({reason})", "restore the image")]
    return _check_image(data, str(path), item)


def _check_image(data: bytes, name: str, item: Annotations) -> list[Problem]:
    try:
        height, width = decode_image(data, name).shape[:2]
    except FsisError as error:
        what, _, remedy = str(error).removeprefix(f"{name}: ").rpartition(": ")
        return [Problem(name, None, what, remedy)]
    if (height, width) != (item.height, item.width):
        what = f"the image is {width}x{height}, its annotations say {item.width}x{item.height}"
        return [Problem(name, None, what, "correct the annotation file or restore the image")]
    return []


def _without_cells(root: str | os.PathLike[str], split: str, items: Sequence[Annotations]) -> list[Problem]:
    """What is wrong with a split that shows nothing to learn or to find."""
    name, least = os.fspath(root), base_config().data.min_reference_area
    if all(item.crowd.all() for item in items):
        return [Problem(name, None, f"no cell in the split '{split}'", "annotate some")]
    if split == "train" and not any(can_be_shown(item, least).any() for item in items):
        what = f"no cell in the split 'train' that is 2 pixels wide and high and has more than {least:g}"
        return [Problem(name, None, what, "nothing can serve as a reference; give images of a higher resolution")]
    return []


def _row(category: int, name: str, annotations: Mapping[str, Sequence[Annotations]]) -> CategoryRow:
    rows = {split: [item.classes == category for item in items] for split, items in annotations.items()}
    items = [item for split in annotations.values() for item in split]
    chosen = [mask for split in rows.values() for mask in split]
    areas = np.concatenate([item.areas[mask] for item, mask in zip(items, chosen, strict=True)] or [np.zeros(0)])
    boxes = np.concatenate([item.boxes[mask] for item, mask in zip(items, chosen, strict=True)] or [np.zeros((0, 4))])
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    return CategoryRow(
        category=category,
        name=name,
        images={split: sum(bool(mask.any()) for mask in masks) for split, masks in rows.items()},
        instances={split: sum(int(mask.sum()) for mask in masks) for split, masks in rows.items()},
        median_area=float(np.median(areas)) if len(areas) else float("nan"),
        median_side=float(np.median(sides)) if len(sides) else float("nan"),
    )


def _counts(counts: Mapping[str, int], *, total: bool = False) -> str:
    text = "/".join(map(str, counts.values()))
    return f"{text} ({sum(counts.values())})" if total else text
