"""The annotation files of a data folder: which there are, for which split, and what their category ids mean.

Two layouts hold the same thing: a COCO folder (`images/`, `annotations/{split}.json`, `folds.json`; or COCO itself as
it comes, `train2017/`, `annotations/instances_train2017.json` ..., whose val2017 is our "test") and FIS-Cell
(`fis_cell.py`). A third one is prepared from either (`prepared.py`).

Tools put other files beside those of a COCO folder: what is hidden, or no COCO instance file, is passed over, and told.
"""

import collections
import functools
import json
import logging
import os
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fsis_jax import fis_cell
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import open_file

Layout = Literal["coco", "fis_cell", "prepared"]

AS_COCO_COMES = {"train": "train2017", "test": "val2017"}
"""Split -> its name in COCO's own files and folders."""
_OURS = ("train", "test")
"""Splits that training and tests read. Others are parts of a folder too, where their files are COCO's."""
_PARTS = ("images", "annotations", "categories")
_HIGHEST_ID = (1 << 63) - 1

_GET_DATA = (
    "give the folder of your data, make some with `fsis data synthetic --output DIR`, "
    "or use `fsis train --config configs/quickstart.py`, which makes its own"
)
_logger = logging.getLogger(__name__)


def find_layout(root: str | os.PathLike[str]) -> Layout:
    """Which of the three layouts a folder has.

    Raises:
        FsisError: no such folder, or none of them.
    """
    folder = pathlib.Path(root)
    if not folder.is_dir():
        what = "is a file, not a data folder" if folder.exists() else "no such data folder"
        raise FsisError(f"{folder}: {what}: {_GET_DATA}")
    if (folder / "dataset_info.json").is_file():
        return "prepared"
    if any((folder / name).is_file() for name in fis_cell.ANNOTATION_FILES.values()):
        return "fis_cell"
    if (folder / "annotations").is_dir():
        return "coco"
    raise FsisError(
        f"{folder}: holds neither annotations/train.json nor {fis_cell.ANNOTATION_FILES['train']} "
        f"nor a prepared data set: {_GET_DATA}"
    )


def annotation_files(root: str | os.PathLike[str], *, keypoints: bool = False) -> dict[str, pathlib.Path]:
    """The splits that a COCO or FIS-Cell folder has, "train" first, and their annotation files.

    Of COCO as it comes, with `keypoints` the files of persons and their keypoints.
    """
    folder = pathlib.Path(root)
    if find_layout(folder) == "fis_cell":
        named = {split: folder / name for split, name in fis_cell.ANNOTATION_FILES.items()}
        return {split: path for split, path in named.items() if path.is_file()}
    kind = "person_keypoints" if keypoints else "instances"
    named = {split: folder / "annotations" / f"{kind}_{name}.json" for split, name in AS_COCO_COMES.items()}
    if any(path.is_file() for path in named.values()):
        return {split: path for split, path in named.items() if path.is_file()}
    found = sorted((folder / "annotations").glob("*.json"))
    files = {path.stem: path for path in found if path.stem in _OURS or not _is_foreign(path, _changed(path))}
    return dict(sorted(files.items(), key=lambda item: item[0] != "train"))


def _changed(path: pathlib.Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


@functools.cache
def _is_foreign(path: pathlib.Path, changed: int) -> bool:
    """Whether a file has nothing to do with us; told once for each time that it was changed."""
    what = "a hidden file"
    if not path.name.startswith("."):
        try:
            read_instance_file(path)
        except FsisError as error:
            what = str(error).removeprefix(f"{path}: ").rpartition(": ")[0]
        else:
            return False
    _logger.warning("%s: passed over: %s", path, what)
    return True


def read_json(path: pathlib.Path) -> Any:
    """Raises FsisError: the file cannot be read or is not JSON."""
    try:
        with open_file(path) as file:
            return json.loads(file.read())
    except OSError as error:
        raise FsisError(f"{path}: cannot be read ({error.strerror or error}): restore the file") from error
    except (ValueError, RecursionError) as error:  # ValueError also of bytes that are no text, and of endless numbers
        raise FsisError(f"{path}: not valid JSON ({error}): export or copy the file again") from error


def read_instance_file(path: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """A COCO file with its lists of images, annotations and categories, whose items are not looked at.

    Raises:
        FsisError: the file cannot be read, or is no such file.
    """
    data = read_json(path)
    for key in _PARTS:
        rows = data.get(key) if isinstance(data, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise FsisError(f"{path}: no list of objects under '{key}': give a COCO instance file")
    return {key: data[key] for key in _PARTS}


# -- categories ---------------------------------------------------------------------------------------------------


def stated_categories(rows: Sequence[Mapping[str, Any]], file: pathlib.Path) -> dict[int, str | None]:
    """Category id -> its name as it stands in a file; None where it has none.

    Raises:
        FsisError: an id that is not a whole number from 0 on of 64 bits, or comes twice.
    """
    categories: dict[int, str | None] = {}
    for row in rows:
        category, name = row.get("id"), row.get("name")
        if type(category) is not int or not 0 <= category <= _HIGHEST_ID or category in categories:
            raise FsisError(
                f"{file}: a category has the id {category!r}: give each one of its own, from 0 to {_HIGHEST_ID}"
            )
        categories[category] = None if name is None else str(name)
    return categories


def distinct_names(categories: Mapping[int, str | None]) -> dict[int, str]:
    """Category id -> a name of its own: with the id where a name comes twice, the id alone where there is none."""
    counts = collections.Counter(categories.values())
    return {
        category: str(category) if name is None else name if counts[name] == 1 else f"{name} ({category})"
        for category, name in categories.items()
    }


def stated_names(distinct: Mapping[int, str]) -> dict[int, str | None]:
    """What `distinct_names` was given."""
    return {
        category: None if name == str(category) else name.removesuffix(f" ({category})")
        for category, name in distinct.items()
    }


def check_others(files: Mapping[str, pathlib.Path], split: str, categories: Mapping[int, str | None]) -> None:
    """`check_same_categories` of a split's file and of those of the other splits that are used with it."""
    others = {files[name]: _categories_of(files[name]) for name in _OURS if name in files and name != split}
    check_same_categories({str(path): stated for path, stated in others.items()} | {str(files[split]): categories})


def check_same_categories(categories: Mapping[str, Mapping[int, str | None]]) -> None:
    """Raise FsisError where files (name -> category id -> name) do not mean the same by an id, or by a name.

    Upper and lower case count as the same, and so do the two ways of writing an accent.
    """
    known: dict[int, tuple[str, str]] = {}
    ids: dict[str, tuple[str, set[int]]] = {}
    remedy = "give a category the same id and name in all of them"
    for file, stated in categories.items():
        named = {category: name for category, name in stated.items() if name is not None}
        of_name: dict[str, set[int]] = {}
        for category, name in named.items():
            other, their_name = known.setdefault(category, (file, name))
            if folded_name(their_name) != folded_name(name):
                raise FsisError(f"{file}: category id {category} is {name!r}, and in {other} {their_name!r}: {remedy}")
            of_name.setdefault(folded_name(name), set()).add(category)
        for category, name in named.items():
            other, their_ids = ids.setdefault(folded_name(name), (file, of_name[folded_name(name)]))
            if their_ids.isdisjoint(of_name[folded_name(name)]):
                theirs = min(their_ids)
                raise FsisError(f"{file}: category {name!r} has the id {category}, and in {other} {theirs}: {remedy}")


def folded_name(name: str) -> str:
    """What is the same for all ways to write a category's name: in upper or lower case, with accents either way."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def _categories_of(path: pathlib.Path) -> dict[int, str | None]:
    try:
        state = path.stat()
    except OSError as error:
        raise FsisError(f"{path}: cannot be read ({error.strerror or error}): restore the file") from error
    return _remembered_categories(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _remembered_categories(path: pathlib.Path, size: int, changed: int) -> dict[int, str | None]:
    return stated_categories(read_instance_file(path)["categories"], path)
