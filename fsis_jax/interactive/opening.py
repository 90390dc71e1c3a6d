"""Opening an image in a thread: of a slide without coarser levels all is read for the picture of the whole."""

import contextlib
import threading
from collections.abc import Callable

from fsis_jax.errors import FsisError
from fsis_jax.interactive.view import View
from fsis_jax.io.image_file import ImageFile


class Opening:
    """An image on its way.

    Args:
        path: of it.
        opener: opens an image by its path.
    """

    def __init__(self, path: str, opener: Callable[[str], ImageFile]) -> None:
        self.path = path
        self._opener = opener
        self._view: View | None = None
        self._failure = FsisError(f"{path}: cannot be opened: the terminal tells why")
        self._unwanted = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"fsis: opening {path}", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Until it is open, or cannot be."""
        self._thread.join()

    def view(self) -> View:
        """What came of it, once it is done; its image is open, and the caller's to close.

        Raises:
            FsisError: it may not be opened, or cannot be read.
        """
        self.wait()
        if self._view is None:
            raise self._failure
        return self._view

    def drop(self) -> None:
        """Nobody waits for it any more: its image is closed, now or when it comes to be open."""
        with self._lock:
            self._unwanted = True
            if self._view is not None:
                self._view.image.close()

    def _run(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                image = self._opener(self.path)
                stack.callback(image.close)
                view = View(image)
                with self._lock:
                    self._view = view
                    if not self._unwanted:
                        stack.pop_all()
        except FsisError as error:
            self._failure = error
