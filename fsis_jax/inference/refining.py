"""Corrections of results in a folder: which of the cells found there are what, in terms of what tells kinds apart.

`fsis refine` reads the table that `fsis segment` wrote, and measures the cells' traits in the image again.
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.inference.finished_images import plane_of, result_of, results_in, some_of
from fsis_jax.inference.neighbours import box_ious
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.traits import measure, touched
from fsis_jax.io.all_planes import PlaneChoice
from fsis_jax.io.geojson import read_geojson_boxes
from fsis_jax.io.intensity import Image
from fsis_jax.io.table import read_table
from fsis_jax.preprocess.windows import Window

_SAME = 0.5
"""IoU of boxes from which an outline is that of a cell that was found."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What was found in an image of a folder of results."""

    name: str
    path: str
    """Of the image."""
    plane: PlaneChoice
    """Of it."""
    pixel_size: float | None
    boxes: np.ndarray
    """(n, 4) x1, y1, x2, y2, of the cells' masks; row i has the number i + 1 in all outputs."""
    kinds: tuple[str, ...]
    """Of each cell; "" without kinds."""


def read_result(folder: str | os.PathLike[str], name: str | None = None, *, model: str, plane: PlaneChoice) -> Result:
    """What a folder of results has of an image.

    Args:
        name: of the image, as its results have it; None: the only one.
        model: `Segmenter.fingerprint` that the results must be of.
        plane: of the image; what is None is as its results tell.

    Raises:
        FsisError: no such image or several, without a table, or of another model or plane.
    """
    lines = results_in(folder)
    if name is None and len(lines) > 1:
        raise FsisError(f"{folder}: results of {len(lines)} images ({some_of(lines)}): name one by --image")
    line = result_of(folder, lines, next(iter(lines)) if name is None else name)
    if line.get("model") != model:
        raise FsisError(
            f"{folder}: the results of {line['name']} are of another model than the references: segment it with these"
        )
    own_plane = plane_of(folder, line, plane)
    table = line["files"].get("table", "")
    if not os.path.exists(table):
        raise FsisError(f"{folder}: no table of {line['name']}: run `fsis segment` again with --save table")
    rows = read_table(table)
    try:
        boxes = [[float(row[side]) for side in ("x1", "y1", "x2", "y2")] for row in rows]
    except (KeyError, ValueError) as error:
        raise FsisError(f"{table}: not as `fsis segment` wrote it ({error}): run it again with --force") from error
    kinds = tuple(row.get("kind", "") for row in rows)
    return Result(line["name"], line["path"], own_plane, line["pixel_size"], np.array(boxes).reshape(-1, 4), kinds)


def traits_of(
    segmenter: Segmenter, image: Image, boxes: np.ndarray, references: References, pixel_size: float | None
) -> np.ndarray:
    """(n, T) the traits of boxes (n, 4) in an image, as `Instances.traits` of what is found with the references."""
    plan = segmenter.plan(image, references, pixel_size=pixel_size)
    found = []
    for x1, y1, x2, y2 in boxes.tolist():
        left, top, right, bottom = touched((x1, y1, x2, y2), plan.size)
        part = plan.shown(Window(left, top, right, bottom))
        found.append(measure(part, np.array([[x1 - left, y1 - top, x2 - left, y2 - top]]))[0])
    traits = np.array(found, np.float32).reshape(len(boxes), -1)
    traits[:, :1] += np.float32(np.log(references.ratio(plan.pixel_size)))
    return traits


def corrected(result: Result, outlines: str, kinds: Sequence[str]) -> tuple[list[int], dict[int, str], np.ndarray]:
    """What a person has changed in the outlines of a result, such as in QuPath.

    An outline is that of the cell that was found whose box it shares most of. A cell without an outline was deleted,
    one whose class is another kind is of that kind, and an outline without a cell is one that was missed.

    Args:
        outlines: GeoJSON.
        kinds: that there are.

    Returns:
        Rows of the result that are wrong; row -> kind of those of another one, where the rows after the result's are
        the boxes (m, 4) of what was missed, which come third.

    Raises:
        FsisError: a file that is no GeoJSON, or a class that is none of the kinds.
    """
    drawn = read_geojson_boxes(outlines)
    missed: list[tuple[float, float, float, float]] = []
    right: dict[int, str] = {}
    left = set(range(len(result.boxes)))
    for number, (box, name) in enumerate(drawn, start=1):
        kind = kinds[0] if len(kinds) == 1 and name in ("", "cell") else name
        if kind not in kinds:
            raise FsisError(f"{outlines}: feature {number}: {name or 'no class'} is none of {', '.join(kinds)}")
        shared = box_ious(box, result.boxes)
        row = int(shared.argmax()) if len(shared) else -1
        if row < 0 or shared[row] < _SAME:
            right[len(result.boxes) + len(missed)] = kind
            missed.append(box)
            continue
        left.discard(row)
        if result.kinds[row] and result.kinds[row] != kind:
            right[row] = kind
    return sorted(left), right, np.array(missed, np.float64).reshape(-1, 4)
