"""`images.jsonl` in a folder of results: a line of JSON for each finished image, which only grows."""

import json
import os
import pathlib
from typing import Any

from fsis_jax.io.files import write_failure


class Record:
    """What is finished in a folder.

    Args:
        folder: that the file lies in, if it is there yet.

    Raises:
        OutputError: the file is there but cannot be read.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._path = folder / "images.jsonl"
        self.lines: dict[str, dict[str, Any]] = {}
        """The last line of each name when it was opened; what is none of ours, such as a half one, is passed over."""
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                for text in file:
                    try:
                        line = json.loads(text)
                        names = {kind: os.path.basename(place) for kind, place in line["files"].items()}
                        line["files"] = {kind: str(folder / name) for kind, name in names.items()}  # it may have moved
                        self.lines[line["name"]] = line
                    except (ValueError, TypeError, KeyError, AttributeError):
                        continue
        except FileNotFoundError:
            return
        except OSError as error:
            raise write_failure(self._path, error) from error

    def append(self, line: dict[str, Any]) -> None:
        """Add a line, which has at least the keys "name", "path" and "files".

        Raises:
            OutputError: it cannot be written.
        """
        try:
            with open(self._path, "a+b") as file:
                file.seek(max(file.tell() - 1, 0))
                cut_off = file.read() not in (b"", b"\n")
                file.write(b"\n" * cut_off + json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise write_failure(self._path, error) from error
