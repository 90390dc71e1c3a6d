"""Who is at work on a result: a file beside it that says so, so that several processes may share a folder.

It is made with O_EXCL, which one of several processes can do alone, and removed at the end. What a killed process left
behind is taken over on the same machine, where it can be seen that the process is gone. A process elsewhere cannot be
seen: its file stays until it is removed or `force` takes it over.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import socket
import time
from typing import Self

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import refuse_links, write_failure

_PATIENCE = 1.0
"""Seconds for which a file that says nothing is taken for one that is being written."""
_ENDED = "ended"


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that made a lock."""

    host: str
    processes: str
    """Within which `pid` counts: containers on one host have their own."""
    pid: int
    started: str
    """When the process did, since numbers come again; "" where that cannot be told."""
    token: str
    """A text that no other lock has."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.host else "an unknown process"

    @property
    def is_near(self) -> bool:
        """Whether it can be seen from here if the process is gone."""
        return (self.host, self.processes) == (socket.gethostname(), _processes())

    @property
    def is_gone(self) -> bool:
        return self.is_near and not _is_running(self.pid, self.started)


class BusyError(FsisError):
    """Another run has the lock.

    Attributes:
        passes: it runs on this machine, so that one can wait for its end.
    """

    def __init__(self, path: pathlib.Path, holder: Holder) -> None:
        if not holder.is_near:
            remedy = "wait until it has ended; if it has, delete this file, or give `fsis segment` --force"
        elif holder.pid == os.getpid():
            remedy = "that is this process, in an earlier call: end that one first"
        else:
            remedy = "wait until it has ended"
        super().__init__(f"{path}: another run is at work on this result ({holder}): {remedy}")
        self.holder = holder
        self.passes = holder.is_near and holder.pid != os.getpid()


@dataclasses.dataclass(frozen=True)
class Lock:
    """A lock that this process has; a context manager that releases it."""

    path: pathlib.Path
    holder: Holder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let others have it. One that was taken over is left alone."""
        with contextlib.suppress(OSError):
            if _read(self.path) == self.holder:
                self.path.unlink()


def acquire(path: pathlib.Path, *, force: bool = False) -> Lock:
    """Make the file of a lock, with its folder, or take over what is left of a process that is gone.

    Args:
        force: also take over that of a process on another machine, which nobody can see from here.

    Raises:
        BusyError: another run has it.
        OutputError: it cannot be written or read.
    """
    mine = Holder(socket.gethostname(), _processes(), os.getpid(), _started(os.getpid()), secrets.token_hex(4))
    try:
        refuse_links(path)
        while not _make(path, mine):
            other = _read(path)
            if other is not None:
                _remove(path, other, force)
    except OSError as error:
        raise write_failure(path, error) from error
    return Lock(path, mine)


def _remove(path: pathlib.Path, other: Holder, force: bool) -> None:
    """Remove the lock of a process that is gone, as the only one that does.

    Who does it has a lock of its own for this, named after the one to remove: so none is removed that was made since.

    Raises:
        BusyError: the process is there, or may be, or another one is removing its lock.
    """
    if not (other.is_gone or (force and not other.is_near)):
        raise BusyError(path, other)
    with acquire(path.with_name(f"{path.name}.{other.token}"), force=force):
        if _read(path) == other:
            path.unlink(missing_ok=True)


def _make(path: pathlib.Path, holder: Holder) -> bool:
    """Make the file, and its folder; False if it is there, or another run removed its empty folder meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except (FileExistsError, FileNotFoundError):
        return False
    try:
        with open(descriptor, "wb") as file:
            file.write(json.dumps(dataclasses.asdict(holder)).encode() + b"\n")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


def _read(path: pathlib.Path) -> Holder | None:
    """Who made a file; None if it is not there, an unknown process if it says nothing."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except PermissionError:  # another user's
            content = b""
        with contextlib.suppress(ValueError, TypeError):
            return Holder(**json.loads(content))
        if time.monotonic() > end:
            return Holder("", "", 0, "", "unknown")
        time.sleep(0.05)


def _processes() -> str:
    """The namespace of process numbers that this process is in; "" where there are none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _is_running(pid: int, started: str) -> bool:
    if os.name != "posix":
        return True  # to ask would end it
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    now = _started(pid)
    return now != _ENDED and (not started or now in (started, ""))


def _started(pid: int) -> str:
    """When a process started, in ticks since the machine did; "" where that is not told, `_ENDED` of what is left."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return _ENDED if fields[0] in (b"Z", b"X") else fields[19].decode()
