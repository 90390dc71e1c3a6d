"""References of two sizes: the image is read at the scale of each, and every cell is found once."""

import numpy as np
import pytest

from fsis_jax import Segmenter

SIDE = 480
SMALL, LARGE = 6, 40
"""Radii in pixels."""


@pytest.mark.slow
@pytest.mark.parametrize("tile", [0, 320])
def test_small_and_large_cells_are_found_together(tile):
    image, cells = _draw()
    shown = [cells[0], cells[1], cells[-1], cells[-2]]
    segmenter = Segmenter.from_pretrained("cells-small")
    crops = [image[y - r - 1 : y + r + 2, x - r - 1 : x + r + 2] for y, x, r in shown]
    found = segmenter.segment(image, crops, tile=tile)
    centres = {(y, x): r for y, x, r in cells}
    masks = found.labels()
    owners = {masks[y, x]: r for (y, x), r in centres.items() if masks[y, x]}
    assert len(found) == len(owners)  # no piece of a cell, nothing between them
    assert [list(owners.values()).count(r) for r in (SMALL, LARGE)] == [40, 6]
    areas = dict(enumerate(found.areas().tolist(), start=1))
    assert all(0.6 < areas[label] / (np.pi * r**2) < 1.5 for label, r in owners.items())


def _draw() -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """(SIDE, SIDE) uint8 with 6 large and 40 small round cells apart from each other: y, x and radius of each."""
    rng = np.random.default_rng(1)
    image = rng.normal(40, 5, (SIDE, SIDE))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    cells: list[tuple[int, int, int]] = []
    for radius, count in ((LARGE, 6), (SMALL, 40)):
        placed = 0
        while placed < count:
            y, x = rng.integers(radius + 2, SIDE - radius - 2, 2).tolist()
            if all((y - v) ** 2 + (x - u) ** 2 > (1.15 * (radius + r)) ** 2 for v, u, r in cells):
                distance = ((rows - y) ** 2 + (columns - x) ** 2) / radius**2
                inside = distance < 1
                image[inside] += 90 * (1 - 0.5 * distance[inside]) + rng.normal(0, 12, inside.sum())
                cells.append((y, x, radius))
                placed += 1
    return np.clip(image, 0, 255).astype(np.uint8), cells
