"""What the storage library (orbax) tells of arrays, and how it reports damage and full disks."""

import contextlib
import errno
import functools
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import orbax.checkpoint as ocp

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import write_failure
from fsis_jax.io.damage import damage_in


def described(path: pathlib.Path) -> dict[str, Any]:
    """What tells the shapes of the arrays of an item."""
    found = ocp.StandardCheckpointer().metadata(path).item_metadata
    if found is None:
        raise ValueError("no description of its arrays")
    return dict(found)


damaged_arrays = functools.partial(
    damage_in, what="a damaged checkpoint", remedy="choose another step", kind="checkpoint"
)


@contextlib.contextmanager
def disk_errors(folder: pathlib.Path) -> Iterator[None]:
    """A full disk surfaces as OSError, or as another type from the storage library's threads."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError):
            if "No space left" not in str(error):
                raise
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise FsisError(
            f"{write_failure(folder, error)}, then run the same command again: checkpoints already there are intact"
        ) from error


def not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname
