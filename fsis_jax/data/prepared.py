"""A data set in array_record files, by tensorflow-datasets, without TensorFlow: made from a folder, and read back.

`tfds.py` has the data sets themselves, which users of tensorflow-datasets make and load without us.
"""

import contextlib
import io
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fsis_jax.data.coco_files import check_same_categories, find_layout, stated_names
from fsis_jax.data.tfds import FisCell, FsisCoco, features
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import check_unused, write_failure
from fsis_jax.io.damage import damage_in
from fsis_jax.preprocess.records import Annotations, Record

_REMAKE = "make it again with `fsis data prepare`"


def prepare(root: str | os.PathLike[str], output: str | os.PathLike[str]) -> pathlib.Path:
    """Write all splits of a COCO or FIS-Cell folder as array_record files; `open_source(output, split)` reads them.

    The folder is written under another name and renamed when it is complete.

    Raises:
        FsisError: `root` cannot be used (see `CocoSource`), or `output` exists or cannot be written.
    """
    target = pathlib.Path(output)
    kind = FisCell if find_layout(root) == "fis_cell" else FsisCoco
    check_unused(target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            builder = kind(root=root, data_dir=temporary)
            # It prints the temporary folder as the result; its progress bars go to the other stream.
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare()
            if target.exists():
                target.rmdir()
            pathlib.Path(builder.data_dir).rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise write_failure(target, error) from error
    except RuntimeError as error:  # what the array_record writer makes of a failed write, a full disk for one
        raise FsisError(f"{target}: cannot be written ({_reason(error)}): free some space") from error
    return target


def prepared_splits(root: str | os.PathLike[str]) -> list[str]:
    """The splits of a folder that `prepare` made, "train" first.

    Raises:
        FsisError: the folder is damaged.
    """
    return sorted(_builder(os.fspath(root)).info.splits, key=lambda split: (split != "train", split))


class PreparedSource:
    """Random access to the records of one split of a folder that `prepare` made.

    Opening reads every record once to keep its annotations. It can be sent to another process, which opens the files
    for itself.

    Raises:
        FsisError: the folder is damaged, or has no such split.
    """

    def __init__(self, root: str | os.PathLike[str], split: str) -> None:
        self._root, self._split = os.fspath(root), split
        self._open()
        metadata = self._metadata
        try:
            named = {
                other: {int(category): str(name) for category, name in rows}
                for other, rows in metadata["categories"].items()
            }
            self.categories = named[split]
            self.folds = {int(fold): tuple(map(int, ids)) for fold, ids in metadata["folds"][split]}
            # Data sets that were prepared before there were keypoints have no names.
            names = tuple(map(str, metadata.get("keypoint_names", {}).get(split, ())))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FsisError(f"{self._root}: metadata.json is not ours or damaged: {_REMAKE}") from error
        check_same_categories({f"{self._root} ({other})": stated_names(names) for other, names in named.items()})
        self.annotations = tuple(_annotations(self._read(position), names) for position in range(len(self._examples)))

    def _open(self) -> None:
        builder = _builder(self._root)
        with damage_in(self._root, "cannot be read as prepared data", _REMAKE, "data"):
            splits = sorted(builder.info.splits)
            self._metadata: Mapping[str, Any] = builder.info.metadata or {}
            if self._split in splits:
                self._examples = builder.as_data_source(self._split)
        if self._split not in splits:
            raise FsisError(f"{self._root}: no split '{self._split}', only: {', '.join(splits)}")

    def _read(self, position: int) -> Mapping[str, Any]:
        with damage_in(self._root, f"record {position} of '{self._split}' cannot be read", _REMAKE, "data"):
            example: Mapping[str, Any] = self._examples[position]
        return example

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int, /) -> Record:
        annotations = self.annotations[index]
        return Record(annotations, bytes(self._read(range(len(self))[index])["encoded"]))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_examples", "_metadata")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()


def _builder(root: str) -> Any:
    """Of tensorflow-datasets, for a folder that it made."""
    with damage_in(root, "cannot be read as prepared data", _REMAKE, "data"):
        _check_features(pathlib.Path(root))
        return tfds.builder_from_directory(root)


def _check_features(root: pathlib.Path) -> None:
    """Raise ValueError where features.json is not ours: its text names the Python modules that tfds imports to open it.

    Data sets of earlier versions have numbers as `image_id` and `annotation_ids`, or no keypoints.
    """
    found = json.loads((root / "features.json").read_text())
    ours = features().to_json()
    if _python_classes(found) - _python_classes(ours):
        raise ValueError("features.json describes another kind of data")


def _python_classes(tree: Any) -> set[str]:
    """What names a class anywhere in a tree of JSON: protocol buffers give a field two names, old files had another."""
    if isinstance(tree, dict):
        named = {str(tree[key]) for key in ("pythonClassName", "python_class_name", "type") if key in tree}
        return named.union(*map(_python_classes, tree.values()))
    return set().union(*map(_python_classes, tree)) if isinstance(tree, list) else set()


def _reason(error: Exception) -> str:
    """The message on one line, at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _annotations(example: Mapping[str, Any], names: tuple[str, ...]) -> Annotations:
    return Annotations(
        image_id=int(example["image_id"]),  # text; a number in data sets of before 0.2
        file_name=example["file_name"].decode(),
        height=int(example["height"]),
        width=int(example["width"]),
        boxes=np.asarray(example["boxes"], np.float32),
        classes=np.asarray(example["classes"], np.int64),
        crowd=np.asarray(example["crowd"], bool),
        areas=np.asarray(example["areas"], np.float32),
        annotation_ids=np.array([int(one) for one in example["annotation_ids"]], object),
        rles=tuple(example["rles"]),
        keypoints=np.asarray(example.get("keypoints", ()), np.float32).reshape(len(example["boxes"]), len(names), 3),
        keypoint_names=names,
    )
