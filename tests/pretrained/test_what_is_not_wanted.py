"""Dust that is found with references of cells alone goes when some of it is shown as "not this"; the cells stay."""

import cv2
import numpy as np
import pytest

from fsis_jax import References, Segmenter

SIDE = 480
CELLS = DUST = 45


@pytest.mark.slow
def test_dust_goes_and_cells_stay():
    image, cells, dust = _draw()
    segmenter = Segmenter.from_pretrained()

    def shown(places):
        boxes = [(x - r - 1, y - r - 1, x + r + 2, y + r + 2) for y, x, r in places]
        sides = np.array([(y2 - y1, x2 - x1) for x1, y1, x2, y2 in boxes], np.float32)
        crops = [image[y1:y2, x1:x2] for x1, y1, x2, y2 in boxes]
        return segmenter.encode_references(crops, stretches=[segmenter.stretch_of(image, sides)] * len(boxes))

    wanted = shown(cells[:3])
    alone = segmenter.segment(image, wanted).labels()
    found = segmenter.segment(image, References.of_kinds({"cell": wanted}, {"not": shown(dust[:3])})).labels()
    on_dust, on_cells = (
        [np.count_nonzero([labels[y, x] for y, x, _ in places]) for labels in (alone, found)]
        for places in (dust, cells)
    )
    assert on_cells[0] >= 0.9 * CELLS
    assert on_dust[0] >= 0.5 * DUST  # else there is nothing to take away
    assert on_dust[1] <= 0.2 * on_dust[0]
    assert on_cells[1] >= 0.95 * on_cells[0]


def _draw() -> tuple[np.ndarray, list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """(SIDE, SIDE) uint8 with round cells, darker towards their outline, and ragged bright specks of dust; y, x and
    radius of each."""
    rng = np.random.default_rng(5)
    image = rng.normal(40, 5, (SIDE, SIDE)).astype(np.float32)
    placed: list[tuple[int, int, int]] = []
    while len(placed) < CELLS + DUST:
        radius = int(rng.integers(9, 13)) if len(placed) < CELLS else int(rng.integers(6, 9))
        y, x = rng.integers(radius + 2, SIDE - radius - 2, 2).tolist()
        if any((y - v) ** 2 + (x - u) ** 2 < (1.2 * (radius + r)) ** 2 for v, u, r in placed):
            continue
        if len(placed) < CELLS:
            rows, columns = np.mgrid[:SIDE, :SIDE]
            distance = ((rows - y) ** 2 + (columns - x) ** 2) / radius**2
            image += np.where(distance < 1, 80 * (1 - 0.5 * distance) + rng.normal(0, 8, image.shape), 0)
        else:
            turns = np.sort(rng.uniform(0, 2 * np.pi, 11))
            reach = radius * rng.uniform(0.6, 1, 11)
            corners = np.stack([x + reach * np.cos(turns), y + reach * np.sin(turns)], axis=1)
            speck = cv2.fillPoly(np.zeros((SIDE, SIDE), np.uint8), [corners.round().astype(np.int32)], 1)
            image += speck * 170.0
        placed.append((y, x, radius))
    image = cv2.GaussianBlur(np.clip(image, 0, 255), (0, 0), 0.7)
    return image.astype(np.uint8), placed[:CELLS], placed[CELLS:]
