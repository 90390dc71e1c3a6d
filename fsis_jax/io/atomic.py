"""Writing files and folders so that a reader sees the old one or the whole new one, never a part."""

import contextlib
import errno
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from typing import BinaryIO

from fsis_jax.errors import FsisError, OutputError

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some of your quota or choose another folder",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.EISDIR: "a folder has that name: rename it or choose another name",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.ENAMETOOLONG: "shorten the name of the image or of the folder",
    errno.EEXIST: "a part of the path is a file; choose another folder",
    errno.ELOOP: "a symbolic link has that name, which is not followed: remove it or choose another folder",
}

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""What file systems without hard links say."""


def user_path(path: str) -> pathlib.Path:
    """A path from a config or the command line: absolute, with ~ expanded.

    Raises:
        FsisError: ~NAME of a user who is not known.
    """
    try:
        return pathlib.Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise FsisError(f"{path}: there is no such user, or no home: give the whole path") from error


def write_failure(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """The one-line error for an OSError met while writing `path` (a file or a folder)."""
    remedy = _REMEDIES.get(error.errno or 0, "check the path and the disk")
    return OutputError(f"{os.fspath(path)}: cannot be written ({error.strerror or error}): {remedy}")


def read_failure(path: str | os.PathLike[str], error: OSError, kind: str) -> FsisError:
    """The one-line error for an OSError met while reading a file of some kind ("image")."""
    if isinstance(error, FileNotFoundError):
        return FsisError(f"{os.fspath(path)}: no such file: check the path")
    return FsisError(f"{os.fspath(path)}: cannot be read ({error.strerror or error}): give a readable {kind} file")


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read its bytes. One that might never answer, a pipe or a device, raises OSError."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(errno.ENOTBLK, "a pipe or a device, not a file", os.fspath(path))
    return open(path, "rb")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise OutputError where a folder is not there and cannot be made, or must not be written to."""
    place = pathlib.Path(path)
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise write_failure(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(place, os.W_OK | os.X_OK):
        raise write_failure(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def refuse_links(*paths: pathlib.Path) -> None:
    """Raise the OSError that the system has for it where a path that is written to is a symbolic link."""
    for path in paths:
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def check_unused(folder: pathlib.Path) -> None:
    """Raise FsisError where a folder to make exists already, unless it is an empty one."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FsisError(f"{folder}: exists already: delete it or choose another folder")


@contextlib.contextmanager
def new_folder(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder under another name beside `target`, whose place it takes when the block ends without an exception.

    On any exception it is removed. The block should only write: every OSError in it is taken for a failed write.

    Args:
        target: not there yet, or an empty folder (`check_unused`).

    Raises:
        OutputError: it cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            temporary.mkdir(parents=True)
            yield temporary
            if target.exists():
                target.rmdir()
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise write_failure(target, error) from error


def write_once(path: str | os.PathLike[str], content: bytes) -> bytes:
    """Write a file that several processes may write, on several machines, and that the first of them makes.

    It needs no lock: a hard link is made by one alone, on NFS too. (Where there are none the last one makes it.)

    Returns:
        What it has, which need not be `content`.

    Raises:
        OutputError: it cannot be written or read.
    """
    target = pathlib.Path(path)
    with _published(target, _link_first) as file:
        file.write(content)
    try:
        return target.read_bytes()
    except OSError as error:
        raise write_failure(target, error) from error


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file whose content takes the place of `path` when the block ends without an exception.

    The content goes to a temporary file in the same folder (made if missing), is flushed to the disk and
    renamed. On any exception the temporary file is removed and `path` stays as it was. The block should only
    write: every OSError in it is taken for a failed write.

    Raises:
        OutputError: the file cannot be written (full disk, no permission, `path` is a folder ...).
    """
    with _published(pathlib.Path(path), os.replace) as file:
        yield file


@contextlib.contextmanager
def _published(target: pathlib.Path, publish: Callable[[pathlib.Path, pathlib.Path], None]) -> Iterator[BinaryIO]:
    """A temporary file beside `target`, which `publish` gives its name once it is whole and on the disk."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            publish(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise write_failure(target, error) from error


def _link_first(temporary: pathlib.Path, target: pathlib.Path) -> None:
    """Give a file a second name, unless another has that name already."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not target.exists():
            os.replace(temporary, target)
