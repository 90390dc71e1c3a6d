"""A file that somebody gives to a front end: it comes in pieces, and is an image, or it does not stay."""

import filecmp
import os
import pathlib
import secrets
from collections.abc import Callable

from fsis_jax.errors import FsisError, printable
from fsis_jax.io.atomic import write_failure
from fsis_jax.io.finding import IMAGE_SUFFIXES
from fsis_jax.io.image_file import ImageFile

MOST_BYTES = 1 << 30
"""Of a file."""
_LONGEST_NAME = 120
"""Bytes, as file systems count: they allow 255, and a number, the kinds of results and temporary names come to it."""


class Received:
    """A file on its way, under a name of its own beside the place where it will be.

    Args:
        folder: where it goes; made if missing.
        name: as the sender calls it; nothing of it but its last part counts.

    Raises:
        FsisError: the name is not that of an image, or the file cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str) -> None:
        self.name = _plain(name)
        self.size = 0
        self._folder = pathlib.Path(folder)
        self._temporary = self._folder / f".{secrets.token_hex(8)}.tmp"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self._temporary, "xb")  # noqa: SIM115 - closed by `keep` and `drop`
        except OSError as error:
            raise write_failure(self._folder, error) from error

    def add(self, data: bytes) -> None:
        """The next piece.

        Raises:
            FsisError: the file becomes too large, or cannot be written.
        """
        self.size += len(data)
        if self.size > MOST_BYTES:
            raise too_large(self.name)
        try:
            self._file.write(data)
        except OSError as error:
            raise write_failure(self._folder / self.name, error) from error

    def keep(self, opener: Callable[[str], ImageFile]) -> str:
        """The whole file is there: its path, that of an earlier one with the same name and content if there is one.

        Args:
            opener: opens an image by its path.

        Raises:
            FsisError: it is no image that can be read, and is gone, or the file cannot be written.
        """
        try:
            self._file.close()
            stem, suffix = os.path.splitext(self.name)
            place, number = self._folder / self.name, 1
            while place.exists():
                if filecmp.cmp(place, self._temporary, shallow=False):
                    self._temporary.unlink()
                    return str(place)
                number += 1
                place = self._folder / f"{stem}-{number}{suffix}"
            os.replace(self._temporary, place)
        except OSError as error:
            raise write_failure(self._folder / self.name, error) from error
        try:
            opener(str(place)).close()
        except FsisError:
            place.unlink()
            raise
        return str(place)

    def drop(self) -> None:
        """What came of it goes, unless it was kept."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def too_large(name: str) -> FsisError:
    """What is said of a file that nobody should send."""
    return FsisError(f"{name}: larger than {MOST_BYTES >> 20} MB: name it or its folder in the command instead")


def _plain(name: str) -> str:
    """A name without folders, and without what a file system or a terminal may take amiss."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(c if c.isalnum() or c in " ._-+()" else "_" for c in last).strip(" .")
    stem, suffix = os.path.splitext(kept)
    if suffix.lower() not in IMAGE_SUFFIXES or suffix.lower() == ".zarr" or not stem:
        raise FsisError(f"{printable(last) or 'a file without a name'}: no image by its name: give a PNG, JPEG or TIFF")
    return stem.encode()[: _LONGEST_NAME - len(suffix.encode())].decode(errors="ignore") + suffix
