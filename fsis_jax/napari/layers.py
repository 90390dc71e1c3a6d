"""Layers of napari and what a session has, both ways; arrays only, without a viewer.

In napari a pixel's centre lies at whole numbers and points are (y, x); everywhere else here pixel (row y, column x)
covers [x, x + 1] x [y, y + 1].
"""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.interactive.kinds import colour, counts, title
from fsis_jax.interactive.state import Filters, Result
from fsis_jax.io.atomic import atomic_write
from fsis_jax.io.outlines import Box
from fsis_jax.io.source import open_image
from fsis_jax.preprocess.cropped_mask import CroppedMask

_LONGEST = 40
"""Characters of a layer's name in that of a file."""
_BAND = 64
"""Rows that are compared at once."""
_COMPARED = 1 << 24
"""Pixels of an image that are compared, at most; of a larger one bands that are spread over it."""


def plane(data: Any, rgb: bool) -> Any:
    """(H, W) or (H, W, 3 or 4), the image of a layer: an array, or what becomes one, as a whole or a part of it.

    Args:
        data: of the layer; of a pyramid the finest level.
        rgb: whether the last axis is that of colours.

    Raises:
        FsisError: it has more axes than an image.
    """
    finest = data[0] if isinstance(data, list | tuple) or type(data).__name__ == "MultiScaleData" else data
    if finest.ndim != 2 + rgb:
        raise FsisError(f"a layer of shape {finest.shape}: choose one plane of it first, such as by slicing the layer")
    return finest


def file_of(layer: Any, uploads: pathlib.Path) -> str:
    """The path of a file with the image of a layer.

    That is the file that the layer was read from, if its pixels are those of the layer, as they are not where the layer
    is one of its channels; else one in the folder for uploads, which is written.

    Raises:
        FsisError: the layer has more axes than an image, or the file cannot be written.
    """
    pixels, source = plane(layer.data, layer.rgb), layer.source.path
    if source is not None and _shows(source, pixels):
        return str(source)
    return str(kept_in(uploads, layer.name, np.asarray(pixels), rgb=layer.rgb))


def _shows(path: str, pixels: Any) -> bool:
    """Whether a file can be read here, and its pixels are these."""
    try:
        with open_image(path) as image:
            step = _BAND * -(-image.shape[0] * image.shape[1] // _COMPARED)
            bands = [slice(top, top + _BAND) for top in range(0, image.shape[0], step)]
            return image.shape == pixels.shape and all(np.array_equal(image[rows], pixels[rows]) for rows in bands)
    except FsisError:  # a stack, or of another program
        return False


def kept_in(folder: pathlib.Path, name: str, pixels: np.ndarray, *, rgb: bool) -> pathlib.Path:
    """The image of a layer as a file whose name tells its pixels apart from all others; written unless it is there.

    Raises:
        OutputError: it cannot be written.
    """
    key = hashlib.sha256(f"{pixels.dtype} {pixels.shape} {rgb}".encode())
    key.update(np.ascontiguousarray(pixels).data)
    safe = "".join(sign if sign.isalnum() else "_" for sign in name[:_LONGEST])
    path = folder / f"{safe}-{key.hexdigest()[:12]}.tif"
    if not path.exists():
        with atomic_write(path) as file:
            tifffile.imwrite(file, pixels, photometric="rgb" if rgb else "minisblack")
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
