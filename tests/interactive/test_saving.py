"""The session is kept in its file whatever front end there is, and is gone on with as far as its images are there."""

import json
import logging
import os
import signal
import threading

import numpy as np
import pytest

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.interactive import saved
from fsis_jax.interactive import session as session_module
from fsis_jax.interactive.loading import images_of
from fsis_jax.interactive.saved import SessionFile, read_session
from fsis_jax.interactive.shapes import ellipse
from fsis_jax.interactive.state import Added, Filters, Reference, Result, State

BOX = (10.0, 5.0, 31.0, 26.0)


@pytest.fixture
def a(folder):
    return str(folder / "a.png")


@pytest.fixture
def state(folder, a):
    """One example in each image, and one cell in each."""
    references = (Reference(a, BOX), Reference(str(folder / "b.png"), BOX))
    crops = (ellipse(BOX),)
    found = Instances(np.array([BOX], np.float32), np.array([0.9], np.float32), crops, (60, 80))
    return State(references, {reference.image: Result(found, references) for reference in references})


@pytest.fixture
def file(folder, state):
    """The session of another time."""
    return SessionFile(folder / "out/session.json").write(state, Filters(0.5), "", None)


def test_what_was_found_is_encoded_once(state, a, folder, monkeypatch):
    file = SessionFile(folder / "session.json")
    path = file.write(state, Filters(0.5), a, "model")
    monkeypatch.setattr(saved, "_found", lambda found: pytest.fail("it was encoded before"))
    said = state.with_result(a, Result(state.results[a].found, (), None, {0: "wrong"}, {}, (Added(ellipse(BOX)),)))
    file.write(said, Filters(0.25), a, "model")
    monkeypatch.undo()
    state, filters, looked_at = read_session(path)
    assert (filters, looked_at) == (Filters(0.25), a)
    assert state.results[a].verdicts == {0: "wrong"}
    assert state.results[a].found.masks[0].extent == (10, 5, 31, 26)
    assert SessionFile(folder / "other.json").write(said, filters, a, "model")
    assert (folder / "other.json").read_bytes() == (folder / "session.json").read_bytes()


def test_changes_are_saved_without_a_tab(session, a, folder, monkeypatch):
    monkeypatch.setattr(session_module, "_SAVE", 0.01)
    told, again = threading.Event(), threading.Event()
    (folder / "out").write_bytes(b"")  # a file has the name of the folder
    session.listeners.append(lambda: told.set() if session.unsaved else again.set())
    session.add_reference(a, BOX)
    again.clear()
    session.keep()
    try:
        assert told.wait(60)
        assert "out/session.json: cannot be written" in session.unsaved
        (folder / "out").unlink()
        assert again.wait(60)
        assert len(read_session(folder / "out/session.json")[0].references) == 1
    finally:
        session.close()
    session.add_reference(a, (20.0, 30.0, 41.0, 51.0))
    session.close()
    assert len(read_session(folder / "out/session.json")[0].references) == 2


def test_undo_does_not_lead_back_before_a_session_that_is_gone_on_with(new_session, file):
    session = new_session()
    assert session.load()
    session.undo()
    session.save()
    assert len(read_session(file)[0].references) == 2


def test_an_image_that_is_gone_is_left_out_and_told(new_session, file, folder, a, caplog):
    before = (folder / "out/session.json").read_bytes()
    (folder / "b.png").unlink()
    session = new_session()
    with caplog.at_level(logging.WARNING, "fsis_jax"):
        assert session.load()
    assert images_of(session.state) == [a]
    assert "b.png: no such file: left out" in caplog.text
    assert (folder / "out/session-1.json").read_bytes() == before
    session.close()
    assert images_of(read_session(file)[0]) == [a]
    assert json.loads((folder / "out/session-1.json").read_bytes())["images"][1]["path"].endswith("b.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n and then nothing", "b.png: "),
        (None, "is another image now, of 60x80 pixels"),
    ],
)
def test_another_image_in_its_place_is_told_with_what_to_do(new_session, file, folder, picture, content, message):
    import cv2

    (folder / "b.png").write_bytes(content or cv2.imencode(".png", picture.T)[1].tobytes())
    session = new_session()
    with pytest.raises(FsisError, match=message) as raised:
        session.load()
    assert str(raised.value).startswith(f"{file}: ")
    assert str(raised.value).endswith("choose another folder (--output)")
    assert session.state.references == ()


@pytest.fixture
def termination():
    """SIGTERM fails the test, unless something else is done with it."""

    def fail(*_):
        raise AssertionError("SIGTERM ends the program at once")

    before = signal.signal(signal.SIGTERM, fail)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("termination", "quick_compile")
def test_fsis_app_that_is_ended_by_sigterm_keeps_the_session(folder, a, weights, monkeypatch, capsys):
    pytest.importorskip("bokeh", reason="the page needs the extra `app` (Bokeh)")
    from fsis_jax.app.server import PageServer
    from fsis_jax.cli import app_run
    from fsis_jax.cli.app import app

    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "")
    del os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"]
    made = []

    def run(server):
        assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"  # or a fine-tuning finds no memory on a GPU
        made[0].add_reference(a, BOX)
        os.kill(os.getpid(), signal.SIGTERM)

    session = app_run.Session
    monkeypatch.setattr(app_run, "Session", lambda *args, **options: made.append(session(*args, **options)) or made[0])
    monkeypatch.setattr(PageServer, "run", run)
    with pytest.raises(KeyboardInterrupt):
        app(["a.png", "--no-browser", "--output", "out", "--checkpoint", weights])
    assert len(read_session(folder / "out/session.json")[0].references) == 1
    assert not (folder / "out/session.lock").exists()
