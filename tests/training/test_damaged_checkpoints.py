"""Checkpoints that are damaged or incomplete, those of versions without digests, and runs that are told to stop."""

import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest
import tiny
from toy import toy  # noqa: F401 (a fixture)

import fsis_jax.training.loop
from fsis_jax.checkpoints.runs import Checkpoints, load_run, open_run
from fsis_jax.checkpoints.soundness import SUMS, damage
from fsis_jax.errors import FsisError
from fsis_jax.training.loop import train_and_evaluate
from fsis_jax.training.parallel import DataParallel

_META = "meta/metadata"


@pytest.fixture
def config(tiny_data, toy):  # noqa: F811
    config = tiny.get_config()
    config.data.root = str(tiny_data)
    config.training.steps = 6
    return config


@pytest.fixture
def run(config, tmp_path):
    """A run with the checkpoints 3 and 6."""
    train_and_evaluate(config, tmp_path / "run")
    return tmp_path / "run"


def _losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss/total"] for line in lines if "loss/total" in line}


def _assert_same(first, second):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def _flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_every_flipped_bit_and_every_missing_or_cut_file_is_found(run, caplog):
    """A bit at random in every file, many times; then each file cut, and each taken away."""
    step, rng = run / "checkpoints" / "6", np.random.default_rng(0)
    files = [path for path in sorted(step.rglob("*")) if path.is_file() and path.parent != step]
    # What orbax writes when all is done counts for nothing.
    files += [step / "SHA256SUMS", step / "validation.json"]
    whole = {path: path.read_bytes() for path in files}
    checkpoints = Checkpoints(run, read_only=True)
    assert checkpoints.latest_sound() == 6
    damages = 0
    for path, content in whole.items():
        for bit in rng.integers(0, 8 * len(content), 8):
            _flip(path, int(bit))
            # White space between the numbers of a JSON text says the same.
            if path.name != "validation.json" or json.loads(content) != _json(path):
                assert checkpoints.latest_sound() == 3, (path, bit)
                damages += 1
            path.write_bytes(content)
        for done in ("cut", "taken away"):
            if path.name == "validation.json" and done == "taken away":
                continue  # as after Ctrl-C during validation: it is done again
            path.write_bytes(content[: len(content) // 2]) if done == "cut" else path.unlink()
            assert checkpoints.latest_sound() == 3, (path, done)
            path.write_bytes(content)
            damages += 1
    assert checkpoints.latest_sound() == 6
    assert damages >= 100
    assert len(caplog.messages) == damages
    named = re.compile(rf"{step}: a damaged checkpoint \((?!\.)[\w./]+(:| is ).+\)$")
    assert not [line for line in caplog.messages if not named.search(line)]
    checkpoints.close()


def _json(path):
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None


def test_a_run_does_not_go_on_with_other_data(config, run, tmp_path):
    shutil.copytree(config.data.root, tmp_path / "data")
    path = tmp_path / "data" / "annotations" / "train.json"
    content = json.loads(path.read_text())
    config.data.root = str(tmp_path / "data")
    config.training.steps = 7
    x, y, *_ = content["annotations"][0]["bbox"]
    content["annotations"][0]["segmentation"] = [[x, y, x + 5, y, x + 5, y + 5, x, y + 5]]
    content["annotations"][0]["bbox"] = [x, y, 5, 5]
    path.write_text(json.dumps(content))
    with pytest.raises(FsisError, match=r"run: the training images, their annotations or the fold are not those that"):
        train_and_evaluate(config, run)


def test_a_run_goes_on_from_the_newest_sound_step(config, run, caplog):
    whole = train_and_evaluate(config, run)
    shutil.rmtree(run / "checkpoints" / "6" / "optimizer")
    caplog.clear()
    with caplog.at_level("INFO", "fsis_jax"):
        state = train_and_evaluate(config, run)
    assert "/6: a damaged checkpoint (optimizer/" in caplog.text
    assert "renamed to 6.aside" in caplog.text
    assert "going on from step 3 of" in caplog.text
    _assert_same(state, whole)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["3", "6", "6.aside"]


def test_to_segment_another_step_is_taken(run, caplog):
    _flip(run / "checkpoints" / "6" / _META, 99)
    checkpoints, step = open_run(run)
    checkpoints.close()
    assert step == 3
    assert "/6: a damaged checkpoint (" in caplog.text
    with pytest.raises(FsisError, match=r"/6: a damaged checkpoint \(.*\): choose another of 3, 6$"):
        open_run(run / "checkpoints" / "6")
    _flip(run / "checkpoints" / "3" / "SHA256SUMS", 5)
    with pytest.raises(FsisError, match="all checkpoints are damaged: copy them again"):
        open_run(run)


def test_where_no_step_is_sound(config, run):
    for step in (3, 6):
        (run / "checkpoints" / str(step) / _META).unlink()
    with pytest.raises(FsisError, match=r"all 2 checkpoints are damaged: copy them again .*another --workdir"):
        train_and_evaluate(config, run)


def test_a_step_to_go_on_from_is_chosen(config, run, caplog):
    with pytest.raises(FsisError, match=r"there is no step 5; there are 3, 6$"):
        train_and_evaluate(config, run, from_step=5)
    with pytest.raises(FsisError, match="no checkpoint, so none of step 5: leave --step out"):
        train_and_evaluate(config, run / "none", from_step=5)
    losses = _losses(run)
    with caplog.at_level("INFO", "fsis_jax"):
        train_and_evaluate(config, run, from_step=3)
    assert "/6: not gone on from: renamed to 6.aside" in caplog.text
    assert "going on from step 3 of" in caplog.text
    assert _losses(run) == losses


def _without_sums(step):
    """As versions without digests wrote it."""
    (step / "SHA256SUMS").unlink()
    meta = json.loads((step / _META).read_text())
    del meta["sums"]
    meta["validation"] = json.loads((step / "validation.json").read_text())["results"]
    (step / _META).write_text(json.dumps(meta))
    (step / "validation.json").unlink()


def test_checkpoints_of_earlier_versions(config, run, tmp_path, caplog):
    for step in (3, 6):
        _without_sums(run / "checkpoints" / str(step))
    checkpoints, step = open_run(run)
    assert (step, checkpoints.meta(6)["validation"]["min_score"]) == (6, 0.25)
    checkpoints.close()
    config.training.steps = 7
    shutil.copytree(run, tmp_path / "whole")
    assert int(train_and_evaluate(config, tmp_path / "whole").step) == 7
    shutil.rmtree(run / "checkpoints" / "6" / "optimizer")
    assert Checkpoints(run, read_only=True).latest_sound() == 3
    assert "/6: a damaged checkpoint (optimizer is missing)" in caplog.text
    for path in (run / "checkpoints" / "3" / "model").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FsisError, match=r"3/model: a damaged checkpoint \(.*: choose another step$") as stop:
        load_run(run / "checkpoints" / "3")
    assert "\n" not in str(stop.value)


def test_a_run_that_has_taken_all_steps_says_so(config, run, caplog):
    config.training.steps = 3
    with caplog.at_level("INFO", "fsis_jax"):
        assert int(train_and_evaluate(config, run).step) == 6
    assert "config.training.steps is 3: no step is left to take" in caplog.text


def test_what_is_stopped_while_it_validates_is_saved_and_validated_later(config, tmp_path, monkeypatch):
    config.training.steps = 3

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fsis_jax.training.loop, "validate", stop)
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(config, tmp_path)
    checkpoints, step = open_run(tmp_path)
    assert (step, checkpoints.meta(3)["validation"]) == (3, None)
    assert int(train_and_evaluate(config, tmp_path).step) == 3
    assert checkpoints.meta(3)["validation"]["mask_ap50"] == 0.5
    checkpoints.close()


def _terminate(*_, **__):
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_finishes_the_step_and_saves_it(config, tmp_path, monkeypatch, caplog):
    whole = train_and_evaluate(config, tmp_path / "whole")
    put_batch, batches = DataParallel.put_batch, []

    def terminated(self, batch):
        batches.append(batch)
        if len(batches) == 4:
            _terminate()
        return put_batch(self, batch)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(DataParallel, "put_batch", terminated)
        with pytest.raises(SystemExit) as stop:
            train_and_evaluate(config, tmp_path / "run")
    assert stop.value.code == 143
    assert "stopped by SIGTERM after step 4: the same command goes on" in caplog.text
    assert signal.getsignal(signal.SIGTERM) == before
    assert [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())] == ["3", "4"]
    _assert_same(train_and_evaluate(config, tmp_path / "run"), whole)
    assert _losses(tmp_path / "run") == _losses(tmp_path / "whole")


def test_sigterm_ends_a_validation(config, tmp_path, monkeypatch):
    monkeypatch.setattr(fsis_jax.training.loop, "validate", _terminate)
    with pytest.raises(SystemExit) as stop:
        train_and_evaluate(config, tmp_path)
    assert stop.value.code == 143
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]


def test_all_that_is_missing_is_told(tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "metadata").write_text("{}")
    (tmp_path / SUMS).write_text("")
    assert damage(tmp_path, ["optimizer"]) == "meta is missing, model is missing, optimizer is missing"
