"""What is said of some cells counts for all others, at once, and is undone with what was said."""

import time

import numpy as np
import pytest

from fsis_jax.inference.instances import Instances
from fsis_jax.inference.traits import TRAITS, KindModel
from fsis_jax.interactive.learning import Basis
from fsis_jax.interactive.shapes import ellipse
from fsis_jax.interactive.state import Filters, Reference, Result, State

CELL = {"log size": 3.4, "brightness": 0.5, "surroundings": 0.1}
DUST = {"log size": 2.0, "brightness": 0.8, "surroundings": 0.1}
SIZE = (60, 80)


def of(count, sort, seed=0):
    """(count, T) traits, around those of one sort."""
    means = np.array([sort.get(name, 0) for name in TRAITS])
    return (means + np.random.default_rng(seed).normal(0, 0.03, (count, len(TRAITS)))).astype(np.float32)


def found_of(cells, dust, scores=(0.9, 0.7), names=()):
    """Instances in one place, first the cells and then the dust; of two kinds without a preference."""
    count = cells + dust
    crop = ellipse((10.0, 5.0, 31.0, 26.0))
    score = np.repeat(scores, (cells, dust)).astype(np.float32)
    odds = np.log(score / (1 - score))
    evidence = np.stack([odds] * max(len(names), 1) + [np.ones(count)], axis=1).astype(np.float32)
    told = {}
    if names:
        kinds = np.concatenate([np.outer(score, [0.51, 0.49]), 1 - score[:, None]], axis=1)
        told = {"names": names, "classes": np.zeros(count, np.int32), "kind_scores": kinds.astype(np.float32)}
    return Instances(
        np.repeat(np.array([crop.extent], np.float32), count, axis=0),
        score,
        (crop,) * count,
        SIZE,
        evidence=evidence,
        traits=np.concatenate([of(cells, CELL), of(dust, DUST, 1)]),
        **told,
    )


@pytest.fixture
def shown(session, folder):
    """A session in which ten cells and ten specks of dust were found in `a.png`, and as many in `b.png`."""
    reference = Reference(str(folder / "a.png"), (10.0, 5.0, 31.0, 26.0))
    basis = Basis(KindModel(of(2, CELL, 2), np.zeros(2, np.int32), 1), None, 0.75)
    results = {str(folder / name): Result(found_of(10, 10), (reference,), basis=basis) for name in ("a.png", "b.png")}
    session.history.change(lambda _: State((reference,), results))
    session.set_filters(Filters(0.6))
    return session


def test_what_is_like_what_is_wrong_scores_less_in_all_images(shown, folder):
    a, b = str(folder / "a.png"), str(folder / "b.png")
    for row in (10, 11, 12):
        shown.mark(a, row, "wrong")
    for path, others in ((a, slice(13, None)), (b, slice(10, None))):
        result = shown.result(path)
        assert result.scores[others].max() < 0.6
        np.testing.assert_allclose(result.scores[:10], 0.9, atol=0.06)
        assert result.kept(shown.filters).tolist() == [True] * 10 + [False] * 10
        counted = result.counted(shown.filters)
        assert len(counted) == 10
        assert counted.kind_scores is None
    np.testing.assert_allclose(shown.result(a).scores[10:13], 0.7)  # of these it was said
    for _ in range(3):
        shown.undo()
    assert len(shown.result(b).counted(shown.filters)) == 20
    shown.redo()
    assert shown.result(b).scores[10:].max() < 0.7


def test_what_is_like_what_is_right_is_no_longer_faint(shown, folder):
    a, b = str(folder / "a.png"), str(folder / "b.png")
    faint = {**CELL, "brightness": 0.2}
    basis = shown.state.results[b].basis
    found = found_of(0, 10, (0.9, 0.4))
    found.traits[:] = of(10, faint)
    found.evidence[:, 0] = 1.5 - basis.faintness * basis.examples.faintness(found.traits)[:, 0]
    result = Result(found, shown.state.references, basis=basis)
    shown.history.change(lambda state: state.with_result(b, result))
    before = shown.result(b).scores
    for row in range(5):
        shown.mark(b, row, "right")
    assert (shown.result(b).scores[5:] > before[5:] + 0.05).all()
    np.testing.assert_allclose(shown.result(a).scores[:10], 0.9, atol=0.02)


def test_nothing_changes_without_corrections(shown, folder):
    a = str(folder / "a.png")
    raw = shown.state.results[a]
    assert shown.result(a) is raw
    shown.mark(a, 12, "deleted")  # which says nothing of what it is like
    assert shown.state.corrections == ()
    np.testing.assert_array_equal(shown.result(a).scores, raw.found.scores)
    shown.mark(a, 12, "wrong")
    assert len(shown.state.corrections) == 1
    assert shown.result(a).scores[13] < 0.7
    shown.learn(False)
    np.testing.assert_array_equal(shown.result(a).scores, raw.found.scores)
    assert shown.result(a).verdicts == {12: "wrong"}
    shown.undo()
    assert shown.result(a).scores[13] < 0.7


def test_another_kind_moves_what_is_like_it(session, folder):
    a = str(folder / "a.png")
    references = tuple(Reference(a, (10.0, 5.0, 31.0, 26.0), kind) for kind in ("living", "dead"))
    between = {name: (CELL[name] + DUST[name]) / 2 for name in CELL}
    examples = KindModel(np.concatenate([of(1, between), of(1, between)]), np.arange(2, dtype=np.int32), 2)
    result = Result(found_of(10, 10, names=("living", "dead")), references, basis=Basis(examples, None, 0.0))
    session.history.change(lambda _: State(references, {a: result}, ("living", "dead")))
    for row in (10, 11, 12):
        session.mark_kind(a, row, "dead")
    learnt = session.result(a)
    assert [learnt.kind_of(row) for row in range(20)] == ["living"] * 10 + ["dead"] * 10
    counted = learnt.counted(Filters(0.5))
    assert sorted(counted.kinds) == ["dead"] * 10 + ["living"] * 10
    np.testing.assert_allclose(counted.kind_scores.sum(1), 1, atol=1e-6)
    session.mark(a, 15, "right")  # as it is shown
    assert session.result(a).kinds[15] == "dead"
    session.rename_kind("dead", "lost")
    assert session.result(a).kind_of(19) == "lost"
    for _ in range(5):
        session.undo()
    assert {session.result(a).kind_of(row) for row in range(20)} == {"living"}


def test_what_becomes_of_an_unwanted_kind_is_left_out(session, folder):
    a = str(folder / "a.png")
    names = ("cell", "not")
    examples = KindModel(np.concatenate([of(1, CELL), of(1, DUST)]), np.arange(2, dtype=np.int32), 2)
    found = found_of(10, 10, names=names)
    basis = Basis(examples, None, 0.0)
    result = Result(Instances(**{**vars(found), "unwanted": ("not",)}), (), basis=basis)
    session.history.change(lambda _: State((), {a: result}, ("cell",)))
    session.mark(a, 0, "right")
    learnt = session.result(a)
    assert learnt.wanted.tolist() == [True] * 10 + [False] * 10
    assert len(learnt.counted(Filters(0.0))) == 10


def test_sizes_are_compared_in_micrometres(shown, folder):
    a, b = str(folder / "a.png"), str(folder / "b.png")
    half = np.eye(1, len(TRAITS), dtype=np.float32)[0] * np.log(2)
    raw = shown.state.results[b]
    known = Basis(KindModel(raw.basis.examples.traits + half, raw.basis.examples.kinds, 1), 0.5, 0.75)
    found = found_of(10, 10)
    found.traits[:] += half
    first = Basis(raw.basis.examples, 1.0, 0.75)
    images = {a: Result(found_of(10, 10), (), basis=first), b: Result(found, (), basis=known)}
    shown.history.change(lambda state: State(state.references, images))
    shown.mark(a, 12, "wrong")
    np.testing.assert_allclose(shown.result(b).scores[13:], shown.result(a).scores[13:], atol=1e-5)


def test_corrections_are_kept_with_the_session(shown, folder, new_session):
    a, b = str(folder / "a.png"), str(folder / "b.png")
    shown.mark(a, 12, "wrong")
    shown.mark(b, 3, "right")
    shown.learn(False)
    shown.save()
    other = new_session()
    assert other.load()
    assert not other.state.learning
    other.learn(True)
    shown.learn(True)
    assert other.state.corrections == shown.state.corrections
    for path in (a, b):
        np.testing.assert_array_equal(other.result(path).scores, shown.result(path).scores)


def test_a_correction_of_many_is_there_at_once(shown, folder):
    a = str(folder / "a.png")
    basis = shown.state.results[a].basis
    verdicts = dict.fromkeys(range(1000, 1050), "wrong")
    many = Result(found_of(1000, 1000), (), verdicts=verdicts, basis=basis)
    shown.history.change(lambda state: state.with_result(a, many))
    times = []
    for row in (1050, 1051, 1052):
        start = time.perf_counter()
        shown.mark(a, row, "wrong")
        assert shown.result(a).counted(Filters(0.6)).scores[0] >= 0.9
        times.append(time.perf_counter() - start)
    assert min(times) < 1
