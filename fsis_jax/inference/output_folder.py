"""The folder of results while images are segmented into it: what in it is ours, and whether it is still there.

Nothing of a user's is deleted or written to: a folder `NAME.partial` is ours if it has our mark in it, and symbolic
links that stand where something of ours does are not followed.
"""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterable

from fsis_jax.errors import OutputError
from fsis_jax.io.atomic import check_folder, refuse_links, write_failure
from fsis_jax.io.our_zarr import is_ours, move_zarr

_MARK = ".fsis"
"""File in a folder `NAME.partial` that tells that it is ours."""


class OutputFolder:
    """A folder of results, made when the first lock or file comes into it.

    Raises:
        OutputError: it cannot be made or written to.
    """

    def __init__(self, path: pathlib.Path) -> None:
        check_folder(path)
        self.path = path
        self._was_there = path.exists()
        self._identity: tuple[int, int] | None = None

    def check(self) -> None:
        """Raise OutputError where the folder is gone, or another one, since the first call that found it."""
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:
            found = None
        except OSError as error:
            raise write_failure(self.path, error) from error
        else:
            found = stat.st_dev, stat.st_ino
        if self._identity is not None and found != self._identity:
            raise OutputError(
                f"{self.path}: was removed or replaced while images were segmented into it: run the same command again"
            )
        self._identity = found

    def partial(self, name: str) -> pathlib.Path:
        """Where the results of an image are until all are there."""
        return self.path / f"{name}.partial"

    def open_partial(self, name: str) -> pathlib.Path:
        """Make that folder, with our mark, or take what an earlier run left.

        Raises:
            OutputError: it cannot be made, or is not ours.
        """
        folder = self.partial(name)
        try:
            refuse_links(folder)
            if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
                raise OutputError(f"{folder}: a folder that fsis did not make: rename it or choose another folder")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _MARK).touch()
        except OSError as error:
            raise write_failure(folder, error) from error
        return folder

    def remove_partial(self, name: str, files: Iterable[str]) -> None:
        """Remove that folder, if it is ours, with what is left in it of these files; others in it stay."""
        folder = self.partial(name)
        if folder.is_symlink() or not (folder / _MARK).is_file():
            return
        with contextlib.suppress(OSError):
            for place in [*(folder / file for file in files), *folder.glob(".*.tmp"), folder / _MARK]:
                if is_ours(place) and not place.is_symlink():
                    shutil.rmtree(place)
                else:
                    place.unlink(missing_ok=True)
            folder.rmdir()

    def move(self, file: str, place: pathlib.Path) -> None:
        """Move a file, or a folder of Zarr, of a folder `NAME.partial` to its place.

        Raises:
            OutputError: it cannot be moved.
        """
        try:
            if os.path.isdir(file):
                move_zarr(pathlib.Path(file), place)
            else:
                os.replace(file, place)
        except OSError as error:
            raise write_failure(place, error) from error

    def places(self, files: Iterable[str]) -> list[pathlib.Path]:
        """Where files of a folder `NAME.partial` belong.

        Raises:
            OutputError: a folder is there, but for one of Zarr that we wrote.
        """
        places = [self.path / os.path.basename(file) for file in files]
        for place in places:
            if place.is_dir() and not place.is_symlink() and not is_ours(place):
                raise write_failure(place, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
        return places

    def remove_if_new(self) -> None:
        """Remove the folder if it was made for results of which none came."""
        if not self._was_there:
            with contextlib.suppress(OSError):
                self.path.rmdir()
