"""Corrected images as a COCO folder, which `fsis train` reads: their cells, in windows of the images.

What is no cell is background there. Windows without a cell are left out, since an episode begins with one.
"""

import dataclasses
import itertools
import math
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.io.atomic import new_folder
from fsis_jax.io.intensity import Image
from fsis_jax.io.outlines import Box
from fsis_jax.io.writers import write_coco
from fsis_jax.preprocess.cropped_mask import CroppedMask

_SIDE = 1024
"""Pixels of a window, at most."""
_LEAST = 12
"""Pixels of a cell that must lie in a window that does not hold all of it."""
_STEPS_PER_IMAGE = 30
_FEWEST_STEPS, _MOST_STEPS = 150, 3000
Window = tuple[int, int, int, int]
"""x1, y1, x2, y2."""


@dataclasses.dataclass(frozen=True, eq=False)
class CorrectedImage:
    """An image of which a person knows all cells."""

    image: Image
    """Open as long as it is written."""
    cells: Instances
    part: Box | None = None
    """In whole pixels, of which they are all whose centre lies in it; None: of all of the image."""


def write_training_data(folder: str | os.PathLike[str], corrected: Iterable[CorrectedImage]) -> tuple[int, int]:
    """Write images and annotations, with a category for each kind, as `images` and `annotations/train.json`.

    Args:
        folder: what is there is replaced.
        corrected: is gone through once.

    Returns:
        Windows, and cells in them.

    Raises:
        FsisError: there is no cell, an image cannot be read, or the folder cannot be written.
    """
    target = pathlib.Path(folder)
    windows: dict[str, Instances] = {}
    with new_folder(target) as new:
        (new / "images").mkdir()
        for number, each in enumerate(corrected, start=1):
            for window in _windows(each):
                inside = _inside(each.cells, window)
                if len(inside):
                    x1, y1, x2, y2 = window
                    name = f"{number:04d}-{x1}-{y1}.tif"
                    _write_image(new / "images" / name, np.asarray(each.image[y1:y2, x1:x2]))
                    windows[name] = inside
        if not windows:
            raise FsisError(f"{target}: no cell in the corrected images: nothing can be learnt from them: add cells")
        write_coco(new / "annotations" / "train.json", windows)
        if target.exists():
            shutil.rmtree(target)
    return len(windows), sum(map(len, windows.values()))


def suited_steps(images: int) -> int:
    """Training steps that suit so many windows, thirty each, with `few_images_config`."""
    return min(max(_STEPS_PER_IMAGE * images, _FEWEST_STEPS), _MOST_STEPS)


def _write_image(file: pathlib.Path, pixels: np.ndarray) -> None:
    """Pixels (H, W), (H, W, 3) RGB or (H, W, 4) RGBA as a TIFF."""
    options: dict[str, Any] = {"photometric": "minisblack" if pixels.ndim == 2 else "rgb", "compression": "zlib"}
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        options["extrasamples"] = ["unassalpha"]
    tifffile.imwrite(file, pixels, **options)


def _windows(each: CorrectedImage) -> Iterator[Window]:
    """Windows of about one size that cover the image, or the part of it of which all cells are known.

    A cell whose centre lies beyond a border of the part is not known, and may reach across it by half of its size.
    """
    height, width = each.cells.size
    x1, y1, x2, y2 = (0, 0, width, height) if each.part is None else (int(value) for value in each.part)
    boxes = each.cells.boxes
    across, down = (math.ceil(side / 2) for side in (boxes[:, 2:] - boxes[:, :2]).max(axis=0, initial=0))
    x1, y1 = x1 + across * (x1 > 0), y1 + down * (y1 > 0)
    x2, y2 = x2 - across * (x2 < width), y2 - down * (y2 < height)
    if x1 >= x2 or y1 >= y2:
        return
    xs, ys = _cuts(x1, x2), _cuts(y1, y2)
    for top, bottom in itertools.pairwise(ys):
        for left, right in itertools.pairwise(xs):
            yield left, top, right, bottom


def _cuts(low: int, high: int) -> list[int]:
    count = -(-(high - low) // _SIDE)
    return [low + (high - low) * number // count for number in range(count + 1)]


def _inside(cells: Instances, window: Window) -> Instances:
    """The parts of cells that lie in a window, in its own pixels."""
    x1, y1, x2, y2 = window
    frame = CroppedMask(y1, x1, np.ones((y2 - y1, x2 - x1), bool))
    rows, crops = [], []
    for row, crop in enumerate(cells.masks):
        shared = frame.shared(crop)
        if shared is not None and shared[1].any() and shared[1].sum() >= min(_LEAST, crop.mask.sum()):
            rows.append(row)
            crops.append(CroppedMask(max(crop.y - y1, 0), max(crop.x - x1, 0), shared[1]))
    boxes = np.array([crop.bounds for crop in crops], np.float32).reshape(-1, 4)
    chosen = cells.select(np.array(rows, np.intp))
    return dataclasses.replace(chosen, boxes=boxes, masks=tuple(crops), size=(y2 - y1, x2 - x1))
