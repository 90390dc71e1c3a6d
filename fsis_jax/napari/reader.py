"""Label images that `fsis segment` and the front ends write, with what their table says of each cell."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tifffile

from fsis_jax.io.names import FILES
from fsis_jax.io.table import read_table

Layers = list[tuple[np.ndarray, dict[str, Any], str]]


def reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], Layers] | None:
    """What reads a label image as a Labels layer; None for other files, which napari reads as images."""
    paths = [path] if isinstance(path, str) else path
    ending = FILES["labels"].format("")
    return _read if paths and all(each.endswith(ending) for each in paths) else None


def _read(path: str | Sequence[str]) -> Layers:
    found: Layers = []
    for each in [path] if isinstance(path, str) else path:
        name = pathlib.Path(each).name.removesuffix(FILES["labels"].format(""))
        options: dict[str, Any] = {"name": f"{name} cells"}
        table = pathlib.Path(each).with_name(FILES["table"].format(name))
        if table.exists():
            options["features"] = _features(table)
        found.append((tifffile.imread(each), options, "labels"))
    return found


def _features(table: pathlib.Path) -> dict[str, list[Any]]:
    """The columns of a table, with the label of each row as napari calls it; numbers where they are all numbers."""
    rows = read_table(table)
    columns: dict[str, list[Any]] = {"index": list(range(1, len(rows) + 1))}
    for name in rows[0] if rows else ():
        values: list[Any] = [row[name] for row in rows]
        try:
            columns[name] = [float(value) for value in values]
        except ValueError:
            columns[name] = values
    return columns
