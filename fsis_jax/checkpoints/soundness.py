"""Whether a checkpoint is what was written: `SHA256SUMS` in its step folder, which `sha256sum -c` reads too.

The sums are of all files of its items, taken from the disk before the folder gets its name, in the thread that writes.
Checkpoints of versions without sums are sound as far as their items are there.
"""

import hashlib
import json
import pathlib
from collections.abc import Collection
from typing import Any

from fsis_jax.errors import FsisError

SUMS = "SHA256SUMS"
META = pathlib.PurePath("meta", "metadata")
"""In a step folder: config, state of the data, and whether the folder has sums, as JSON."""
VALIDATION = "validation.json"
"""In a step folder: the results of a validation, which comes after the checkpoint is written, with their digest."""


def write_sums(folder: pathlib.Path) -> None:
    """Write the SHA256SUMS of a step folder that is complete but for them."""
    files = sorted(path for item in folder.iterdir() if item.is_dir() for path in item.rglob("*") if path.is_file())
    (folder / SUMS).write_text("".join(f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files))


def read_meta(folder: pathlib.Path) -> dict[str, Any]:
    """The item `meta` of a step folder, with the results of its validation.

    Raises:
        FsisError: it cannot be read.
    """
    try:
        meta = _mapping(folder, META)
        if (folder / VALIDATION).exists():
            meta["validation"] = _results(_mapping(folder, VALIDATION))
    except ValueError as error:
        raise FsisError(f"{folder}: a damaged checkpoint ({error}): choose another step") from error
    return meta


def with_digest(results: dict[str, float]) -> dict[str, Any]:
    """The content of `validation.json`."""
    return {"results": results, "sha256": _text_digest(results)}


def damage(folder: pathlib.Path, items: Collection[str] = ()) -> str:
    """What is wrong with a step folder, in a few words; empty if nothing is.

    Args:
        folder: of the step.
        items: those to look at beside `meta`; none: all.
    """
    try:
        meta = read_meta(folder)
    except FsisError as error:
        return str(error.__cause__)
    try:
        lines = (folder / SUMS).read_text().splitlines()
    except FileNotFoundError:
        if meta.get("sums"):
            return f"{SUMS} is missing"
        # Of a run (its data have a state) both are there; converted weights may have no optimizer.
        needed = {"model", "optimizer"} if meta.get("data_state") else {"model"}
        return ", ".join(f"{item} is missing" for item in sorted(needed) if not (folder / item).is_dir())
    except (OSError, ValueError) as error:
        return f"{SUMS}: {_reason(error)}"
    wanted = {"meta", *items} if items else set()
    found = set()
    for line in lines:
        digest, _, name = line.partition("  ")
        if not name:
            return f"{SUMS} is not what was written"
        item = pathlib.PurePosixPath(name).parts[0]
        found.add(item)
        if not wanted or item in wanted:
            try:
                if _digest(folder / name) != digest:
                    return f"{name} is not what was written"
            except (OSError, ValueError) as error:
                return f"{name}: {_reason(error)}"
    return ", ".join(f"{item} is missing" for item in sorted({"meta", "model"} | wanted) if item not in found)


def _mapping(folder: pathlib.Path, name: str | pathlib.PurePath) -> dict[str, Any]:
    """A JSON file of the folder; a ValueError that names it where it cannot be read, or is no mapping."""
    try:
        content = json.loads((folder / name).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} is not a mapping")
    return content


def _reason(error: Exception) -> str:
    """Of a file that cannot be read, without its path."""
    return getattr(error, "strerror", None) or str(error)


def _results(content: dict[str, Any]) -> dict[str, float]:
    if content.get("sha256") != _text_digest(content.get("results")):
        raise ValueError(f"{VALIDATION} is not what was written")
    results: dict[str, float] = content["results"]
    return results


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text_digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
