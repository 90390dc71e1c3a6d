"""Linking of cells over planes, on drawn masks."""

import csv

import numpy as np
import pytest
import tifffile
from drawn_stack import ellipsoids

from fsis_jax.errors import FsisError
from fsis_jax.inference.linking import Linker, link_results, matched


def _shuffled(labels, rng):
    """The same cells with other numbers, from 1 on."""
    values = np.setdiff1d(np.unique(labels), [0])
    numbers = np.zeros(labels.max(initial=0) + 1, np.int32)
    numbers[values] = rng.permutation(len(values)) + 1
    return numbers[labels]


def test_fifty_cells_of_twenty_planes_are_counted_once_each():
    stack = ellipsoids()
    rng, linker = np.random.default_rng(1), Linker()
    linked = np.stack([linker.add(_shuffled(labels, rng), z) for z, labels in enumerate(stack, start=1)])
    assert len(linker.cells) == 50
    pairs = np.unique(np.stack([stack.ravel(), linked.ravel()]), axis=1)
    assert pairs.shape[1] == 51  # one id a cell, one cell an id, and the background
    for number, cell in linker.cells.items():
        planes = np.flatnonzero((linked == number).any(axis=(1, 2))) + 1
        assert cell.planes == planes.tolist()
        assert sum(cell.areas) == (linked == number).sum()


def test_a_cell_may_be_missed_once_and_not_twice():
    stack = np.zeros((6, 20, 20), np.int32)
    stack[:, 5:12, 5:12] = 1
    for missing, expected in (([2], 1), ([2, 3], 2)):
        linker = Linker()
        for z, labels in enumerate(stack):
            linker.add(np.zeros_like(labels) if z in missing else labels, z)
        assert len(linker.cells) == expected


def test_the_pairs_are_those_with_the_largest_sum():
    # 1 fits 2 best (0.6), but then 2 would be left with nothing, and 1 has 1 besides (0.25).
    first, second = np.zeros((2, 40), int), np.zeros((2, 40), int)
    first[0, 0:16], first[1, 0:8] = 1, 2
    second[0, 0:4], second[0, 4:16], second[1, 0:4] = 1, 2, 2
    ious = {(1, 1): 4 / 16, (1, 2): 12 / 20, (2, 2): 4 / 20}
    assert ious[1, 1] + ious[2, 2] < ious[1, 2]
    assert matched(first, second) == [(1, 2)]
    second[1, 0:8] = 2
    ious = {(1, 1): 4 / 16, (1, 2): 12 / 24, (2, 2): 8 / 20}
    assert ious[1, 1] + ious[2, 2] > ious[1, 2] > ious[2, 2]
    assert sorted(matched(first, second)) == [(1, 1), (2, 2)]


def test_cells_that_hardly_overlap_are_two():
    first, second = np.zeros((20, 20), int), np.zeros((20, 20), int)
    first[2:8, 2:8], second[2:8, 7:13] = 1, 1
    assert matched(first, second) == []


def test_planes_of_another_size_are_refused():
    linker = Linker()
    linker.add(np.zeros((9, 9), int), 1)
    with pytest.raises(FsisError, match="cannot be linked"):
        linker.add(np.zeros((9, 8), int), 2)


def test_what_is_written(tmp_path):
    stack = np.zeros((3, 20, 30), np.int32)
    stack[0, 2:6, 2:6] = 1
    stack[1, 2:7, 2:7], stack[1, 12:16, 20:26] = 2, 1
    stack[2, 2:5, 2:6] = 1
    kinds = (["dead"], ["living", "dead"], ["living"])
    planes = []
    for number, (labels, names) in enumerate(zip(stack, kinds, strict=True), start=1):
        files = {"labels": str(tmp_path / f"a-Z{number}-labels.tif"), "table": str(tmp_path / f"a-Z{number}.csv")}
        tifffile.imwrite(files["labels"], labels)
        rows = "".join(f"{label},{name}\n" for label, name in enumerate(names, start=1))
        (tmp_path / f"a-Z{number}.csv").write_text("label,kind\n" + rows)
        planes.append((number, files))
    assert link_results(tmp_path, "a", planes) == 2
    linked = tifffile.imread(tmp_path / "a-linked-labels.tif")
    with open(tmp_path / "a-linked.csv", newline="") as file:
        rows = {row["cell"]: row for row in csv.DictReader(file)}
    assert linked.shape == stack.shape
    number = linked[0, 3, 3]
    assert {linked[1, 3, 3], linked[2, 3, 3]} == {number}
    row = rows.pop(str(number))
    assert (row["kind"], row["first"], row["last"], row["planes"]) == ("dead", "1", "3", "3")
    assert (row["pixels"], row["largest_area_px"], row["largest_plane"]) == ("53", "25", "2")
    assert float(row["x"]) == pytest.approx((4 + 4.5 + 4) / 3, abs=1e-3)
    (other,) = rows.values()
    assert (other["kind"], other["first"], other["last"], other["pixels"]) == ("living", "2", "2", "24")
