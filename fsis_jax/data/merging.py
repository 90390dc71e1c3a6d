"""Several COCO folders made into one: `fsis data merge A B --output C`.

Kinds of one name are one category. An id stays what it is where no two folders give it to different things; else all
ids of that sort are numbered anew. Images are copied; where two folders have a file of one name, into subfolders.

Folds are given by name, so that kinds which show the same imaging can be held out together, whatever folder they come
from: a network that has learnt one of them has seen the others. Without them the folders' own folds are joined by
number.
"""

import collections
import json
import os
import pathlib
import shutil
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from fsis_jax.data.coco import CocoSource
from fsis_jax.data.index import annotation_files, find_layout
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import check_unused, new_folder, open_file

Path = str | os.PathLike[str]
_SORTS = {"images": "image_id", "annotations": "annotation_id", "categories": "category_id", "licenses": "license"}
"""Lists whose rows have ids, each with the key that refers to them."""


def merge_folders(folders: Sequence[Path], output: Path, *, folds: Path | None = None) -> pathlib.Path:
    """Make one COCO folder of several; each must have the same splits.

    Args:
        folders: COCO folders (`annotations/train.json`, `annotations/test.json`, `images/`).
        output: a folder that does not exist yet or is empty; written under another name and renamed when complete.
        folds: a JSON file {number: [names of categories]} in which every category stands once.

    Raises:
        FsisError: fewer than two folders, one that cannot be read, folds that do not fit, or `output` exists.
    """
    target, sources = pathlib.Path(output), [pathlib.Path(folder) for folder in folders]
    if len(set(map(os.path.abspath, sources))) < max(len(sources), 2):
        raise FsisError(f"merge {' '.join(map(str, sources))}: give two different folders or more")
    check_unused(target)
    splits = _splits(sources)
    contents = [{split: _read(source, split) for split in splits} for source in sources]
    names = _Names(contents)
    chosen = _given_folds(folds, names.categories) if folds else _joined_folds(sources, names)
    with new_folder(target) as folder:
        (folder / "annotations").mkdir()
        for split in splits:
            merged = _merged([content[split] for content in contents], names)
            merged["info"] = {"description": f"{' and '.join(source.name for source in sources)}, merged"}
            (folder / "annotations" / f"{split}.json").write_text(json.dumps(merged))
        (folder / "folds.json").write_text(json.dumps(chosen))
        for number, (source, content) in enumerate(zip(sources, contents, strict=True)):
            for name in {row["file_name"] for split in splits for row in content[split]["images"]}:
                place = folder / "images" / names.files[number, name]
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / "images" / name, place)
    return target


class _Names:
    """What things are called in the merged folder; a folder is known by its position in `contents`."""

    def __init__(self, contents: Sequence[Mapping[str, Any]]) -> None:
        rows = [
            (number, sort, row)
            for number, content in enumerate(contents)
            for split in content.values()
            for sort in _SORTS
            for row in split.get(sort, ())
        ]
        things: dict[str, list[tuple[int, int, Hashable]]] = collections.defaultdict(list)
        for number, sort, row in rows:
            things[sort].append((number, row["id"], row["name"] if sort == "categories" else (number, row["id"])))
        self.ids = {(sort, number, old): new for sort in things for (number, old), new in _renumbered(things[sort])}
        """{(sort, folder, id there): id here}."""
        self.categories = {row["name"]: self.ids[sort, n, row["id"]] for n, sort, row in rows if sort == "categories"}
        files = {(number, row["file_name"]) for number, sort, row in rows if sort == "images"}
        holders = collections.Counter(name for _, name in files)
        shared = any(count > 1 for count in holders.values())
        self.files = {(number, name): f"{number + 1}/{name}" if shared else name for number, name in files}
        """{(folder, file name there): file name here}."""

    def renamed(self, number: int, sort: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of a folder with the ids that it has here."""
        new = {**row, "id": self.ids[sort, number, row["id"]]}
        for other, key in _SORTS.items():
            if key in row and other in ("images", "categories", "licenses"):
                new[key] = self.ids.get((other, number, row[key]), row[key])
        if sort == "images":
            new["file_name"] = self.files[number, row["file_name"]]
        return new


def _renumbered(things: Iterable[tuple[int, int, Hashable]]) -> Iterable[tuple[tuple[int, int], int]]:
    """((folder, id there), id here) of things (folder, id there, what it is)."""
    places: dict[Hashable, list[tuple[int, int]]] = {}
    for number, old, what in things:
        places.setdefault(what, []).append((number, old))
    kept = {what: there[0][1] for what, there in places.items()}
    if len(set(kept.values())) < len(kept):
        kept = {what: position for position, what in enumerate(places, start=1)}
    return [(place, kept[what]) for what, there in places.items() for place in there]


def _splits(sources: Sequence[pathlib.Path]) -> list[str]:
    """The splits that all folders have."""
    found = {}
    for source in sources:
        if find_layout(source) != "coco":
            raise FsisError(f"{source}: not a COCO folder: only these are merged")
        found[source] = list(annotation_files(source))
    first = sources[0]
    for source, splits in found.items():
        if set(splits) != set(found[first]):
            raise FsisError(f"{source}: splits {', '.join(splits)}, but {first} has {', '.join(found[first])}")
    return found[first]


def _read(source: pathlib.Path, split: str) -> dict[str, Any]:
    """A split's annotation file, once it is known that it can be used."""
    checked = CocoSource(source, split)
    content: dict[str, Any] = json.loads(checked.file.read_text(encoding="utf-8"))
    return content


def _merged(contents: Sequence[Mapping[str, Any]], names: _Names) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for sort in _SORTS:
        rows = [names.renamed(n, sort, row) for n, content in enumerate(contents) for row in content.get(sort, ())]
        merged[sort] = list({row["id"]: row for row in reversed(rows)}.values())[::-1]
    return merged


def _given_folds(file: Path, categories: Mapping[str, int]) -> dict[str, list[int]]:
    """{number: ids} of a file that names categories."""
    try:
        with open_file(file) as opened:
            content = json.loads(opened.read())
        folds = {str(int(number)): [str(name) for name in names] for number, names in content.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise FsisError(f'{file}: no folds ({error}): give JSON like {{"1": ["yeast", "nucleus"]}}') from error
    listed = [name for names in folds.values() for name in names]
    for name in [*listed, *categories]:
        if listed.count(name) != 1 or name not in categories:
            known = "" if name in categories else f" and is none of {', '.join(categories)}"
            raise FsisError(f"{file}: '{name}' stands in {listed.count(name)} folds{known}: name each category once")
    return {number: [categories[name] for name in names] for number, names in folds.items()}


def _joined_folds(sources: Sequence[pathlib.Path], names: _Names) -> dict[str, list[int]]:
    """The folders' own folds, joined by number."""
    joined: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        if (source / "folds.json").is_file():
            for fold, ids in CocoSource(source, "train").folds.items():
                joined.setdefault(str(fold), []).extend(names.ids["categories", number, old] for old in ids)
    joined = {fold: list(dict.fromkeys(ids)) for fold, ids in joined.items()}
    twice = [i for i, count in collections.Counter(i for ids in joined.values() for i in ids).items() if count > 1]
    if twice:
        name = next(name for name, i in names.categories.items() if i == twice[0])
        raise FsisError(f"'{name}' is in different folds of {', '.join(map(str, sources))}: say by --folds where it is")
    missing = [name for name, i in names.categories.items() if not any(i in ids for ids in joined.values())]
    if joined and missing:
        raise FsisError(f"'{missing[0]}' is in no fold of {', '.join(map(str, sources))}: say by --folds where it is")
    return joined or {"1": []}
