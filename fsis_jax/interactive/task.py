"""One piece of work in a thread, with its progress; it can be stopped."""

import threading
from collections.abc import Callable

from fsis_jax.errors import FsisError


class StoppedError(FsisError):
    """Somebody asked for it."""


class Task:
    """Work that has begun.

    Args:
        name: what it does, for a person.
        work: is given this task, whose `advance` it calls now and then, which raises StoppedError where the work should
            end; it may give a line that says what came of it.
        done: called in the thread when it has ended, however it did.
    """

    def __init__(self, name: str, work: Callable[["Task"], str | None], done: Callable[[], object]) -> None:
        self.name = name
        self.finished, self.total = 0, 0
        """Parts; 0 of 0 before the number is known."""
        self.unit = "part"
        """What the parts are called."""
        self.told = ""
        """What came of it, in one line, where there is more to say than that it has ended."""
        self.error = ""
        """Why there is no result, in one line; while it runs, and if it succeeds, nothing."""
        self._work, self._done = work, done
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"fsis: {name}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End it after the part that it is at work on."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> None:
        """Until it has ended."""
        self._thread.join(seconds)

    def advance(self, finished: int, total: int) -> None:
        """So many parts of all are done.

        Raises:
            StoppedError: the work should end.
        """
        self.finished, self.total = finished, total
        if self._stop.is_set():
            raise StoppedError("stopped")

    def _run(self) -> None:
        failure = "it failed: the terminal tells why"
        try:
            self.told = self._work(self) or ""
            failure = ""
        except FsisError as error:
            failure = str(error)
        finally:
            self.error = failure
            self._done()
