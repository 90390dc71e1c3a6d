"""Weights that come with the package: files beside this one, made by `fsis export`, and the table of their names.

`SHA256SUMS` has their digests, as `sha256sum *.npz > SHA256SUMS` writes them here and `sha256sum -c` reads them.
"""

import dataclasses
import hashlib
import os
import pathlib

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import user_path


@dataclasses.dataclass(frozen=True)
class Shipped:
    """A model that comes with the package."""

    file: str
    """Name of its weights file."""
    description: str
    """One line."""


SHIPPED = {
    "cells-base": Shipped(
        "cells-base.npz", "dense votes, trained on drawn cells and on public images of 23 kinds; parts what touches"
    ),
    "cells-small": Shipped(
        "cells-small.npz", "the compact detector, two thirds of the time; trained on drawn cells and on 11 kinds"
    ),
    "cells-small-gpu": Shipped("cells-small-gpu.npz", "as cells-small, trained for longer"),
    "cells-drawn": Shipped(
        "cells-drawn.npz", "dense votes, trained on drawn cells alone; for rods and clumps, and to start training from"
    ),
}
"""Name -> model."""
DEFAULT_NAME = "cells-base"
VARIABLE = "FSIS_WEIGHTS"
"""Environment variable that names other weights for where none are given."""
FOLDER = pathlib.Path(__file__).parent
SUMS = "SHA256SUMS"


def default_weights() -> str:
    """What is used where no weights are given: a name of `SHIPPED`, or the name or path in `VARIABLE`."""
    return os.environ.get(VARIABLE) or DEFAULT_NAME


def find_weights(source: str | os.PathLike[str]) -> pathlib.Path | None:
    """The weights file that a name of `SHIPPED` or a path means; None: it is no file, but the folder of a run.

    Raises:
        FsisError: there is nothing of this name, or a file that came with the package is missing or damaged.
    """
    name = os.fspath(source)
    if name in SHIPPED:
        return shipped_file(name)
    path = user_path(name)
    if not os.path.exists(path):
        raise FsisError(
            f"{path}: no such file or folder; give the folder of a training run, a weights file, or the name of "
            f"weights that come with the package: {', '.join(SHIPPED)}"
        )
    return path if os.path.isfile(path) else None


def shipped_file(name: str) -> pathlib.Path:
    """The weights file of a name of `SHIPPED`.

    Raises:
        FsisError: it is missing, or its digest is not that of the package.
    """
    path = FOLDER / SHIPPED[name].file
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        sums = (FOLDER / SUMS).read_text("ascii", "replace")
    except OSError as error:
        raise FsisError(
            f"{error.filename}: a part of fsis_jax that cannot be read ({error.strerror}): install fsis_jax again"
        ) from error
    if not any(line.split() in ([digest, path.name], [digest, f"*{path.name}"]) for line in sums.splitlines()):
        raise FsisError(f"{path}: its SHA-256 is not that in {SUMS}, so it is damaged: install fsis_jax again")
    return path
