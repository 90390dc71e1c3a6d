"""Images of discs to segment, and the files that came of them."""

import pathlib

import cv2
import numpy as np


def draw_discs(path: pathlib.Path, size: tuple[int, int], discs: int, seed: int, empty_below: int | None = None) -> str:
    """Write a grey image with discs of a radius of 9, and nothing from the row `empty_below` on."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, size, np.uint8)
    for y, x in zip(rng.integers(9, size[0] - 9, discs), rng.integers(9, size[1] - 9, discs), strict=True):
        cv2.circle(pixels, (int(x), int(y)), 9, int(rng.integers(150, 250)), -1)
    pixels[empty_below or size[0] :] = 30
    cv2.imwrite(str(path), pixels)
    return str(path)


def written(folder: pathlib.Path) -> dict[str, bytes]:
    """{name: content} of the results in a folder, without the journal of finished images."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "images.jsonl"}
