"""How a data folder of any layout is opened."""

import os

from fsis_jax.data.coco import CocoSource
from fsis_jax.data.coco_files import find_layout
from fsis_jax.preprocess.records import Source


def open_source(root: str | os.PathLike[str], split: str, *, keypoints: bool = False) -> Source:
    """The records of a split of a folder of any layout.

    Args:
        split: "train" or "test"; FIS-Cell also has "val" and "train_only".
        keypoints: of COCO as it comes, take the files with keypoints.

    Raises:
        FsisError: the folder cannot be used; see `CocoSource`.
    """
    if find_layout(root) == "prepared":
        from fsis_jax.data.prepared import PreparedSource  # tensorflow_datasets takes a second to import

        return PreparedSource(root, split)
    return CocoSource(root, split, keypoints=keypoints)
