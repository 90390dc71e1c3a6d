"""Checkpoints on a full disk and after a kill, and the metrics beside them."""

import errno
import json
import os
import shutil
import sys

import pytest
import tiny
from toy import toy  # noqa: F401 (a fixture)

from fsis_jax.errors import FsisError
from fsis_jax.training.checkpoint import Checkpoints, has_checkpoint, open_run
from fsis_jax.training.loop import train_and_evaluate
from fsis_jax.training.metrics import MetricWriter


@pytest.fixture
def config(tiny_data, toy):  # noqa: F811
    config = tiny.get_config()
    config.data.root = str(tiny_data)
    return config


def _complete(workdir):
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


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
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # as the command line does; see fsis_jax.cli
    config.training.steps = 4
    with pytest.raises(FsisError, match=r"cannot be written \(No space left"):
        train_and_evaluate(config, small_disk / "run")
    assert _complete(small_disk / "run") == ["3"]


def test_a_full_disk_by_any_error_of_the_storage_library(config, tmp_path, monkeypatch):
    config.training.steps = 3
    train_and_evaluate(config, tmp_path)

    def fail(*_, **__):
        raise ValueError('RESOURCE_EXHAUSTED: Error writing "step/0": No space left on device [os_error_code=28]')

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", fail)
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
    assert _complete(tmp_path) == ["6"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 3, 4, 5, 6, 6]


def test_a_folder_without_checkpoints_is_not_made(tmp_path):
    assert not has_checkpoint(tmp_path / "run")
    with pytest.raises(FsisError, match=r"no folder 'checkpoints' in it; give the --workdir"):
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
