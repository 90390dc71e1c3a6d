"""A folder of files that this user alone may write, and each with a digest: what is read from it may be unpickled.

Before a file's content is given out these are checked, of what was opened and not of a name that may mean something
else a moment later: the folder and the file are no symbolic links, belong to this user, and nobody else may read or
write them; the file is whole (its SHA-256), and it answers the very question that is asked. Everything else counts as
not there. So does all on systems without such owners (Windows).
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import secrets
import stat
import struct
import time

_logger = logging.getLogger(__name__)

_MAGIC = b"fsis_jax kept 1\n"
_LENGTH = struct.Struct("<Q")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MOST = 512 << 20
"""Bytes of a folder; beyond, what was not used for longest is removed."""
_STALE = 3600.0
"""Seconds after which a file that is not finished is left over from a process that was ended."""
_FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_FILE_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class PrivateFolder:
    """Questions and answers, each in a file of its own.

    Any number of processes may use it at once: a file is written under another name and renamed.

    Args:
        path: made if missing, with mode 0700, when the first answer is kept.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def get(self, question: str) -> bytes | None:
        """The answer that was kept; None if there is none, or none that can be trusted."""
        with contextlib.ExitStack() as stack:
            folder = self._opened(stack)
            if folder is None:
                return None
            try:
                file = os.open(_name(question), _FILE_FLAGS, dir_fd=folder)
            except OSError:  # none, a symbolic link, or not to be read
                return None
            stack.callback(os.close, file)
            told = os.fstat(file)
            if not (stat.S_ISREG(told.st_mode) and _is_own(told)):
                return None
            with open(file, "rb", closefd=False) as stream:
                try:
                    content = stream.read()
                except OSError:
                    return None
            answer = _answer(content, question)
            if answer is not None:
                with contextlib.suppress(OSError):
                    os.utime(file)  # used last
            return answer

    def put(self, question: str, answer: bytes) -> bool:
        """Keep an answer; False where that cannot be: a full disk, a folder that is not to be written to."""
        if not hasattr(os, "geteuid"):
            return False
        with contextlib.ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.path, stat.S_IRWXU)
                folder = self._opened(stack)
                if folder is None:
                    return False
                name = _name(question)
                temporary = f".{name}.{secrets.token_hex(4)}.tmp"
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                file = os.open(temporary, flags, stat.S_IRUSR | stat.S_IWUSR, dir_fd=folder)
                try:
                    with open(file, "wb") as stream:
                        stream.write(_content(question, answer))
                    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(temporary, dir_fd=folder)
                    raise
                _tidy(folder)
            except OSError as error:
                _logger.debug("%s: nothing is kept (%s)", self.path, error)
                return False
        return True

    def _opened(self, stack: contextlib.ExitStack) -> int | None:
        """A descriptor of the folder, until the stack ends; None if it is not there, or not this user's alone."""
        if not hasattr(os, "geteuid"):
            return None
        try:
            folder = os.open(self.path, _FOLDER_FLAGS)
        except OSError:
            return None
        stack.callback(os.close, folder)
        if not _is_own(os.fstat(folder)):
            _logger.debug("%s: not used, since it is not this user's alone (owner, mode 0700)", self.path)
            return None
        return folder


def _is_own(told: os.stat_result) -> bool:
    return told.st_uid == os.geteuid() and not told.st_mode & _OTHERS


def _name(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()[:40]


def _content(question: str, answer: bytes) -> bytes:
    asked = question.encode()
    body = _LENGTH.pack(len(asked)) + asked + answer
    return _MAGIC + hashlib.sha256(body).digest() + body


def _answer(content: bytes, question: str) -> bytes | None:
    """What a file of `_content` answers; None if it is damaged, or another question's."""
    start = len(_MAGIC) + hashlib.sha256().digest_size
    digest, body = content[len(_MAGIC) : start], memoryview(content)[start:]
    if not content.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
        return None
    asked = question.encode()
    end = _LENGTH.size + len(asked)
    if bytes(body[:end]) != _LENGTH.pack(len(asked)) + asked:
        return None
    return bytes(body[end:])


def _tidy(folder: int) -> None:
    """Remove what was not used for longest, beyond `_MOST`, and what was left unfinished."""
    found = []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # another process is as tidy
            told = os.stat(name, dir_fd=folder, follow_symlinks=False)
            found.append((told.st_mtime, told.st_size, name))
    total = 0
    for when, size, name in sorted(found, reverse=True):
        total += size
        if total > _MOST or (name.endswith(".tmp") and time.time() - when > _STALE):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)
