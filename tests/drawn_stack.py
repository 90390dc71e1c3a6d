"""A drawn stack: ellipsoids that do not touch, with what each plane shows of them."""

import numpy as np


def ellipsoids(planes=20, cells=50, side=300, seed=0):
    """(planes, side, side) int32, the cells 1 ... n of each plane."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    stack = np.zeros((planes, side, side), np.int32)
    placed = []
    while len(placed) < cells:
        radius, depth = rng.uniform(9, 13), rng.uniform(2.5, 4.5)
        y, x = rng.uniform(15, side - 15, 2)
        z = rng.uniform(0, planes - 1)
        near = [
            other
            for other in placed
            if np.hypot(y - other[0], x - other[1]) < radius + other[3] + 3 and abs(z - other[2]) < depth + other[4] + 3
        ]
        if near:
            continue
        placed.append((y, x, z, radius, depth))
        for plane in range(planes):
            share = 1 - ((plane - z) / depth) ** 2
            if share > 0.1:
                inside = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2 * share
                stack[plane][inside] = len(placed)
    return stack
