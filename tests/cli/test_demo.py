"""`fsis demo` with the tiny model: what it writes and prints, and which folders it leaves alone."""

import shlex

import numpy as np
import pytest

from fsis_jax.io.decoding import read_image
from fsis_jax.synthetic.sample import KINDS, draw_sample

pytestmark = pytest.mark.usefixtures("quick_compile", "read_once")


@pytest.fixture
def small(monkeypatch):
    """Samples with a few cells of each kind."""
    monkeypatch.setattr("fsis_jax.synthetic.sample.SIDE", 320)


@pytest.mark.usefixtures("small")
def test_files_table_and_commands(fsis, desk):
    outcome = fsis("demo", "--checkpoint", "W")
    assert outcome.status == 0, outcome.stderr
    folder = desk / "fsis-demo"
    crops = {f"{kind}-{number}.png" for kind in KINDS for number in (1, 2, 3)}
    assert {path.name for path in folder.iterdir()} == {"sample.png", "demo.txt", "results", *crops}
    sample = draw_sample(0)
    np.testing.assert_array_equal(read_image(folder / "sample.png"), sample.image)
    lines = outcome.stdout.splitlines()
    start = lines.index("") + 2  # after the names of the columns
    rows = lines[start : start + len(KINDS)]
    outlines = 0
    for row, kind in zip(rows, KINDS, strict=True):
        shown, there, found, missed, false = map(int, row.removeprefix(kind).split()[:5])
        assert (shown, there) == (3, sample.labels[kind].max())
        assert found + missed == there
        outlines += found + false
    results = folder / "results"
    assert outlines == read_image(results / "sample-labels.tif").max()
    assert {"sample-overlay.png", "sample-table.csv", "summary.csv"} < {path.name for path in results.iterdir()}
    assert "  fsis-demo/results/sample-overlay.png" in lines
    assert (folder / "demo.txt").read_text() == outcome.stdout

    ((_, *command),) = [shlex.split(line) for line in lines if line.startswith("  fsis segment fsis-demo")]
    stamp = (results / "sample-labels.tif").stat().st_mtime_ns
    assert fsis(*command).status == 0
    assert (results / "sample-labels.tif").stat().st_mtime_ns == stamp  # nothing was left to do

    again = fsis("demo", "--checkpoint", "W")
    assert (again.status, again.stdout) == (0, outcome.stdout)


def test_nothing_is_written_on_an_error_and_over_other_files(fsis, desk):
    before = sorted(desk.iterdir())
    assert "no such" in fsis("demo", "--checkpoint", "nowhere").error
    for output, said in ((".", "has files that are not a demo's: choose a new folder"), ("good.png", "is a file")):
        assert said in fsis("demo", "--checkpoint", "W", "--output", output).error
    assert sorted(desk.iterdir()) == before


@pytest.mark.usefixtures("small")
def test_an_interrupted_demo_is_started_again(fsis, desk, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fsis_jax.cli.demo_run.match", interrupted)
        assert fsis("demo", "--checkpoint", "W").status == 130
    assert fsis("demo", "--checkpoint", "W").status == 0


def test_references_are_whole_cells_apart_from_others():
    sample = draw_sample(1)
    everything = sum((labels > 0).astype(int) for labels in sample.labels.values())
    for kind in KINDS:
        boxes = sample.examples(kind, 5)
        assert len(set(boxes)) == 5
        for x1, y1, x2, y2 in boxes:
            inside = sample.labels[kind][y1:y2, x1:x2]
            assert len(np.unique(inside)) == 2  # one cell, and background
            assert np.count_nonzero(everything[y1 - 2 : y2 + 2, x1 - 2 : x2 + 2]) == np.count_nonzero(inside)
