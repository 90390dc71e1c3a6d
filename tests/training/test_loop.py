"""The training loop on a toy detector: resuming, fine-tuning, what it writes, and when it stops."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from tensorboardX.proto.event_pb2 import Event
from toy import ToyDetector, toy  # noqa: F401 (a fixture)

import fsis_jax.training.loop
import fsis_jax.training.step
from fsis_jax.checkpoints.config_file import config_of
from fsis_jax.checkpoints.runs import open_run
from fsis_jax.errors import FsisError
from fsis_jax.io.writers import write_png
from fsis_jax.synthetic.generate import generate
from fsis_jax.training.loop import train_and_evaluate
from fsis_jax.training.parallel import DataParallel

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def config(tiny_data):
    config = tiny.get_config()
    config.data.root = str(tiny_data)
    return config


def _lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _losses(workdir):
    return {line["step"]: line["loss/total"] for line in _lines(workdir) if "loss/total" in line}


def _assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_writes_its_config_metrics_events_and_checkpoint(config, tmp_path):
    state = train_and_evaluate(config, tmp_path)
    assert int(state.step) == 12
    assert json.loads((tmp_path / "config.json").read_text())["training"]["steps"] == 12
    losses = _losses(tmp_path)
    assert sorted(losses) == list(range(1, 13))
    validated = [line["step"] for line in _lines(tmp_path) if "validation/mask_ap50" in line]
    assert validated == [3, 6, 9, 12]
    keys = {"loss/colour", "loss/total", "gradient_norm", "count/images", "images_per_second", "learning_rate"}
    assert keys <= set(_lines(tmp_path)[0])
    assert [path.stat().st_size > 500 for path in (tmp_path / "tensorboard").iterdir()] == [True]
    assert not list(tmp_path.rglob("*tmp*"))


def test_tensorboard_shows_the_config_and_overlays(config, tmp_path, monkeypatch):
    def validate(*_, overlays, **__):
        write_png(overlays / "a.png", np.zeros((6, 9, 3), np.uint8))
        return {"mask_ap50": 0.5, "f1": 0.5, "min_score": 0.25}

    monkeypatch.setattr(fsis_jax.training.loop, "validate", validate)
    train_and_evaluate(config, tmp_path)
    (events,) = (tmp_path / "tensorboard").iterdir()
    values = [value for event in _events(events) for value in event.summary.value]
    (described,) = [value for value in values if value.tag.startswith("config")]
    assert '"batch_size": 4' in described.tensor.string_val[0].decode()
    images = [value for value in values if value.HasField("image")]
    assert [(value.tag, value.image.width, value.image.height) for value in images] == [("overlays/a", 9, 6)] * 4


def _events(path):
    """The records of an event file: a length of 8 bytes, 4 of check sum, the event, 4 of check sum."""
    data = path.read_bytes()
    while data:
        length = int.from_bytes(data[:8], "little")
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_a_stopped_run_goes_on_to_the_same_parameters(config, tmp_path, monkeypatch):
    whole = train_and_evaluate(config, tmp_path / "whole")

    def stop_at(step):
        real, count = DataParallel.put_batch, iter(range(1, step + 1))

        def put_batch(self, batch):
            if next(count, None) is None:
                raise KeyboardInterrupt
            return real(self, batch)

        return put_batch

    for step in (5, 4):  # batches until the stop: at step 6 of the first try, at step 8 of the second
        with monkeypatch.context() as patch:
            patch.setattr(DataParallel, "put_batch", stop_at(step))
            with pytest.raises(KeyboardInterrupt):
                train_and_evaluate(config, tmp_path / "stopped")
    _assert_same(train_and_evaluate(config, tmp_path / "stopped"), whole)
    assert _losses(tmp_path / "stopped") == _losses(tmp_path / "whole")
    steps = [line["step"] for line in _lines(tmp_path / "stopped")]
    assert steps == sorted(steps)
    # A finished run that is started again does nothing.
    _assert_same(train_and_evaluate(config, tmp_path / "stopped"), whole)


def test_worker_processes_change_nothing(config, tmp_path):
    config.training.steps = 2
    threads = train_and_evaluate(config, tmp_path / "threads")
    config.data.workers = 1
    _assert_same(train_and_evaluate(config, tmp_path / "processes"), threads)


def test_changed_settings_are_named_when_a_run_goes_on(config, tmp_path, caplog):
    config.training.steps = 3
    train_and_evaluate(config, tmp_path)
    config.training.steps = 4
    caplog.clear()
    with caplog.at_level("WARNING", logger="fsis_jax"):
        train_and_evaluate(config, tmp_path)
    assert caplog.messages == ["config.training.steps is now 4, was 3 when the run began"]


def test_the_last_two_and_the_best_checkpoint_stay(config, tmp_path, toy):  # noqa: F811
    toy[:] = [{"mask_ap50": ap, "f1": 0.5, "min_score": ap / 2} for ap in (0.1, 0.6, 0.3, 0.2)]
    train_and_evaluate(config, tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["12", "6", "9"]
    checkpoints, best = open_run(tmp_path)
    assert (checkpoints.steps(), best) == ([6, 9, 12], 6)
    meta = checkpoints.meta(best)
    assert meta["validation"] == {"mask_ap50": 0.6, "f1": 0.5, "min_score": 0.3}
    assert meta["data_state"]["step"] == 6
    assert config_of(meta).to_dict() == config.to_dict()
    checkpoints.close()
    # A step folder can be named itself.
    checkpoints, step = open_run(tmp_path / "checkpoints" / "12")
    assert step == 12
    checkpoints.close()


def test_checkpoints_between_validations_are_kept_only_as_the_last_two(config, tmp_path):
    config.training.validate_every = 3
    config.training.steps = 11
    train_and_evaluate(config, tmp_path)
    validated = [line["step"] for line in _lines(tmp_path) if "validation/mask_ap50" in line]
    assert validated == [9, 11]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["11", "9"]


def test_accumulated_passes_are_all_made(config, tmp_path):
    config.optimizer.accumulate = 2
    state = train_and_evaluate(config, tmp_path)
    assert int(state.step) == 24
    rates = [line["learning_rate"] for line in _lines(tmp_path) if "learning_rate" in line]
    assert len(rates) == 24
    assert rates[0::2] == rates[1::2]
    assert rates[-1] == pytest.approx(1e-3 / 2 * (1 + np.cos(np.pi * 11 / 12)), rel=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loss_that_is_not_finite_stops_the_run(config, tmp_path, monkeypatch, workers):
    config.data.workers = workers
    real = ToyDetector.losses

    def losses(self, batch, key, *, axis_name):
        terms, counts = real(self, batch, key, axis_name=axis_name)
        bad = (np.asarray(20) <= batch.sample_ids) & (batch.sample_ids < 24)  # the batch of step 6
        return {**terms, "mask": jax.numpy.where(bad.any(), jax.numpy.nan, 0.0)}, counts

    monkeypatch.setattr(ToyDetector, "losses", losses)
    with pytest.raises(
        FsisError, match=r"^step 6: the loss is not finite \(colour [^n]+, mask nan, total nan;"
    ) as stop:
        train_and_evaluate(config, tmp_path)
    names = str(stop.value).split(") on ")[1].split(";")[0].split(", ")
    images = json.loads((pathlib.Path(config.data.root) / "annotations/train.json").read_text())["images"]
    assert len(names) == 4
    assert set(names) <= {image["file_name"] for image in images}
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]


def test_a_rate_that_diverges_stops_the_run(config, tmp_path):
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e30
    with pytest.raises(
        FsisError, match=r"^step \d: the loss is not finite .*the last checkpoint is kept.*learning_rate"
    ):
        train_and_evaluate(config, tmp_path)


def test_frozen_norm_needs_pretrained_weights_and_fine_tuning_starts_from_them(config, tmp_path):
    config.training.steps = 3
    trained = train_and_evaluate(config, tmp_path / "trained")
    config.model.backbone.norm = "frozen"
    with pytest.raises(FsisError, match=r"config.init_from is empty.*norm=group"):
        train_and_evaluate(config, tmp_path / "frozen")
    assert not (tmp_path / "frozen").exists()
    config.init_from = str(tmp_path / "trained")
    config.optimizer.learning_rate = 0.0
    tuned = train_and_evaluate(config, tmp_path / "frozen")
    _assert_same(tuned.params, trained.params)
    # The source is not needed to go on.
    shutil.rmtree(tmp_path / "trained")
    config.training.steps = 4
    assert int(train_and_evaluate(config, tmp_path / "frozen").step) == 4


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [("training.freeze_backbone", True, "false"), ("model.backbone.freeze_at", 1, "0")],
)
def test_random_stages_are_not_frozen(config, tmp_path, key, value, remedy):
    config.training.steps = 3
    train_and_evaluate(config, tmp_path / "trained")
    config.update_from_flattened_dict({key: value})
    message = rf"config.{key} is {value} and config.init_from is empty: .* --config.{key}={remedy}$"
    with pytest.raises(FsisError, match=message):
        train_and_evaluate(config, tmp_path / "frozen")
    assert not (tmp_path / "frozen").exists()
    config.init_from = str(tmp_path / "trained")
    train_and_evaluate(config, tmp_path / "frozen")
    # A run that has begun may go on with it.
    config.init_from = ""
    config.training.steps = 4
    assert int(train_and_evaluate(config, tmp_path / "frozen").step) == 4


def test_without_saving_there_is_no_checkpoint_but_all_else(config, tmp_path, capsys):
    config.training.save = False
    config.training.validate_every = 10
    assert int(train_and_evaluate(config, tmp_path / "unsaved").step) == 12
    assert not (tmp_path / "unsaved" / "checkpoints").exists()
    assert (tmp_path / "unsaved" / "config.json").is_file()
    assert sorted(_losses(tmp_path / "unsaved")) == list(range(1, 13))
    assert [line["step"] for line in _lines(tmp_path / "unsaved") if "validation/mask_ap50" in line] == [12]
    assert "step 12: validation mask AP50 0.500, F1 0.500 at score 0.25" in capsys.readouterr().err
    config.training.save = True
    config.training.steps = 6
    train_and_evaluate(config, tmp_path / "saved")
    # It goes on from what an earlier run saved, and leaves that alone.
    config.training.save = False
    config.training.steps = 8
    assert int(train_and_evaluate(config, tmp_path / "saved").step) == 8
    assert sorted(_losses(tmp_path / "saved")) == list(range(1, 9))
    assert sorted(path.name for path in (tmp_path / "saved" / "checkpoints").iterdir()) == ["3", "6"]


def test_a_quick_look_takes_few_images_and_steps_and_a_folder_of_its_own(config, tmp_path, caplog):
    config.debug = True
    config.optimizer.accumulate = 2
    config.data.validation_fraction = 0.5
    before = config.to_dict()
    with caplog.at_level("INFO", logger="fsis_jax"):
        state = train_and_evaluate(config, tmp_path / "run")
    assert config.to_dict() == before
    assert not (tmp_path / "run").exists()
    folder = tmp_path / "run-debug"
    assert caplog.messages[0].endswith(f": at most 8 training and 4 validation images and 20 steps, in {folder}")
    assert any("; 8 training and 4 validation images; 40 steps" in message for message in caplog.messages)
    assert int(state.step) == 40
    assert [line["step"] for line in _lines(folder) if "validation/mask_ap50" in line] == [40]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["40"]
    (folder / "metrics.jsonl").unlink()
    _assert_same(train_and_evaluate(config, tmp_path / "run"), state)
    assert sorted(_losses(folder)) == list(range(1, 41))  # another look begins anew


def test_fine_tuning_from_nothing_is_an_error(config, tmp_path):
    config.init_from = str(tmp_path / "nowhere")
    with pytest.raises(FsisError, match=r"nowhere: no such file or folder; give the folder of a training run, "):
        train_and_evaluate(config, tmp_path / "run")
    (tmp_path / "nowhere" / "checkpoints").mkdir(parents=True)
    with pytest.raises(FsisError, match="nowhere: no complete checkpoint"):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_architecture_is_named(config, tmp_path):
    config.training.steps = 3
    train_and_evaluate(config, tmp_path / "run")
    config.model.fpn.channels = 24
    with pytest.raises(
        FsisError, match=r"another architecture: 1 of another shape \(bias \(16,\) instead of \(24,\)\)"
    ):
        train_and_evaluate(config, tmp_path / "run")
    config.init_from = str(tmp_path / "run")
    with pytest.raises(FsisError, match="another architecture"):
        train_and_evaluate(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_batch_must_divide_among_the_devices(config, tmp_path):
    _, _, step = fsis_jax.training.step.new_state(config, ToyDetector(config.model, rngs=nnx.Rngs(0)))
    with pytest.raises(FsisError, match=r"batch_size is 3; it must be a multiple of the 2 devices"):
        DataParallel(step, "shard_map", batch_size=3, devices=jax.devices() * 2)


def test_mixed_image_sizes_compile_once_for_each_canvas(config, tmp_path, monkeypatch):
    config.data.root = str(generate(tmp_path / "data", images_per_category=5, two_category_images=0, sides=(64, 128)))
    config.data.transform.scale = "shortest_side"
    config.data.transform.shortest_side = 64
    config.data.transform.longest_side = 128
    config.data.train_canvases = ((64, 64), (64, 96), (64, 128), (96, 64), (128, 64))
    config.training.steps = 24  # more than one epoch
    made = []
    real = DataParallel.__init__
    shapes = set()
    put_batch = DataParallel.put_batch

    def remember(self, *arguments, **keywords):
        real(self, *arguments, **keywords)
        made.append(self)

    def note(self, batch):
        shapes.add(batch.images.shape[1:3])
        return put_batch(self, batch)

    monkeypatch.setattr(DataParallel, "__init__", remember)
    monkeypatch.setattr(DataParallel, "put_batch", note)
    train_and_evaluate(config, tmp_path / "run")
    assert len(shapes) >= 3
    assert made[0].step._cache_size() == len(shapes)
