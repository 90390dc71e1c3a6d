"""Cells of one plane after the other, linked by overlap: of a stack in Z each is counted once, of a film in T followed.

Between neighbouring planes the pairs with the largest sum of mask IoU are taken (Hungarian method), each of at least
`MIN_IOU`; what then is left is compared in the same way with what ended one plane before, so that a cell may be missed
once. It does not know of divisions (one of the daughters goes on, the other begins), of cells that move further than
they are wide, nor of two cells that lie on top of each other: these are one where their masks overlap.
"""

import csv
import dataclasses
import io
import os
import pathlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import tifffile
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import atomic_write
from fsis_jax.io.source import open_image
from fsis_jax.io.table import as_text, read_table

MIN_IOU = 0.1
"""A round cell shrinks fast towards its top and bottom: half the diameter is a quarter of the area."""
_TIFF_LIMIT = (1 << 32) - (1 << 25)
_COLUMNS = ("cell", "kind", "first", "last", "planes", "pixels", "largest_area_px", "largest_plane", "x", "y")


@dataclasses.dataclass
class LinkedCell:
    """A cell in all planes that show it."""

    planes: list[int] = dataclasses.field(default_factory=list)
    """Numbers, ascending."""
    areas: list[int] = dataclasses.field(default_factory=list)
    """Pixels in each."""
    centroids: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    """x and y in each."""
    kinds: Counter[str] = dataclasses.field(default_factory=Counter)


class Linker:
    """Gives the cells of label images, plane by plane, ids that they keep.

    `cells` has what is known of each id so far.
    """

    def __init__(self) -> None:
        self.cells: dict[int, LinkedCell] = {}
        self._before: list[np.ndarray] = []

    def add(self, labels: np.ndarray, plane: int, kinds: Sequence[str] = ()) -> np.ndarray:
        """The next plane.

        Args:
            labels: (H, W) whole numbers, 0 = background.
            plane: its number.
            kinds: of labels 1, 2, ...; () where there are none.

        Returns:
            (H, W) int32, with the ids of the cells in the place of the labels.

        Raises:
            FsisError: another size than the plane before.
        """
        if self._before and self._before[-1].shape != labels.shape:
            raise FsisError(f"planes of {self._before[-1].shape} and {labels.shape} pixels cannot be linked")
        values, own = np.unique(labels, return_inverse=True)
        own = own.reshape(labels.shape)  # numbers the cells from 1 where there is background
        if not (labels == 0).any():
            values, own = np.concatenate([[0], values]), own + 1
        count = len(values) - 1
        ids = np.zeros(count + 1, np.int32)
        gone = np.zeros(0, np.int32)
        for earlier in reversed(self._before):
            left = np.where(ids[own] == 0, own, 0)
            for known, new in matched(np.where(np.isin(earlier, gone), 0, earlier), left):
                ids[new] = known
            gone = np.unique(earlier)  # of the plane before that one those count that ended there
        for number in (np.flatnonzero(ids[1:] == 0) + 1).tolist():
            ids[number] = len(self.cells) + 1
            self.cells[int(ids[number])] = LinkedCell()
        rows, columns = np.nonzero(own)
        areas = np.bincount(own[rows, columns], minlength=count + 1)
        ys = np.bincount(own[rows, columns], rows + 0.5, count + 1)
        xs = np.bincount(own[rows, columns], columns + 0.5, count + 1)
        for number in range(1, count + 1):
            cell = self.cells[int(ids[number])]
            cell.planes.append(plane)
            cell.areas.append(int(areas[number]))
            cell.centroids.append((xs[number] / areas[number], ys[number] / areas[number]))
            label = int(values[number])
            cell.kinds[kinds[label - 1] if 0 < label <= len(kinds) else ""] += 1
        linked = ids[own]
        self._before = [*self._before[-1:], linked]
        return linked


def matched(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of labels of two label images (H, W): those with the largest sum of IoU, each of at least `MIN_IOU`."""
    both = (first > 0) & (second > 0)
    pairs, common = np.unique(np.stack([first[both], second[both]]), axis=1, return_counts=True)
    if not pairs.size:
        return []
    areas = [np.bincount(image.ravel()) for image in (first, second)]
    ious = common / (areas[0][pairs[0]] + areas[1][pairs[1]] - common)
    enough = ious >= MIN_IOU
    pairs, ious = pairs[:, enough], ious[enough]
    rows, columns = (np.unique(side, return_inverse=True) for side in pairs)
    size = len(rows[0]) + len(columns[0])
    graph = coo_array((np.ones(len(ious)), (rows[1], columns[1] + len(rows[0]))), shape=(size, size))
    parts = connected_components(graph, directed=False)[1][rows[1]]
    found: list[tuple[int, int]] = []
    order = np.argsort(parts, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(parts[order])) + 1):
        own, others = (np.unique(side[1][group], return_inverse=True) for side in (rows, columns))
        table = np.zeros((len(own[0]), len(others[0])))
        table[own[1], others[1]] = ious[group]
        for row, column in zip(*linear_sum_assignment(-table), strict=True):
            if table[row, column] > 0:
                found.append((int(rows[0][own[0][row]]), int(columns[0][others[0][column]])))
    return found


def link_results(folder: str | os.PathLike[str], name: str, planes: Sequence[tuple[int, dict[str, str]]]) -> int:
    """Link the results of planes in a folder.

    `NAME-linked-labels.tif` is a stack (planes, H, W) of int32 with one id a cell, `NAME-linked.csv` has a line for
    each: its kind (of most planes, where the tables tell kinds), the first and the last plane and how many, pixels in
    all, the largest area and where that is, and its mean centroid.

    Args:
        planes: their numbers, ascending, and their files, as `Outcome.files`, of which the label images are read.

    Returns:
        The number of cells.

    Raises:
        FsisError: a file cannot be read or written, or planes differ in size.
    """
    linker = Linker()
    with open_image(planes[0][1]["labels"], labels=True) as image:
        size = 4 * len(planes) * image.shape[0] * image.shape[1]
    with (
        atomic_write(pathlib.Path(folder) / f"{name}-linked-labels.tif") as file,
        tifffile.TiffWriter(file, bigtiff=size > _TIFF_LIMIT) as writer,
    ):
        for plane, files in planes:
            with open_image(files["labels"], labels=True) as image:
                linked = linker.add(np.asarray(image), plane, _kinds(files.get("table")))
            writer.write(linked, photometric="minisblack", compression="zlib", metadata=None)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(_COLUMNS)
    for number, cell in sorted(linker.cells.items()):
        largest = int(np.argmax(cell.areas))
        x, y = np.mean(cell.centroids, axis=0)
        kind = as_text(cell.kinds.most_common(1)[0][0])
        place = [cell.planes[0], cell.planes[-1], len(cell.planes), sum(cell.areas), cell.areas[largest]]
        lines.writerow([number, kind, *place, cell.planes[largest], f"{x:.3f}", f"{y:.3f}"])
    with atomic_write(pathlib.Path(folder) / f"{name}-linked.csv") as file:
        file.write(text.getvalue().encode())
    return len(linker.cells)


def _kinds(table: str | None) -> list[str]:
    """The kind of each label, as a table of results has it; [] where it has none."""
    if table is None:
        return []
    rows = read_table(table)
    return [row["kind"] for row in rows] if rows and "kind" in rows[0] else []
