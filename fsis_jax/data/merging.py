"""Several COCO folders made into one: `fsis data merge A B --output C`.

Kinds of one name are one category. An id stays what it is where no two folders give it to different things; else all
ids of that sort are numbered anew. Images are copied from where training finds them; where two folders have a file of
one name, into subfolders. What training leaves out of a folder, and licences that no image can name, stay behind.

Folds are given by name, so that kinds which show the same imaging can be held out together, whatever folder they come
from: a network that has learnt one of them has seen the others. Without them the folders' own folds are joined by
number.
"""

import collections
import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from fsis_jax.data.coco import CocoSource
from fsis_jax.data.coco_files import annotation_files, find_layout, folded_name, read_json, stated_categories
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import check_unused, new_folder

Path = str | os.PathLike[str]
_SORTS = ("images", "annotations", "categories", "licenses")
"""Lists whose rows have ids."""
_logger = logging.getLogger(__name__)


def merge_folders(folders: Sequence[Path], output: Path, *, folds: Path | None = None) -> pathlib.Path:
    """Make one COCO folder of several; each must have the same splits.

    Args:
        folders: COCO folders (`annotations/train.json`, `annotations/test.json`, `images/`, or COCO as it comes).
        output: a folder that does not exist yet or is empty; written under another name and renamed when complete.
        folds: a JSON file {number: [names of categories]} in which every category that is used stands once.

    Raises:
        FsisError: fewer than two folders, one that cannot be read, folds that do not fit, or `output` exists.
    """
    target, roots = pathlib.Path(output), [pathlib.Path(folder) for folder in folders]
    if len(set(map(os.path.abspath, roots))) < max(len(roots), 2):
        raise FsisError(f"merge {' '.join(map(str, roots))}: give two different folders or more")
    check_unused(target)
    splits = _splits(roots)
    opened = [{split: _Split.read(root, split) for split in splits} for root in roots]
    names = _Names(opened)
    chosen = _given_folds(folds, names) if folds else _joined_folds(roots, opened, names)
    files = _file_names(roots, opened)
    with new_folder(target) as folder:
        (folder / "annotations").mkdir()
        for split in splits:
            merged = _merged([each[split] for each in opened], names, files)
            merged["info"] = {"description": f"{' and '.join(root.name for root in roots)}, merged"}
            (folder / "annotations" / f"{split}.json").write_text(json.dumps(merged))
        if chosen is not None:
            (folder / "folds.json").write_text(json.dumps(chosen))
        for source in (read.source for each in opened for read in each.values()):
            for position, path in enumerate(source.images):
                place = folder / "images" / files[path]
                if not place.exists():  # as where an image is in several splits
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(source[position].encoded)
    return target


@dataclasses.dataclass(frozen=True)
class _Split:
    """A split of a folder."""

    source: CocoSource
    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    """Of each of `_SORTS` those of its file that are used."""
    names: Mapping[int, str | None]
    """Category id -> name as it stands there."""
    paths: Mapping[int, str]
    """Image id -> its file."""

    @classmethod
    def read(cls, root: pathlib.Path, split: str) -> "_Split":
        source = CocoSource(root, split)
        content = read_json(source.file)
        used = {number for record in source.annotations for number in record.annotation_ids.tolist()}
        annotations = [row for row in content["annotations"] if type(row.get("id")) is int and row["id"] in used]
        given = content.get("licenses")
        licences = [row for row in given if isinstance(row, dict)] if isinstance(given, list) else []
        licences = [row for row in licences if isinstance(row.get("id"), int | str)]
        rows = {"images": content["images"], "annotations": annotations, "categories": content["categories"]}
        names = stated_categories(content["categories"], source.file)
        ids = [record.image_id for record in source.annotations]
        return cls(source, {**rows, "licenses": licences}, names, dict(zip(ids, source.images, strict=True)))


class _Names:
    """What things are called in the merged folder; a folder is known by its position in `opened`."""

    def __init__(self, opened: Sequence[Mapping[str, _Split]]) -> None:
        reads = [(number, read) for number, splits in enumerate(opened) for read in splits.values()]
        stated: dict[tuple[int, int], str] = {}
        for number, read in reads:
            for old, name in read.names.items():
                if name is not None:
                    stated.setdefault((number, old), name)
        things: dict[str, list[tuple[int, Any, Hashable]]] = collections.defaultdict(list)
        known: dict[str, str] = {}
        for number, read in reads:
            for old in read.names:
                name = stated.get((number, old), f"{number + 1}/{old}")
                known.setdefault(folded_name(name), name)
                things["categories"].append((number, old, folded_name(name)))
            for sort in ("images", "annotations", "licenses"):
                things[sort] += [(number, row["id"], (number, row["id"])) for row in read.rows[sort]]
        self.ids = {(sort, number, old): new for sort in things for (number, old), new in _renumbered(things[sort])}
        """{(sort, folder, id there): id here}."""
        of_name = {what: self.ids["categories", number, old] for number, old, what in things["categories"]}
        self.categories = {of_name[what]: name for what, name in known.items()}
        """{id here: name}, as the first folder that has it spells it; without a name by folder and id there, "2/3"."""
        self.used = {
            self.ids["categories", number, category]
            for number, read in reads
            for record in read.source.annotations
            for category in record.classes.tolist()
        }
        """Ids here of the categories that annotations have."""

    def renamed(self, number: int, sort: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of a folder with the ids that it has here, and a category with its name."""
        new = {**row, "id": self.ids[sort, number, row["id"]]}
        if sort == "categories":
            new["name"] = self.categories[new["id"]]
        elif sort == "annotations":
            new["image_id"] = self.ids["images", number, row["image_id"]]
            new["category_id"] = self.ids["categories", number, row["category_id"]]
        elif sort == "images":
            licence = new.pop("license", None)  # one that the folder does not list could be another folder's
            if isinstance(licence, int | str) and ("licenses", number, licence) in self.ids:
                new["license"] = self.ids["licenses", number, licence]
        return new


def _renumbered(things: Iterable[tuple[int, Any, Hashable]]) -> Iterable[tuple[tuple[int, Any], Any]]:
    """((folder, id there), id here) of things (folder, id there, what it is)."""
    places: dict[Hashable, list[tuple[int, Any]]] = {}
    for number, old, what in things:
        places.setdefault(what, []).append((number, old))
    kept = {what: there[0][1] for what, there in places.items()}
    if len(set(kept.values())) < len(kept):
        kept = {what: position for position, what in enumerate(places, start=1)}
    return [(place, kept[what]) for what, there in places.items() for place in there]


def _splits(roots: Sequence[pathlib.Path]) -> list[str]:
    """The splits that all folders have."""
    found = {}
    for root in roots:
        if find_layout(root) != "coco":
            raise FsisError(f"{root}: not a COCO folder: only these are merged")
        found[root] = list(annotation_files(root))
    first = roots[0]
    for root, splits in found.items():
        if set(splits) != set(found[first]):
            raise FsisError(
                f"{root}: splits {', '.join(splits)}, but {first} has {', '.join(found[first])}: "
                "give folders with the same ones"
            )
    return found[first]


def _file_names(roots: Sequence[pathlib.Path], opened: Sequence[Mapping[str, _Split]]) -> dict[str, str]:
    """{path of an image: its name below `images/` here}."""
    names: dict[tuple[int, str], str] = {}
    for number, (root, splits) in enumerate(zip(roots, opened, strict=True)):
        for path in (path for read in splits.values() for path in read.source.images):
            inside = pathlib.Path(path).relative_to(root)
            name = (inside.relative_to("images") if inside.parts[0] == "images" else inside).as_posix()
            other = names.setdefault((number, name), path)
            if other != path:
                raise FsisError(f"{path}: would get the name of {other}: rename one of them")
    holders = collections.Counter(key for _, key in {(number, name.casefold()) for number, name in names})
    shared = any(count > 1 for count in holders.values())
    return {path: f"{number + 1}/{name}" if shared else name for (number, name), path in names.items()}


def _merged(reads: Sequence[_Split], names: _Names, files: Mapping[str, str]) -> dict[str, Any]:
    """The annotation file of a split."""
    merged: dict[str, Any] = {}
    for sort in _SORTS:
        rows = []
        for number, read in enumerate(reads):
            for row in read.rows[sort]:
                new = names.renamed(number, sort, row)
                rows.append({**new, "file_name": files[read.paths[row["id"]]]} if sort == "images" else new)
        merged[sort] = list({row["id"]: row for row in reversed(rows)}.values())[::-1]
    return merged


def _given_folds(file: Path, names: _Names) -> dict[str, list[int]]:
    """{number: ids} of a file that names categories."""
    content = read_json(pathlib.Path(file))
    try:
        folds = {str(int(number)): [str(name) for name in own] for number, own in content.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise FsisError(f'{file}: no folds ({error}): give JSON like {{"1": ["yeast", "nucleus"]}}') from error
    ids = {folded_name(name): number for number, name in names.categories.items()}
    listed = [name for own in folds.values() for name in own]
    counts = collections.Counter(map(folded_name, listed))
    for name in [*listed, *(names.categories[number] for number in sorted(names.used))]:
        key = folded_name(name)
        if counts[key] != 1 or key not in ids:
            known = "" if key in ids else f" and is none of {', '.join(names.categories.values())}"
            raise FsisError(f"{file}: '{name}' stands in {counts[key]} folds{known}: name each category once")
    return {number: [ids[folded_name(name)] for name in own] for number, own in folds.items()}


def _joined_folds(
    roots: Sequence[pathlib.Path], opened: Sequence[Mapping[str, _Split]], names: _Names
) -> dict[str, list[int]] | None:
    """The folders' own folds, joined by number; None where none has any."""
    joined: dict[str, list[int]] = {}
    given = [number for number, root in enumerate(roots) if (root / "folds.json").exists()]
    for number in given:
        for fold, ids in next(iter(opened[number].values())).source.folds.items():
            known = {old: names.ids.get(("categories", number, old)) for old in ids}
            for old in (old for old, new in known.items() if new is None):
                _logger.warning(
                    "%s: fold %d names the category id %d, which no file lists: left out",
                    roots[number] / "folds.json",
                    fold,
                    old,
                )
            joined.setdefault(str(fold), []).extend(new for new in known.values() if new is not None)
    joined = {fold: list(dict.fromkeys(ids)) for fold, ids in joined.items()}
    counts = collections.Counter(number for ids in joined.values() for number in ids)
    told = f"of {', '.join(map(str, roots))}: say by --folds where it is"
    for number, name in names.categories.items():
        if counts[number] > 1:
            raise FsisError(f"'{name}' is in different folds {told}")
        if given and number in names.used and not counts[number]:
            raise FsisError(f"'{name}' is in no fold {told}")
    return joined if given else None
