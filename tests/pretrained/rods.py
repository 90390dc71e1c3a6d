"""Touching rods, drawn apart from the generator that networks learn from: capsules on a grid twice as fine."""

import cv2
import numpy as np

WIDTH, LENGTHS = 9, (26, 60)
"""Pixels."""


def draw_rods(seed: int, count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(side, side) uint8 bright rods on dark ground, most of which touch another, and their labels (side, side) int32.

    A new rod starts beside a random one, turned by up to 0.6 rad against it or at random, and moves away until the two
    share no pixel.
    """
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    rods: list[tuple[np.ndarray, float]] = []
    while len(rods) < count:
        length = rng.uniform(*LENGTHS) - WIDTH
        if rods and rng.random() < 0.85:
            near, turn = rods[rng.integers(len(rods))]
            turn = turn + rng.uniform(-0.6, 0.6) if rng.random() < 0.5 else rng.uniform(0, np.pi)
            way = rng.uniform(0, 2 * np.pi)
            steps = np.arange(0.0, 70.0)
        else:
            near, turn, way, steps = rng.uniform(10, side - 10, 2), rng.uniform(0, np.pi), 0.0, np.zeros(1)
        for step in steps:
            centre = near + step * np.array((np.cos(way), np.sin(way)))
            if not np.all((centre > 12) & (centre < side - 12)):
                break
            mask = _capsule(centre, turn, length, side)
            if not (labels[mask] > 0).any():
                rods.append((centre, turn))
                labels[mask] = len(rods)
                break
    brightness = np.concatenate([[0], rng.uniform(120, 200, count)])[labels]
    image = 22 + cv2.GaussianBlur(brightness.astype(np.float32), (0, 0), 1.0) + rng.normal(0, 5, (side, side))
    return np.clip(image, 0, 255).astype(np.uint8), labels


def _capsule(centre: np.ndarray, turn: float, length: float, side: int) -> np.ndarray:
    half = length / 2 * np.array((np.cos(turn), np.sin(turn)))
    fine = np.zeros((2 * side, 2 * side), np.uint8)
    ends = (np.round(2 * (centre + sign * half)).astype(int).tolist() for sign in (-1, 1))
    cv2.line(fine, *ends, 1, 2 * WIDTH)
    return cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA) > 0
