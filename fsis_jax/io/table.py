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
from fsis_jax.io.damage import damage_in
from fsis_jax.io.intensity import Image, check_shape, without_alpha
from fsis_jax.io.kinds import probabilities, probability_names
from fsis_jax.io.overlay import Mask
from fsis_jax.io.shape import circularity, convex_area, ellipse, perimeter
from fsis_jax.io.writers import Result

_BLOCK = 256
"""Rows of pixels within which cells are read from the left to the right."""
_PLACE = ("x1", "y1", "x2", "y2", "centroid_x", "centroid_y")
_SHAPE = ("area_px", "perimeter", "circularity", "solidity", "major_axis", "minor_axis", "eccentricity")
_MICROMETRES = (
    *("area_um2", "centroid_x_um", "centroid_y_um", "equivalent_diameter_um"),
    *("perimeter_um", "major_axis_um", "minor_axis_um"),
)


def write_table(path: str | os.PathLike[str], result: Result, image: Image, pixel_size: float | None = None) -> None:
    """A CSV (UTF-8, one line of names) with one row per instance, in the order of `result`.

    Columns: label (from 1, the id in `Instances.labels` if these are `Instances.without_overlaps`), kind (where the
    references show kinds) or category (of a closed-set detector), after ' where a spreadsheet would take it for a
    formula, score, p_KIND of every kind and p_none (`Instances.kind_scores`), x1, y1, x2, y2 (bounds of the mask),
    centroid_x, centroid_y, area_px, perimeter, circularity, solidity, major_axis, minor_axis, eccentricity (all of
    `shape.py`), mean_intensity or mean_red, mean_green, mean_blue. Values that are not finite do not count; a mean of
    none is left empty, as are all columns of an empty mask but label, kind, category, score, probabilities and area.

    Args:
        image: the one that was segmented, grey, RGB or RGBA (alpha is not read).
        pixel_size: micrometres per pixel; with it area_um2, centroid_x_um, centroid_y_um, equivalent_diameter_um (of
            the circle with the same area), perimeter_um, major_axis_um, minor_axis_um follow.

    Raises:
        FsisError: the file cannot be written, or the image has another number of channels.
        ValueError: the image has another size than the one that was segmented.
    """
    check_shape(image)
    if image.shape[:2] != tuple(result.size):
        raise ValueError(f"an image of {image.shape[:2]} pixels for instances of one of {result.size}")
    colours = len(image.shape) == 3 and image.shape[2] >= 3
    names = ["mean_red", "mean_green", "mean_blue"] if colours else ["mean_intensity"]
    named = [] if result.classes is None else ["category" if result.kind_scores is None else "kind"]
    columns = ["label", *named, "score", *probability_names(result), *_PLACE, *_SHAPE, *names]
    if pixel_size is not None:
        columns += _MICROMETRES
    rows: list[dict[str, Any]] = [{}] * len(result.masks)
    told = list(zip(result.scores, result.categories, probabilities(result), strict=True))
    for row in sorted(range(len(rows)), key=lambda row: (result.masks[row].y // _BLOCK, result.masks[row].x)):
        score, category, shares = told[row]
        values: dict[str, Any] = {"label": row + 1, "score": f"{score:.4f}"}
        values |= {name: category and as_text(category) for name in named}
        values |= {name: f"{share:.4f}" for name, share in shares.items()}
        rows[row] = values | _measure(result.masks[row], image, names, pixel_size)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def read_table(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The rows of a table that was written here, column -> text of each.

    Raises:
        FsisError: it cannot be read, or a program saved it as something else, such as in another encoding.
    """
    remedy = "write it again by `fsis segment --force`"
    with (
        damage_in(os.fspath(path), "not as `fsis segment` wrote it", remedy, "table"),
        open(path, encoding="utf-8", newline="") as file,
    ):
        rows = list(csv.DictReader(file, strict=True))
        for number, row in enumerate(rows, start=2):
            if None in row or None in row.values():
                raise ValueError(f"line {number} has another number of columns than the first")
    return rows


def as_text(name: str) -> str:
    """A name that a spreadsheet does not take for a formula, which it would run."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def _measure(crop: Mask, image: Image, names: Sequence[str], pixel_size: float | None) -> dict[str, Any]:
    """The columns of one mask by name, but for its label, names and scores."""
    ys, xs = np.nonzero(crop.mask)
    area = len(ys)
    if not area:
        return {"area_px": 0}
    ys, xs = ys + crop.y, xs + crop.x
    x1, y1, x2, y2 = int(xs.min()), int(ys[0]), int(xs.max()) + 1, int(ys[-1]) + 1
    x, y = float(xs.mean()) + 0.5, float(ys.mean()) + 0.5
    pixels = without_alpha(np.asarray(image[y1:y2, x1:x2]))
    inside = pixels[ys - y1, xs - x1].reshape(area, -1).astype(np.float64)
    length, axes = perimeter(crop.mask), ellipse(xs, ys)
    values = {
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "centroid_x": f"{x:.3f}",
        "centroid_y": f"{y:.3f}",
        "area_px": area,
        "perimeter": f"{length:.3f}",
        "circularity": f"{circularity(area, length):.4f}",
        "solidity": f"{area / convex_area(crop.mask):.4f}",
        "major_axis": f"{axes.major:.3f}",
        "minor_axis": f"{axes.minor:.3f}",
        "eccentricity": f"{axes.eccentricity:.4f}",
        **{name: _mean(channel) for name, channel in zip(names, inside.T, strict=True)},
    }
    if pixel_size is not None:
        values |= {
            "area_um2": f"{area * pixel_size**2:.6g}",
            "centroid_x_um": f"{x * pixel_size:.3f}",
            "centroid_y_um": f"{y * pixel_size:.3f}",
            "equivalent_diameter_um": f"{math.sqrt(4 * area / math.pi) * pixel_size:.6g}",
            "perimeter_um": f"{length * pixel_size:.6g}",
            "major_axis_um": f"{axes.major * pixel_size:.6g}",
            "minor_axis_um": f"{axes.minor * pixel_size:.6g}",
        }
    return values


def _mean(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return f"{np.sum(finite / len(finite)):.6g}" if len(finite) else ""  # a sum of the largest floats is infinite
