"""The state of a session and the steps that lead back from it: undo and redo."""

import threading
from collections.abc import Callable

from fsis_jax.interactive.state import State

_MOST_STEPS = 200
"""Of undo."""


class History:
    """A state that is only ever changed as a whole, from any thread."""

    def __init__(self) -> None:
        self.state = State()
        self.changes = 0
        """How often it has changed, undone or redone steps too."""
        self._earlier: list[State] = []
        self._later: list[State] = []
        self._lock = threading.RLock()

    def change(self, change: Callable[[State], State]) -> bool:
        """One step of undo, unless nothing becomes of it; whether something does.

        Args:
            change: is called once, while no other thread changes anything.
        """
        with self._lock:
            changed = change(self.state)
            if changed is self.state:
                return False
            self._earlier = [*self._earlier, self.state][-_MOST_STEPS:]
            self._later = []
            self._set(changed)
            return True

    def begin(self, state: State) -> None:
        """A first state, which no step leads back from."""
        with self._lock:
            self._earlier, self._later = [], []
            self._set(state)

    def undo(self) -> None:
        """Back to before the last change, if there was one."""
        with self._lock:
            self._step(self._earlier, self._later)

    def redo(self) -> None:
        """What was undone last is done again, if nothing else was done since."""
        with self._lock:
            self._step(self._later, self._earlier)

    @property
    def can_undo(self) -> bool:
        return bool(self._earlier)

    @property
    def can_redo(self) -> bool:
        return bool(self._later)

    def _step(self, source: list[State], target: list[State]) -> None:
        if source:
            target.append(self.state)
            self._set(source.pop())

    def _set(self, state: State) -> None:
        self.state = state
        self.changes += 1
