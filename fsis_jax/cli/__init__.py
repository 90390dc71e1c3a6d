"""The command line: `fsis demo | app | train | evaluate | segment | merge | references | refine | ... | data`.

Thin: parse, call, print. Bad input ends in one line on stderr and exit status 2; Ctrl-C in status 130.
"""

import atexit
import gc
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from fsis_jax import __version__
from fsis_jax.cache import place
from fsis_jax.cli.spelling import suggestion
from fsis_jax.cli.streams import open_streams
from fsis_jax.errors import FsisError, printable
from fsis_jax.io.atomic import write_failure

Command = Callable[[Sequence[str]], None]

COMMANDS = {
    "demo": "demo",
    "app": "app",
    "train": "training",
    "evaluate": "training",
    "segment": "segmenting",
    "merge": "merging",
    "references": "segmenting",
    "refine": "refining",
    "corrections": "corrections",
    "convert": "converting",
    "export": "converting",
    "data": "datasets",
}
"""Name of a command -> module here, which has a function of that name."""
_GARBAGE = 50_000
"""Objects that are made before Python looks for those that refer to each other in a circle and to nothing else."""
_USAGE = f"usage: fsis {{{','.join(COMMANDS)}}} ...  (each with --help), or fsis --version"


def main() -> NoReturn:
    """The installed command `fsis`, and `python -m fsis_jax`."""
    run(_fsis, sys.argv[1:])


def _fsis(arguments: Sequence[str]) -> None:
    name = arguments[0] if arguments else ""
    if name in COMMANDS:
        command(name)(arguments[1:])
    elif name in ("-h", "--help"):
        print(_USAGE)
    elif name in ("-V", "--version"):
        print(f"fsis {__version__}")
    elif name:
        raise FsisError(f"no command {name!r}; {suggestion(name, COMMANDS)}`fsis --help` lists the commands")
    else:
        print(_USAGE, file=sys.stderr)
        sys.exit(2)


def command(name: str) -> Command:
    """A command of `COMMANDS`. It is imported when it is called, which takes seconds, so that Ctrl-C is heard."""

    def call(arguments: Sequence[str]) -> None:
        _prepare()
        getattr(importlib.import_module(f"fsis_jax.cli.{COMMANDS[name]}"), name)(arguments)

    return call


def run(command: Command, arguments: Sequence[str]) -> NoReturn:
    """Run a command as a program: its streams, errors in one line, the exit status."""
    open_streams()
    # Imports make a million objects that stay. Python would look through them again and again for those that could be
    # freed, and once more at its end, which takes half a second in all.
    gc.set_threshold(_GARBAGE, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
    try:
        command(arguments)
    except FsisError as error:
        _fail(error)
    except OSError as error:
        _fail(write_failure(error.filename or "output", error))
    except MemoryError:
        _fail(FsisError("too little memory: end other programs, or give smaller images or a smaller batch"))
    except Exception as error:
        failure = _device_failure(error)
        if failure is None:
            raise
        _fail(failure)
    except KeyboardInterrupt:
        print("fsis: stopped; what was written is complete", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def _prepare() -> None:
    """Set up logging, and the libraries that a command uses."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    for handler in logging.root.handlers:  # one of grain's is there as soon as it is imported
        if type(handler) is logging.StreamHandler:
            handler.setFormatter(_OneLine())
    logging.getLogger("fsis_jax").setLevel(logging.INFO)
    # Threads of the checkpoint library that meet a full disk; the error itself is raised here.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisable
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may have any bytes
    # JAX and OpenCV read these when they are imported, which not every command does.
    os.environ.setdefault(place.VARIABLE, place.default_compile_cache())
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # it warns of files whose errors we tell
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.exc_info else printable(text)  # a traceback has lines


def _device_failure(error: Exception) -> FsisError | None:
    """`devices.device_failure`, of a command that uses JAX."""
    if "jax" not in sys.modules:
        return None
    from fsis_jax.cli.devices import device_failure

    return device_failure(error)


def _fail(error: FsisError) -> NoReturn:
    print(f"fsis: error: {printable(str(error))}", file=sys.stderr)
    sys.exit(2)


def _unraisable(problem: "sys.UnraisableHookArgs") -> None:
    if str(problem.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(problem)
