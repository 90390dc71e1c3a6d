"""What a model has learnt from: said by checkpoints and weights files, asked for by a test of unseen kinds."""

import pytest
import tiny
from toy import toy  # noqa: F401 (a fixture)

from fsis_jax.checkpoints.learnt import NOTHING, UNKNOWN, Learnt, digest_of, learnt_of
from fsis_jax.checkpoints.runs import Checkpoints
from fsis_jax.cli.training_run import _unseen
from fsis_jax.data.from_config import open_splits
from fsis_jax.errors import FsisError
from fsis_jax.training.loop import train_and_evaluate

_SEEN = Learnt(("blobs", "Rods"), ("digest",), True)


def test_a_run_says_what_it_learnt_from_and_what_it_started_from(tiny_data, tmp_path, toy):  # noqa: F811
    config = tiny.get_config()
    config.data.root = str(tiny_data)
    config.training.steps = 3
    train_and_evaluate(config, tmp_path / "first")
    splits = open_splits(config)
    names = sorted(splits.train.categories[category] for category in splits.seen)
    assert splits.unseen
    first = _learnt(tmp_path / "first")
    assert first == Learnt(tuple(names), (digest_of(splits.train.annotations),), True)
    assert not first.known(splits.train.categories[category] for category in splits.unseen)

    config.init_from = str(tmp_path / "first")
    config.data.fold = 2
    train_and_evaluate(config, tmp_path / "second")
    second = _learnt(tmp_path / "second")
    assert {*names} < {*second.categories}
    assert (len(second.annotations), second.complete) == (2, True)


def _learnt(workdir):
    checkpoints = Checkpoints(workdir, read_only=True)
    found = learnt_of(checkpoints.meta(checkpoints.steps()[-1])["learnt"])
    checkpoints.close()
    return found


def test_unseen_kinds_that_were_seen_are_refused(caplog):
    assert _unseen(_SEEN, ["stars"], "w.npz", allow_seen=False) == "unseen"
    assert not caplog.messages
    with pytest.raises(FsisError, match=r"^w\.npz has learnt from rods: .*fold.*--allow-seen$"):
        _unseen(_SEEN, ["stars", "rods"], "w.npz", allow_seen=False)
    assert _unseen(_SEEN, ["stars", "rods"], "w.npz", allow_seen=True) == "seen-as-unseen"


@pytest.mark.parametrize("learnt", [None, UNKNOWN, UNKNOWN.and_more(_SEEN)])
def test_of_what_does_not_say_is_warned(learnt, caplog):
    assert _unseen(learnt, ["stars"], "w.npz", allow_seen=False) == "unseen"
    assert caplog.messages == [
        "w.npz does not say what it has learnt from: whether these kinds are unseen is not known"
    ]


def test_as_json():
    assert learnt_of(_SEEN.and_more(NOTHING).plain() | {"categories": ["Rods", "blobs"]}) == Learnt(
        ("Rods", "blobs"), ("digest",), True
    )
    assert learnt_of(None) is None
    for wrong in (3, {}, {"categories": "a", "annotations": [], "complete": True}, {**_SEEN.plain(), "complete": 1}):
        with pytest.raises(ValueError, match="not said as it should be"):
            learnt_of(wrong)
