"""What a person does, without a front end: its results are those of `fsis segment`, and every step can be undone."""

import dataclasses
import json
import pathlib
import shlex
import threading

import cv2
import numpy as np
import pytest

from fsis_jax.cli.segmenting import segment, segment_parser
from fsis_jax.errors import FsisError
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.tidying import WHOLE_CELLS
from fsis_jax.interactive.command import segment_command
from fsis_jax.interactive.exporting import command, export, export_references, export_training_data
from fsis_jax.interactive.folders import Folders
from fsis_jax.interactive.pointing import clicked
from fsis_jax.interactive.saved import hold
from fsis_jax.interactive.session import Session
from fsis_jax.interactive.state import Filters, Reference
from fsis_jax.io.names import FILES

pytestmark = pytest.mark.usefixtures("quick_compile")

BOX = (10.0, 5.0, 31.0, 26.0)
"""Around a disc of `picture`."""


@pytest.fixture
def a(folder):
    return str(folder / "a.png")


@pytest.fixture
def segmented(session, a):
    """A session with all of what was found in `a.png`."""
    session.set_filters(Filters(0.0))
    session.add_reference(a, BOX)
    finish(session.segment(a))
    assert len(session.result(a).found) > 2
    return session


def finish(task):
    task.wait()
    assert not task.running
    assert task.error == ""


def test_what_is_exported_is_what_the_command_writes_byte_for_byte(segmented, folder, a):
    segmented.add_reference(a, (20.2, 29.7, 40.4, 50.1))
    finish(segmented.segment(a))
    best = segmented.result(a).found.scores
    areas = np.sort(segmented.result(a).areas)
    filters = Filters(float(round(best[-1], 3) + 0.001), float(areas[0] + 1), float(areas[-1] + 0.5))
    segmented.set_filters(filters)
    kinds = list(FILES)
    files = export(segmented, a, kinds)
    assert 0 < len(segmented.result(a).counted(filters)) < len(best)
    line = shlex.split(command(segmented, a, kinds))
    assert line[:3] == ["fsis", "segment", "a.png"]
    assert line[3:7] == ["--reference", "a.png:10,5,31,26", "--reference", "a.png:20,30,40,50"]
    line[line.index("--output") + 1] = "other"
    segment(line[2:])
    for kind in kinds:
        written = (folder / "other" / FILES[kind].format("a")).read_bytes()
        assert pathlib.Path(files[kind]).read_bytes() == written, kind


def test_a_part_is_found_in_tiles_of_its_own(segmenter, folder, picture):
    """Of an image in several tiles; the whole of it as a part is what segmenting it gives."""
    large = np.tile(picture, (4, 4))
    cv2.imwrite(str(folder / "large.png"), large)
    path = str(folder / "large.png")
    session = Session(segmenter, Folders(["."]), folder / "out")
    session.set_filters(Filters(0.0))
    session.add_reference(path, BOX)
    x1, y1, x2, y2 = part = (65.0, 35.0, 150.0, 300.0)
    task = session.segment(path, part)
    finish(task)
    few = task.total
    result = session.result(path)
    assert result.part == (65, 35, 150, 240)
    xs, ys = ((result.found.boxes[:, place] + result.found.boxes[:, place + 2]) / 2 for place in (0, 1))
    assert len(result.found) > 2
    assert ((xs >= x1) & (xs < x2) & (ys >= y1) & (ys < y2)).all()
    with pytest.raises(FsisError, match="only a part of it was segmented"):
        export(session, path, ["labels"])
    finish(session.segment(path))
    whole = session.result(path)
    assert whole.part is None
    expected = WHOLE_CELLS(segmenter.segment(large, session.encode(session.state.references), min_score=0.0), 0.0)
    np.testing.assert_array_equal(whole.found.labels(0.0), expected.labels(0.0))
    task = session.segment(path, (0.0, 0.0, 320.0, 240.0))
    finish(task)
    assert few < task.total / 2
    np.testing.assert_array_equal(session.result(path).found.labels(0.0), expected.labels(0.0))


def test_a_folder_has_one_session_at_a_time(folder):
    with hold(folder / "out"), pytest.raises(FsisError, match=r"out: another program is at work on the session there"):
        hold(folder / "out")
    hold(folder / "out").release()


def test_corrections_count_and_are_undone(segmented, a):
    filters = segmented.filters
    count = len(segmented.result(a).counted(filters))
    segmented.mark(a, 0, "wrong")
    segmented.mark(a, 1, "deleted")
    assert len(segmented.result(a).counted(filters)) == count - 2
    segmented.mark(a, 0, None)
    assert segmented.result(a).verdicts == {1: "deleted"}
    for _ in range(3):
        segmented.undo()
    assert segmented.result(a).verdicts == {}
    segmented.redo()
    segmented.redo()
    assert segmented.result(a).verdicts == {0: "wrong", 1: "deleted"}
    segmented.mark(a, 0, "right")
    assert not segmented.history.can_redo
    while segmented.history.can_undo:
        segmented.undo()
    assert segmented.result(a) is None
    assert segmented.state.references == ()
    segmented.undo()  # nothing is left, and nothing happens


def test_a_missed_cell_is_the_instance_with_that_box_or_an_ellipse(segmented, a):
    segmented.set_filters(Filters(2.0))
    assert len(segmented.result(a).counted(segmented.filters)) == 0
    assert segmented.add_cell(a, tuple(segmented.result(a).found.boxes[0].tolist()))
    assert segmented.result(a).verdicts == {0: "right"}
    assert not segmented.add_cell(a, (70.0, 50.0, 90.0, 60.0))  # of which a part is outside
    ((added, _),) = segmented.result(a).added
    assert added.extent == (70, 50, 80, 60)
    assert segmented.result(a).added_at(75.5, 55.5) == 0
    assert len(segmented.result(a).counted(segmented.filters)) == 2
    segmented.remove_cell(a, 0)
    assert segmented.result(a).added == ()


def test_a_session_is_gone_on_with(segmented, new_session, a, folder):
    segmented.mark(a, 0, "wrong")
    segmented.add_cell(a, (70.0, 50.0, 80.0, 60.0))
    segmented.set_filters(Filters(0.001, 3.0))
    kinds = ["labels", "geojson"]
    files = export(segmented, a, kinds)
    before = [pathlib.Path(file).read_bytes() for file in files.values()]
    assert (folder / "out/session.json").exists()
    other = new_session()
    assert other.load()
    assert other.filters == segmented.filters
    assert other.state.references == segmented.state.references
    assert other.result(a).verdicts == {0: "wrong"}
    assert [pathlib.Path(file).read_bytes() for file in export(other, a, kinds).values()] == before
    export_references(other)
    segment(["b.png", "--references", "out/session.refs", "--checkpoint", other.checkpoint, "--output", "out2"])
    (folder / "out/session.json").unlink()
    assert not other.load()


def test_references_that_change_make_a_result_an_old_one(segmented, a):
    segmented.add_reference(a, (20.0, 30.0, 40.0, 50.0))
    assert not segmented.is_current(segmented.result(a))
    with pytest.raises(FsisError, match="the examples have changed: segment the image first"):
        export(segmented, a, ["labels"])
    segmented.remove_reference(1)
    assert segmented.is_current(segmented.result(a))
    segmented.remove_reference(0)
    with pytest.raises(FsisError, match="no example yet"):
        segmented.segment(a)


def test_what_is_wrong_is_told_in_one_line(session, a, folder):
    with pytest.raises(FsisError, match="a box of 1x20 pixels"):
        session.add_reference(a, (10.0, 5.0, 10.6, 25.0))
    with pytest.raises(FsisError, match="not below what may be opened here"):
        session.add_reference("/etc/passwd", BOX)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with pytest.raises(FsisError, match=r"broken\.png: .*"):
        session.open(str(folder / "broken.png"))
    with pytest.raises(FsisError, match="not segmented yet"):
        session.mark(a, 0, "wrong")
    assert session.state.references == ()
    assert not session.history.can_undo


def test_the_command_parses_whatever_the_files_are_called(folder, segmenter):
    names = ["-x.png", "--out.png", "- y.png"]
    boxes = [Reference(str(folder / name), BOX) for name in names]
    chosen = OutputSettings(category="-cell")
    for references in (boxes, [dataclasses.replace(boxes[0], kind="k"), dataclasses.replace(boxes[1], kind="not")]):
        line = segment_command(
            str(folder / names[0]),
            references,
            Filters(0.5),
            chosen,
            folder / "-out",
            checkpoint="-w.npz",
            min_score=0.5,
        )
        options = segment_parser().parse_args(shlex.split(line)[2:])
        assert options.images == ["./-x.png"]
        assert (options.category, options.output, options.checkpoint) == ("-cell", "./-out", "./-w.npz")


def test_a_number_that_is_not_there_any_more_is_told_and_changes_nothing(segmented, a):
    steps, state = segmented.history.changes, segmented.state
    for act in (
        lambda: segmented.mark(a, len(segmented.result(a).found), "wrong"),
        lambda: segmented.mark(a, -1, "right"),
        lambda: segmented.mark_kind(a, 10**6, ""),
        lambda: segmented.remove_cell(a, 0),
        lambda: segmented.change_cell(a, 0, ""),
        lambda: segmented.remove_reference(1),
    ):
        with pytest.raises(FsisError, match=r"has the number -?\d+, there are \d+ now: look again"):
            act()
    assert segmented.state is state
    assert segmented.history.changes == steps


def test_a_click_is_on_the_cell_that_is_there_when_it_counts(segmented, a, monkeypatch):
    """A task ends while the click is on its way, and the rows are those of other cells."""
    found = segmented.state.results[a].found
    crop = found.masks[0]
    ys, xs = np.nonzero(crop.mask)
    point = crop.x + float(xs[0]) + 0.5, crop.y + float(ys[0]) + 0.5
    others = dataclasses.replace(segmented.state.results[a], found=found.select(np.arange(1, len(found))))
    change = segmented.history.change

    def late(step):
        change(lambda state: state.with_result(a, others))
        return change(step)

    monkeypatch.setattr(segmented.history, "change", late)
    clicked(segmented, a, *point, "wrong", "")
    assert segmented.result(a).found is others.found
    assert segmented.result(a).verdicts == {}


def test_work_stops_and_one_piece_runs_at_a_time(session, a, monkeypatch):
    """While the work waits inside of the network."""
    reached, go = threading.Event(), threading.Event()
    candidates = session.segmenter.candidates

    def slow(jobs, **options):
        reached.set()
        assert go.wait(100)
        return candidates(jobs, **options)

    monkeypatch.setattr(session.segmenter, "candidates", slow)
    told = []
    session.listeners.append(lambda: told.append(session.task is not None and session.task.running))
    session.add_reference(a, BOX)
    task = session.segment(a)
    assert reached.wait(100)
    with pytest.raises(FsisError, match=r"still at work: segmenting a\.png"):
        session.segment(a)
    task.stop()
    go.set()
    task.wait()
    assert task.error == "stopped"
    assert session.result(a) is None
    assert told[0] is False
    assert told[-1] is True  # the last call comes from the thread itself


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_ours_ends_the_work_and_is_told(session, a, monkeypatch):
    monkeypatch.setattr(session.segmenter, "candidates", lambda *_, **__: 1 / 0)
    session.add_reference(a, BOX)
    task = session.segment(a)
    task.wait()
    assert task.error == "it failed: the terminal tells why"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(format=1), "format 1, not 2"),
        (lambda content: content.pop("checkpoint"), "no session"),
        (lambda content: content.pop("images"), "no session"),
        (lambda content: content.update(images=3), "no session"),
        (lambda content: content["images"][0].update(verdicts={"999": "wrong"}), "no session"),
        (lambda content: content["images"][0]["masks"][0].__setitem__(0, 10**6), "no session"),
        (lambda content: content["images"][0].update(path="/etc/passwd"), "not below"),
        (
            lambda content: content["images"][0].update(size=[160, 180]),
            "is another image now",
        ),
    ],
)
def test_a_damaged_session_is_refused_and_changes_nothing(segmented, new_session, folder, change, message):
    segmented.save()
    file = folder / "out/session.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    other = new_session()
    with pytest.raises(FsisError, match=message) as raised:
        other.load()
    assert "\n" not in str(raised.value)
    assert other.state.results == {}
    assert other.filters != segmented.filters


def test_nothing_is_exported_of_an_image_that_another_one_has_replaced(segmented, folder, a):
    segmented.mark(a, 0, "wrong")
    segmented.add_cell(a, (70.0, 50.0, 80.0, 60.0))
    (folder / "b.png").replace(a)
    with pytest.raises(FsisError, match=r"a\.png: another image is there than was segmented: segment it again"):
        export(segmented, a, ["labels"])
    task = export_training_data(segmented)
    task.wait()
    assert "another image is there" in task.error
    finish(segmented.segment(a))
    assert (segmented.result(a).verdicts, segmented.result(a).added) == ({}, ())
    export(segmented, a, ["labels"])


def test_why_nothing_counts_is_told(segmented, a):
    assert segmented.causes(segmented.result(a)) == ()
    segmented.set_filters(Filters(2.0))
    finish(segmented.segment(a))
    segmented.mark(a, 0, "wrong")
    assert any(cause.startswith("scores: ") for cause in segmented.causes(segmented.result(a)))
    segmented.set_filters(Filters(0.0))
    assert segmented.causes(segmented.result(a)) == ()


def test_an_earlier_result_says_why(segmented, a, monkeypatch):
    monkeypatch.setitem(vars(segmented.segmenter), "fingerprint", "another")
    with pytest.raises(FsisError, match="the model is another one now: segment the image first"):
        export(segmented, a, ["labels"])


def test_after_corrections_the_command_takes_them_byte_for_byte(session, folder, a):
    """Of an image that was segmented since, of whose own cells nothing was said."""
    session.set_filters(Filters(0.0))
    session.add_reference(a, BOX)
    finish(session.segment(a))
    before = session.result(a).scores
    for row in range(4):
        session.mark(a, row, "wrong")
    assert not np.array_equal(session.result(a).scores[4:], before[4:])
    b = str(folder / "b.png")
    finish(session.segment(b))
    assert session.result(b) is session.state.results[b]  # it has them already
    kinds = list(FILES)
    files = export(session, b, kinds)
    export_references(session)
    line = shlex.split(command(session, b, kinds))
    assert line[3:5] == ["--references", "out/session.refs"]
    line[line.index("--output") + 1] = "other"
    segment(line[2:])
    for kind in kinds:
        written = (folder / "other" / FILES[kind].format("b")).read_bytes()
        assert pathlib.Path(files[kind]).read_bytes() == written, kind
    learnt = session.result(b)
    session.learn(False)
    plain = session.result(b)
    assert not np.allclose(plain.scores, learnt.scores, atol=1e-3)
    assert "--reference a.png:" in command(session, b, kinds)
    scores = dict(zip(map(tuple, plain.found.boxes.tolist()), plain.scores.tolist(), strict=True))
    finish(session.segment(b))
    found = session.result(b).found
    again = dict(zip(map(tuple, found.boxes.tolist()), found.scores.tolist(), strict=True))
    both = scores.keys() & again.keys()  # another one may be left of two that are the same cell
    assert len(both) > len(scores) / 4
    np.testing.assert_allclose([scores[box] for box in both], [again[box] for box in both], atol=1e-5)
