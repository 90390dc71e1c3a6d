"""A stack of drawn cells, segmented by the network that ships and linked: each cell is counted once."""

import json

import cv2
import numpy as np
import pytest
import tifffile
from drawn_stack import ellipsoids


@pytest.mark.slow
def test_fifty_drawn_cells_in_twenty_planes_are_counted_within_two_percent(fsis, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stack = ellipsoids()
    rng = np.random.default_rng(0)
    light = rng.uniform(0.7, 1, stack.max() + 1)
    light[0] = 0.08
    pixels = np.stack([cv2.GaussianBlur(light[labels].astype(np.float32), (0, 0), 1.2) for labels in stack])
    pixels = np.clip(pixels * 180 + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
    tifffile.imwrite("s.ome.tif", pixels, ome=True, metadata={"axes": "ZYX"})
    areas = np.stack([np.bincount(labels.ravel(), minlength=51) for labels in stack])
    boxes = []
    for number in np.argsort(-areas.max(axis=0)[1:])[10:25:5] + 1:  # neither the largest nor the smallest
        plane = int(areas[:, number].argmax())
        rows, columns = np.nonzero(stack[plane] == number)
        boxes.append((plane, columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    for number, (plane, x1, y1, x2, y2) in enumerate(boxes):
        cv2.imwrite(f"crop{number}.png", pixels[plane, y1:y2, x1:x2])
    crops = [f"crop{number}.png" for number in range(len(boxes))]
    options = ("--page", "all", "--link", "z", "--json", "--save", "labels", "--output", "out")
    outcome = fsis("segment", "s.ome.tif", "--references", *crops, *options)
    assert outcome.status == 0, outcome.stderr
    linked = json.loads(outcome.stdout.splitlines()[-1])
    assert linked["planes"] == 20
    assert 49 <= linked["cells"] <= 51
