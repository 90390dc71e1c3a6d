"""Example cells, as people have them: crops, boxes in an image, label images, outlines of QuPath, ImageJ or COCO.

Each becomes a crop with what lies around the cell inside its box, and the size of the cell in pixels of the image that
it comes from. `Example.pixel_size` relates that to images of other magnification.
"""

import collections
import dataclasses
import functools
import logging
import pathlib
import re
from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.inference.encoding import cut_boxes
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.io.coco_boxes import is_coco, read_coco_boxes
from fsis_jax.io.geojson import read_geojson_boxes
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.intensity import Image, Stretch
from fsis_jax.io.outlines import Box
from fsis_jax.io.rois import read_roi_boxes
from fsis_jax.preprocess.cropped_mask import Size


class Opener(Protocol):
    """`open_image` with all else chosen."""

    def __call__(self, path: str, /, *, labels: bool = False) -> ImageFile: ...


_logger = logging.getLogger(__name__)
_ROWS = 1024
_SCATTERED = 0.05
"""Share of its box that a label fills at least, for more than half of the labels."""
_BOX = re.compile(r"(?P<image>.+):(?P<box>[^:]*,[^:]*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Example:
    """One example cell."""

    name: str
    """Where it comes from, for messages."""
    crop: np.ndarray
    """(h, w) or (h, w, 3 or 4), every pixel that the cell's box touches."""
    size: tuple[float, float]
    """Height and width of the cell in pixels."""
    pixel_size: float | None
    """Micrometres per pixel."""
    source: "functools.partial[ImageFile] | None" = None
    """Opens the image that the crop is a part of; None where it is a file of its own."""
    kind: str = ""
    """Name of what it shows; "" where there is no name."""
    wanted: bool = True
    """False: an example of what is not wanted."""


def crop_example(path: str, opener: Opener) -> Example:
    """A file that shows one cell without much margin."""
    with opener(path) as image:
        height, width = image.shape[:2]
        return Example(path, image[0:height, 0:width], (height, width), image.pixel_size)


def is_box(text: str) -> bool:
    """Whether a text is of the form that `box_example` reads, and no name of a file."""
    return _BOX.fullmatch(text) is not None and not pathlib.Path(text).exists()


def box_example(text: str, opener: Opener, option: str = "--reference") -> Example:
    """`IMAGE:x1,y1,x2,y2`: a box in pixels of an image, which may be large.

    Raises:
        FsisError: another text, an image that cannot be read, a box that is empty or not inside it.
    """
    match = _BOX.fullmatch(text)
    wrong = FsisError(f"{option} {text}: give IMAGE:x1,y1,x2,y2, like cells.tif:120,80,164,131")
    if match is None:
        raise wrong
    try:
        x1, y1, x2, y2 = (float(value) for value in match["box"].split(","))
    except ValueError as error:
        raise wrong from error
    return boxed_examples(match["image"], [(x1, y1, x2, y2)], opener)[0]


def boxed_examples(path: str, boxes: Sequence[Box], opener: Opener, *, source: str = "") -> list[Example]:
    """Boxes in pixels of an image.

    Args:
        source: file that the boxes come from, for messages.

    Raises:
        FsisError: the image cannot be read, or a box has sides of less than 2 pixels or is not inside it.
    """
    source_image = functools.partial(opener, path)
    names = [
        f"{source}: cell {number}" if source else f"{path}:{','.join(f'{value:g}' for value in box)}"
        for number, box in enumerate(boxes, start=1)
    ]
    with source_image() as image:
        return [
            Example(name, crop, (y2 - y1, x2 - x1), image.pixel_size, source_image)
            for name, crop, (x1, y1, x2, y2) in zip(names, cut_boxes(image, boxes, names, path), boxes, strict=True)
        ]


def label_examples(labels: str, path: str, opener: Opener) -> list[Example]:
    """Each label of a label image is one cell of the image at `path`.

    Raises:
        FsisError: an image that cannot be read, of another size, or without whole numbers as labels.
    """
    with opener(path) as image:
        size = image.shape[:2]
    with opener(labels, labels=True) as mask:
        if mask.shape != size:
            raise FsisError(
                f"{labels}: a label image of shape {mask.shape} for {path} with {size}: "
                "give labels of this very image, or name their image by --reference-image"
            )
        boxes = list(label_boxes(mask, labels).values())
    if not boxes:
        raise FsisError(f"{labels}: no label: give a label image with 1 ... n in the example cells")
    return boxed_examples(path, boxes, opener, source=labels)


def outlined_examples(outlines: str, path: str, opener: Opener) -> list[Example]:
    """Each outline of a GeoJSON file, of ImageJ ROIs or of a COCO file is one cell of the image at `path`.

    An outline may reach over the image's border by a pixel, as they are drawn by hand. Classes of GeoJSON, groups of
    ROIs and categories of COCO are kinds, where there are several.

    Raises:
        FsisError: a file that cannot be read, or an outline outside the image.
    """
    with opener(path) as image:
        height, width = image.shape[:2]
    boxes, kinds = zip(*_outlined(outlines, path, (height, width)), strict=True)
    limits = np.array([width, height, width, height], float)
    drawn = np.array(boxes)
    near = np.all((drawn >= -1) & (drawn <= limits + 1), axis=1)
    drawn[near] = np.clip(drawn[near], 0, limits)
    examples = boxed_examples(path, [(x1, y1, x2, y2) for x1, y1, x2, y2 in drawn.tolist()], opener, source=outlines)
    if len({*kinds}) < 2:
        return examples
    if "" in kinds:
        raise FsisError(
            f"{outlines}: cell {kinds.index('') + 1} has no class, others have ({', '.join(sorted({*kinds} - {''}))}): "
            "give each a class, or none"
        )
    return [dataclasses.replace(example, kind=kind) for example, kind in zip(examples, kinds, strict=True)]


def _outlined(outlines: str, path: str, size: Size) -> list[tuple[Box, str]]:
    """The box of each outline, and its class."""
    if pathlib.Path(outlines).suffix.lower() in (".zip", ".roi"):
        return read_roi_boxes(outlines)
    return read_coco_boxes(outlines, path, size) if is_coco(outlines) else read_geojson_boxes(outlines)


def encode_examples(segmenter: Segmenter, examples: Sequence[Example], category: str | None = None) -> References:
    """Encode examples, which may come from images of different pixel size; it counts if all have one.

    Args:
        category: what cells are called that have no kind, beside examples of what is not wanted; None: "cell".

    Raises:
        FsisError: no example, or one that shows no cell; what `References.of_kinds` does not take.
    """
    known = [example.pixel_size for example in examples if example.pixel_size is not None]
    first = known[0] if known and len(known) == len(examples) else None
    if known and first is None:
        unknown = next(example.name for example in examples if example.pixel_size is None)
        _logger.warning(f"{unknown}: its pixel size is not known, and so no reference's counts: --reference-pixel-size")
    sides = np.array([np.array(e.size) * (e.pixel_size / first if first and e.pixel_size else 1) for e in examples])
    kinds = {(example.kind, example.wanted): None for example in examples}
    stretches = _stretches(segmenter, examples, always=len(kinds) > 1)

    def encoded(kind: str, wanted: bool) -> References:
        rows = [row for row, example in enumerate(examples) if (example.kind, example.wanted) == (kind, wanted)]
        return segmenter.encode_references(
            [examples[row].crop for row in rows],
            sides=sides[rows],
            pixel_size=first,
            names=[examples[row].name for row in rows],
            stretches=[stretches[row] for row in rows],
        )

    if {*kinds} <= {("", True)}:
        return encoded("", True)
    each = {
        wanted: {kind: encoded(kind, wanted) for kind, is_wanted in kinds if is_wanted == wanted}
        for wanted in (True, False)
    }
    if "" in each[True]:
        each[True] = {kind or category or "cell": references for kind, references in each[True].items()}
    return References.of_kinds(each[True], each[False])


def _stretches(segmenter: Segmenter, examples: Sequence[Example], *, always: bool) -> list[Stretch | None]:
    """How the images that the examples were cut from are stretched, where that is known.

    Unless `always`, of a model that does not look at it None.
    """
    sizes: dict[str, list[tuple[float, float]]] = {}
    for example in examples:
        if example.source is not None and (always or segmenter.compares_brightness):
            sizes.setdefault(example.source.args[0], []).append(example.size)
    found: dict[str, Stretch | None] = {}
    for example in examples:
        if example.source is not None and (path := example.source.args[0]) in sizes and path not in found:
            with example.source() as image:
                found[path] = segmenter.stretch_of(image, np.array(sizes[path], np.float32))
    return [None if example.source is None else found.get(example.source.args[0]) for example in examples]


def label_boxes(labels: Image, name: str) -> dict[int, tuple[int, int, int, int]]:
    """Label -> its box, by ascending label, from bands of rows of a label image (H, W).

    Raises:
        FsisError: no whole numbers, or labels that are none of cells. `name` opens the message.
    """
    found: dict[int, tuple[int, int, int, int]] = {}
    areas: collections.Counter[int] = collections.Counter()
    height, width = labels.shape
    if labels.dtype.kind not in "iu":
        raise FsisError(f"{name}: labels of type {labels.dtype}: save whole numbers, 0 = background, 1 ... n the cells")
    for top in range(0, height, _ROWS):
        band = np.asarray(labels[top : min(top + _ROWS, height), 0:width])
        rows, columns = np.nonzero(band)
        ids, inverse, counts = np.unique(band[rows, columns], return_inverse=True, return_counts=True)
        areas.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
        low = np.full((len(ids), 2), max(width, height))
        high = np.zeros((len(ids), 2), np.int64)
        for axis, values in enumerate((columns, rows + top)):
            np.minimum.at(low[:, axis], inverse, values)
            np.maximum.at(high[:, axis], inverse, values + 1)
        for label, (x1, y1), (x2, y2) in zip(ids.tolist(), low.tolist(), high.tolist(), strict=True):
            box = found.get(label, (x1, y1, x2, y2))
            found[label] = (min(box[0], x1), min(box[1], y1), max(box[2], x2), max(box[3], y2))
    if not found:
        return {}
    if min(found) < 0:
        raise FsisError(f"{name}: label {min(found)}: save whole numbers, 0 = background, 1 ... n the cells")
    filled = [areas[label] / ((x2 - x1) * (y2 - y1)) for label, (x1, y1, x2, y2) in found.items()]
    if np.median(filled) < _SCATTERED:
        raise FsisError(f"{name}: labels scattered like grey values: give a label image, one number for each cell")
    if len(found) == 1:
        ((x1, y1, x2, y2),) = found.values()
        parts = cv2.connectedComponents((np.asarray(labels[y1:y2, x1:x2]) != 0).astype(np.uint8))[0] - 1
        if parts > 1:
            raise FsisError(f"{name}: one label in {parts} separate parts: give each cell a number of its own")
    return dict(sorted(found.items()))
