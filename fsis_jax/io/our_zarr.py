"""Folders of Zarr that `zarr_labels.py` wrote: known by a mark, so that nothing else is replaced or removed."""

import errno
import json
import os
import pathlib
import secrets
import shutil

MARK = "fsis_jax"
"""Attribute of such a folder."""


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is one that `write_zarr` made."""
    for name in "zarr.json", ".zattrs":
        try:
            content = json.loads(pathlib.Path(path, name).read_bytes())
        except (OSError, ValueError):
            continue
        attributes = content.get("attributes") if name == "zarr.json" and isinstance(content, dict) else content
        if isinstance(attributes, dict) and MARK in attributes:
            return True
    return False


def move_zarr(source: pathlib.Path, target: pathlib.Path) -> None:
    """Move a folder that `write_zarr` made to where there may be another one of ours, which is removed.

    Raises:
        OSError: there is something else, or it cannot be moved.
    """
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if target.exists():
        if not is_ours(target):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        os.replace(target, old)
        shutil.rmtree(old, ignore_errors=True)
    os.replace(source, target)
