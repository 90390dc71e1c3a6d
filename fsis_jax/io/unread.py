"""What of a folder of images is not read, so that one line can tell: nothing is passed over in silence.

Our own results are, in a folder that has the record of a run; so are the hidden files of systems (`._a.tif`,
`.DS_Store`), and the parts of OME-Zarr images.
"""

import collections
import os
import pathlib
from collections.abc import Iterable

from fsis_jax.io.names import FILES, ZARR

_RESULTS = tuple(file.format("") for file in FILES.values())
_ZARR = tuple(folder.format("") for folder in ZARR.values())
_RECORD = "images.jsonl"
_OTHERS = (_RECORD, "summary.csv", "overlays.pdf")
"""What a folder of results has beside those of each image."""


def unread_kinds(paths: Iterable[str], suffixes: tuple[str, ...], *, searched: bool) -> collections.Counter[str]:
    """How many of each kind, which is a suffix, among files and folders that are not read.

    Args:
        suffixes: of images, in lower case.
        searched: what is in folders was looked for too, so that they are no kind.
    """
    kinds: collections.Counter[str] = collections.Counter()
    for path in paths:
        if os.path.isdir(path):
            untold = searched or is_in_zarr(path) or is_hidden(path) or _has_results(path) or _is_result(path)
            told = "" if untold else "folder"
        else:
            told = _kind_of_file(path, suffixes)
        if told:
            kinds[told] += 1
    return kinds


def is_hidden(path: str) -> bool:
    return os.path.basename(path).startswith(".")


def is_in_zarr(path: str) -> bool:
    """Whether a path lies in a folder of Zarr."""
    return any(part.lower().endswith(".zarr") for part in pathlib.PurePath(path).parts[:-1])


def _kind_of_file(path: str, suffixes: tuple[str, ...]) -> str:
    """ "" of one that needs no word."""
    folder, name = os.path.split(path)
    if is_in_zarr(path) or name.startswith("._"):
        return ""
    if is_hidden(path):
        return f"hidden {pathlib.PurePath(name).suffix}" if name.lower().endswith(suffixes) else ""
    result = next((end for end in _RESULTS if name.endswith(end)), "")
    if (result or name in _OTHERS) and _has_record(folder):
        return ""
    return result or pathlib.PurePath(name).suffix.lower() or "without a suffix"


def _has_results(folder: str) -> bool:
    """Whether a folder is one of results, or, in one, has those of an image that is not finished."""
    return _has_record(folder) or (folder.endswith(".partial") and _has_record(os.path.dirname(folder)))


def _is_result(folder: str) -> bool:
    """Whether a folder of Zarr is a result beside others."""
    return folder.endswith(_ZARR) and _has_record(os.path.dirname(folder))


def _has_record(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, _RECORD))
