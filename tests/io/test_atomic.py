"""Writes are whole or not at all."""

import errno
import os
import pathlib
import resource
import signal

import pytest

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import atomic_write, write_failure


def _names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_new_content_replaces_the_old_at_the_end_of_the_block(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "made" / "on the way" / "a.json"
    with atomic_write(path) as file:
        file.write(b"old")
    with atomic_write(str(path)) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert _names(path.parent) == ["a.json"]


def test_permissions_follow_the_umask(tmp_path: pathlib.Path) -> None:
    with atomic_write(tmp_path / "a") as file:
        file.write(b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def _write(path: pathlib.Path, data: bytes = b"half", then: BaseException | None = None) -> None:
    with atomic_write(path) as file:
        file.write(data)
        if then:
            raise then


def test_an_exception_leaves_the_old_file_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        _write(path, then=KeyboardInterrupt())
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["a.json"]


def test_full_disk(tmp_path: pathlib.Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FsisError, match=r"a\.json: cannot be written \(No space left on device\): free some space"):
        _write(tmp_path / "a.json", then=full)
    assert _names(tmp_path) == []


def test_a_write_that_the_system_stops(tmp_path: pathlib.Path) -> None:
    """A real failure in the middle of the data: the process may write at most 64 KiB to a file."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        with pytest.raises(FsisError, match=r"a\.bin: cannot be written \(File too large\)"):
            _write(path, bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["a.bin"]


def test_folder_and_file_in_the_way(tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FsisError, match=r"folder: cannot be written .*: a folder has that name: rename it"):
        _write(tmp_path / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(FsisError, match="a part of the path is a file"):
        _write(tmp_path / "file" / "a")
    assert _names(tmp_path) == ["file", "folder"]


def test_write_failure_is_one_line() -> None:
    message = str(write_failure("out/a.tif", OSError(errno.EROFS, os.strerror(errno.EROFS))))
    expected = "out/a.tif: cannot be written (Read-only file system): choose a folder that you may write to"
    assert message == expected
    assert "check the path" in str(write_failure("a", OSError("odd")))
