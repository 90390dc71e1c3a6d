"""Which exceptions tell that a file is damaged, and which that a program, its libraries or the machine fail.

The parsers of a format meet anything in a damaged file, and raise what their authors thought of and what they did not.
A fault of our own, a library of another version, a missing codec and lack of memory look alike from outside, and must
not be told as damage: the user would copy a file again that is whole.
"""

import contextlib
import csv
import errno
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from types import ModuleType

import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import read_failure

CUT_OFF = "copy or export the file again"
"""The remedy for damaged files."""
_OF_DATA = (
    *(ValueError, LookupError, ArithmeticError, EOFError, OSError, RuntimeError),
    *(struct.error, zlib.error, zipfile.BadZipFile, pickle.UnpicklingError, tifffile.TiffFileError),
    *(SyntaxError, tokenize.TokenError, csv.Error),
)
"""What parsers and decoders raise of data that is not as it should be.

imagecodecs' errors are RuntimeErrors; the last two are of numpy, which reads the head of an array as Python.
"""
_OF_CODE = (TypeError, AttributeError, AssertionError)
"""What a library raises too where a value of its file is of another kind than it expects: a tuple, None."""


def one_line(error: Exception) -> str:
    """What an error says, for a message of one line."""
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def damage_in(name: str, what: str, remedy: str = CUT_OFF, kind: str = "image") -> Iterator[None]:
    """Tell exceptions of damaged data as an FsisError: `{name}: {what} (the exception): {remedy}`.

    An OSError of the system (no such file, a drive that fails) is told as such, for a file of this kind. All others
    pass.
    """
    try:
        yield
    except FsisError:
        raise
    except Exception as error:
        # A place that no file has (EINVAL) is one that a damaged file names.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise read_failure(name, error, kind) from error
        if not is_of_data(error):
            raise
        raise FsisError(f"{name}: {what} ({one_line(error)}): {remedy}") from error


def is_of_data(error: Exception) -> bool:
    """Whether an exception that a parser raised tells of its file."""
    if isinstance(error, _OF_CODE):
        # Where a module lacks a name no file is to blame, and what our own lines raise is our own fault.
        return not isinstance(getattr(error, "obj", None), ModuleType) and not _is_raised_by_us(error)
    return isinstance(error, _OF_DATA)


def _is_raised_by_us(error: Exception) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("fsis_jax.")
