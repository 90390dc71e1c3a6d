"""A folder with COCO annotations as a source of records.

Annotations are read and checked at once (`index.py`); pixels stay on the disk until a record is asked for.
"""

import logging
import os
import pathlib

from fsis_jax.data.index import read_index
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import open_file
from fsis_jax.preprocess.records import Record

_logger = logging.getLogger(__name__)


class CocoSource:
    """Random access to the records of one split of a COCO or FIS-Cell folder, by ascending image id.

    `problems` lists what was wrong with annotations, most of which are then skipped. Images without annotations are
    records too. `file` is the annotation file, `images` are the paths of the images, as text.

    Raises:
        FsisError: as `read_index`, an image is missing, or a category that is used is in no fold.
    """

    def __init__(self, root: str | os.PathLike[str], split: str, *, keypoints: bool = False) -> None:
        index = read_index(root, split, keypoints=keypoints)
        if index.unassigned:
            category, annotation_id = next(iter(index.unassigned.items()))
            raise FsisError(
                f"{index.file}: annotation {annotation_id} has the category id {category}, which no fold names: "
                f"add it to {pathlib.Path(root) / 'folds.json'} or correct it"
            )
        missing = [path for path in index.images if not os.path.isfile(path)]
        if missing:
            others = f" (nor {len(missing) - 1} others)" if len(missing) > 1 else ""
            raise FsisError(f"{missing[0]}: no such image{others}: restore it or remove it from {index.file}")
        self.file = index.file
        self.annotations = index.annotations
        self.categories = index.categories
        self.folds = index.folds
        self.problems = index.problems
        self.images = tuple(os.fspath(path) for path in index.images)
        if index.problems:
            _logger.warning(
                "%d problems with annotations; `fsis data check %s` lists them all. The first: %s",
                len(index.problems),
                os.fspath(root),
                index.problems[0],
            )

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int, /) -> Record:
        path = self.images[index]
        try:
            with open_file(path) as file:
                return Record(self.annotations[index], file.read())
        except OSError as error:
            raise FsisError(f"{path}: cannot be read ({error.strerror or error}): restore the image") from error
