"""`summary.csv` in a folder of results: a line for each image and kind, of all images that are finished there.

It is made from the record (`finished_images.py`) alone, and takes the place of the one before as a whole. Several
processes need no lock for it: who has written it looks at the record again, and writes again if that says more. So who
writes last has read all of it.
"""

import csv
import io
import logging
import os
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from fsis_jax.errors import FsisError, OutputError
from fsis_jax.inference.finished_images import FinishedImages
from fsis_jax.inference.instances import Instances
from fsis_jax.io.atomic import atomic_write, open_file, write_failure
from fsis_jax.io.kinds import counts
from fsis_jax.io.outputs import file_name
from fsis_jax.io.table import as_text

COLUMNS = ("image", "plane", "kind", "count", "median_area_px", "median_area_um2", "density_per_mm2")
_FILE = "summary.csv"
_BEGINS = ",".join(COLUMNS[:4]).encode()
_logger = logging.getLogger(__name__)


def summarised(path: str, counted: Instances) -> dict[str, Any]:
    """What the record keeps of an image for its lines: name, size, and [kind, count, median area in pixels] of each.

    Kinds are those of `counts`. Without names, and where a closed-set detector has found nothing, it is one line: of
    `Instances.category`, else "". The median of nothing is None.
    """
    areas = counted.areas().tolist()
    found: dict[str, list[int]] = {kind: [] for kind in counts(counted) or [counted.category or ""]}
    for category, area in zip(counted.categories, areas, strict=True):
        found[category or ""].append(area)
    kinds = [[kind, len(own), statistics.median(own) if own else None] for kind, own in found.items()]
    return {"file_name": file_name(path), "size": list(counted.size), "summary": kinds}


class Summary:
    """The summary of a folder.

    Raises:
        FsisError: there is a file of that name that is no summary.
        OutputError: it cannot be read.
    """

    def __init__(self, folder: pathlib.Path, record: FinishedImages) -> None:
        self._path, self._record = folder / _FILE, record
        self._known: dict[str, tuple[dict[str, Any], str]] = {}
        self._warned = False
        content = self._content()
        if content and not content.startswith(_BEGINS):
            raise FsisError(
                f"{self._path}: is no summary of fsis, and would be replaced by it: rename it, or choose another folder"
            )

    def update(self) -> None:
        """Write it, unless it says all that the record does.

        Raises:
            OutputError: it cannot be written, or the record not be read.
        """
        written = None
        while (content := self._made()) != written:
            if content != self._content():
                with atomic_write(self._path) as file:
                    file.write(content)
            written = content

    def update_or_warn(self) -> None:
        """`update`, but where that fails, as of a file that a spreadsheet has open, a warning: results are there."""
        try:
            self.update()
        except OutputError as error:
            if not self._warned:
                _logger.warning(f"{error}; it is tried again after the next image")
            self._warned = True

    def _content(self) -> bytes:
        """What it says now; nothing where it is not there."""
        try:
            with open_file(self._path) as file:
                return file.read()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise write_failure(self._path, error) from error

    def _made(self) -> bytes:
        """What it should say; nothing where no image is finished and there is no summary."""
        self._record.refresh()
        parts = [self._lines_of(name, line) for name, line in sorted(self._record.lines.items())]
        if not any(parts) and not self._path.exists():
            return b""
        return (_as_csv([COLUMNS]) + "".join(parts)).encode(errors="backslashreplace")

    def _lines_of(self, name: str, line: dict[str, Any]) -> str:
        """Of one image, whose files are looked for once; "" where it is not finished, or all of them are gone."""
        known = self._known.get(name)
        if known is None or known[0] is not line:
            there = not line["files"] or any(map(os.path.exists, line["files"].values()))
            self._known[name] = known = line, _lines(line) if line["key"] and there else ""
        return known[1]


def _lines(line: dict[str, Any]) -> str:
    """Those of a line of the record; "" of one that is none of ours. What an older version did not note is empty."""
    try:
        common = [line.get("file_name", os.path.basename(line["path"])), ",".join(line.get("plane", ()))]
        size, pixel_size = line.get("size"), line.get("pixel_size")
        megapixels = size and size[0] * size[1] / 1e6
        rows = [
            [
                *map(as_text, (*common, kind)),
                f"{count:d}",
                "" if area is None else f"{area:.12g}",
                "" if area is None or not pixel_size else f"{area * pixel_size**2:.6g}",
                "" if not megapixels or not pixel_size else f"{count / (megapixels * pixel_size**2):.6g}",
            ]
            for kind, count, area in line.get("summary") or [["", line["cells"], None]]
        ]
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError):
        return ""
    return _as_csv(rows)


def _as_csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
