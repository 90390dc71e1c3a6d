"""`images.jsonl` in a folder of results: a line of JSON for each finished image, which only grows.

Several processes may add to it at once: each line is one write at the file's end.
"""

import errno
import hashlib
import json
import logging
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from fsis_jax.errors import FsisError
from fsis_jax.io.all_planes import PlaneChoice
from fsis_jax.io.atomic import refuse_links, write_failure
from fsis_jax.io.outputs import plane_parts

_logger = logging.getLogger(__name__)
_READ_AT_MOST = 16 << 20
"""Bytes of an image that `identity` reads: 20 milliseconds' worth."""


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
        self._changed: set[str] = set()
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

    def is_whole(self, line: dict[str, Any], kinds: Iterable[str]) -> bool:
        """Whether the files of these kinds are there, as they were written; one that is not is told, once."""
        files = {kind: line["files"].get(kind, "") for kind in kinds}
        if not all(map(os.path.exists, files.values())):
            return False
        told = line.get("written", {})
        changed = [files[kind] for kind, found in fingerprints(files).items() if told.get(kind) != found]
        for file in set(changed) - self._changed:
            _logger.warning(f"{file}: not as it was written: made again")
        self._changed.update(changed)
        return not changed

    def check_place(self, path: str, name: str, plane: list[str]) -> None:
        """Raise FsisError where the results of a name are of another file that is still there, or of another plane."""
        place, line = os.path.abspath(path), self.lines.get(name, {})
        earlier, of_plane = line.get("path", place), line.get("plane", plane)
        if earlier != place and os.path.exists(earlier):
            raise FsisError(
                f"{path}: {self._folder} has the results of {earlier}, of the same name: choose another folder"
            )
        if of_plane != plane:
            raise FsisError(
                f"{path}: {self._folder} has the results of its plane {','.join(of_plane)}, of the same name {name}: "
                "choose another folder"
            )

    def append(self, line: dict[str, Any]) -> None:
        """Add a line, which has at least the keys "name", "path", "key" and "files"; `lines` has it after `refresh`.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            refuse_links(self._path)
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            with open(descriptor, "r+b", buffering=0) as file:
                file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
                cut_off = not (file.read() or b"\n").endswith(b"\n")
                text = b"\n" * cut_off + json.dumps(line).encode() + b"\n"
                if file.write(text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise write_failure(self._path, error) from error


def results_in(folder: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Name of an image -> its line, of all that are finished in a folder.

    Raises:
        FsisError: there are none.
        OutputError: the record cannot be read.
    """
    lines = {name: line for name, line in FinishedImages(pathlib.Path(folder)).lines.items() if line["key"]}
    if not lines:
        raise FsisError(f"{folder}: no results: give the --output of `fsis segment`")
    return lines


def result_of(folder: str | os.PathLike[str], lines: Mapping[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """The line of an image among those of a folder.

    Raises:
        FsisError: there is none.
    """
    if name not in lines:
        raise FsisError(f"{folder}: no results of {name!r}; there are {some_of(lines)}")
    return lines[name]


def is_of_plane(line: Mapping[str, Any], given: PlaneChoice) -> bool:
    """Whether the results of a line are of a plane as it was given; what was not given may be any."""
    own = _opened(line)
    if own is None:  # of an older version
        return not any(given) or line.get("plane") == plane_parts(**given._asdict())
    pairs = zip(given._asdict().items(), own, strict=True)
    return all(
        part is None or plane_parts(**{key: part}) == plane_parts(**{key: other}) for (key, part), other in pairs
    )


def plane_of(folder: str | os.PathLike[str], line: Mapping[str, Any], given: PlaneChoice) -> PlaneChoice:
    """The plane that the results of a line are of, as `open_image` takes it.

    Raises:
        FsisError: another one was given, or none and the line, of an older version, does not tell it.
    """
    own, of_plane = _opened(line), line.get("plane", [])
    if is_of_plane(line, given) and (own is not None or any(given) or not of_plane):
        return own or given
    told = f"of its plane {','.join(of_plane)}" if of_plane else "of a file's only plane"
    remedy = "choose it by" if of_plane and own is None else "leave out"
    raise FsisError(f"{folder}: the results of {line['name']} are {told}: {remedy} --channel, --page and --series")


def _opened(line: Mapping[str, Any]) -> PlaneChoice | None:
    told = line.get("opened")
    if isinstance(told, list) and len(told) == 3 and all(isinstance(part, str | None) for part in told):
        return PlaneChoice(*told)
    return None


def some_of(names: Iterable[str]) -> str:
    """The first of some names, for a message."""
    known = sorted(names)
    return ", ".join(known[:5]) + ", ..." * (len(known) > 5)


def digest(values: list[Any]) -> str:
    """A key: the same for the same values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def content_digest(path: str, most: int = 1 << 20) -> str:
    """A key of what is in a file, or in all files of a folder, read as `identity` does: a copy has the same."""
    inside = identity(path, most)[os.path.isdir(path) :]
    return digest([[size, content] for size, _, content in inside])


def identity(path: str, most: int = _READ_AT_MOST) -> list[list[Any]]:
    """What tells a file, or all files in a folder (OME-Zarr), from others in their place; of nothing if it is gone.

    Size, time of change and a digest, of all of a file or, where that would take long, of its first and last bytes.

    Args:
        most: bytes to read.
    """
    inside = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    found: list[list[Any]] = []
    left = most
    for place in filter(os.path.exists, [path, *sorted(inside)]):
        stat, content = os.stat(place), ""
        if os.path.isfile(place) and left > 0:
            content = file_digest(place, left)
            left -= stat.st_size
        found.append([stat.st_size, stat.st_mtime_ns, content])
    return found


def file_digest(path: str | os.PathLike[str], most: float = math.inf) -> str:
    """SHA-256 of a file; of one of more than `most` bytes of the first and the last half as many. "" of none."""
    state = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size <= most:
                file.seek(0)
                return hashlib.file_digest(file, "sha256").hexdigest()
            half = int(most) // 2
            for start in 0, size - half:
                file.seek(start)
                state.update(file.read(half))
    except OSError:
        return ""
    return state.hexdigest()


def fingerprints(files: Mapping[str, str]) -> dict[str, list[Any]]:
    """Kind -> size and SHA-256 of each file; of a folder of all that is in it, but for links."""
    return {kind: _fingerprint(file) for kind, file in files.items()}


def _fingerprint(path: str) -> list[Any]:
    if not os.path.isdir(path):
        return [os.path.getsize(path), file_digest(path)]
    inside = sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    files = [file for file in inside if not os.path.islink(file)]
    told = [[os.path.relpath(file, path), os.path.getsize(file), file_digest(file)] for file in files]
    return [sum(size for _, size, _ in told), digest(told)]
