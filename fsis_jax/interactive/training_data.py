"""What a person corrected as a COCO folder, which `fsis train` reads: the cells that count, in windows of the images.

What was marked as wrong is background there. Windows without a cell are left out, since an episode begins with one.
"""

import dataclasses
import itertools
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.inference.cropped_mask import CroppedMask
from fsis_jax.inference.instances import Instances
from fsis_jax.interactive.state import Filters, Result
from fsis_jax.io.atomic import new_folder
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.writers import write_coco

_SIDE = 1024
"""Pixels of a window, at most."""
_LEAST = 12
"""Pixels of a cell that must lie in a window."""
Window = tuple[int, int, int, int]
"""x1, y1, x2, y2."""


def write_training_data(
    folder: str | os.PathLike[str],
    opener: Callable[[str], ImageFile],
    results: Mapping[str, Result],
    filters: Filters,
    advance: Callable[[int, int], None],
) -> tuple[int, int]:
    """Write images, and annotations of the one category, as `images` and `annotations/train.json`.

    Args:
        folder: one that was written before is replaced.
        opener: opens an image by its path.
        results: path of an image -> what counts in it, in the part that was segmented.
        advance: is told how many images are done, of all.

    Returns:
        Windows, and cells in them.

    Raises:
        FsisError: no cell counts, an image cannot be read, or the folder cannot be written.
    """
    target = pathlib.Path(folder)
    windows: dict[str, Instances] = {}
    with new_folder(target) as new:
        (new / "images").mkdir()
        for number, (path, result) in enumerate(results.items()):
            advance(number, len(results))
            cells = result.counted(filters).without_overlaps()
            with opener(path) as image:
                for window in _windows(result):
                    inside = _inside(cells, window)
                    if len(inside):
                        x1, y1, x2, y2 = window
                        name = f"{number + 1:04d}-{x1}-{y1}.tif"
                        pixels = np.asarray(image[y1:y2, x1:x2])
                        kind = "rgb" if pixels.ndim == 3 and pixels.shape[2] == 3 else "minisblack"
                        tifffile.imwrite(new / "images" / name, pixels, photometric=kind, compression="zlib")
                        windows[name] = inside
        if not windows:
            raise FsisError(f"{target}: no cell counts in the corrected images: move the sliders, or add cells")
        write_coco(new / "annotations" / "train.json", windows)
        if target.exists():
            shutil.rmtree(target)
    return len(windows), sum(map(len, windows.values()))


def _windows(result: Result) -> Iterator[Window]:
    """Windows of about one size that cover what was segmented."""
    height, width = result.found.size
    x1, y1, x2, y2 = (0, 0, width, height) if result.part is None else (int(value) for value in result.part)
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
        if shared is not None and np.count_nonzero(shared[1]) >= _LEAST:
            rows.append(row)
            crops.append(CroppedMask(max(crop.y - y1, 0), max(crop.x - x1, 0), shared[1]))
    boxes = np.array([_box(crop) for crop in crops], np.float32).reshape(-1, 4)
    chosen = cells.select(np.array(rows, np.intp))
    return dataclasses.replace(chosen, boxes=boxes, masks=tuple(crops), size=(y2 - y1, x2 - x1))


def _box(crop: CroppedMask) -> tuple[int, int, int, int]:
    """Around the pixels of a mask."""
    ys, xs = np.nonzero(crop.mask)
    return crop.x + int(xs.min()), crop.y + int(ys.min()), crop.x + int(xs.max()) + 1, crop.y + int(ys.max()) + 1
