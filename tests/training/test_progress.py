"""What is told while a run trains: compilation and pauses count neither in the rate nor in the time left."""

import pytest

from fsis_jax.training import progress
from fsis_jax.training.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """The seconds, as a list of one number."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_canvas_is_compiled_once_and_not_counted(clock, capsys):
    bar = Progress(100, first=0, canvases=((608, 800), (800, 608)))
    started = bar._bar.start_t
    for canvas, took in (((608, 800), 90.0), ((608, 800), 2.0), ((800, 608), 30.0), ((800, 608), 2.0)):
        with bar.stepping(canvas):
            clock[0] += took
        bar.update()
    assert bar.steps_per_second(4) == 1.0
    assert bar._bar.start_t - started == 120.0  # what tqdm reckons the time left from
    with bar.paused():
        clock[0] += 50
    clock[0] += 4
    assert bar.steps_per_second(12) == 2.0
    bar.close()
    told = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("compil")]
    assert told == [
        "compiling the step for the canvas 608x800 (1 of 2), once; later starts read it from disk",
        "compiled in 90 s",
        "compiling the step for the canvas 800x608 (2 of 2), once; later starts read it from disk",
        "compiled in 30 s",
    ]
