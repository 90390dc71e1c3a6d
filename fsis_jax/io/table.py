"""A table of the instances: where each lies, its shape, and its intensity in the image's own values.

Pixel (row y, column x) covers [x, x + 1] x [y, y + 1]: a single pixel (0, 0) has its centroid at (0.5, 0.5). The image
is read in windows of one cell, those of the same rows of blocks one after the other, so that it need not be in memory.
"""

import csv
import io
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from fsis_jax.io.atomic import atomic_write
from fsis_jax.io.intensity import Image, check_shape, without_alpha
from fsis_jax.io.overlay import Mask
from fsis_jax.io.writers import Result

_BLOCK = 256
"""Rows of pixels within which cells are read from the left to the right."""


def write_table(path: str | os.PathLike[str], result: Result, image: Image, pixel_size: float | None = None) -> None:
    """A CSV (UTF-8, one line of names) with one row per instance, in the order of `result`.

    Columns: label (from 1, the id in `Instances.labels` if these are `Instances.without_overlaps`), category (of a
    closed-set detector only; after ' where a spreadsheet would take it for a formula), score, x1, y1, x2, y2 (bounds of
    the mask), centroid_x, centroid_y, area_px, eccentricity (of the ellipse with the same second moments, as
    scikit-image defines it), mean_intensity or mean_red, mean_green, mean_blue. Values that are
    not finite do not count; a mean of none is left empty, as are all columns of an empty mask but label, category,
    score and area.

    Args:
        image: the one that was segmented, grey, RGB or RGBA (alpha is not read).
        pixel_size: micrometres per pixel; with it area_um2, centroid_x_um, centroid_y_um, equivalent_diameter_um (of
            the circle with the same area) follow.

    Raises:
        FsisError: the file cannot be written, or the image has another number of channels.
        ValueError: the image has another size than the one that was segmented.
    """
    check_shape(image)
    if image.shape[:2] != tuple(result.size):
        raise ValueError(f"an image of {image.shape[:2]} pixels for instances of one of {result.size}")
    colours = len(image.shape) == 3 and image.shape[2] >= 3
    names = ["mean_red", "mean_green", "mean_blue"] if colours else ["mean_intensity"]
    columns = ["label", "score", "x1", "y1", "x2", "y2", "centroid_x", "centroid_y", "area_px", "eccentricity", *names]
    if pixel_size is not None:
        columns += ["area_um2", "centroid_x_um", "centroid_y_um", "equivalent_diameter_um"]
    told: list[dict[str, Any]] = [{}] * len(result.masks)
    if result.classes is not None:
        columns.insert(1, "category")
        told = [{"category": name and _as_text(name)} for name in result.categories]
    rows: list[dict[str, Any]] = [{}] * len(result.masks)
    for row in sorted(range(len(rows)), key=lambda row: (result.masks[row].y // _BLOCK, result.masks[row].x)):
        values = _measure(result.masks[row], image, names, pixel_size)
        rows[row] = {"label": row + 1, "score": f"{result.scores[row]:.4f}", **told[row], **values}
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def _as_text(name: str) -> str:
    """A name that a spreadsheet does not take for a formula, which it would run."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def _measure(crop: Mask, image: Image, names: Sequence[str], pixel_size: float | None) -> dict[str, Any]:
    """The columns of one mask by name, but for its label and score."""
    ys, xs = np.nonzero(crop.mask)
    area = len(ys)
    if not area:
        return {"area_px": 0}
    ys, xs = ys + crop.y, xs + crop.x
    x1, y1, x2, y2 = int(xs.min()), int(ys[0]), int(xs.max()) + 1, int(ys[-1]) + 1
    x, y = float(xs.mean()) + 0.5, float(ys.mean()) + 0.5
    pixels = without_alpha(np.asarray(image[y1:y2, x1:x2]))
    inside = pixels[ys - y1, xs - x1].reshape(area, -1).astype(np.float64)
    values = {
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "centroid_x": f"{x:.3f}",
        "centroid_y": f"{y:.3f}",
        "area_px": area,
        "eccentricity": f"{_eccentricity(xs - (x - 0.5), ys - (y - 0.5)):.4f}",
        **{name: _mean(channel) for name, channel in zip(names, inside.T, strict=True)},
    }
    if pixel_size is not None:
        values |= {
            "area_um2": f"{area * pixel_size**2:.6g}",
            "centroid_x_um": f"{x * pixel_size:.3f}",
            "centroid_y_um": f"{y * pixel_size:.3f}",
            "equivalent_diameter_um": f"{math.sqrt(4 * area / math.pi) * pixel_size:.6g}",
        }
    return values


def _eccentricity(xs: np.ndarray, ys: np.ndarray) -> float:
    """Eccentricity of the ellipse with the same second moments as points (n,) around their mean; 0 for a single one."""
    half_sum, half_difference = (float(np.mean(xs**2 + sign * ys**2)) / 2 for sign in (1, -1))
    root = math.hypot(half_difference, float(np.mean(xs * ys)))
    largest, smallest = half_sum + root, max(half_sum - root, 0.0)
    return math.sqrt(1 - smallest / largest) if largest else 0.0


def _mean(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return f"{np.sum(finite / len(finite)):.6g}" if len(finite) else ""  # a sum of the largest floats is infinite
