"""`images.jsonl` in a folder of results: a line of JSON for each finished image, which only grows.

Several processes may add to it at once: each line is one write at the file's end.
"""

import errno
import hashlib
import json
import os
import pathlib
from typing import Any

from fsis_jax.io.atomic import write_failure


class FinishedImages:
    """What is finished in a folder.

    Args:
        folder: that the file lies in, if it is there yet.

    Raises:
        OutputError: the file is there but cannot be read.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self._path = folder, folder / "images.jsonl"
        self._end = 0
        self.lines: dict[str, dict[str, Any]] = {}
        """The last line of each name; what is none of ours, such as a half one, is passed over."""
        self.refresh()

    def refresh(self) -> None:
        """Read what was added since.

        Raises:
            OutputError: the file is there but cannot be read.
        """
        try:
            with open(self._path, "rb") as file:
                file.seek(self._end)
                added, _, _ = file.read().rpartition(b"\n")  # after it, what another process is writing
        except FileNotFoundError:
            return
        except OSError as error:
            raise write_failure(self._path, error) from error
        self._end += len(added) + 1 if added else 0
        for text in added.split(b"\n"):
            try:
                line = json.loads(text.decode(errors="replace"))
                names = {kind: os.path.basename(place) for kind, place in line["files"].items()}
                line["files"] = {kind: str(self._folder / name) for kind, name in names.items()}  # it may have moved
                if all(isinstance(line[key], str) for key in ("name", "path", "key")):
                    self.lines[line["name"]] = line
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue

    def append(self, line: dict[str, Any]) -> None:
        """Add a line, which has at least the keys "name", "path", "key" and "files"; `lines` has it after `refresh`.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            with open(descriptor, "r+b", buffering=0) as file:
                file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
                cut_off = not (file.read() or b"\n").endswith(b"\n")
                text = b"\n" * cut_off + json.dumps(line).encode() + b"\n"
                if file.write(text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise write_failure(self._path, error) from error


def digest(values: list[Any]) -> str:
    """A key: the same for the same values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def identity(path: str) -> list[list[int]]:
    """Sizes and times of change of a file, or of all files in a folder (OME-Zarr); of nothing if it is gone."""
    inside = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    stats = [os.stat(place) for place in [path, *sorted(inside)] if os.path.exists(place)]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]
