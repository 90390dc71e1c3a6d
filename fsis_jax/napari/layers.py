"""Layers of napari and what a session has, both ways; arrays only, without a viewer.

In napari a pixel's centre lies at whole numbers and points are (y, x); everywhere else here pixel (row y, column x)
covers [x, x + 1] x [y, y + 1].
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.interactive.kinds import colour, counts, title
from fsis_jax.interactive.state import Filters, Result
from fsis_jax.io.outlines import Box
from fsis_jax.preprocess.cropped_mask import CroppedMask

KIND = "fsis_kind"
"""Key in the metadata of a Shapes layer of examples: their kind."""


def plane(data: Any, rgb: bool) -> np.ndarray:
    """(H, W) or (H, W, 3 or 4), the image of a layer.

    Args:
        data: of the layer; of a pyramid the finest level.
        rgb: whether the last axis is that of colours.

    Raises:
        FsisError: it has more axes than an image.
    """
    finest = data[0] if isinstance(data, list | tuple) or type(data).__name__ == "MultiScaleData" else data
    if finest.ndim != 2 + rgb:
        raise FsisError(f"a layer of shape {finest.shape}: choose one plane of it first, such as by slicing the layer")
    return np.asarray(finest)


def kept_at(path: pathlib.Path, pixels: np.ndarray, *, rgb: bool) -> pathlib.Path:
    """The image of a layer without a file, written there unless it is there; the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or not np.array_equal(tifffile.imread(path), pixels):
        tifffile.imwrite(path, pixels, photometric="rgb" if rgb else "minisblack")
    return path


def boxes(shapes: Sequence[np.ndarray]) -> list[Box]:
    """The boxes around the shapes (n, 2) of a Shapes layer."""
    found: list[Box] = []
    for corners in shapes:
        y1, x1 = np.min(corners, axis=0)[-2:].tolist()
        y2, x2 = np.max(corners, axis=0)[-2:].tolist()
        found.append((x1 + 0.5, y1 + 0.5, x2 + 0.5, y2 + 0.5))
    return found


def rectangle(box: Box) -> np.ndarray:
    """(4, 2), a box as a shape."""
    x1, y1, x2, y2 = (value - 0.5 for value in box)
    return np.array([[y1, x1], [y1, x2], [y2, x2], [y2, x1]])


def cells(result: Result, filters: Filters) -> dict[int, tuple[CroppedMask, float, str]]:
    """The cells that count, by labels that stay while filters and corrections change: mask, score and kind."""
    rows = np.flatnonzero(result.kept(filters)).tolist()
    scores = result.scores.tolist()
    found = {row + 1: (result.found.masks[row], scores[row], result.kind_of(row)) for row in rows}
    first = len(result.found) + 1
    return found | {first + number: (cell.mask, 1.0, cell.kind) for number, cell in enumerate(result.added)}


def label_image(result: Result, filters: Filters) -> np.ndarray:
    """(H, W) int32, 0 where there is no cell that counts."""
    labels = np.zeros(result.found.size, np.int32)
    for label, (crop, _, _) in cells(result, filters).items():
        x1, y1, x2, y2 = crop.extent
        labels[y1:y2, x1:x2][crop.mask] = label
    return labels


def features(result: Result, filters: Filters, kinds: Sequence[str], category: str | None) -> dict[str, list[Any]]:
    """The table of a Labels layer: label, score, pixels, kind and what was said of each cell that counts."""
    each = cells(result, filters)
    said = [result.verdicts.get(label - 1, "added" if label > len(result.found) else "") for label in each]
    return {
        "index": list(each),
        "score": [round(score, 4) for _, score, _ in each.values()],
        "area": [int(np.count_nonzero(crop.mask)) for crop, _, _ in each.values()],
        "kind": [title(kind, kinds, category) for _, _, kind in each.values()],
        "said": said,
    }


def label_colours(result: Result, filters: Filters, kinds: Sequence[str]) -> dict[int | None, str]:
    """Label -> the colour of its kind; nothing of what has no label."""
    each: dict[int | None, str] = {label: colour(kind, kinds) for label, (_, _, kind) in cells(result, filters).items()}
    return {None: "transparent", 0: "transparent", **each}


def summary(result: Result, filters: Filters, kinds: Sequence[str]) -> str:
    """How many cells count, and of several kinds how many of each."""
    each = counts(result, filters, kinds)
    told = f"{sum(each.values())} cells"
    if len(each) == 1:
        return told
    return f"{told}: {', '.join(f'{title(kind, kinds, None)} {count}' for kind, count in each.items())}"
