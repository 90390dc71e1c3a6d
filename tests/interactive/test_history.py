"""Steps back and forth, while other threads make changes."""

import threading

from fsis_jax.interactive.history import History
from fsis_jax.interactive.state import Reference, State


def shown(name):
    return lambda state: state.with_reference(Reference(name, (0.0, 0.0, 9.0, 9.0)))


def names(history):
    return [reference.image for reference in history.state.references]


def test_what_arrives_while_undo_is_asked_for_can_be_had_again():
    history, started, go = History(), threading.Event(), threading.Event()
    history.change(shown("a"))

    def slow(state):
        started.set()
        assert go.wait(60)
        return shown("result")(state)

    change = threading.Thread(target=history.change, args=[slow])
    change.start()
    assert started.wait(60)
    undo = threading.Thread(target=history.undo)
    undo.start()
    undo.join(0.2)  # by now it waits for the change
    go.set()
    change.join()
    undo.join()
    assert names(history) == ["a"]
    history.redo()
    assert names(history) == ["a", "result"]
    history.undo()
    history.undo()
    assert names(history) == []


def test_a_first_state_is_where_undo_ends():
    history = History()
    history.change(shown("a"))
    history.undo()
    history.begin(State(kinds=("first",)))
    assert not history.can_undo
    assert not history.can_redo
    history.undo()
    assert history.state.kinds == ("first",)
