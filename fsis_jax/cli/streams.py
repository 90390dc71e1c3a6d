"""Standard streams that a command can rely on, however it was started.

What is written goes nowhere where a stream is closed (`2>&-`) or missing (pythonw.exe, programs with a window), and
where it is a pipe whose reader has gone (`| head`). The work is done all the same: its results are files.
"""

import contextlib
import io
import os
import stat
import sys
from typing import Any

from fsis_jax.errors import printable

_NAMES = ("stdin", "stdout", "stderr")
"""The standard streams by their file descriptors."""


def say(text: object) -> None:
    """Print lines in which names of a stranger's may stand."""
    print("\n".join(map(printable, str(text).split("\n"))))


def open_streams() -> None:
    """Give this process, and those that it starts, all three standard streams."""
    if os.name == "posix":
        for number in range(len(_NAMES)):
            _occupy(number)
    for name in _NAMES:
        stream = getattr(sys, name)
        if stream is None:
            nowhere = open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, nowhere)
            setattr(sys, f"__{name}__", nowhere)
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper) and _is_pipe(stream):
            setattr(sys, name, _forgiving(stream))


def _occupy(number: int) -> None:
    """Open a file descriptor that is closed, before a file of results gets it and with it what libraries print."""
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        os.set_inheritable(number, True)  # a process that has none would give its number to the next file


def _is_pipe(stream: io.TextIOWrapper) -> bool:
    with contextlib.suppress(OSError):  # no file behind it
        mode = os.fstat(stream.fileno()).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    return False


class _Pipe(io.FileIO):
    """Bytes to a pipe, dropped once nobody reads them."""

    def write(self, data: Any, /) -> Any:
        try:
            return super().write(data)
        except (BrokenPipeError, ConnectionResetError):
            return memoryview(data).nbytes


def _forgiving(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, which a reader may leave."""
    with contextlib.suppress(BrokenPipeError):
        stream.flush()
    pipe = _Pipe(stream.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(pipe),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
