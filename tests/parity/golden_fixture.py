"""The PyTorch project's tiny data set of the golden folder, opened by our own reader."""

import pathlib
import shutil

from golden_files import existing

from fsis_jax import fis_cell
from fsis_jax.data.coco import CocoSource


def open_fixture(golden: pathlib.Path, folder: pathlib.Path) -> CocoSource:
    """Copy the data set to `folder` under the names that FIS-Cell has, and open it."""
    shutil.copytree(
        existing(golden, "data_fixture", "images"),
        folder / "images",
        copy_function=shutil.copyfile,
        dirs_exist_ok=True,
    )
    shutil.copyfile(existing(golden, "data_fixture", "ann.json"), folder / fis_cell.ANNOTATION_FILES["train"])
    return CocoSource(folder, "train")
