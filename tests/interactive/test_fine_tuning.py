"""Fine-tuning from a session: a process of its own with its progress and its end, and the new model in use."""

import sys

import numpy as np
import pytest

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.interactive import fine_tuning
from fsis_jax.interactive.fine_tuning import agreement, fine_tune
from fsis_jax.interactive.saved import saved_checkpoint
from fsis_jax.interactive.shapes import ellipse
from fsis_jax.interactive.state import Added, Filters, Reference, Result, State

BOX = (10.0, 5.0, 31.0, 26.0)


@pytest.fixture
def a(folder):
    return str(folder / "a.png")


@pytest.fixture
def corrected(session, a):
    """A session in which a disc of `a.png` is found, one is marked as wrong and one is added."""
    crops = (ellipse(BOX), ellipse((0.0, 40.0, 10.0, 50.0)))
    boxes = np.array([crop.extent for crop in crops], np.float32)
    found = Instances(boxes, np.array([0.9, 0.8], np.float32), crops, (60, 80))
    references = (Reference(a, BOX),)
    added = (Added(ellipse((20.0, 30.0, 41.0, 51.0))),)
    result = Result(found, references, verdicts={1: "wrong"}, added=added, model=session.segmenter.fingerprint)
    session.history.change(lambda _: State(references, {a: result}))
    session.set_filters(Filters(session.segmenter.min_score))
    return session


@pytest.fixture
def process(monkeypatch):
    """Puts Python code in the place of the training, which finds the folder of the run as `run`."""

    def put(code):
        popen = fine_tuning.subprocess.Popen

        def started(command, **options):
            assert command[1:4] == ["-m", "fsis_jax", "train"]
            head = f"import pathlib, time; run = pathlib.Path({command[-1]!r})\n"
            return popen([sys.executable, "-c", head + code], **options)

        monkeypatch.setattr(fine_tuning.subprocess, "Popen", started)

    return put


def test_a_training_that_fails_tells_its_last_line(corrected, process, folder):
    process("print('loading'); raise SystemExit('no space left')")
    before = corrected.segmenter
    task = fine_tune(corrected)
    task.wait()
    assert task.error.startswith("the training failed: no space left (")
    assert (folder / "out/fine-tuned/train.log").exists()
    assert corrected.segmenter is before


def test_a_training_tells_how_far_it_is_and_is_stopped(corrected, process, folder):
    process("(run / 'metrics.jsonl').write_text('{\"step\": 7}\\n{\"step\": 8}\\n'); time.sleep(600)")
    task = fine_tune(corrected)
    while task.running and task.finished < 8:
        task.wait(0.1)
    assert (task.finished, task.total, task.unit) == (8, 150, "step")
    assert task.name == "fine-tuning on 1 picture"
    corrected.stop()
    assert task.error == "stopped"
    assert not (folder / "out/fine-tuned").exists()
    assert corrected.models() == [corrected.checkpoint]


def test_without_an_example_no_training_begins(corrected, process):
    process("raise SystemExit('it began')")
    corrected.remove_reference(0)
    with pytest.raises(FsisError, match="no example yet"):
        fine_tune(corrected)
    assert corrected.task is None


def test_another_model_makes_results_earlier_ones(corrected, a, weights, folder, new_session):
    result = corrected.result(a)
    assert corrected.is_current(result)
    corrected.history.change(lambda state: state.with_result(a, Result(result.found, result.references, model="other")))
    assert not corrected.is_current(corrected.result(a))
    (folder / "out/fine-tuned/checkpoints").mkdir(parents=True)  # as a training leaves it that fails at once
    assert corrected.models() == [weights]
    (folder / "out/fine-tuned/checkpoints/50").mkdir()
    assert corrected.models() == [weights, str(folder / "out/fine-tuned")]
    task = corrected.choose_model(str(folder / "out/fine-tuned"))
    task.wait()
    assert "fine-tuned" in task.error
    assert corrected.checkpoint == weights
    assert saved_checkpoint(corrected.save()) == weights
    other = new_session()
    assert other.load()
    assert not other.is_current(other.result(a))
    assert saved_checkpoint(folder / "nothing.json") is None


def test_agreement_is_an_f1():
    crops = tuple(ellipse((x, 0.0, x + 10.0, 10.0)) for x in (0.0, 20.0, 40.0))
    boxes = np.array([crop.extent for crop in crops], np.float32)
    cells = Instances(boxes, np.ones(3, np.float32), crops, (60, 80))
    assert agreement(cells, cells) == 1
    assert agreement(cells.select(np.array([0])), cells) == pytest.approx(0.5)
    twice = Instances(boxes[[0, 0]], np.ones(2, np.float32), (crops[0], crops[0]), (60, 80))
    assert agreement(twice, cells) == pytest.approx(2 / 5)
    none = Instances.none((60, 80))
    assert agreement(none, cells) == 0
    assert agreement(none, none) == 1


@pytest.mark.slow
def test_a_tiny_network_learns_and_is_chosen(corrected, a, folder, monkeypatch, quick_compile, new_session):
    monkeypatch.setattr(fine_tuning, "suited_steps", lambda images: 2)
    before = corrected.segmenter.fingerprint
    task = fine_tune(corrected)
    task.wait()
    assert task.error == ""
    assert "out/fine-tuned is the model now." in task.told
    assert "a.png 0.50 -> " in task.told
    assert corrected.segmenter.fingerprint != before
    assert corrected.is_finished(a)
    assert corrected.models()[1:] == [str(folder / "out/fine-tuned")]
    corrected.undo()  # what the model before had found
    assert not corrected.is_current(corrected.result(a))
    assert saved_checkpoint(corrected.save()) == str(folder / "out/fine-tuned")
    task = corrected.choose_model(corrected.models()[0])
    task.wait()
    assert corrected.segmenter.fingerprint == before
