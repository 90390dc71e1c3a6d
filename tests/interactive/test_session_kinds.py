"""Several kinds in a session: shown, found, corrected, kept, and written as `fsis segment --kind --not` writes them."""

import json
import pathlib
import shlex
import threading

import numpy as np
import pytest

from fsis_jax.cli.segmenting import segment
from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.traits import TRAITS, KindModel
from fsis_jax.interactive.exporting import command, export, export_training_data
from fsis_jax.interactive.kinds import counts
from fsis_jax.interactive.learning import Basis
from fsis_jax.interactive.shapes import ellipse
from fsis_jax.interactive.state import NOT_THIS, Added, Filters, Reference, Result, State
from fsis_jax.io.names import FILES
from fsis_jax.preprocess.cropped_mask import CroppedMask

pytestmark = pytest.mark.usefixtures("quick_compile")

BOXES = ((10.0, 5.0, 31.0, 26.0), (20.0, 30.0, 41.0, 51.0), (50.0, 20.0, 71.0, 41.0))
"""Around the discs of `picture`."""


@pytest.fixture
def a(folder):
    return str(folder / "a.png")


@pytest.fixture(scope="module")
def found():
    """Two cells, of which the first is living and the second dead."""
    crops = (ellipse(BOXES[0]), ellipse(BOXES[1]))
    kinds = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], np.float32)
    return Instances(
        np.array([crop.extent for crop in crops], np.float32),
        1 - kinds[:, -1],
        crops,
        (60, 80),
        classes=np.array([0, 1], np.int32),
        names=("living", "dead"),
        kind_scores=kinds,
    )


@pytest.fixture
def told(session, a, found):
    """A session with that result."""
    references = (Reference(a, BOXES[0], "living"), Reference(a, BOXES[1], "dead"))
    session.history.change(lambda _: State(references, {a: Result(found, references)}, ("living", "dead")))
    session.set_filters(Filters(0.5))
    return session


def finish(task):
    task.wait()
    assert task.error == ""


def test_kinds_are_exported_as_the_command_writes_them_byte_for_byte(session, new_session, folder, a):
    session.set_filters(Filters(0.0))
    session.add_kind("dead cells")
    session.add_reference(a, BOXES[2], NOT_THIS)
    session.add_reference(a, BOXES[1], "dead cells")
    session.add_reference(a, BOXES[0])
    assert [reference.kind for reference in session.state.references] == ["cell", "dead cells", NOT_THIS]
    finish(session.segment(a))
    found = session.result(a).found
    assert found.names == ("cell", "dead cells", NOT_THIS)
    assert found.unwanted == (NOT_THIS,)
    kinds = list(FILES)
    files = export(session, a, kinds)
    line = shlex.split(command(session, a, kinds))
    assert line[3:9] == [
        *("--kind", "cell=a.png:10,5,31,26", "--kind", "dead cells=a.png:20,30,41,51"),
        *("--not", "a.png:50,20,71,41"),
    ]
    line[line.index("--output") + 1] = "other"
    segment(line[2:])
    written = {kind: pathlib.Path(file).read_bytes() for kind, file in files.items()}
    for kind, data in written.items():
        assert data == (folder / "other" / FILES[kind].format("a")).read_bytes(), kind
    finish(session.segment(a, (0.0, 0.0, 80.0, 60.0)))
    np.testing.assert_array_equal(session.result(a).found.kind_scores, found.kind_scores)
    session.undo()
    session.save()
    other = new_session()
    assert other.load()
    assert other.state.kinds == ("cell", "dead cells")
    assert other.is_finished(a)
    assert {kind: pathlib.Path(file).read_bytes() for kind, file in export(other, a, kinds).items()} == written


def test_not_this_beside_a_kind_without_a_name(session, folder, a):
    session.add_reference(a, BOXES[0], NOT_THIS)
    with pytest.raises(FsisError, match="no example yet"):
        session.segment(a)
    session.add_reference(a, BOXES[1])
    line = command(session, a, ["labels"])
    assert "--reference a.png:20,30,41,51 --not a.png:10,5,31,26" in line
    assert session.encode(session.state.references).kinds == ("cell", NOT_THIS)


def test_another_kind_is_a_correction(told, a, folder):
    assert [told.result(a).kind_of(row) for row in (0, 1)] == ["living", "dead"]
    told.mark_kind(a, 0, "dead")
    counted = told.result(a).counted(told.filters)
    assert counted.kinds == ("dead", "dead")
    np.testing.assert_allclose(counted.kind_scores[0], [0, 0.9, 0.1], rtol=1e-6)
    told.mark(a, 0, "wrong")
    assert told.result(a).counted(told.filters).kinds == ("dead",)
    told.undo()
    assert told.result(a).kind_of(0) == "dead"
    told.undo()
    assert told.result(a).counted(told.filters).kinds == ("living", "dead")
    told.add_cell(a, BOXES[2], "dead")
    assert told.result(a).counted(told.filters).kinds == ("dead", "living", "dead")
    assert told.add_cell(a, BOXES[1], "living")
    assert told.result(a).kind_of(1) == "living"
    with pytest.raises(FsisError, match="no kind 'x': there is living, dead"):
        told.mark_kind(a, 0, "x")
    (file,) = export(told, a, ["geojson"]).values()
    features = json.loads(pathlib.Path(file).read_text())["features"]
    assert [each["properties"]["classification"]["name"] for each in features] == ["dead", "living", "living"]
    finish(export_training_data(told))
    annotations = json.loads((folder / "out/training/annotations/train.json").read_text())
    assert {each["name"] for each in annotations["categories"]} >= {"living", "dead"}


def test_a_kind_is_renamed_in_all_that_was_found_and_said(told, a, new_session):
    told.mark_kind(a, 0, "dead")
    told.add_cell(a, BOXES[2], "dead")
    told.rename_kind("dead", "lost")
    result = told.result(a)
    assert told.state.kinds == ("living", "lost")
    assert result.counted(told.filters).kinds == ("lost", "lost", "lost")
    assert told.is_current(result)
    told.save()
    other = new_session()
    assert other.load()
    assert other.result(a).counted(other.filters).kinds == ("lost", "lost", "lost")
    assert other.is_current(other.result(a))
    told.remove_kind("lost")
    assert [reference.kind for reference in told.state.references] == ["living"]
    assert not told.is_current(told.result(a))
    with pytest.raises(FsisError, match="the only kind"):
        told.remove_kind("living")
    told.undo()
    told.undo()
    assert told.result(a).counted(told.filters).kinds == ("dead", "dead", "dead")


def test_what_was_found_without_kinds_is_of_an_earlier_question(session, a, found):
    plain = Instances(found.boxes, found.scores, found.masks, found.size)
    reference = Reference(a, BOXES[0])
    session.history.change(lambda _: State((reference,), {a: Result(plain, (reference,))}))
    assert session.is_current(session.result(a))
    session.add_kind("dead")
    assert session.state.kinds == ("cell", "dead")
    assert not session.is_current(session.result(a))
    session.mark_kind(a, 1, "dead")
    assert session.result(a).counted(Filters(0.0)).kinds == ("cell", "dead")
    for name in ("dead", "a,b", " ", NOT_THIS, "none"):
        with pytest.raises(FsisError, match="kind"):
            session.add_kind(name)


def test_what_is_said_of_kinds_is_taken_over(found):
    earlier = Result(found, (), verdicts={0: "right"}, kinds={0: "dead"})
    again = Result(found.select(np.array([0])), ()).taken_over(earlier)
    assert again.kinds == {0: "dead"}
    cell = Added(CroppedMask(0, 0, np.ones((4, 4), bool)), "new")
    counted = Result(found, (), added=(cell,)).counted(Filters(0.0))
    assert counted.kinds == ("new", "living", "dead")
    np.testing.assert_allclose(counted.kind_scores.sum(1), 1, rtol=1e-6)


def test_a_kind_does_not_get_the_name_of_one_that_was_taken_away(told, a):
    told.remove_kind("living")
    with pytest.raises(FsisError, match="kind 'living': cells were found of another one with that name"):
        told.rename_kind("dead", "living")
    told.mark_kind(a, 0, "dead")
    assert told.state.results[a].names == {"living", "dead"}
    assert counts(told.result(a), told.filters, told.state.kinds) == {"dead": 2}
    told.rename_kind("dead", "lost")
    told.rename_kind("lost", "dead")  # its own
    assert told.result(a).counted(told.filters).kinds == ("dead", "dead")


def test_what_was_said_before_kinds_had_names_stays_with_the_first(session, a, found):
    basis = Basis(KindModel(np.zeros((1, len(TRAITS)), np.float32), np.zeros(1, np.int32), 1), None, 0.0)
    measured = {"evidence": np.ones((2, 2), np.float32), "traits": np.zeros((2, len(TRAITS)), np.float32)}
    plain = Instances(found.boxes, found.scores, found.masks, found.size, **measured)
    reference = Reference(a, BOXES[0])
    session.history.change(lambda _: State((reference,), {a: Result(plain, (reference,), basis=basis)}))
    session.mark(a, 0, "right")
    session.mark(a, 1, "wrong")
    scores = session.result(a).scores
    session.add_kind("dead")
    assert {each.kind for each in session.state.corrections} == {"cell", None}
    np.testing.assert_array_equal(session.result(a).scores, scores)
    assert counts(session.result(a), Filters(0.0), session.state.kinds) == {"cell": 1, "dead": 0}
    session.remove_kind("cell")
    assert {each.kind for each in session.state.corrections} == {"cell", None}  # and not of the kind that is first now
    assert counts(session.result(a), Filters(0.0), session.state.kinds) == {"dead": 0, "cell": 1}


def test_the_kind_without_a_name_is_one_kind_beside_what_is_not_wanted(session, a, folder):
    session.set_filters(Filters(0.0))
    session.add_reference(a, BOXES[2], NOT_THIS)
    session.add_reference(a, BOXES[0])
    finish(session.segment(a))
    result = session.result(a)
    assert list(counts(result, session.filters, session.state.kinds)) == [""]
    row = int(np.flatnonzero(result.wanted)[0])
    session.mark(a, row, "right")
    assert [each.kind for each in session.state.corrections] == [""]
    (file,) = export(session, a, ["geojson"]).values()
    features = json.loads(pathlib.Path(file).read_text())["features"]
    assert {each["properties"]["classification"]["name"] for each in features} == {"cell"}
    session.rename_kind("", "living")
    assert session.state.results[a].found.names == ("living", NOT_THIS)
    assert session.result(a).kind_of(row) == "living"
    assert [each.kind for each in session.state.corrections] == ["living"]


def test_what_is_found_under_other_kinds_is_not_taken(session, a, monkeypatch):
    """Its kinds have the names that they had when it was asked for."""
    session.add_reference(a, BOXES[0])
    reached, go = threading.Event(), threading.Event()

    def slow(segmenter, job, tile, advance):
        reached.set()
        assert go.wait(100)
        return Instances.none((60, 80))

    monkeypatch.setattr("fsis_jax.interactive.session.find_all", slow)
    task = session.segment_all([a])
    assert reached.wait(100)
    session.add_kind("dead")
    go.set()
    task.wait()
    assert task.error == "the kinds have changed meanwhile: segment again"
    assert session.result(a) is None


def test_missed_cells_are_added_in_one_step_or_not_at_all(told, a):
    boxes = [(70.0, 50.0, 79.0, 59.0), (0.0, 50.0, 8.0, 58.0)]
    for _ in range(2):
        with pytest.raises(FsisError, match="a box of 1x1 pixels"):
            told.add_cells(a, [*boxes, (3.0, 3.0, 3.9, 3.9)])
    assert told.result(a).added == ()
    assert told.add_cells(a, [*boxes, BOXES[1]]) == [False, False, True]
    assert [cell.kind for cell in told.result(a).added] == ["living", "living"]
    assert told.result(a).verdicts == {1: "right"}
    told.undo()
    assert told.result(a).added == ()
    assert told.result(a).verdicts == {}


def test_right_stays_of_the_kind_that_was_said(told, a):
    told.mark_kind(a, 0, "dead")
    told.add_cell(a, BOXES[0])
    assert told.result(a).kind_of(0) == "dead"
