"""Checkpoints on a full disk and after a kill, converted ones, and the metrics and the config beside them."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
import tiny
from toy import toy  # noqa: F401 (a fixture)

from fsis_jax.checkpoints.config_file import config_of, plain_config, read_config
from fsis_jax.checkpoints.runs import Checkpoints, has_checkpoint, open_run
from fsis_jax.errors import FsisError
from fsis_jax.training.loop import train_and_evaluate
from fsis_jax.training.metrics import MetricWriter


@pytest.fixture
def config(tiny_data, toy):  # noqa: F811
    config = tiny.get_config()
    config.data.root = str(tiny_data)
    return config


def _complete(workdir):
    return sorted(path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def test_a_full_disk_keeps_the_checkpoints_that_are_there(config, small_disk):
    config.training.steps = 3
    train_and_evaluate(config, small_disk / "run")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1_000_000))
    config.training.steps = 12
    with pytest.raises(FsisError, match=r"cannot be written \(No space left.*takes 1\.0 MB\): free some space") as stop:
        train_and_evaluate(config, small_disk / "run")
    assert "\n" not in str(stop.value)
    assert _complete(small_disk / "run") == ["3"]
    filler.unlink()
    assert int(train_and_evaluate(config, small_disk / "run").step) == 12


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(config, small_disk, monkeypatch):
    """The storage library's own threads meet the full disk."""
    config.training.steps = 3
    train_and_evaluate(config, small_disk / "run")
    (small_disk / "filler").write_bytes(bytes(1_480_000 - (1_500_000 - shutil.disk_usage(small_disk).free)))
    usage = shutil.disk_usage(small_disk)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 40))
    config.training.steps = 4
    with pytest.raises(FsisError, match=r"cannot be written \(No space left"):
        train_and_evaluate(config, small_disk / "run")
    assert _complete(small_disk / "run") == ["3"]


def test_a_full_disk_by_any_error_of_the_storage_library(config, tmp_path, monkeypatch):
    config.training.steps = 3
    train_and_evaluate(config, tmp_path)

    def fail(*_, **__):
        raise ValueError('RESOURCE_EXHAUSTED: Error writing "step/0": No space left on device [os_error_code=28]')

    monkeypatch.setattr("orbax.checkpoint.AsyncCheckpointer.save", fail)
    config.training.steps = 6
    with pytest.raises(FsisError, match=r"checkpoints: cannot be written \(No space left.*intact$"):
        train_and_evaluate(config, tmp_path)
    assert _complete(tmp_path) == ["3"]


def test_what_a_kill_left_behind_is_removed_at_the_next_start(config, tmp_path):
    config.training.steps = 3
    train_and_evaluate(config, tmp_path)
    incomplete = tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp" / "model"
    incomplete.mkdir(parents=True)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss/total": 1.0}\n{"step": 5, "lo')
    checkpoints, step = open_run(tmp_path)  # reading, while another process may be writing, removes nothing
    checkpoints.close()
    assert step == 3
    assert incomplete.exists()
    config.training.steps = 6
    train_and_evaluate(config, tmp_path)
    assert _complete(tmp_path) == ["3", "6"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 3, 4, 5, 6, 6]


def test_a_folder_without_checkpoints_is_not_made(tmp_path):
    assert not has_checkpoint(tmp_path / "run")
    with pytest.raises(FsisError, match=r"no folder 'checkpoints' in it; give the folder"):
        Checkpoints(tmp_path, read_only=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_metrics_on_a_full_disk(tmp_path):
    writer = MetricWriter(tmp_path, first_step=0)
    writer.write(1, {"loss/total": 1.0})
    writer._file.close()
    writer._file = open("/dev/full", "w")  # noqa: SIM115
    with pytest.raises(FsisError, match=r"metrics.jsonl: cannot be written \(No space left on device\)"):
        writer.write(2, {"loss/total": 1.0})
    with pytest.raises(FsisError, match="No space left"):
        writer.close()


def test_other_errors_of_writing_are_not_taken_for_a_full_disk(config, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(FsisError, match=f"cannot be written.*{os.strerror(errno.ENOTDIR)}"):
        train_and_evaluate(config, tmp_path / "run")


# -- converted checkpoints: no data state, perhaps no optimiser ---------------------------------------------------


def _save_toy(workdir, config, step, *, optimizer=False, **options):
    """A checkpoint of the toy as a converter writes it: kernel and bias are 1."""
    items = {"model": {"kernel": np.ones((3, 2), np.float32), "bias": np.ones(16, np.float32)}}
    if optimizer:
        with_optimizer = workdir.parent / "with_optimizer"
        config.training.steps = step
        train_and_evaluate(config, with_optimizer)
        items["optimizer"] = Checkpoints(with_optimizer, read_only=True).arrays(step, "optimizer")
    checkpoints = Checkpoints(workdir)
    checkpoints.save_items(step, items, config=config, **options)
    checkpoints.close()


def test_training_starts_from_a_model_without_an_optimiser(config, tmp_path, caplog):
    _save_toy(tmp_path / "run", config, 0)
    config.training.steps = 1
    config.optimizer.learning_rate = 1e-6
    with caplog.at_level("INFO", "fsis_jax"):
        state = train_and_evaluate(config, tmp_path / "run")
    assert "going on from step 0 of" in caplog.text
    assert int(state.step) == 1
    np.testing.assert_allclose(state.params["kernel"].get_value(), 1, atol=1e-5)


def test_the_data_of_a_run_without_a_data_state_start_at_its_step(config, tmp_path):
    _save_toy(tmp_path / "run", config, 5, optimizer=True)
    config.training.steps = 6
    config.training.checkpoint_every = 6
    assert int(train_and_evaluate(config, tmp_path / "run").step) == 6
    checkpoints, step = open_run(tmp_path / "run")
    assert (step, checkpoints.meta(6)["data_state"]["step"]) == (6, 6)
    checkpoints.close()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["step"] for line in lines} == {6}


def test_arrays_of_an_item_that_is_not_there(config, tmp_path):
    _save_toy(tmp_path, config, 0)
    checkpoints = Checkpoints(tmp_path, read_only=True)
    assert checkpoints.arrays(0, "optimizer") == {}
    assert {name: array.shape for name, array in checkpoints.arrays(0, "model").items()} == {
        "kernel": (3, 2),
        "bias": (16,),
    }


def test_a_partial_model_is_not_resumed(config, tmp_path):
    _save_toy(tmp_path, config, 0, partial=True)
    with pytest.raises(
        FsisError, match=rf"{tmp_path}: holds weights to start from .*--config.init_from={tmp_path} --workdir NEW"
    ):
        train_and_evaluate(config, tmp_path)


# -- config.json --------------------------------------------------------------------------------------------------


def test_the_config_of_a_run_is_a_config_to_give(config, tmp_path):
    config.training.steps = 1
    train_and_evaluate(config, tmp_path)
    assert read_config(tmp_path / "config.json").to_dict() == config.to_dict()


def test_a_config_from_before_a_key_took_several_values(config):
    plain = plain_config(config)
    plain["eval"]["shots"] = 3
    assert config_of({"config": plain}).eval.shots == (3,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, r"not JSON \(maximum recursion depth"),
        ("{", r"not JSON \(Expecting property name"),
        ("[]", "config is not a mapping"),
        ('{"data": 3}', r"config\.data is not a mapping"),
        ('{"model": {"rpn": {"sample": 3}}}', r"there is no key config\.model\.rpn\.sample; fsis_jax/config\.py lists"),
        ('{"data": {"root": 5}}', r"config\.data\.root is 5; it must be text$"),
        (
            '{"training": {"steps": "many"}}',
            r"config\.training\.steps is 'many'; it must be a whole number, at least 0$",
        ),
        (f'{{"optimizer": {{"learning_rate": 1{400 * "0"}}}}}', r"config\.optimizer\.learning_rate is inf; it must be"),
    ],
)
def test_a_config_that_is_none(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(FsisError, match=f"{path}: {message}") as stop:
        read_config(path)
    assert "\n" not in str(stop.value)
    with pytest.raises(FsisError, match=r"none\.json: cannot be read"):
        read_config(tmp_path / "none.json")


def test_a_part_of_a_config_changes_that_part(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"data": {"shots": 3, "train_canvases": [[64, 64]]}}')
    config = read_config(path)
    assert config.data.train_canvases == ((64, 64),)
    assert plain_config(config)["data"]["shots"] == 3
    assert config.optimizer.name == "sgd"
