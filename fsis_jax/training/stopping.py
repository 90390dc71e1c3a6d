"""SIGTERM, which a cluster sends some time before it ends a job."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

STATUS = 128 + signal.SIGTERM
"""The exit status of a process that it has ended."""


class Termination:
    """While it is entered the first SIGTERM is noted for the loop to obey, and a second one ends the process at once.

    In another thread than the main one SIGTERM does what it always did, as only that one can handle signals.
    """

    def __init__(self) -> None:
        self.asked = False
        self._interruptible = False
        self._before: Any = None

    def __enter__(self) -> "Termination":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """For what can be done again after a restart: SIGTERM leaves it by SystemExit."""
        self._interruptible = True
        try:
            if self.asked:
                raise SystemExit(STATUS)
            yield
        finally:
            self._interruptible = False

    def _note(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.asked = True
        if self._interruptible:
            raise SystemExit(STATUS)
